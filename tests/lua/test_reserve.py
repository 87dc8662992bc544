"""Each outcome of reserve.lua, and that a refused order takes nothing."""

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


async def test_accepted_takes_all_lines_and_queues_the_order(shop: CliServices, sale_id: str, keys: SaleKeys) -> None:
    order = reservation(shop.ids.new, sale_id, {"a": 2, "b": 1})
    [answer] = await reserve(shop.redis, keys, order)
    assert answer.outcome is ReserveOutcome.ACCEPTED
    assert await stock(shop, keys) == {"a": 3, "b": 2}
    [entry] = [entry async for entry in lua.iter_stream(shop.redis, keys)]
    assert entry.id == answer.entry
    assert entry.orders == ((order.order_id.bytes, order.payload),)
    assert await lua.all_accepted(shop.redis, keys) == {order.order_id: "user"}


async def test_a_batch_is_one_stream_entry(shop: CliServices, sale_id: str, keys: SaleKeys) -> None:
    orders = [reservation(shop.ids.new, sale_id, {"b": 1}, user=f"u{n}") for n in range(4)]
    answers = await reserve(shop.redis, keys, *orders)
    assert [answer.outcome for answer in answers] == [ReserveOutcome.ACCEPTED] * 3 + [ReserveOutcome.SOLD_OUT]
    [entry] = [entry async for entry in lua.iter_stream(shop.redis, keys)]
    assert [field for field, _ in entry.orders] == [order.order_id.bytes for order in orders[:3]]


async def test_sold_out_takes_nothing_and_names_the_sku(shop: CliServices, sale_id: str, keys: SaleKeys) -> None:
    [answer] = await reserve(shop.redis, keys, reservation(shop.ids.new, sale_id, {"a": 1, "b": 4}))
    assert (answer.outcome, answer.sku) == (ReserveOutcome.SOLD_OUT, "b")
    assert await stock(shop, keys) == {"a": 5, "b": 3}
    assert await lua.buyers(shop.redis, keys) == {}
    assert await lua.all_accepted(shop.redis, keys) == {}


async def test_the_limit_counts_earlier_orders(shop: CliServices, sale_id: str, keys: SaleKeys) -> None:
    limits = {"a": 3}
    first, second, third = (reservation(shop.ids.new, sale_id, {"a": units}, limits=limits) for units in (2, 2, 1))
    answers = await reserve(shop.redis, keys, first, second, third)
    assert [answer.outcome for answer in answers] == [
        ReserveOutcome.ACCEPTED,
        ReserveOutcome.OVER_LIMIT,
        ReserveOutcome.ACCEPTED,
    ]
    assert answers[1].sku == "a"
    assert await lua.buyers(shop.redis, keys) == {b"user\0a": 3}
    [other] = await reserve(shop.redis, keys, reservation(shop.ids.new, sale_id, {"a": 2}, user="other", limits=limits))
    assert other.outcome is ReserveOutcome.ACCEPTED


async def test_one_sku_on_two_lines_is_added_up(shop: CliServices, sale_id: str, keys: SaleKeys) -> None:
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
    [answer] = await reserve(shop.redis, keys, twice)
    assert answer.outcome is ReserveOutcome.SOLD_OUT
    assert await stock(shop, keys) == {"a": 5, "b": 3}


async def test_replayed_gives_the_first_answer(shop: CliServices, sale_id: str, keys: SaleKeys) -> None:
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


async def test_replayed_within_one_batch(shop: CliServices, sale_id: str, keys: SaleKeys) -> None:
    orders = [reservation(shop.ids.new, sale_id, {"a": 1}, key="k") for _ in range(3)]
    answers = await reserve(shop.redis, keys, *orders)
    assert [answer.outcome for answer in answers] == [
        ReserveOutcome.ACCEPTED,
        ReserveOutcome.REPLAYED,
        ReserveOutcome.REPLAYED,
    ]
    assert {answer.entry for answer in answers} == {answers[0].entry}
    assert await stock(shop, keys) == {"a": 4, "b": 3}


async def test_key_reused_with_another_body(shop: CliServices, sale_id: str, keys: SaleKeys) -> None:
    first = reservation(shop.ids.new, sale_id, {"a": 1}, key="k")
    other = reservation(shop.ids.new, sale_id, {"a": 1}, key="k", digest=b"e" * 16)
    answers = await reserve(shop.redis, keys, first, other)
    assert [answer.outcome for answer in answers] == [ReserveOutcome.ACCEPTED, ReserveOutcome.KEY_REUSED]
    [later] = await reserve(shop.redis, keys, other)
    assert later.outcome is ReserveOutcome.KEY_REUSED


async def test_a_key_is_a_users_own(shop: CliServices, sale_id: str, keys: SaleKeys) -> None:
    orders = [reservation(shop.ids.new, sale_id, {"b": 1}, key="k", user=user) for user in ("u", "v")]
    answers = await reserve(shop.redis, keys, *orders)
    assert [answer.outcome for answer in answers] == [ReserveOutcome.ACCEPTED] * 2


async def test_a_refused_order_leaves_its_key_free(shop: CliServices, sale_id: str, keys: SaleKeys) -> None:
    await reserve(shop.redis, keys, reservation(shop.ids.new, sale_id, {"b": 4}, key="k"))
    [answer] = await reserve(shop.redis, keys, reservation(shop.ids.new, sale_id, {"b": 1}, key="k"))
    assert answer.outcome is ReserveOutcome.ACCEPTED


async def test_the_key_of_yesterday_is_known(shop: CliServices, sale_id: str, keys: SaleKeys) -> None:
    seconds, _ = await shop.redis.time()
    day = seconds * 1000 // DAY_MS
    order = reservation(shop.ids.new, sale_id, {"a": 1}, key="k")
    record = lua.KeyRecord(order.order_id, order.body_digest, 100, lua.EntryId((day - 1) * DAY_MS, 0))
    await lua.restore_key_records(shop.redis, keys, [("user", "k", record)])
    [answer] = await reserve(shop.redis, keys, order)
    assert answer.outcome is ReserveOutcome.REPLAYED


@pytest.mark.parametrize("off", [-1, 0, 1])
async def test_gateways_around_midnight_find_the_same_key(
    shop: CliServices, sale_id: str, keys: SaleKeys, off: int
) -> None:
    """Their clocks may be on either side of midnight; Redis's decides."""
    seconds, _ = await shop.redis.time()
    day = seconds * 1000 // DAY_MS
    order = reservation(shop.ids.new, sale_id, {"a": 1}, key="k")
    await reserve(shop.redis, keys, order, day=day + off)
    [answer] = await reserve(shop.redis, keys, order, day=day)
    assert answer.outcome is ReserveOutcome.REPLAYED


async def test_a_clock_that_is_days_off_is_not_ready(shop: CliServices, sale_id: str, keys: SaleKeys) -> None:
    seconds, _ = await shop.redis.time()
    for off in (-2, 2):
        order = reservation(shop.ids.new, sale_id, {"a": 1})
        [answer] = await reserve(shop.redis, keys, order, day=seconds * 1000 // DAY_MS + off)
        assert answer.outcome is ReserveOutcome.NOT_READY


async def test_stale_after_new_terms(shop: CliServices, sale_id: str, keys: SaleKeys) -> None:
    before = (await shop.sales.get(sale_id)).generation
    await shop.sales.change_item(sale_id, "a", 200, 3, "test")
    old = reservation(shop.ids.new, sale_id, {"a": 1}, generation=before)
    new = reservation(shop.ids.new, sale_id, {"a": 1}, generation=before + 1)
    answers = await reserve(shop.redis, keys, old, new)
    assert [answer.outcome for answer in answers] == [ReserveOutcome.STALE, ReserveOutcome.ACCEPTED]


async def test_a_wiped_redis_is_not_ready_rather_than_sold_out(shop: CliServices, sale_id: str, keys: SaleKeys) -> None:
    await shop.redis.delete(keys.meta)
    [answer] = await reserve(shop.redis, keys, reservation(shop.ids.new, sale_id, {"a": 1}))
    assert answer.outcome is ReserveOutcome.NOT_READY


async def test_lost_stock_is_not_ready_rather_than_sold_out(shop: CliServices, sale_id: str, keys: SaleKeys) -> None:
    await shop.redis.delete(keys.stock)
    [answer] = await reserve(shop.redis, keys, reservation(shop.ids.new, sale_id, {"a": 1}))
    assert answer.outcome is ReserveOutcome.NOT_READY


async def test_not_open_yet_says_when(shop: CliServices, sale_prefix: str) -> None:
    opens_at = from_ms(shop.clock.now_ms()) + timedelta(hours=1)
    keys = await make_sale(shop, f"{sale_prefix}-later", {"a": (5, 100, None)}, opens_at=opens_at)
    [answer] = await reserve(shop.redis, keys, reservation(shop.ids.new, f"{sale_prefix}-later", {"a": 1}))
    assert answer.outcome is ReserveOutcome.NOT_OPEN
    assert from_ms(answer.opens_ms) == opens_at


async def test_paused_and_open_again(shop: CliServices, sale_id: str, keys: SaleKeys) -> None:
    await shop.sales.pause(sale_id, "test")
    [answer] = await reserve(shop.redis, keys, reservation(shop.ids.new, sale_id, {"a": 1}))
    assert answer.outcome is ReserveOutcome.PAUSED
    await shop.sales.open(sale_id, "test")
    [answer] = await reserve(shop.redis, keys, reservation(shop.ids.new, sale_id, {"a": 1}))
    assert answer.outcome is ReserveOutcome.ACCEPTED


async def test_closed_by_command(shop: CliServices, sale_id: str, keys: SaleKeys) -> None:
    await shop.sales.close(sale_id, "test")
    [answer] = await reserve(shop.redis, keys, reservation(shop.ids.new, sale_id, {"a": 1}))
    assert answer.outcome is ReserveOutcome.CLOSED


async def test_closed_by_the_servers_clock(shop: CliServices, sale_id: str, keys: SaleKeys) -> None:
    sale = await shop.sales.get(sale_id)
    seconds, _ = await shop.redis.time()
    terms = SaleTerms(sale.epoch, sale.generation + 1, "open", seconds * 1000 - 2_000, seconds * 1000 - 1)
    assert await lua.publish(shop.redis, keys, terms) is lua.PublishOutcome.PUBLISHED
    [answer] = await reserve(shop.redis, keys, reservation(shop.ids.new, sale_id, {"a": 1}))
    assert answer.outcome is ReserveOutcome.CLOSED


async def test_a_replay_is_answered_after_closing(shop: CliServices, sale_id: str, keys: SaleKeys) -> None:
    order = reservation(shop.ids.new, sale_id, {"a": 1}, key="k")
    await reserve(shop.redis, keys, order)
    await shop.sales.close(sale_id, "test")
    [answer] = await reserve(shop.redis, keys, order)
    assert answer.outcome is ReserveOutcome.REPLAYED


async def test_an_order_of_a_thousand_lines_and_a_full_batch(shop: CliServices, sale_prefix: str) -> None:
    """More arguments than Lua's stack takes at once."""
    sale_id = f"{sale_prefix}-wide"
    items = {f"s{n}": (1_000, 10, 2) for n in range(1_000)}
    keys = await make_sale(shop, sale_id, items)
    limits = dict.fromkeys(items, 2)
    orders = [
        reservation(shop.ids.new, sale_id, dict.fromkeys(items, 1), user=f"u{n}", limits=limits) for n in range(16)
    ]
    answers = await reserve(shop.redis, keys, *orders)
    assert {answer.outcome for answer in answers} == {ReserveOutcome.ACCEPTED}
    assert set((await stock(shop, keys)).values()) == {984}
    assert len(await lua.buyers(shop.redis, keys)) == 16_000
