"""Cancels orders, whole or unit by unit, for customers and staff, before and after paying."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import msgspec

from commerce.cancellations import store
from commerce.cancellations.decisions import OpenLine, OrderContents
from commerce.cancellations.errors import NotCancellable, NotUndelivered
from commerce.cancellations.model import (
    Cancellation,
    CancellationLine,
    CancellationPreview,
    CancelledOrder,
    CancelRequest,
    Cause,
    LineKey,
)
from commerce.cancellations.open_cancellations import OpenCancellations
from commerce.cancellations.progress import (
    CANCELLABLE,
    CancellationProgress,
    NewCancellation,
    UndeliveredPolicy,
    find_cause,
    make_grant_request,
    take_undecided,
    withhold_earlier_amounts,
)
from commerce.kernel.clock import Clock, from_ms
from commerce.kernel.errors import Invalid, KeyReused
from commerce.kernel.ids import IdGenerator
from commerce.kernel.postgres import Connection, Database
from commerce.orders import store as orders
from commerce.orders.errors import CannotCancel, NoSuchOrder
from commerce.orders.model import Order, OrderStatus
from commerce.orders.service import Actor, Orders
from commerce.orders.store import OrderHeader
from commerce.payments import store as payments
from commerce.refunds import service as refunds
from commerce.rights.service import find_decider
from commerce.shipping import shipment_status
from commerce.shipping.carrier_port import CarrierRegistry
from commerce.shipping.model import ShipmentStatus
from commerce.shipping.policy import ShippingPolicy

_UNPAID = (OrderStatus.ACCEPTED, OrderStatus.AWAITING_PAYMENT)
_PREVIEW_ID = UUID(int=0)


class Cancellations:
    """Cancellations over Postgres. `sales` are the ids of the sales that are loaded in Redis."""

    def __init__(
        self,
        db: Database,
        clock: Clock,
        ids: IdGenerator,
        stored_orders: Orders,
        carriers: CarrierRegistry,
        shipping: ShippingPolicy,
        undelivered: UndeliveredPolicy,
    ) -> None:
        self._db = db
        self._clock = clock
        self._orders = stored_orders
        self._progress = CancellationProgress(ids, carriers, shipping, undelivered)
        self._undelivered = undelivered
        self.open = OpenCancellations(db, clock)

    async def cancel(self, request: CancelRequest, sales: Sequence[str], wait_s: float) -> CancelledOrder:
        """Cancel an order, or units of it. Those in a booked shipment follow once its carrier has agreed.

        A repeat returns the same cancellation. Waits for `wait_s` seconds at most until the order is stored. Raises
        `NoSuchOrder`, `NotStoredYet`, `CannotCancel`, `NotCancellable` for units that have left or are cancelled,
        `Invalid` for units that the order does not have, `KeyReused`, and `RightNeeded` if it is above the right of the
        person who requests it.
        """
        actor = Actor(request.user_id, request.actor)
        if request.lines is None:
            try:
                order = await self._orders.cancel(request.order_id, actor, sales, wait_s, request.reason)
            except CannotCancel:
                if await self._is_unpaid(request, sales):
                    raise
            else:
                return await self._view(order, None)
        elif await self._is_unpaid(request, sales):
            raise CannotCancel("cannot cancel units of an order that is not paid: cancel it whole and place another")
        async with self._db.transaction() as connection:
            cancellation_id = await self._cancel_units(connection, request, self._now())
        order = await self._orders.find(request.order_id, request.user_id, sales)
        return await self._view(order, cancellation_id)

    async def _is_unpaid(self, request: CancelRequest, sales: Sequence[str]) -> bool:
        return (await self._orders.find(request.order_id, request.user_id, sales)).status in _UNPAID

    async def _view(self, order: Order, cancellation_id: UUID | None) -> CancelledOrder:
        async with self._db.connection() as connection:
            id_ = cancellation_id or await store.find_latest(connection, order.order_id)
            cancellation = await store.get(connection, id_) if id_ else None
        return CancelledOrder(**msgspec.structs.asdict(order), cancellation=cancellation)

    async def _cancel_units(self, connection: Connection, request: CancelRequest, now: datetime) -> UUID:
        order = await self._lock_own(connection, request)
        if request.idempotency_key is not None:
            existing = await store.find_by_key(connection, order.order_id, request.actor, request.idempotency_key)
            if existing is not None:
                await _require_same(connection, request, *existing)
                return existing[0]
        units = await store.read_units(connection, order.order_id)
        cancellable = units.count_cancellable() if order.status in CANCELLABLE else {}
        if request.lines is None:
            lines = cancellable
            if not lines and (latest := await _find_open(connection, order.order_id)):
                return latest
            if not lines:
                raise CannotCancel(f"cannot cancel the order: it is {order.status}, {_what_to_do(order)}")
        else:
            if order.status not in CANCELLABLE:
                raise CannotCancel(f"cannot cancel units of the order: it is {order.status}, {_what_to_do(order)}")
            lines = choose_lines(units, cancellable, request)
        cause: Cause = "by_staff" if request.user_id is None else "by_customer"
        await _check_right(connection, order, lines, cause)
        new = NewCancellation(
            lines,
            cause,
            request.reason,
            request.actor,
            request.idempotency_key,
            is_whole=request.lines is None,
        )
        cancellation_id = await self._progress.open(connection, order.order_id, new, now)
        await self._progress.advance(connection, order, now)
        return cancellation_id

    async def _lock_own(self, connection: Connection, request: CancelRequest) -> OrderHeader:
        order = await orders.lock_order(connection, request.order_id)
        if order is None or request.user_id not in (None, order.user_id):
            raise NoSuchOrder(f"there is no stored order {request.order_id}, or it is not yours")
        return order

    async def preview(self, request: CancelRequest) -> CancellationPreview:
        """Return the effect that a cancellation would have now. Stores nothing. Raises as `cancel`."""
        async with self._db.snapshot() as connection:
            order = await orders.read_order_header(connection, request.order_id)
            if order is None or request.user_id not in (None, order.user_id):
                raise NoSuchOrder(f"there is no stored order {request.order_id}, or it is not yours")
            is_unpaid = order.status in _UNPAID
            if not is_unpaid and order.status not in CANCELLABLE:
                raise CannotCancel(f"cannot cancel the order: it is {order.status}, {_what_to_do(order)}")
            if is_unpaid and request.lines is not None:
                raise CannotCancel(
                    "cannot cancel units of an order that is not paid: cancel it whole and place another"
                )
            units = await store.read_units(connection, order.order_id)
            cancellable = units.count_cancellable()
            lines = cancellable if request.lines is None else choose_lines(units, cancellable, request)
            if not lines:
                raise CannotCancel(f"cannot cancel the order: it is {order.status}, {_what_to_do(order)}")
            refund = None
            if not is_unpaid:
                cause: Cause = "by_staff" if request.user_id is None else "by_customer"
                wanted = await make_grant_request(connection, order, lines, cause, request.reason, request.actor)
                if wanted.lines:
                    wanted = await withhold_earlier_amounts(connection, order, wanted, cause)
                    refund = await refunds.preview(connection, order, wanted)
        units.open_lines = [OpenLine(_PREVIEW_ID, "by_customer", key, quantity) for key, quantity in lines.items()]
        units.decide(self._undelivered.returned_shipments)
        return CancellationPreview(
            order_id=order.order_id,
            lines=[
                CancellationLine(*line.key, units.lines[line.key].sku, line.quantity, line.cancelled, line.kept)
                for line in units.open_lines
            ],
            shipments_to_stop=sum(shipment.booking_id is not None for shipment in units.to_stop.values()),
            refund=refund,
        )

    async def refund_shipment(self, shipment_id: UUID, reason: str, actor: str) -> Cancellation:
        """Cancel the units of a shipment that ended without a delivery, and refund them.

        Raises `NoSuchShipment`, and `NotUndelivered` if it has not ended so, or if all its units were sent again or
        cancelled."""
        async with self._db.transaction() as connection:
            order, shipment = await shipment_status.lock_shipment(connection, shipment_id)
            units = await store.read_units(connection, order.order_id)
            [each] = [each for each in units.shipments if each.shipment.shipment_id == shipment_id]
            lines = take_undecided(each, Counter(units.count_cancellable())) if each.is_undecided else {}
            if not lines:
                raise NotUndelivered(f"it is {shipment.status}, and none of its units wait for a decision")
            is_cash = bool(await payments.list_cash_due(connection, order.order_id))
            cause = find_cause(each, is_cash=is_cash)
            await _check_right(connection, order, lines, cause)
            new = NewCancellation(lines, cause, reason, actor)
            cancellation_id = await self._progress.open(connection, order.order_id, new, self._now())
            await self._progress.advance(connection, order, self._now())
            return await store.get(connection, cancellation_id)

    async def list_of_order(self, order_id: UUID) -> list[Cancellation]:
        """List the cancellations of an order, oldest first, for staff."""
        async with self._db.connection() as connection:
            return await store.list_of_order(connection, order_id)

    def _now(self) -> datetime:
        return from_ms(self._clock.now_ms())


async def _check_right(connection: Connection, order: OrderHeader, lines: dict[LineKey, int], cause: Cause) -> None:
    """Check the right to decide about the money of these units. Raises `RightNeeded`."""
    if find_decider() is None:
        return
    wanted = await make_grant_request(connection, order, lines, cause, "-", "-")
    if wanted.lines:
        value = await refunds.preview(connection, order, wanted)
        await refunds.check_decision(connection, order, value.amount)


async def _find_open(connection: Connection, order_id: UUID) -> UUID | None:
    id_ = await store.find_latest(connection, order_id)
    return id_ if id_ is not None and (await store.get(connection, id_)).status == "open" else None


async def _require_same(connection: Connection, request: CancelRequest, cancellation_id: UUID, is_whole: bool) -> None:
    """Raise `KeyReused` unless a request asks for the units of the cancellation that has its key."""
    cancellation = await store.get(connection, cancellation_id)
    stored = {(line.line_no, line.ship_to): line.quantity for line in cancellation.lines}
    if (request.lines is None) != is_whole or (request.lines is not None and _sum_lines(request) != stored):
        raise KeyReused("this Idempotency-Key belongs to a cancellation of other units: use a new key")


def _sum_lines(request: CancelRequest) -> Counter[LineKey]:
    wanted = Counter[LineKey]()
    for line in request.lines or ():
        wanted[line.line_no, line.ship_to] += line.quantity
    return wanted


def choose_lines(units: OrderContents, cancellable: dict[LineKey, int], request: CancelRequest) -> dict[LineKey, int]:
    """Return the requested units by line.

    Raises `Invalid` for a line that the order does not have, and `NotCancellable` for more units than may be cancelled.
    """
    wanted = _sum_lines(request)
    for number, line in enumerate(request.lines or ()):
        if (line.line_no, line.ship_to) not in units.lines:
            detail = f"the order has no line {line.line_no} for address {line.ship_to}"
            raise Invalid(f"/lines/{number}: {detail}", errors=[{"pointer": f"/lines/{number}", "detail": detail}])
    for (line_no, address_no), quantity in wanted.items():
        line_units, left = units.lines[line_no, address_no], cancellable.get((line_no, address_no), 0)
        if quantity > left:
            raise NotCancellable(
                f"cannot cancel {quantity} units of line {line_no} for address {address_no}: {left} of "
                f"{line_units.ordered} can be; {_explain_rest(units, (line_no, address_no))}"
            )
    return dict(wanted)


def _explain_rest(units: OrderContents, key: LineKey) -> str:
    line = units.lines[key]
    has_left = line.shipped > line.delivered or any(
        each.shipment.status is ShipmentStatus.BOOKED and not each.can_be_stopped and key in each.units
        for each in units.shipments
    )
    if has_left:
        return "a carrier has others: ask for a return when they are delivered"
    if line.delivered:
        return "others are delivered: ask for a return"
    return "the others are cancelled, or about to be"


def _what_to_do(order: OrderHeader) -> str:
    if order.status in (OrderStatus.DELIVERED, OrderStatus.COMPLETED):
        return "so ask for a return instead"
    if order.status is OrderStatus.CANCELLED:
        return "and nothing of it is left to cancel"
    return "and a carrier has all of it: ask for a return when it is delivered"
