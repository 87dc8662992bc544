"""Decides what tracking events change about a return shipment, without any I/O.

Events may arrive twice, late and in any sequence, as those of shipments do. A status only advances; an event that skips
a step inserts the steps between.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import NamedTuple

from commerce.return_shipments.model import (
    ENDED_STATUSES,
    ON_ITS_WAY,
    RETURN_PATH,
    STATUS_OF,
    EventSource,
    ReturnShipment,
    ReturnStatus,
)
from commerce.shipping.carrier_port import TrackingEvent

Step = tuple[ReturnStatus, ReturnStatus]


class NewReturnEvent(NamedTuple):
    """An event to insert. `step` is the old and the new status if the event advances the status."""

    at: datetime
    source: EventSource
    actor: str
    text: str
    step: Step | None = None
    code: str | None = None
    is_unknown_code: bool = False
    contradicts_history: bool = False
    place: str | None = None
    key: bytes | None = None


def decide_events(
    shipment: ReturnShipment,
    events: Mapping[bytes, TrackingEvent],
    known_keys: Collection[bytes],
    source: EventSource,
    actor: str,
) -> list[NewReturnEvent]:
    """Return the events to insert for those that carriers report, by their keys and sorted by time."""
    status, rows = shipment.status, list[NewReturnEvent]()
    for key, event in events.items():
        if key in known_keys:
            continue
        to = STATUS_OF.get(event.status) if event.status is not None else None
        path = steps_between(status, to)
        for implied in path[:-1]:
            text = f"{implied.replace('_', ' ')}, implied by the event after it"
            rows.append(NewReturnEvent(event.at, source, actor, text, step=(status, implied)))
            status = implied
        rows.append(
            NewReturnEvent(
                at=event.at,
                source=source,
                actor=actor,
                text=event.text,
                step=(status, path[-1]) if path else None,
                code=event.code,
                is_unknown_code=event.is_unknown_code,
                contradicts_history=not path and _contradicts(shipment, status, to, event.at),
                place=event.place,
                key=key,
            )
        )
        status = path[-1] if path else status
    return rows


def steps_between(status: ReturnStatus, to: ReturnStatus | None) -> list[ReturnStatus]:
    """List the steps from a status to another; none if it is not ahead, or if events cannot lead there."""
    if to is None or status in ENDED_STATUSES or status is ReturnStatus.REQUESTED:
        return []
    if to in RETURN_PATH:
        return list(RETURN_PATH[RETURN_PATH.index(status) + 1 : RETURN_PATH.index(to) + 1])
    return [*([ReturnStatus.PICKED_UP] if status is ReturnStatus.BOOKED else []), to]


def _contradicts(shipment: ReturnShipment, status: ReturnStatus, to: ReturnStatus | None, at: datetime) -> bool:
    """Return whether an event cannot be true together with the present status; a late event can."""
    if to is None or to is status:
        return False
    if status in (ReturnStatus.REQUESTED, ReturnStatus.CANCELLED):
        return True
    if status not in ENDED_STATUSES:
        return False
    return to in ENDED_STATUSES or (to in ON_ITS_WAY and shipment.ended_at is not None and at > shipment.ended_at)
