"""Advances the cancellations of an order: units, shipments, stock, money and status together.

Whoever changes an order's shipments or refunds puts the job `cancellation.advance`, and whoever asks for a cancellation
advances it at once. All of it looks at the order as it is under its lock, so a repeat changes nothing.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple, Protocol
from uuid import UUID

from commerce.cancellations import store
from commerce.cancellations.decisions import OpenLine, OrderContents, ReturnedUnits, ShipmentUnits
from commerce.cancellations.model import Cause, LineKey
from commerce.fulfilment import store as fulfilments
from commerce.fulfilment.carrier_jobs import cancel_before_dispatch
from commerce.jobs import store as jobs
from commerce.jobs.model import INTERNAL_SYSTEM, NewJob
from commerce.kernel.ids import IdGenerator
from commerce.kernel.money import format_money
from commerce.kernel.postgres import Connection
from commerce.orders import store as orders
from commerce.orders.model import ADVANCE_CANCELLATIONS, CANCELLATIONS, FULFILMENTS, OrderStatus
from commerce.orders.store import OrderHeader, StoryEvent
from commerce.payments import locked_orders
from commerce.payments import store as payments
from commerce.refunds import service as refunds
from commerce.refunds import store as granted
from commerce.refunds.model import GrantLine, GrantRequest
from commerce.reservations import store as reservations
from commerce.reservations.store import GiveBack
from commerce.shipping import shipment_status
from commerce.shipping import store as shipments
from commerce.shipping.carrier_port import CarrierRegistry
from commerce.shipping.cash_on_delivery import find_missing_cash, finish_cash
from commerce.shipping.model import ShipmentStatus
from commerce.shipping.order_progress import OrderProgress
from commerce.shipping.policy import ShippingPolicy
from commerce.shipping.shipment_tasks import put_cancellation_jobs, put_case_openings, put_order_tasks
from commerce.warehouse_stock.store import ReturnedStock, return_units

ACTOR = shipment_status.ACTOR
CANCELLABLE = (OrderStatus.PAID, OrderStatus.CONFIRMED, OrderStatus.FULFILLING, OrderStatus.SHIPPED)
"""statuses of orders of which units may still be cancelled"""
_WAYS = "record it (`floodgate payment record-cash`) or waive it (`floodgate payment waive-cash`)"
_REASONS: Mapping[Cause, str] = {
    "delivery_refused": "it was not accepted at the door",
    "undeliverable": "it could not be delivered",
    "lost": "it was lost on its way",
    "by_staff": "it was stopped and not sent again",
    "refunded": "the order is refunded",
}


class UndeliveredPolicy(Protocol):
    """The part of the section `aftersales` of the settings that is about shipments without a delivery."""

    @property
    def returned_shipments(self) -> ReturnedUnits: ...
    @property
    def undelivered_refund_after_s(self) -> float: ...


class NewCancellation(NamedTuple):
    """Units by line that are to be cancelled."""

    lines: Mapping[LineKey, int]
    cause: Cause
    reason: str
    actor: str
    idempotency_key: str | None = None
    is_whole: bool = False


async def open_cancellation(
    connection: Connection, ids: IdGenerator, order_id: UUID, new: NewCancellation, now: datetime
) -> UUID:
    """Insert a cancellation of units that `count_cancellable` allows. `advance` has to follow, or its job.

    Call inside a transaction that holds the order lock."""
    id_ = ids.new()
    await store.insert(
        *(connection, id_, order_id, new.lines),
        cause=new.cause,
        reason=new.reason,
        actor=new.actor,
        idempotency_key=new.idempotency_key,
        is_whole=new.is_whole,
        now=now,
    )
    await fulfilments.insert_fulfilment_lines(connection, [order_id])
    units = await store.read_units(connection, order_id)
    for key, quantity in new.lines.items():
        units.lines[key].cancelling += quantity
    await store.write_units(connection, order_id, units)
    return id_


class CancellationProgress:
    """Opens and advances cancellations. Call its methods inside a transaction that holds the order lock."""

    def __init__(
        self, ids: IdGenerator, carriers: CarrierRegistry, shipping: ShippingPolicy, undelivered: UndeliveredPolicy
    ) -> None:
        self._ids = ids
        self._carriers = carriers
        self._shipping = shipping
        self._undelivered = undelivered

    async def open(self, connection: Connection, order_id: UUID, new: NewCancellation, now: datetime) -> UUID:
        """Insert a cancellation of units that `count_cancellable` allows. `advance` has to follow."""
        return await open_cancellation(connection, self._ids, order_id, new, now)

    async def advance(self, connection: Connection, order: OrderHeader, now: datetime) -> str:
        """Bring the cancellations of an order as far as they can go now. Returns a result word.

        Opens those that nobody has to ask for: of shipments that did not arrive, and of refunded orders. Then puts the
        order's next job, removes it, or parks it if cash is missing."""
        if await payments.list_cash_due(connection, order.order_id):
            await finish_cash(connection, order, now)
        await refunds.refund_collected(connection, self._ids, order, ACTOR, now)
        fulfilment = await fulfilments.get_fulfilment(connection, order.order_id)
        is_delivered = order.status in (OrderStatus.DELIVERED, OrderStatus.COMPLETED)
        if fulfilment is None or not (is_delivered or order.status in CANCELLABLE):
            await jobs.remove(connection, CANCELLATIONS, [order.order_id])
            return "unchanged"
        before = await store.read_units(connection, order.order_id)
        if is_delivered and not before.open_lines:  # else its units were delivered before they could be stopped
            await _end_job(connection, order, now)
            return "unchanged"
        decide_at = await self._open_due(connection, order, before, now)
        units = await self._decide(connection, order, now)
        if units.has_units_to_plan and not await self._is_about_to_plan(connection, order.order_id):
            await put_order_tasks(connection, [order.order_id], "order.plan", now, now)
        ended = await self._end_cancellations(connection, order, units, now)
        if ended == "advanced" and await self._is_refunded(connection, order):
            return await self.advance(connection, order, now)  # this refund was the last of the money
        if decide_at is None or ended == "cancelled":
            await _end_job(connection, order, now)
        else:
            await put_cancellation_jobs(connection, [order.order_id], decide_at, now)
        return ended

    async def _is_refunded(self, connection: Connection, order: OrderHeader) -> bool:
        """Tell whether an order is refunded in full, and has units that may be cancelled."""
        units = await store.read_units(connection, order.order_id)
        return bool(units.count_cancellable()) and await shipment_status.must_not_ship(connection, order)

    # Cancellations that follow from what happened.

    async def _open_due(
        self, connection: Connection, order: OrderHeader, units: OrderContents, now: datetime
    ) -> datetime | None:
        """Open the cancellations that are due. Returns when the next one is, None if none will be."""
        cancellable = Counter(units.count_cancellable())
        if not cancellable:
            return None
        if await shipment_status.must_not_ship(connection, order):
            await self._open_automatically(connection, order, dict(cancellable), "refunded", now)
            return None
        waiting = [each for each in units.shipments if each.is_undecided and not each.shipment.plan_again]
        if not waiting:
            return None
        is_cash = bool(await payments.list_cash_due(connection, order.order_id))
        is_unwanted = await store.has_kept_units(connection, order.order_id)
        known_at = await store.read_known_ends(connection, order.order_id)
        next_at: datetime | None = None
        for each in waiting:
            shipment = each.shipment
            due_at = known_at[shipment.shipment_id] + timedelta(seconds=self._undelivered.undelivered_refund_after_s)
            is_back = shipment.status is not ShipmentStatus.CANCELLED
            if due_at > now and not (is_back and (is_cash or is_unwanted)):
                next_at = min(due_at, next_at or due_at)
                continue
            lines = take_undecided(each, cancellable)
            if lines:
                await self._open_automatically(connection, order, lines, find_cause(each, is_cash=is_cash), now)
        return next_at

    async def _open_automatically(
        self, connection: Connection, order: OrderHeader, lines: Mapping[LineKey, int], cause: Cause, now: datetime
    ) -> None:
        await self.open(connection, order.order_id, NewCancellation(lines, cause, _REASONS[cause], ACTOR), now)

    # Units and shipments.

    async def _decide(self, connection: Connection, order: OrderHeader, now: datetime) -> OrderContents:
        """Cancel what can be cancelled, and stop shipments; once more for those that are stopped at once."""
        while True:
            units = await store.read_units(connection, order.order_id)
            units.decide(self._undelivered.returned_shipments)
            await store.write_units(connection, order.order_id, units)
            await fulfilments.mark_units_decided(connection, units.decided)
            await return_units(
                *(connection, order.order_id, None, "a carrier brought it back", ACTOR, now),
                [ReturnedStock(*place, count, is_resold=True) for place, count in units.brought_back.items()],
            )
            resolved = list(dict.fromkeys(shipment_id for shipment_id, _ in units.decided))
            text = "its units are cancelled or planned again"
            await fulfilments.resolve_shipments(connection, resolved, now, text)
            await store.mark_plan_again(connection, units.to_stop)
            for shipment in units.to_stop.values():
                carrier = self._carriers.by_name.get(shipment.carrier or "")
                await cancel_before_dispatch(connection, shipment, carrier, now, "units of it are cancelled")
            if all(shipment.booking_id is not None for shipment in units.to_stop.values()):
                return units

    async def _is_about_to_plan(self, connection: Connection, order_id: UUID) -> bool:
        order_jobs = await jobs.find(connection, FULFILMENTS, [order_id])
        return any(job.kind == "order.plan" and not job.parked for job in order_jobs)

    # The end.

    async def _end_cancellations(
        self, connection: Connection, order: OrderHeader, units: OrderContents, now: datetime
    ) -> str:
        """End the cancellations that wait for nothing: with stock, money and the status of the order."""
        by_id = defaultdict[UUID, list[OpenLine]](list)
        for open_line in units.open_lines:
            by_id[open_line.cancellation_id].append(open_line)
        ended = [id_ for id_, lines in by_id.items() if not any(line.left for line in lines)]
        totals = await shipments.get_fulfilment_totals(connection, order.order_id)
        for id_ in ended:
            is_last = not totals.expected and id_ == ended[-1]
            await self._end_cancellation(connection, order, units, by_id[id_], now, is_last=is_last)
        if not totals.expected and ended:
            return "cancelled"
        progress = OrderProgress(order.status, totals)
        progress.advance()
        await shipment_status.advance_orders(connection, {order.order_id: progress}, now, self._shipping)
        if ended and await finish_cash(connection, order, now):
            await refunds.refund_collected(connection, self._ids, order, ACTOR, now)
        return "advanced" if ended or units.to_stop or progress.reached else "unchanged"

    async def _end_cancellation(
        self,
        connection: Connection,
        order: OrderHeader,
        units: OrderContents,
        lines: Sequence[OpenLine],
        now: datetime,
        *,
        is_last: bool,
    ) -> None:
        """End a cancellation. The `last` one ends the order as well, since nothing of it is left."""
        cancellation = await store.get(connection, lines[0].cancellation_id)
        id_, cause, actor = cancellation.cancellation_id, cancellation.cause, cancellation.actor
        await store.mark_done(connection, id_, now)
        kept, cancelled = sum(line.kept for line in lines), sum(line.cancelled for line in lines)
        story = StoryEvent(order.order_id, "cancellation", tell_end(cancelled, kept, cancellation.reason), {
            "cancellation_id": str(id_), "cancelled": cancelled, "kept": kept})  # fmt: skip
        await orders.insert_story_events(connection, [story], now, actor)
        if kept:  # they may be delivered already
            await put_case_openings(connection, [order.order_id], now)
        if cancelled and cause != "refunded":
            await self._grant_refund(connection, order, lines, cancellation.reason, actor, now)
        given_back, written_off = Counter[str](), Counter[str]()
        for line in lines:
            given_back[units.lines[line.key].sku] += line.cancelled
            written_off[units.lines[line.key].sku] += line.written_off
        if is_last:
            await reservations.cancel_sold(
                connection, order, now, cause, actor, cancellation.reason, _positive(written_off)
            )
            await store.end_fulfilment(connection, order.order_id)
            await locked_orders.end_payments(connection, self._ids, order.order_id, now)
        elif cancelled:
            request = GiveBack(id_, order.order_id, _positive(given_back), cancellation.reason, _positive(written_off))
            await reservations.give_back(connection, request, now)

    async def _grant_refund(
        self,
        connection: Connection,
        order: OrderHeader,
        lines: Sequence[OpenLine],
        reason: str,
        actor: str,
        now: datetime,
    ) -> None:
        """Grant the money for cancelled units; what was refunded before is left out."""
        request = await make_grant_request(
            connection, order, {line.key: line.cancelled for line in lines}, lines[0].cause, reason, actor
        )
        if not request.lines:
            return
        request = await withhold_earlier_amounts(connection, order, request, lines[0].cause)
        request = request._replace(source_id=lines[0].cancellation_id)
        await refunds.grant(connection, self._ids, order, request, now)


async def _end_job(connection: Connection, order: OrderHeader, now: datetime) -> None:
    """Remove the job of an order, or park it while cash is missing."""
    missing_minor = await find_missing_cash(connection, order)
    if not missing_minor:
        await jobs.remove(connection, CANCELLATIONS, [order.order_id])
        return
    text = f"{format_money(missing_minor, order.total.currency)} of cash are missing, and all is delivered: {_WAYS}"
    job = NewJob(order.order_id, ADVANCE_CANCELLATIONS, INTERNAL_SYSTEM, now)
    await jobs.put_parked(connection, CANCELLATIONS, job, text, now)


async def make_grant_request(
    connection: Connection, order: OrderHeader, lines: Mapping[LineKey, int], cause: Cause, reason: str, actor: str
) -> GrantRequest:
    """Make the request for the refund of cancelled units, less those that were refunded before.

    Freight comes back with the last units if nothing was shipped, and always for a lost shipment."""
    left = {
        (line.line_no, line.address_no): line.quantity - line.refunded_units
        for line in await granted.list_refundable_lines(connection, order.order_id)
    }
    wanted = [GrantLine(*key, min(quantity, left[key])) for key, quantity in lines.items() if min(quantity, left[key])]
    return GrantRequest(
        kind="cancellation",
        source_id=None,
        reason=reason,
        actor=actor,
        lines=wanted,
        freight="rest" if cause == "lost" else "unshipped",
    )


async def withhold_earlier_amounts(
    connection: Connection, order: OrderHeader, request: GrantRequest, cause: Cause
) -> GrantRequest:
    """Return the request less what staff refunded before without naming units.

    That was for these very units, when their shipment was lost or stopped, unless the customer cancels them."""
    if cause == "by_customer":
        return request
    before_minor = await store.sum_refunded_without_units(connection, order.order_id)
    value = await refunds.preview(connection, order, request)
    value_minor = sum(line.amount for line in value.lines) + value.freight
    return request._replace(fee_minor=min(before_minor, value_minor))


def take_undecided(each: ShipmentUnits, cancellable: Counter[LineKey]) -> dict[LineKey, int]:
    """Take the undecided units of a shipment from those that may be cancelled."""
    taken = {key: min(units, cancellable[key]) for key, units in each.undecided.items()}
    cancellable.subtract(taken)
    return {key: units for key, units in taken.items() if units > 0}


def find_cause(each: ShipmentUnits, *, is_cash: bool) -> Cause:
    """Return the cause of a cancellation of what a shipment did not deliver."""
    if each.shipment.status is ShipmentStatus.LOST:
        return "lost"
    if each.shipment.status is ShipmentStatus.CANCELLED:
        return "by_staff"
    return "delivery_refused" if is_cash else "undeliverable"


def tell_end(cancelled: int, kept: int, reason: str) -> str:
    """Say to the customer how a cancellation ended."""
    parts = [f"{cancelled} unit{'s are' if cancelled > 1 else ' is'} cancelled"] if cancelled else []
    if kept:
        had, them = ("units had", "them") if kept > 1 else ("unit had", "it")
        parts.append(f"{kept} {had} left already: once delivered, send {them} back at our expense")
    return f"{'; '.join(parts)}: {reason}"[:500]


def _positive(counts: Counter[str]) -> dict[str, int]:
    return {sku: count for sku, count in counts.items() if count > 0}
