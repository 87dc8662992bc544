"""Makes what tests need in a shop, and waits for conditions."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime, timedelta
from itertools import count
from typing import Any, TypeVar
from uuid import UUID

from redis.asyncio import Redis

import lua
from commerce.catalog.model import ProductInput
from commerce.kernel.clock import DAY_MS, from_ms
from commerce.kernel.stream_payload import AcceptedLine, AcceptedOrder, encode_accepted
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
    """A sale with items by SKU: (units, price, limit)."""
    await shop.catalog.put_many(
        [(sku, ProductInput(f"thing {sku}", price, CURRENCY)) for sku, (_, price, _) in items.items()]
    )
    opens_at = opens_at or from_ms(shop.clock.now_ms()) - timedelta(seconds=1)
    offered = [(sku, ItemInput(limit_per_user=limit, units=units)) for sku, (units, _, limit) in items.items()]
    made = SaleInput(sale_id, "A sale", CURRENCY, opens_at, closes_at, pay_within_s)
    await shop.sales.create(made, offered, "test")
    if opened:
        await shop.sales.open(sale_id, "test")
    return SaleKeys(sale_id)


def order_body(sale_id: str, *lines: tuple[str, int], **more: Any) -> dict[str, Any]:
    """What a client sends."""
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
    """An order as the intake hands it to Redis, with a payload that the writer can read."""
    order_id = order_id or ids()
    key = key or f"key-{next(_numbers)}"
    total = price * sum(units.values())
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
        lines=[AcceptedLine(number, 0, sku, quantity, price) for number, (sku, quantity) in enumerate(units.items())],
    )
    lines = [(sku, quantity, (limits or {}).get(sku, 0)) for sku, quantity in units.items()]
    return Reservation(generation, user, key, order_id, digest, total, encode_accepted(accepted), lines)


async def reserve(
    redis: Redis, keys: SaleKeys, *orders: Reservation, day: int | None = None
) -> list[lua.ReserveResult]:
    """Reserve a batch by the server's own day."""
    seconds, _ = await redis.time()
    return await lua.reserve(redis, keys, day if day is not None else seconds * 1000 // DAY_MS, orders)


async def eventually(look: Callable[[], Awaitable[Value]], timeout_s: float = 15) -> Value:
    """Wait for a condition: until `look` gives something true."""
    deadline = asyncio.get_running_loop().time() + timeout_s
    while not (found := await look()):
        if asyncio.get_running_loop().time() > deadline:
            raise AssertionError(f"not within {timeout_s} s: {look}, the last look gave {found!r}")
        await asyncio.sleep(0.01)
    return found


async def expire_all(shop: CliServices) -> None:
    """Make the time to pay over for every order that waits for it."""
    async with shop.db.connection() as connection:
        await connection.execute(
            "UPDATE orders SET accepted_at = accepted_at - interval '1 day', pay_by = now() - interval '1 second' "
            "WHERE status = 'awaiting_payment'"
        )
