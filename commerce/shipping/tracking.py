"""Decides what tracking events change about a shipment, without any I/O.

Events may arrive twice, late and in any sequence. A status only advances: an event older than the present status is
stored and changes nothing, and an event that skips a step inserts the steps between.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import blake2b
from typing import Literal, NamedTuple
from uuid import UUID

from commerce.shipping.carrier_port import TrackingEvent
from commerce.shipping.model import DELIVERY_PATH, FINAL_STATUSES, WITH_CARRIER, Shipment, ShipmentStatus, Source
from commerce.shipping.records import NewHistory, NewShipmentEvent, UnitMove

TrackingResultWord = Literal["unchanged", "recorded", "status_changed"]


class TrackingResult(NamedTuple):
    """The effect of tracking events, and how many of the new ones have an unknown code."""

    result: TrackingResultWord
    unknown_codes: int = 0


class TrackingReport(NamedTuple):
    """Events of a shipment that come together. `actor` is the system or the person that reports them.

    With `booking_is_current=False` events are stored and never change the status, since no carrier should have the
    shipment."""

    shipment_id: UUID
    events: Mapping[bytes, TrackingEvent]
    source: Source
    actor: str
    booking_is_current: bool = True


def by_key(events: Sequence[TrackingEvent]) -> dict[bytes, TrackingEvent]:
    """Return events sorted by time, by their keys; of equal ones one."""
    return {_event_key(event): event for event in sorted(events, key=lambda event: event.at)}


def _event_key(event: TrackingEvent) -> bytes:
    """Digest an event's content: equal for the same event in a webhook and in a poll."""
    content = f"{event.at.timestamp()}\0{event.code}\0{event.place or ''}\0{event.text}"
    return blake2b(content.encode(), digest_size=16).digest()


class Decision(NamedTuple):
    """The effect of a report: events to insert, and the steps that they bring the shipment."""

    result: TrackingResult
    history: NewHistory
    steps: list[ShipmentStatus]


@dataclass
class TrackedShipment:
    """A shipment under the lock of its order, as the reports so far leave it."""

    shipment: Shipment
    known_keys: set[bytes]
    status: ShipmentStatus = field(init=False)
    ended_at: datetime | None = field(init=False)
    steps: list[ShipmentStatus] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.status, self.ended_at = self.shipment.status, self.shipment.ended_at

    def add(self, report: TrackingReport, now: datetime) -> Decision:
        """Advance the status by the events of a report that are not known yet."""
        new_events = {key: event for key, event in report.events.items() if key not in self.known_keys}
        self.known_keys.update(new_events)
        events = list[NewShipmentEvent]()
        for key, event in new_events.items():
            events += self._decide(key, event, report)
        steps = [event.step[1] for event in events if event.step]
        last_event_at = None
        if new_events and report.booking_is_current:
            # A carrier's clock that runs ahead must not hide for days that a shipment has stalled.
            last_event_at = min(now, max(event.at for event in new_events.values()))
        self.steps += steps
        result = TrackingResult(
            "status_changed" if steps else "recorded" if events else "unchanged",
            sum(event.is_unknown_code for event in new_events.values()),
        )
        history = NewHistory(self.shipment.order_id, self.shipment.shipment_id, events, last_event_at)
        return Decision(result, history, steps)

    def _decide(self, key: bytes, event: TrackingEvent, report: TrackingReport) -> list[NewShipmentEvent]:
        """Advance the status by an event. Returns the events that it implies, and itself."""
        path = steps_between(self.status, event.status) if report.booking_is_current else []
        rows = list[NewShipmentEvent]()
        for to in path[:-1]:
            text = f"{to.replace('_', ' ')}, implied by the event after it"
            step = (self.status, to)
            rows.append(NewShipmentEvent(event.at, report.source, report.actor, text, step=step))
            self.status = to
        if path:
            contradicts_history = False
        elif report.booking_is_current:
            contradicts_history = _contradicts_history(self.status, self.ended_at, event)
        else:
            contradicts_history = event.status is not None
        rows.append(
            NewShipmentEvent(
                at=event.at,
                source=report.source,
                actor=report.actor,
                text=event.text,
                step=(self.status, path[-1]) if path else None,
                code=event.code,
                is_unknown_code=event.is_unknown_code,
                contradicts_history=contradicts_history,
                place=event.place,
                key=key,
            )
        )
        if path:
            self.status = path[-1]
            self.ended_at = event.at if self.status in FINAL_STATUSES else None
        return rows

    def move_units(self) -> UnitMove:
        """Sum up what the steps change about the counts of the shipment's units."""
        gone = sum(to in (ShipmentStatus.LOST, ShipmentStatus.RETURNED_TO_SENDER) for to in self.steps)
        return UnitMove(
            self.shipment.shipment_id,
            planned=-gone,
            shipped=(ShipmentStatus.PICKED_UP in self.steps) - gone,
            delivered=int(ShipmentStatus.DELIVERED in self.steps),
        )


def steps_between(status: ShipmentStatus, to: ShipmentStatus | None) -> list[ShipmentStatus]:
    """List the steps from a status to another; none if it is not ahead, or if events cannot lead there."""
    if to is None or to is ShipmentStatus.CANCELLED or status not in DELIVERY_PATH[1:5]:
        return []
    if to in DELIVERY_PATH:
        return list(DELIVERY_PATH[DELIVERY_PATH.index(status) + 1 : DELIVERY_PATH.index(to) + 1])
    return [*([ShipmentStatus.PICKED_UP] if status is ShipmentStatus.BOOKED else []), to]


def _contradicts_history(status: ShipmentStatus, ended_at: datetime | None, event: TrackingEvent) -> bool:
    """Return whether an event cannot be true together with the present status.

    That is a second final status, transport after the final status, or any status of a shipment that is not booked. A
    late event is no contradiction."""
    if event.status is None or event.status is status:
        return False
    if status in (ShipmentStatus.PLANNED, ShipmentStatus.CANCELLED):
        return True
    if status not in FINAL_STATUSES:
        return False
    is_after_end = ended_at is not None and event.at > ended_at
    return event.status in FINAL_STATUSES or (event.status in WITH_CARRIER and is_after_end)
