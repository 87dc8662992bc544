"""Places the orders that replace returned units: priced by the sale and accepted by Redis.

An order is placed under an idempotency key and an id of its case, so a repeat after a crash finds it.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress

from redis.asyncio import Redis

import lua
from commerce.exchanges import store
from commerce.exchanges.model import EXCHANGE, Replacement, ReplacementPrice, WantedItem, WantedLine
from commerce.kernel.clock import DAY_MS, Clock, to_ms
from commerce.kernel.errors import NotReady
from commerce.kernel.postgres import Connection, Database
from commerce.kernel.redis_client import REDIS_UNAVAILABLE
from commerce.kernel.stream_payload import AcceptedDiscount, AcceptedLine, AcceptedOrder, PriceParts, encode_accepted
from commerce.orders import store as orders
from commerce.orders.store import OrderHeader
from commerce.sales import store as sales
from commerce.sales.errors import NoSuchItem, OverLimit, SaleClosed, SaleNotOpen, SalePaused, SoldOut
from commerce.sales.model import Sale, SaleState
from lua import Reservation, ReserveOutcome, SaleKeys

_INSTEAD = "ask for a return in place of the exchange"
_REFUSALS = {
    ReserveOutcome.SOLD_OUT: "it is sold out",
    ReserveOutcome.OVER_LIMIT: "the customer has reached the limit",
    ReserveOutcome.CLOSED: "the sale is over",
    ReserveOutcome.PAUSED: "the sale is paused",
    ReserveOutcome.NOT_OPEN: "the sale is not open",
    ReserveOutcome.KEY_REUSED: "the customer has used its key for another order",
}
"""outcomes that are final: the units are refunded instead"""


class ReplacementOrders:
    """Prices and places replacements."""

    def __init__(self, db: Database, redis: Redis, clock: Clock) -> None:
        self._db = db
        self._redis = redis
        self._clock = clock

    async def check(
        self, order: OrderHeader, lines: Sequence[WantedLine], credit_minor: int, returned: Counter[str]
    ) -> ReplacementPrice:
        """Check that a replacement could be placed now, and return its price. Reserves nothing.

        `returned` units by SKU, those of the exchange, free the customer's limit before. Raises `NoSuchItem`,
        `SaleClosed`, `SalePaused`, `SaleNotOpen`, `SoldOut` and `OverLimit`, all with what to do.
        """
        async with self._db.connection() as connection:
            sale = await sales.get(connection, order.sale_id)
            _, items = await store.list_wanted_items(connection, order.sale_id, [line.sku for line in lines])
        _check_sale(sale, order.sale_id, self._clock.now_ms())
        units = _sum_units(lines)
        for sku in units:
            if sku not in items:
                raise NoSuchItem(f"{order.sale_id} does not offer {sku}: choose another SKU, or {_INSTEAD}")
        with suppress(*REDIS_UNAVAILABLE):  # nobody knows now; it is decided when it is placed
            await self._check_units(order, units, items, returned)
        return ReplacementPrice(_sum_price(lines, items), credit_minor)

    async def _check_units(
        self, order: OrderHeader, units: Counter[str], items: dict[str, WantedItem], returned: Counter[str]
    ) -> None:
        keys = SaleKeys(order.sale_id)
        free = await lua.read_units_free(self._redis, keys, list(units))
        fields = [lua.buyer_field(order.user_id, sku) for sku in units]
        taken = await lua.read_units_taken_by(self._redis, keys, fields)
        for (sku, count), left, bought in zip(units.items(), free, taken, strict=True):
            if left is not None and left < count:
                raise SoldOut(f"{left} units of {sku} are left: choose another SKU, or {_INSTEAD}", sku=sku)
            limit = items[sku].user_limit
            if limit and bought - returned[sku] + count > limit:
                raise OverLimit(f"one customer may buy {limit} of {sku}: take fewer, or {_INSTEAD}", sku=sku)

    async def place(self, order: OrderHeader, replacement: Replacement) -> str | None:
        """Place a replacement, once. Returns the reason if it is refused, else None.

        Raises `NotReady` if nobody can decide now: then repeat.
        """
        exchange = replacement.exchange
        for _ in range(3):
            async with self._db.connection() as connection:
                if await orders.find_existing(connection, [exchange.replacement_id]):
                    return None
                reservation = await self._price(connection, order, replacement)
            if reservation is None:
                return "the sale does not offer it any more"
            day = self._clock.now_ms() // DAY_MS
            try:
                [result] = await lua.reserve(self._redis, SaleKeys(order.sale_id), day, [reservation])
            except REDIS_UNAVAILABLE as error:
                raise NotReady(f"cannot place the replacement: Redis: {error}") from None
            if result.outcome in (ReserveOutcome.ACCEPTED, ReserveOutcome.REPLAYED):
                return None
            if reason := _REFUSALS.get(result.outcome):
                return f"{reason} ({result.sku})" if result.sku else reason
        raise NotReady("cannot place the replacement: the sale is being loaded or changed")

    async def _price(self, connection: Connection, order: OrderHeader, replacement: Replacement) -> Reservation | None:
        exchange, wanted = replacement.exchange, replacement.lines
        generation, items = await store.list_wanted_items(connection, order.sale_id, [line.sku for line in wanted])
        ship_to = await store.read_address_texts(connection, order.order_id)
        if any(line.sku not in items for line in wanted):
            return None
        price = ReplacementPrice(_sum_price(wanted, items), exchange.credit_minor)
        key, digest = f"exchange {exchange.case_id}", _digest(exchange.case_id.bytes, wanted)
        accepted = AcceptedOrder(
            order_id=exchange.replacement_id,
            user_id=order.user_id,
            idempotency_key=key,
            body_digest=digest,
            sale_id=order.sale_id,
            generation=generation,
            currency=order.total.currency,
            total_minor=price.to_pay_minor,
            pay_within_s=replacement.pay_within_s,
            ship_to=ship_to,
            payments="[]",
            lines=_discount_lines(wanted, items, price),
            parts=_price_parts(order, price),
        )
        units = [(sku, count, items[sku].user_limit) for sku, count in _sum_units(wanted).items()]
        payload = encode_accepted(accepted)
        values = (generation, order.user_id, key, exchange.replacement_id, digest, price.to_pay_minor)
        return Reservation(*values, payload, units)


def _check_sale(sale: Sale | None, sale_id: str, now_ms: int) -> None:
    if sale is None or sale.state is SaleState.CLOSED or (sale.closes_at and to_ms(sale.closes_at) <= now_ms):
        raise SaleClosed(f"{sale_id} sells nothing any more: {_INSTEAD}")
    if sale.state is SaleState.PAUSED:
        raise SalePaused(f"{sale_id} is paused: try again later, or {_INSTEAD}")
    if to_ms(sale.opens_at) > now_ms:
        raise SaleNotOpen(f"{sale_id} is not open yet: {_INSTEAD}")


def _sum_units(lines: Sequence[WantedLine]) -> Counter[str]:
    units = Counter[str]()
    for line in lines:
        units[line.sku] += line.quantity
    return units


def _sum_price(lines: Sequence[WantedLine], items: dict[str, WantedItem]) -> int:
    return sum(line.quantity * items[line.sku].price_minor for line in lines)


def _discount_lines(
    wanted: Sequence[WantedLine], items: dict[str, WantedItem], price: ReplacementPrice
) -> list[AcceptedLine]:
    """Share the discount out over the lines by their prices, so that it adds up."""
    lines, before, counted = [], 0, 0
    for number, (sku, quantity, address_no) in enumerate(wanted):
        item = items[sku]
        counted += quantity * item.price_minor
        after = price.discount_minor * counted // price.price_minor if price.price_minor else 0
        lines.append(
            AcceptedLine(number, address_no, sku, quantity, item.price_minor, item.list_price_minor, after - before)
        )
        before = after
    return lines


def _price_parts(order: OrderHeader, price: ReplacementPrice) -> PriceParts | None:
    if not price.discount_minor:
        return None
    label = f"in exchange for units of order {order.order_id}"
    return PriceParts(discounts=[AcceptedDiscount(EXCHANGE, label, price.discount_minor)])


def _digest(case_id: bytes, wanted: Sequence[WantedLine]) -> bytes:
    """Return the digest of an order's content, which is the same however its price changes."""
    content = "\n".join(f"{sku} {quantity} {address_no}" for sku, quantity, address_no in wanted).encode()
    return hashlib.blake2b(case_id + content, digest_size=16).digest()
