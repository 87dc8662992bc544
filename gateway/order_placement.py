"""Placement of one order: price it, reserve its stock, answer it or its repeat.

The ordinary endpoint and the fast path both use it, in the same sequence, so their answers cannot differ.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from uuid import UUID

from redis.asyncio import Redis

from commerce.coupons.errors import CouponUsedUp, OverCouponLimit
from commerce.kernel.clock import DAY_MS, Clock, from_ms
from commerce.kernel.coupon_skus import COUPON_PREFIX, is_coupon_sku, is_first_order_sku
from commerce.kernel.errors import Invalid, KeyReused, NotReady, ProblemError
from commerce.kernel.ids import IdGenerator
from commerce.kernel.money import Money
from commerce.kernel.redis_client import REDIS_UNAVAILABLE
from commerce.orders.errors import TotalChanged
from commerce.orders.model import PlacedOrder, PlaceOrder
from commerce.orders.pricing import OrderLimits, body_digest, price_order
from commerce.orders.service import Orders
from commerce.sales.errors import NoSuchSale, OverLimit, SaleClosed, SaleNotOpen, SalePaused, SoldOut
from commerce.sales.model import SALE_PATTERN, Sale, SaleSnapshot
from config.settings import LimitSettings, Settings
from gateway.auth import build_issued_codes
from gateway.new_customers import NewCustomers
from gateway.order_intake import OrderIntake, redis_unreachable
from gateway.sale_snapshots import SaleSnapshots
from gateway.visit_counts import VisitCounts
from lua import EntryId, KeyRecord, Reservation, ReserveOutcome, ReserveResult, SaleKeys, find_key_records, has_offer

ORDERS_PATH = "/v1/orders"
MAX_TRACEPARENT_CHARS = 64
_SALE_ID = re.compile(SALE_PATTERN)
_ACCEPTED = ReserveOutcome.ACCEPTED
_MAX_ATTEMPTS = 3


class NeedsSlowPath(Exception):
    """The order cannot be priced from memory; `OrderPlacement.place` finds out what to answer."""


class OrderPlacement:
    """Prices orders from memory and hands them to the intake."""

    def __init__(
        self,
        settings: Settings,
        clock: Clock,
        ids: IdGenerator,
        redis: Redis,
        snapshots: SaleSnapshots,
        intake: OrderIntake,
        orders: Orders,
        visits: VisitCounts,
    ) -> None:
        self._visits = visits
        self._durability = settings.durability
        self._clock = clock
        self._ids = ids
        self._redis = redis
        self._snapshots = snapshots
        self._intake = intake
        self.limits = order_limits(settings.limits)
        self.issued_codes = build_issued_codes(settings.auth)
        self._new_customers = NewCustomers(orders)
        self._last_deadline: tuple[tuple[int, int], datetime] = ((0, 0), from_ms(0))

    def price_from_memory(self, order: PlaceOrder, user_id: str, key: str, traceparent: str) -> Reservation:
        """Price an order from memory. Raises `NeedsSlowPath` if memory does not suffice."""
        snapshot = self._snapshots.cached(order.sale_id)
        if snapshot is None:
            raise NeedsSlowPath
        promotions, now_ms = snapshot.promotions, 0
        if promotions is not None:
            now_ms = self._clock.now_ms()
            if promotions.new_customer_ids and not self._new_customers.has_ordered(user_id):
                raise NeedsSlowPath
        try:
            return price_order(
                *(order, snapshot, self.limits, user_id, key, self._ids.new(), traceparent),
                now_ms=now_ms,
                codes=self.issued_codes,
            )
        except Invalid:
            raise NeedsSlowPath from None

    async def is_repeat(self, sale_id: str, user_id: str, key: str) -> bool:
        """Tell whether a user's key is known in a sale. Raises `NotReady` if Redis does not answer."""
        day = self._clock.now_ms() // DAY_MS
        try:
            [record] = await find_key_records(self._redis, [SaleKeys(sale_id)], day, user_id, key)
        except REDIS_UNAVAILABLE:
            raise redis_unreachable() from None
        return record is not None

    async def is_offered(self, order: PlaceOrder, user_id: str) -> bool:
        """Tell whether the wait-list offers the only SKU of an order to its customer, who needs no turn then.

        Raises `NotReady` if Redis does not answer.
        """
        sku = find_only_sku(order)
        try:
            return bool(sku) and await has_offer(self._redis, SaleKeys(order.sale_id), user_id, sku)
        except REDIS_UNAVAILABLE:
            raise redis_unreachable() from None

    async def find_total(self, order: PlaceOrder, user_id: str) -> Money:
        """Return the present total of an order. Raises `Invalid` as placing it would."""
        reservation = await self._price(order, user_id, "total", "")
        return Money(reservation.total_minor, (await self._snapshots.get(order.sale_id)).sale.currency)

    async def place(
        self, order: PlaceOrder, user_id: str, key: str, traceparent: str, expected_total: int | None = None
    ) -> tuple[PlacedOrder, int]:
        """Place an order. Returns the answer and its status: 202, or 200 for a repeat. Raises the refusal.

        With `expected_total` in minor units no order is placed at another one: `TotalChanged`.
        """
        for _ in range(_MAX_ATTEMPTS):
            refusal: ProblemError | None = None
            try:
                reservation = await self._price(order, user_id, key, traceparent)
                if expected_total is not None and reservation.total_minor != expected_total:
                    raise TotalChanged(
                        f"the total is {reservation.total_minor} now, and not {expected_total}; nothing was reserved: "
                        "ask for a new quote and confirm it"
                    )
            except (Invalid, TotalChanged) as error:
                refusal = error
            if refusal is not None:
                if record := await self._find_replay(order, user_id, key):
                    return self.replayed_result(order.sale_id, record)
                raise refusal
            reserved = await self._intake.place(order.sale_id, reservation)
            if reserved.outcome is ReserveOutcome.STALE:
                await self._snapshots.refresh()
            elif reserved.outcome is ReserveOutcome.OVER_LIMIT and is_first_order_sku(reserved.sku):
                self._new_customers.add(user_id)  # another first order was faster; this one has no discount of them
            else:
                return self.result_of(order.sale_id, reservation, reserved)
        raise problem_for_outcome(reserved, order.sale_id)

    def result_of(self, sale_id: str, reservation: Reservation, reserved: ReserveResult) -> tuple[PlacedOrder, int]:
        """Return the answer to an order that Redis has decided, and its status. Raises the refusal."""
        if reserved.outcome is _ACCEPTED and reserved.entry is not None:
            return self._placed(sale_id, reservation.order_id, reservation.total_minor, reserved.entry), 202
        if reserved.outcome is ReserveOutcome.REPLAYED and reserved.record is not None:
            return self.replayed_result(sale_id, reserved.record)
        if reserved.outcome is ReserveOutcome.SOLD_OUT:
            self._visits.note_sold_out(sale_id, reserved.sku)
        raise problem_for_outcome(reserved, sale_id)

    def replayed_result(self, sale_id: str, record: KeyRecord) -> tuple[PlacedOrder, int]:
        """Return the first answer again, with the status of a repeat."""
        return self._placed(sale_id, record.order_id, record.total_minor, record.entry), 200

    async def _price(self, order: PlaceOrder, user_id: str, key: str, traceparent: str) -> Reservation:
        if not _SALE_ID.fullmatch(order.sale_id):
            detail = "not the id of a sale"
            raise Invalid(f"/sale_id: {detail}", errors=[{"pointer": "/sale_id", "detail": detail}])
        snapshot = await self._snapshots.get(order.sale_id)
        is_new = await self.is_new_customer(snapshot, user_id)
        return price_order(
            *(order, snapshot, self.limits, user_id, key, self._ids.new(), traceparent),
            now_ms=self._clock.now_ms(),
            is_new_customer=is_new,
            codes=self.issued_codes,
        )

    async def is_new_customer(self, snapshot: SaleSnapshot, user_id: str) -> bool:
        """Tell whether a customer has no order yet, if a promotion of the sale depends on it; else False.

        A guest, whose id is an empty text, has none.
        """
        promotions = snapshot.promotions
        if promotions is None or not promotions.new_customer_ids:
            return False
        return not user_id or await self._new_customers.is_new(user_id)

    async def _find_replay(self, order: PlaceOrder, user_id: str, key: str) -> KeyRecord | None:
        """Find the record of an order that was accepted on terms that have changed since.

        Raises `KeyReused` if the key belongs to an order with other content.
        """
        if self._snapshots.cached(order.sale_id) is None:
            return None
        day = self._clock.now_ms() // DAY_MS
        try:
            [record] = await find_key_records(self._redis, [SaleKeys(order.sale_id)], day, user_id, key)
        except REDIS_UNAVAILABLE:
            raise redis_unreachable() from None
        if record is not None and record.body_digest != body_digest(order):
            raise problem_for_outcome(ReserveResult(ReserveOutcome.KEY_REUSED), order.sale_id)
        return record

    def _placed(self, sale_id: str, order_id: UUID, total_minor: int, entry: EntryId) -> PlacedOrder:
        snapshot = self._snapshots.cached(sale_id)
        if snapshot is None:
            raise NoSuchSale(f"there is no sale {sale_id!r}")
        sale = snapshot.sale
        total = Money(total_minor, sale.currency)
        return PlacedOrder(
            order_id, "accepted", sale.sale_id, total, self._payment_deadline(entry, sale), self._durability
        )

    def _payment_deadline(self, entry: EntryId, sale: Sale) -> datetime:
        """Return the moment by which the order must be paid; computed once per batch, whose orders share it."""
        batch, deadline = self._last_deadline
        if batch != (entry.ms, sale.pay_within_s):
            deadline = from_ms(entry.ms) + timedelta(seconds=sale.pay_within_s)
            self._last_deadline = ((entry.ms, sale.pay_within_s), deadline)
        return deadline


def find_only_sku(order: PlaceOrder) -> str:
    """Return the SKU of an order for one SKU, an empty text for others."""
    sku = order.lines[0].sku if order.lines else ""
    return sku if all(line.sku == sku for line in order.lines) else ""


def problem_for_outcome(reserved: ReserveResult, sale_id: str) -> ProblemError:
    """Build the refusal for an outcome that is neither accepted nor replayed."""
    match reserved.outcome:
        case ReserveOutcome.KEY_REUSED:
            return KeyReused("this Idempotency-Key belongs to an order with other content: use a new key")
        case ReserveOutcome.NOT_OPEN:
            opens_at = from_ms(reserved.opens_ms)
            text = opens_at.strftime("%Y-%m-%dT%H:%M:%SZ")
            return SaleNotOpen(f"{sale_id} opens at {text}", opens_at=text)
        case ReserveOutcome.PAUSED:
            return SalePaused(f"{sale_id} takes no orders at the moment; try again later")
        case ReserveOutcome.CLOSED:
            return SaleClosed(f"{sale_id} takes no more orders")
        case ReserveOutcome.SOLD_OUT | ReserveOutcome.OVER_LIMIT if is_coupon_sku(reserved.sku):
            return _problem_of_coupon(reserved)
        case ReserveOutcome.SOLD_OUT:
            return SoldOut(f"fewer units of {reserved.sku} are left; nothing was reserved", sku=reserved.sku)
        case ReserveOutcome.OVER_LIMIT:
            detail = f"the limit per user for {reserved.sku} is exceeded, earlier orders included; nothing was reserved"
            return OverLimit(detail, sku=reserved.sku)
        case _:
            return NotReady(f"{sale_id} is being loaded; repeat with the same key in a moment")


def _problem_of_coupon(reserved: ReserveResult) -> ProblemError:
    code = reserved.sku.removeprefix(COUPON_PREFIX)
    if reserved.outcome is ReserveOutcome.SOLD_OUT:
        return CouponUsedUp(f"the coupon {code} is used up; nothing was reserved: order without it", coupon=code)
    detail = f"you have used the coupon {code} before, as often as you can; nothing was reserved: order without it"
    return OverCouponLimit(detail, coupon=code)


def order_limits(limits: LimitSettings) -> OrderLimits:
    return OrderLimits(
        *(limits.lines_per_order, limits.addresses_per_order, limits.payments_per_order),
        *(limits.coupons_per_order, limits.quantity_per_line),
    )
