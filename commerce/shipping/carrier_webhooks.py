"""Webhooks of carriers: those that arrive together are stored and applied in one transaction."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Literal, NamedTuple, Protocol
from uuid import UUID

from commerce.kernel.clock import Clock, from_ms
from commerce.kernel.failures import Failures
from commerce.kernel.postgres import Connection, Database
from commerce.kernel.shared_transactions import SharedTransactions
from commerce.shipping import shipment_status, store
from commerce.shipping.carrier_port import CarrierWebhook, ShipmentUpdate
from commerce.shipping.model import to_tracking_no
from commerce.shipping.policy import ShippingPolicy
from commerce.shipping.records import CarrierNumber, NewWebhook, ShipmentKey
from commerce.shipping.shipment_status import LockedShipment
from commerce.shipping.tracking import TrackingReport, TrackingResult, TrackingResultWord, by_key

_logger = logging.getLogger(__name__)
_MAX_SHARED_EVENTS = 200
"""events of a webhook that shares a transaction, which has a hundred webhooks at most"""
CarrierWebhookWord = TrackingResultWord | Literal["duplicate", "unknown_tracking_no", "not_stored"]


class CarrierWebhookResult(NamedTuple):
    """The effect of a webhook, and how many of its new events have an unknown code."""

    result: CarrierWebhookWord
    unknown_codes: int = 0


_DUPLICATE = CarrierWebhookResult("duplicate")


class OtherShipment(NamedTuple):
    """A shipment that is no shipment, and its order."""

    order_id: UUID
    shipment_id: UUID


class OtherShipments(Protocol):
    """Shipments of carriers that are no shipments of this package: those on their way back."""

    async def find(
        self, connection: Connection, numbers: Collection[CarrierNumber]
    ) -> Mapping[CarrierNumber, OtherShipment]:
        """Return the shipments by those of the numbers that one has."""
        ...

    async def apply(
        self, connection: Connection, shipment: OtherShipment, update: ShipmentUpdate, system: str, now: datetime
    ) -> TrackingResult:
        """Lock the shipment's order, then store the events of the shipment and advance its status."""
        ...


class _Received(NamedTuple):
    """A genuine webhook of a system, and its body."""

    system: str
    webhook: CarrierWebhook
    body: bytes

    @property
    def key(self) -> tuple[str, str]:
        return self.system, self.webhook.webhook_id

    def count_events(self) -> int:
        return sum(len(update.events) for update in self.webhook.updates)


class _Update(NamedTuple):
    """Events of a shipment from a webhook of a system."""

    key: ShipmentKey
    update: ShipmentUpdate
    system: str


class CarrierWebhooks:
    """Stores webhooks and applies their events, each as if it had come alone.

    Those that come together, or while a transaction is in flight, share one. A webhook has its own if it is large, if
    it would have to wait for the lock of an order, if it is about a shipment on its way back, and if the shared one
    fails."""

    def __init__(
        self, db: Database, clock: Clock, policy: ShippingPolicy, other_shipments: OtherShipments | None = None
    ) -> None:
        self._clock = clock
        self._other_shipments = other_shipments
        self._policy = policy
        self._transactions: SharedTransactions[_Received, CarrierWebhookResult] = SharedTransactions(db, self._record)

    async def handle(self, system: str, webhook: CarrierWebhook, body: bytes) -> CarrierWebhookResult:
        """Store a genuine webhook and apply its events, shipment by shipment.

        A webhook with an unknown tracking number is not stored and should come again, since the commit of its booking
        may be a moment away; the events of its other shipments are applied all the same. So it is if the events of a
        shipment cannot be applied (`not_stored`)."""
        return await self._transactions.add(_Received(system, webhook, body))

    async def _record(
        self, connection: Connection, received: Sequence[_Received], may_wait: bool
    ) -> list[CarrierWebhookResult | None]:
        if may_wait:
            return [await self._record_alone(connection, item) for item in received]
        return await self._record_free(connection, received)

    async def _record_free(
        self, connection: Connection, received: Sequence[_Received]
    ) -> list[CarrierWebhookResult | None]:
        """Record the small webhooks about orders that nobody has locked, each after those before it."""
        now = self._now()
        stored = await store.list_stored_webhooks(connection, {item.key for item in received})
        new = [item for item in received if item.key not in stored and item.count_events() <= _MAX_SHARED_EVENTS]
        key_of = await _find_shipments(connection, new)
        others = await self._find_others(connection, new, key_of)
        new = [item for item in new if not any(_number(update) in others for update in item.webhook.updates)]
        updates_of = {id(item): _list_updates(item, key_of) for item in new}
        keys = {update.key for updates in updates_of.values() for update in updates}
        locked = await shipment_status.lock_free_shipments(connection, keys)
        free = [item for item in new if all(update.key.shipment_id in locked for update in updates_of[id(item)])]
        reports = [_report(update, locked) for item in free for update in updates_of[id(item)]]
        tracking = iter(await shipment_status.apply_reports(connection, locked, reports, now, self._policy))
        results, to_store = dict[int, CarrierWebhookResult](), dict[tuple[str, str], NewWebhook]()
        for item in free:
            updates = updates_of[id(item)]
            result = _summarise(item, [next(tracking) for _ in updates])
            if item.key in to_store:  # the same came twice
                result = _DUPLICATE
            elif result.result != "unknown_tracking_no":
                to_store[item.key] = _new_webhook(item, result, updates)
            results[id(item)] = result
        await store.insert_webhooks(connection, list(to_store.values()), now)
        return [_DUPLICATE if item.key in stored else results.get(id(item)) for item in received]

    async def _record_alone(self, connection: Connection, item: _Received) -> CarrierWebhookResult:
        """Record one webhook, wait for the locks that it needs, and apply what can be applied of it."""
        now, results = self._now(), list[TrackingResult]()
        failures = Failures("apply a webhook's events", _logger)
        if await store.list_stored_webhooks(connection, {item.key}):
            return _DUPLICATE
        key_of = await _find_shipments(connection, [item])
        others = await self._find_others(connection, [item], key_of)
        updates = _list_updates(item, key_of)
        applied: list[tuple[UUID, UUID, Callable[[], Awaitable[TrackingResult]]]] = [
            (*update.key, partial(self._apply_alone, connection, update, now)) for update in updates
        ]
        if self._other_shipments is not None:
            applied += [
                (*other, partial(self._other_shipments.apply, connection, other, update, item.system, now))
                for update in item.webhook.updates
                if (other := others.get(_number(update))) is not None
            ]
        # Sorted by order id, the order in which all transactions lock orders.
        for _, shipment_id, apply in sorted(applied, key=lambda each: each[:2]):
            with failures.catch(shipment_id=shipment_id, system=item.system):
                async with connection.transaction():
                    results.append(await apply())
        result = _summarise(item, results)
        if failures.count:
            return CarrierWebhookResult("not_stored", result.unknown_codes)
        if result.result != "unknown_tracking_no":
            await store.insert_webhooks(connection, [_new_webhook(item, result, updates)], now)
        return result

    async def _apply_alone(self, connection: Connection, update: _Update, now: datetime) -> TrackingResult:
        shipment_id = update.key.shipment_id
        locked = {shipment_id: await shipment_status.lock_shipment(connection, shipment_id)}
        [result] = await shipment_status.apply_reports(connection, locked, [_report(update, locked)], now, self._policy)
        return result

    async def _find_others(
        self, connection: Connection, received: Sequence[_Received], key_of: Mapping[CarrierNumber, ShipmentKey]
    ) -> Mapping[CarrierNumber, OtherShipment]:
        """Return the other shipments by those of the numbers that no shipment has."""
        unknown = {_number(update) for item in received for update in item.webhook.updates} - key_of.keys()
        if not unknown or self._other_shipments is None:
            return {}
        return await self._other_shipments.find(connection, unknown)

    def _now(self) -> datetime:
        return from_ms(self._clock.now_ms())


async def _find_shipments(connection: Connection, received: Sequence[_Received]) -> dict[CarrierNumber, ShipmentKey]:
    return await store.find_by_tracking_nos(
        connection, {_number(update) for item in received for update in item.webhook.updates}
    )


def _list_updates(item: _Received, key_of: Mapping[CarrierNumber, ShipmentKey]) -> list[_Update]:
    """List the updates of a webhook whose tracking numbers are known."""
    return [
        _Update(key, update, item.system)
        for update in item.webhook.updates
        if (key := key_of.get(_number(update))) is not None
    ]


def _number(update: ShipmentUpdate) -> CarrierNumber:
    return update.carrier, update.tracking_no


def _report(update: _Update, locked: Mapping[UUID, LockedShipment]) -> TrackingReport:
    shipment = locked[update.key.shipment_id].shipment
    carrier, tracking_no = _number(update.update)
    return TrackingReport(
        update.key.shipment_id,
        by_key(update.update.events),
        "webhook",
        update.system,
        booking_is_current=shipment.carrier == carrier
        and to_tracking_no(shipment.tracking_no or "") == to_tracking_no(tracking_no),
    )


def _summarise(item: _Received, results: Sequence[TrackingResult]) -> CarrierWebhookResult:
    words = {tracking.result for tracking in results}
    word: CarrierWebhookWord = "unchanged"
    if len(results) < len(item.webhook.updates):
        word = "unknown_tracking_no"
    elif "status_changed" in words:
        word = "status_changed"
    elif "recorded" in words:
        word = "recorded"
    return CarrierWebhookResult(word, sum(tracking.unknown_codes for tracking in results))


def _new_webhook(item: _Received, result: CarrierWebhookResult, updates: Sequence[_Update]) -> NewWebhook:
    shipment_ids = [update.key.shipment_id for update in updates]
    return NewWebhook(item.system, item.webhook.webhook_id, result.result, item.body, shipment_ids)
