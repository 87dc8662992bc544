"""Simulation of carriers: shipments take the steps of their journeys, webhooks report them.

Nothing is lost in a kill: the time of the next step follows from the shipment's row, and steps that were due in the
meantime are stored with the time at which they were due.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Mapping
from dataclasses import replace

from commerce.kernel.clock import Clock
from ops.sandbox.faults import CarrierFaults, FaultRegistry
from ops.sandbox.journey import compute_due_ms, place_of_next_step, plan_journey, reroute, state_after
from ops.sandbox.protocol import CarrierProtocol
from ops.sandbox.shipment_store import (
    DueShipmentWebhook,
    NewShipmentWebhook,
    ShipmentStore,
    ShipmentStoreRefusal,
    SimulatedEvent,
    SimulatedShipment,
)
from ops.sandbox.webhook_sender import OutgoingWebhook

_MAX_STEPS = 200
"""Steps per carrier before the event loop serves requests again."""
_DUPLICATE_DELAY_MS = 300


class ShipmentSimulator:
    """Moves shipments and schedules webhooks according to the faults. Never waits.

    `time_factor` applies to carriers whose faults do not set one.
    """

    def __init__(
        self, shipment_store: ShipmentStore, clock: Clock, faults: FaultRegistry[CarrierFaults], time_factor: int
    ) -> None:
        self.wake = asyncio.Event()
        """Event that is set when there is new work."""
        self._shipment_store = shipment_store
        self._clock = clock
        self._faults = faults
        self._time_factor = time_factor
        self._due_steps: dict[str, list[tuple[int, str, int]]] = {}
        """Heap per carrier: time of a shipment's next step, its tracking number, number of steps done before."""

    def create_shipment(
        self,
        carrier: str,
        tracking_no: str,
        *,
        order_no: str = "",
        company: str = "",
        phone_endings: str = "",
        origin: str,
        destination: str,
        webhook_url: str = "",
        is_refused: bool = False,
    ) -> SimulatedShipment:
        """Store a new shipment, or a booking that is refused.

        Raises `ShipmentStoreRefusal` as `ShipmentStore.insert` does.
        """
        now_ms = self._clock.now_ms()
        shipment = SimulatedShipment(
            carrier=carrier,
            tracking_no=tracking_no,
            order_no=order_no,
            company=company,
            phone_endings=phone_endings,
            origin=origin,
            destination=destination,
            webhook_url=webhook_url,
            salt="",
            result_format="",
            state="refused" if is_refused else "booked",
            journey=plan_journey(self._faults, carrier, tracking_no),
            steps_done=0,
            last_step_ms=now_ms,
            created_ms=now_ms,
        )
        self._shipment_store.insert(shipment)
        self._schedule_step(shipment)
        return shipment

    def subscribe(self, shipment: SimulatedShipment, webhook_url: str, salt: str, result_format: str) -> None:
        """Send webhooks about a shipment from now on, and one about its events so far."""
        subscribed = replace(shipment, webhook_url=webhook_url, salt=salt, result_format=result_format)
        now_ms, steps_done = self._clock.now_ms(), shipment.steps_done
        webhooks = [NewShipmentWebhook("first", steps_done - 1, now_ms)] if steps_done else []
        self._shipment_store.update(subscribed, webhooks=webhooks)
        self.wake.set()

    def set_faults(self, carrier: str, faults: CarrierFaults) -> None:
        """Replace the carrier's faults. Open shipments continue from where they are at the new time factor."""
        self.move_due()
        before, now_ms = self._time_factor_of(carrier), self._clock.now_ms()
        self._faults.set(carrier, faults)
        after = self._time_factor_of(carrier)
        if before != after:
            for shipment in self._shipment_store.list_open(carrier):
                last_step_ms = now_ms - (now_ms - shipment.last_step_ms) * before // after
                self._shipment_store.update(replace(shipment, last_step_ms=last_step_ms))
        self.restart(carrier)

    def restart(self, carrier: str) -> None:
        """Schedule all open shipments again. Call after a start and when the time factor changes."""
        self._due_steps[carrier] = []
        for shipment in self._shipment_store.list_open(carrier):
            self._schedule_step(shipment)
        self.wake.set()

    def move_due(self) -> None:
        """Take due steps, in limited portions."""
        now_ms = self._clock.now_ms()
        for carrier, due_steps in self._due_steps.items():
            for _ in range(_MAX_STEPS):
                if not due_steps or due_steps[0][0] > now_ms:
                    break
                at_ms, tracking_no, steps_done = heapq.heappop(due_steps)
                shipment = self._shipment_store.find(carrier, tracking_no)
                # The entry is stale if the shipment was cancelled or moved by hand.
                if shipment is not None and shipment.is_open and shipment.steps_done == steps_done:
                    self._schedule_step(self._take_step(shipment, at_ms))

    def move(self, tracking_no: str, target: str | None) -> SimulatedShipment:
        """Take the next step now, or all steps up to the target.

        Raises `ShipmentStoreRefusal` (no_shipment or too_late).
        """
        shipment = self._shipment_store.get(tracking_no)
        if not shipment.is_open:
            raise ShipmentStoreRefusal("too_late", f"the shipment is {shipment.state}")
        if target is not None:
            shipment = replace(shipment, journey=reroute(shipment, target))
        done = shipment.steps_done
        steps = 1 if target is None else shipment.journey.index(target, done) + 1 - done
        for _ in range(steps):
            shipment = self._take_step(shipment, self._clock.now_ms())
        self._schedule_step(shipment)
        return shipment

    def find_next_due_ms(self) -> int | None:
        """Return the time of the next step."""
        return min((due_steps[0][0] for due_steps in self._due_steps.values() if due_steps), default=None)

    def _time_factor_of(self, carrier: str) -> int:
        return self._faults.get(carrier).time_factor or self._time_factor

    def _schedule_step(self, shipment: SimulatedShipment) -> None:
        if not shipment.is_open:
            return
        due_ms = compute_due_ms(self._faults, shipment, self._time_factor_of(shipment.carrier))
        due_step = (due_ms, shipment.tracking_no, shipment.steps_done)
        due_steps = self._due_steps.setdefault(shipment.carrier, [])
        heapq.heappush(due_steps, due_step)
        if due_steps[0] == due_step:
            self.wake.set()

    def _take_step(self, shipment: SimulatedShipment, at_ms: int) -> SimulatedShipment:
        step, event_no = shipment.next_step, shipment.steps_done
        place = place_of_next_step(shipment)
        event = SimulatedEvent(shipment.carrier, shipment.tracking_no, event_no, step, at_ms, place)
        moved = replace(shipment, state=state_after(step), steps_done=event_no + 1, last_step_ms=at_ms)
        self._shipment_store.update(moved, event, self._build_webhooks(shipment, event))
        self.wake.set()
        return moved

    def _build_webhooks(self, shipment: SimulatedShipment, event: SimulatedEvent) -> list[NewShipmentWebhook]:
        if not shipment.webhook_url:
            return []
        faults, is_selected = self._faults.get(shipment.carrier), self._faults.is_selected
        subject = f"{shipment.tracking_no}/{event.event_no}"
        is_reordered = is_selected(faults.reordered_share, "reordered", shipment.tracking_no)
        is_delayed = (is_reordered and event.event_no % 2 == 0) or is_selected(faults.delayed_share, "delayed", subject)
        due_ms = event.at_ms + faults.webhook_delay_ms + (faults.extra_delay_ms if is_delayed else 0)
        has_wrong_signature = is_selected(faults.wrong_signature_share, "wrong_signature", subject)
        webhook = NewShipmentWebhook("first", event.event_no, due_ms, has_wrong_signature)
        if is_selected(faults.dropped_share, "dropped", subject):
            return [replace(webhook, done=True)]
        if is_selected(faults.duplicate_share, "duplicate", subject):
            later = replace(webhook, copy="third", due_ms=due_ms + _DUPLICATE_DELAY_MS)
            return [webhook, replace(webhook, copy="second"), later]
        return [webhook]


class ShipmentWebhookQueue:
    """The `WebhookQueue` of the carriers, which also moves shipments; `protocols` by the carriers' names."""

    def __init__(
        self,
        shipment_store: ShipmentStore,
        simulator: ShipmentSimulator,
        protocols: Mapping[str, CarrierProtocol],
    ) -> None:
        self._shipment_store = shipment_store
        self._simulator = simulator
        self._protocols = protocols

    @property
    def wake(self) -> asyncio.Event:
        return self._simulator.wake

    def process_due(self) -> None:
        self._simulator.move_due()

    def find_next_due_ms(self, now_ms: int) -> int | None:
        times = (self._simulator.find_next_due_ms(), self._shipment_store.find_next_due_ms(now_ms))
        return min((time for time in times if time is not None), default=None)

    def list_due_webhooks(self, now_ms: int, limit: int) -> list[DueShipmentWebhook]:
        return self._shipment_store.list_due_webhooks(now_ms, limit)

    def build_webhook(self, due_webhook: DueShipmentWebhook) -> OutgoingWebhook:
        carrier, tracking_no = due_webhook.carrier, due_webhook.tracking_no
        shipment = self._shipment_store.find(carrier, tracking_no)
        assert shipment is not None, "a webhook is about a stored shipment"
        events = self._shipment_store.list_events(carrier, tracking_no, due_webhook.event_no)
        return self._protocols[carrier].build_webhook(
            shipment, events, has_wrong_signature=due_webhook.has_wrong_signature
        )

    def is_accepted(self, due_webhook: DueShipmentWebhook, status: int, body: bytes) -> bool:
        return self._protocols[due_webhook.carrier].is_accepted(status, body)

    def mark_attempted(self, due_webhook: DueShipmentWebhook, *, done: bool, retry_ms: int) -> None:
        self._shipment_store.mark_attempted(due_webhook.webhook_id, done=done, retry_ms=retry_ms)
