"""Sales, order bodies and reservations for tests, and waiting for conditions."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime, timedelta
from itertools import count
from typing import Any, TypeVar
from uuid import UUID

from redis.asyncio import Redis

import lua
from commerce.catalog.model import VariantInput
from commerce.kernel.clock import DAY_MS, from_ms
from commerce.kernel.coupon_skus import COUPON_PREFIX, is_coupon_sku
from commerce.kernel.stream_payload import AcceptedLine, AcceptedOrder, PriceParts, encode_accepted
from commerce.sales.model import ItemInput, SaleInput
from lua import Reservation, SaleKeys
from ops.services import CliServices

Value = TypeVar("Value")
_numbers = count()
CURRENCY = "CNY"
ADDRESS = {
    "name": "Zhang San",
    "phone": "13800000000",
    "country": "CN",
    "province": "Zhejiang",
    "city": "Hangzhou",
    "district": "Xihu",
    "line": "Wenyi West Road 969",
    "postcode": "310000",
}


async def make_sale(
    shop: CliServices,
    sale_id: str,
    items: Mapping[str, tuple[int, int, int | None]],
    *,
    opens_at: datetime | None = None,
    closes_at: datetime | None = None,
    pay_within_s: int = 900,
    opened: bool = True,
) -> SaleKeys:
    """Create products and a sale, and open it unless `opened` is false.

    `items` maps SKUs to (units, price in minor units, limit per user)."""
    await shop.catalog.put_many(
        [(sku, VariantInput(f"thing {sku}", price, CURRENCY)) for sku, (_, price, _) in items.items()]
    )
    opens_at = opens_at or from_ms(shop.clock.now_ms()) - timedelta(seconds=1)
    items_input = [(sku, ItemInput(limit_per_user=limit, units=units)) for sku, (units, _, limit) in items.items()]
    sale = SaleInput(sale_id, "A sale", CURRENCY, opens_at, closes_at, pay_within_s)
    await shop.sales.create(sale, items_input, "test")
    if opened:
        await shop.sales.open(sale_id, "test")
    return SaleKeys(sale_id)


def order_body(sale_id: str, *lines: tuple[str, int], **more: Any) -> dict[str, Any]:
    """Build the body of an order with lines (SKU, quantity)."""
    return {
        "sale_id": sale_id,
        "lines": [{"sku": sku, "quantity": quantity} for sku, quantity in lines],
        "ship_to": [ADDRESS],
        **more,
    }


def reservation(
    ids: Callable[[], UUID],
    sale_id: str,
    units: Mapping[str, int],
    *,
    user: str = "user",
    key: str | None = None,
    limits: Mapping[str, int] | None = None,
    digest: bytes = b"d" * 16,
    generation: int = 100,
    price: int = 100,
    order_id: UUID | None = None,
) -> Reservation:
    """Build an order as the order intake sends it to Redis, with a payload that the writer can read.

    Of `units`, the SKUs of coupons are no lines and cost nothing.
    """
    order_id = order_id or ids()
    key = key or f"key-{next(_numbers)}"
    products = {sku: quantity for sku, quantity in units.items() if not is_coupon_sku(sku)}
    coupons = [sku.removeprefix(COUPON_PREFIX) for sku in units if is_coupon_sku(sku)]
    total = price * sum(products.values())
    accepted = AcceptedOrder(
        order_id=order_id,
        user_id=user,
        idempotency_key=key,
        body_digest=digest,
        sale_id=sale_id,
        generation=generation,
        currency=CURRENCY,
        total_minor=total,
        pay_within_s=900,
        ship_to="[]",
        payments="[]",
        lines=[
            AcceptedLine(number, 0, sku, quantity, price) for number, (sku, quantity) in enumerate(products.items())
        ],
        parts=PriceParts(coupons=coupons) if coupons else None,
    )
    lines = [(sku, quantity, (limits or {}).get(sku, 0)) for sku, quantity in units.items()]
    return Reservation(generation, user, key, order_id, digest, total, encode_accepted(accepted), lines)


async def reserve(
    redis: Redis, keys: SaleKeys, *orders: Reservation, day: int | None = None
) -> list[lua.ReserveResult]:
    """Reserve a batch, by default on the current day of the Redis server."""
    seconds, _ = await redis.time()
    return await lua.reserve(redis, keys, day if day is not None else seconds * 1000 // DAY_MS, orders)


async def eventually(condition: Callable[[], Awaitable[Value]], timeout_s: float = 40) -> Value:
    """Poll a condition until its result is true, and return this result.

    Raises `AssertionError` after `timeout_s`."""
    deadline = asyncio.get_running_loop().time() + timeout_s
    while not (result := await condition()):
        if asyncio.get_running_loop().time() > deadline:
            raise AssertionError(f"not within {timeout_s} s: {condition}, the last result was {result!r}")
        await asyncio.sleep(0.01)
    return result


async def expire_all(shop: CliServices) -> None:
    """End the time to pay of every unpaid order."""
    async with shop.db.connection() as connection:
        await connection.execute(
            "UPDATE orders SET accepted_at = accepted_at - interval '1 day', pay_by = now() - interval '1 second' "
            "WHERE status = 'awaiting_payment'"
        )
