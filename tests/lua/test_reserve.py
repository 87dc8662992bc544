"""reserve.lua: each outcome, and that a refused order takes nothing."""

from __future__ import annotations

from datetime import timedelta

import pytest

import lua
from commerce.kernel.clock import DAY_MS, from_ms
from lua import ReserveOutcome, SaleKeys, SaleTerms
from ops.services import CliServices
from tests.support.sales import make_sale, reservation, reserve


@pytest.fixture
async def keys(shop: CliServices, sale_id: str) -> SaleKeys:
    return await make_sale(shop, sale_id, {"a": (5, 100, 3), "b": (3, 50, None)})


async def stock(shop: CliServices, keys: SaleKeys) -> dict[str, int]:
    return (await lua.cut(shop.redis, keys)).stock


async def test_reserve_accepted_takes_all_lines_and_queues_order(
    shop: CliServices, sale_id: str, keys: SaleKeys
) -> None:
    order = reservation(shop.ids.new, sale_id, {"a": 2, "b": 1})
    [result] = await reserve(shop.redis, keys, order)
    assert result.outcome is ReserveOutcome.ACCEPTED
    assert await stock(shop, keys) == {"a": 3, "b": 2}
    [entry] = [entry async for entry in lua.iter_stream(shop.redis, keys)]
    assert entry.id == result.entry
    assert entry.orders == ((order.order_id.bytes, order.payload),)
    assert await lua.read_all_accepted(shop.redis, keys) == {order.order_id: "user"}


async def test_reserve_batch_writes_one_stream_entry(shop: CliServices, sale_id: str, keys: SaleKeys) -> None:
    orders = [reservation(shop.ids.new, sale_id, {"b": 1}, user=f"u{n}") for n in range(4)]
    results = await reserve(shop.redis, keys, *orders)
    assert [result.outcome for result in results] == [ReserveOutcome.ACCEPTED] * 3 + [ReserveOutcome.SOLD_OUT]
    [entry] = [entry async for entry in lua.iter_stream(shop.redis, keys)]
    assert [field for field, _ in entry.orders] == [order.order_id.bytes for order in orders[:3]]


async def test_reserve_sold_out_takes_nothing_and_names_sku(shop: CliServices, sale_id: str, keys: SaleKeys) -> None:
    [result] = await reserve(shop.redis, keys, reservation(shop.ids.new, sale_id, {"a": 1, "b": 4}))
    assert (result.outcome, result.sku) == (ReserveOutcome.SOLD_OUT, "b")
    assert await stock(shop, keys) == {"a": 5, "b": 3}
    assert await lua.read_units_taken(shop.redis, keys) == {}
    assert await lua.read_all_accepted(shop.redis, keys) == {}


async def test_reserve_limit_counts_earlier_orders(shop: CliServices, sale_id: str, keys: SaleKeys) -> None:
    limits = {"a": 3}
    first, second, third = (reservation(shop.ids.new, sale_id, {"a": units}, limits=limits) for units in (2, 2, 1))
    results = await reserve(shop.redis, keys, first, second, third)
    assert [result.outcome for result in results] == [
        ReserveOutcome.ACCEPTED,
        ReserveOutcome.OVER_LIMIT,
        ReserveOutcome.ACCEPTED,
    ]
    assert results[1].sku == "a"
    assert await lua.read_units_taken(shop.redis, keys) == {b"user\0a": 3}
    [other] = await reserve(shop.redis, keys, reservation(shop.ids.new, sale_id, {"a": 2}, user="other", limits=limits))
    assert other.outcome is ReserveOutcome.ACCEPTED


async def test_reserve_sku_on_two_lines_is_added_up(shop: CliServices, sale_id: str, keys: SaleKeys) -> None:
    order = reservation(shop.ids.new, sale_id, {"b": 2})
    twice = lua.Reservation(
        order.generation,
        order.user_id,
        order.idempotency_key,
        order.order_id,
        order.body_digest,
        order.total_minor,
        order.payload,
        [("b", 2, 0), ("b", 2, 0)],
    )
    [result] = await reserve(shop.redis, keys, twice)
    assert result.outcome is ReserveOutcome.SOLD_OUT
    assert await stock(shop, keys) == {"a": 5, "b": 3}


async def test_reserve_replayed_returns_first_record(shop: CliServices, sale_id: str, keys: SaleKeys) -> None:
    first = reservation(shop.ids.new, sale_id, {"a": 1}, key="k")
    again = reservation(shop.ids.new, sale_id, {"a": 1}, key="k")
    [accepted] = await reserve(shop.redis, keys, first)
    [replayed] = await reserve(shop.redis, keys, again)
    assert replayed.outcome is ReserveOutcome.REPLAYED
    assert replayed.record is not None
    assert replayed.record.order_id == first.order_id
    assert replayed.record.total_minor == first.total_minor
    assert replayed.record.entry == accepted.entry
    assert await stock(shop, keys) == {"a": 4, "b": 3}


async def test_reserve_replayed_within_batch_takes_stock_once(shop: CliServices, sale_id: str, keys: SaleKeys) -> None:
    orders = [reservation(shop.ids.new, sale_id, {"a": 1}, key="k") for _ in range(3)]
    results = await reserve(shop.redis, keys, *orders)
    assert [result.outcome for result in results] == [
        ReserveOutcome.ACCEPTED,
        ReserveOutcome.REPLAYED,
        ReserveOutcome.REPLAYED,
    ]
    assert {result.entry for result in results} == {results[0].entry}
    assert await stock(shop, keys) == {"a": 4, "b": 3}


async def test_reserve_key_with_other_body_is_key_reused(shop: CliServices, sale_id: str, keys: SaleKeys) -> None:
    first = reservation(shop.ids.new, sale_id, {"a": 1}, key="k")
    other = reservation(shop.ids.new, sale_id, {"a": 1}, key="k", digest=b"e" * 16)
    results = await reserve(shop.redis, keys, first, other)
    assert [result.outcome for result in results] == [ReserveOutcome.ACCEPTED, ReserveOutcome.KEY_REUSED]
    [later] = await reserve(shop.redis, keys, other)
    assert later.outcome is ReserveOutcome.KEY_REUSED


async def test_reserve_key_of_two_users_accepts_both(shop: CliServices, sale_id: str, keys: SaleKeys) -> None:
    orders = [reservation(shop.ids.new, sale_id, {"b": 1}, key="k", user=user) for user in ("u", "v")]
    results = await reserve(shop.redis, keys, *orders)
    assert [result.outcome for result in results] == [ReserveOutcome.ACCEPTED] * 2


async def test_reserve_refused_order_leaves_key_free(shop: CliServices, sale_id: str, keys: SaleKeys) -> None:
    await reserve(shop.redis, keys, reservation(shop.ids.new, sale_id, {"b": 4}, key="k"))
    [result] = await reserve(shop.redis, keys, reservation(shop.ids.new, sale_id, {"b": 1}, key="k"))
    assert result.outcome is ReserveOutcome.ACCEPTED


async def test_reserve_with_key_of_yesterday_is_replayed(shop: CliServices, sale_id: str, keys: SaleKeys) -> None:
    seconds, _ = await shop.redis.time()
    day = seconds * 1000 // DAY_MS
    order = reservation(shop.ids.new, sale_id, {"a": 1}, key="k")
    record = lua.KeyRecord(order.order_id, order.body_digest, 100, lua.EntryId((day - 1) * DAY_MS, 0))
    await lua.restore_key_records(shop.redis, keys, [("user", "k", record)])
    [result] = await reserve(shop.redis, keys, order)
    assert result.outcome is ReserveOutcome.REPLAYED


@pytest.mark.parametrize("off", [-1, 0, 1])
async def test_reserve_around_midnight_finds_same_key(
    shop: CliServices, sale_id: str, keys: SaleKeys, off: int
) -> None:
    """The gateways' clocks may be on either side of midnight; Redis's clock decides."""
    seconds, _ = await shop.redis.time()
    day = seconds * 1000 // DAY_MS
    order = reservation(shop.ids.new, sale_id, {"a": 1}, key="k")
    await reserve(shop.redis, keys, order, day=day + off)
    [result] = await reserve(shop.redis, keys, order, day=day)
    assert result.outcome is ReserveOutcome.REPLAYED


async def test_reserve_with_clock_days_off_is_not_ready(shop: CliServices, sale_id: str, keys: SaleKeys) -> None:
    seconds, _ = await shop.redis.time()
    for off in (-2, 2):
        order = reservation(shop.ids.new, sale_id, {"a": 1})
        [result] = await reserve(shop.redis, keys, order, day=seconds * 1000 // DAY_MS + off)
        assert result.outcome is ReserveOutcome.NOT_READY


async def test_reserve_with_old_generation_is_stale(shop: CliServices, sale_id: str, keys: SaleKeys) -> None:
    before = (await shop.sales.get(sale_id)).generation
    await shop.sales.change_item(sale_id, "a", 200, 3, "test")
    old = reservation(shop.ids.new, sale_id, {"a": 1}, generation=before)
    new = reservation(shop.ids.new, sale_id, {"a": 1}, generation=before + 1)
    results = await reserve(shop.redis, keys, old, new)
    assert [result.outcome for result in results] == [ReserveOutcome.STALE, ReserveOutcome.ACCEPTED]


async def test_reserve_in_wiped_redis_is_not_ready_rather_than_sold_out(
    shop: CliServices, sale_id: str, keys: SaleKeys
) -> None:
    await shop.redis.delete(keys.meta)
    [result] = await reserve(shop.redis, keys, reservation(shop.ids.new, sale_id, {"a": 1}))
    assert result.outcome is ReserveOutcome.NOT_READY


async def test_reserve_with_lost_stock_is_not_ready_rather_than_sold_out(
    shop: CliServices, sale_id: str, keys: SaleKeys
) -> None:
    await shop.redis.delete(keys.stock)
    [result] = await reserve(shop.redis, keys, reservation(shop.ids.new, sale_id, {"a": 1}))
    assert result.outcome is ReserveOutcome.NOT_READY


async def test_reserve_before_opening_returns_opening_time(shop: CliServices, sale_prefix: str) -> None:
    opens_at = from_ms(shop.clock.now_ms()) + timedelta(hours=1)
    keys = await make_sale(shop, f"{sale_prefix}-later", {"a": (5, 100, None)}, opens_at=opens_at)
    [result] = await reserve(shop.redis, keys, reservation(shop.ids.new, f"{sale_prefix}-later", {"a": 1}))
    assert result.outcome is ReserveOutcome.NOT_OPEN
    assert from_ms(result.opens_ms) == opens_at


async def test_reserve_paused_and_reopened_is_refused_then_accepted(
    shop: CliServices, sale_id: str, keys: SaleKeys
) -> None:
    await shop.sales.pause(sale_id, "test")
    [result] = await reserve(shop.redis, keys, reservation(shop.ids.new, sale_id, {"a": 1}))
    assert result.outcome is ReserveOutcome.PAUSED
    await shop.sales.open(sale_id, "test")
    [result] = await reserve(shop.redis, keys, reservation(shop.ids.new, sale_id, {"a": 1}))
    assert result.outcome is ReserveOutcome.ACCEPTED


async def test_reserve_in_closed_sale_is_closed(shop: CliServices, sale_id: str, keys: SaleKeys) -> None:
    await shop.sales.close(sale_id, "test")
    [result] = await reserve(shop.redis, keys, reservation(shop.ids.new, sale_id, {"a": 1}))
    assert result.outcome is ReserveOutcome.CLOSED


async def test_reserve_after_closing_time_of_server_clock_is_closed(
    shop: CliServices, sale_id: str, keys: SaleKeys
) -> None:
    sale = await shop.sales.get(sale_id)
    seconds, _ = await shop.redis.time()
    terms = SaleTerms(sale.epoch, sale.generation + 1, "open", seconds * 1000 - 2_000, seconds * 1000 - 1)
    assert await lua.publish(shop.redis, keys, terms) is lua.PublishOutcome.PUBLISHED
    [result] = await reserve(shop.redis, keys, reservation(shop.ids.new, sale_id, {"a": 1}))
    assert result.outcome is ReserveOutcome.CLOSED


async def test_reserve_replay_after_closing_is_replayed(shop: CliServices, sale_id: str, keys: SaleKeys) -> None:
    order = reservation(shop.ids.new, sale_id, {"a": 1}, key="k")
    await reserve(shop.redis, keys, order)
    await shop.sales.close(sale_id, "test")
    [result] = await reserve(shop.redis, keys, order)
    assert result.outcome is ReserveOutcome.REPLAYED


async def test_reserve_batch_of_thousand_line_orders_is_accepted(shop: CliServices, sale_prefix: str) -> None:
    """The batch has more arguments than fit on Lua's stack at once."""
    sale_id = f"{sale_prefix}-wide"
    items = {f"s{n}": (1_000, 10, 2) for n in range(1_000)}
    keys = await make_sale(shop, sale_id, items)
    limits = dict.fromkeys(items, 2)
    orders = [
        reservation(shop.ids.new, sale_id, dict.fromkeys(items, 1), user=f"u{n}", limits=limits) for n in range(16)
    ]
    results = await reserve(shop.redis, keys, *orders)
    assert {result.outcome for result in results} == {ReserveOutcome.ACCEPTED}
    assert set((await stock(shop, keys)).values()) == {984}
    assert len(await lua.read_units_taken(shop.redis, keys)) == 16_000
