"""Entries of the stream: packed by `reserve.lua`, or a field per order as before."""

from __future__ import annotations

from uuid import uuid4

import lua
from lua import ReserveOutcome
from lua.keys import GROUP
from ops.services import CliServices
from tests.support.sales import make_sale, reservation, reserve


async def test_entry_has_payloads_of_accepted_orders_only(shop: CliServices, sale_id: str) -> None:
    keys = await make_sale(shop, sale_id, {"a": (3, 100, None)})
    orders = [
        reservation(shop.ids.new, sale_id, {"a": units}, user=f"u{number}")
        for number, units in enumerate((5, 1, 4, 2, 1))
    ]
    results = await reserve(shop.redis, keys, *orders)
    accepted = [result.outcome is ReserveOutcome.ACCEPTED for result in results]
    assert accepted == [False, True, False, True, False]
    [entry] = [entry async for entry in lua.iter_stream(shop.redis, keys)]
    assert entry.orders == tuple((orders[number].order_id.bytes, orders[number].payload) for number in (1, 3))


async def test_entries_of_earlier_releases_are_read_with_new_ones(shop: CliServices, sale_id: str) -> None:
    keys = await make_sale(shop, sale_id, {"a": (3, 100, None)})
    earlier = {uuid4().bytes: b"first", uuid4().bytes: b"second"}
    await shop.redis.xadd(keys.orders, earlier)  # type: ignore[arg-type]
    order = reservation(shop.ids.new, sale_id, {"a": 1})
    await reserve(shop.redis, keys, order)
    packed = ((order.order_id.bytes, order.payload),)
    entries = await lua.read_new(shop.redis, keys, "writer", 10, 10)
    assert [entry.orders for entry in entries] == [tuple(earlier.items()), packed]
    await shop.redis.xgroup_delconsumer(keys.orders, GROUP, "writer")
    orphans = await lua.claim_orphans(shop.redis, keys, "other", 10)
    assert [entry.orders for entry in orphans] == [tuple(earlier.items()), packed]


async def test_cut_off_payloads_come_as_orders_that_cannot_be_decoded(shop: CliServices, sale_id: str) -> None:
    keys = await make_sale(shop, sale_id, {"a": (3, 100, None)})
    order_id = uuid4().bytes
    whole = order_id + (5).to_bytes(4) + b"whole"
    for packed in (whole + order_id, whole + order_id + b"\0\0", whole + order_id + (9).to_bytes(4) + b"cut"):
        await shop.redis.xadd(keys.orders, {b"orders": packed})
    entries = await lua.read_new(shop.redis, keys, "writer", 10, 10)
    assert [entry.orders for entry in entries] == [
        ((order_id, b"whole"), (order_id, rest)) for rest in (b"", b"", b"cut")
    ]
