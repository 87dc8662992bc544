"""retake.lua: each outcome, that a repeat gives the same, and that all of an order is taken again or nothing."""

from __future__ import annotations

import random
from collections import Counter
from uuid import uuid4

import pytest

import lua
from commerce.kernel.clock import DAY_MS
from lua import Reacquire, ReacquireOutcome, ReacquireResult, Release, ReserveOutcome, SaleKeys
from ops.services import CliServices
from tests.support.sales import make_sale, reservation, reserve


@pytest.fixture
async def keys(shop: CliServices, sale_id: str) -> SaleKeys:
    return await make_sale(shop, sale_id, {"a": (5, 100, 3), "b": (3, 50, None)})


async def released_order(
    shop: CliServices, sale_id: str, keys: SaleKeys, units: dict[str, int], user: str = "user"
) -> Reacquire:
    """An order whose goods went back, and what would take them again."""
    order = reservation(shop.ids.new, sale_id, units, user=user, limits={"a": 3})
    [answer] = await reserve(shop.redis, keys, order)
    assert answer.outcome is ReserveOutcome.ACCEPTED
    now = shop.clock.now_ms()
    await lua.release(shop.redis, keys, [Release(order.order_id, now, user, units)])
    limits = {"a": 3}
    return Reacquire(shop.ids.new(), now, user, {sku: (count, limits.get(sku, 0)) for sku, count in units.items()})


async def state(shop: CliServices, keys: SaleKeys) -> tuple[dict[str, int], dict[bytes, int]]:
    return (await lua.cut(shop.redis, keys)).stock, await lua.buyers(shop.redis, keys)


async def test_applied_takes_stock_and_limit_again(shop: CliServices, sale_id: str, keys: SaleKeys) -> None:
    item = await released_order(shop, sale_id, keys, {"a": 2, "b": 1})
    epoch = (await shop.sales.get(sale_id)).epoch
    assert await lua.reacquire(shop.redis, keys, item) == ReacquireResult(epoch, ReacquireOutcome.APPLIED, 2)
    assert await state(shop, keys) == ({"a": 3, "b": 2}, {b"user\0a": 2})
    assert (await lua.cut(shop.redis, keys)).change_seq == 2


async def test_a_repeat_takes_nothing_more(shop: CliServices, sale_id: str, keys: SaleKeys) -> None:
    item = await released_order(shop, sale_id, keys, {"a": 2, "b": 1})
    first = await lua.reacquire(shop.redis, keys, item)
    before = await state(shop, keys)
    for _ in range(3):
        again = await lua.reacquire(shop.redis, keys, item)
        assert again == ReacquireResult(first.epoch, ReacquireOutcome.ALREADY_APPLIED, first.seq)
    assert await state(shop, keys) == before


async def test_all_of_it_or_nothing(shop: CliServices, sale_id: str, keys: SaleKeys) -> None:
    """The last SKU is short, so the ones before it stay where they are."""
    item = await released_order(shop, sale_id, keys, {"a": 2, "b": 2})
    await reserve(shop.redis, keys, reservation(shop.ids.new, sale_id, {"b": 2}, user="other"))
    before = await state(shop, keys)
    assert (await lua.reacquire(shop.redis, keys, item))[1:] == (ReacquireOutcome.REFUSED, 0)
    assert await state(shop, keys) == before == ({"a": 5, "b": 1}, {})
    assert (await lua.cut(shop.redis, keys)).change_seq == 1, "a refusal is no change of the stock"


async def test_a_refusal_stays_one_though_there_is_more_by_now(shop: CliServices, sale_id: str, keys: SaleKeys) -> None:
    """The money is on its way back by then: goods that are taken on a repeat would belong to nobody."""
    item = await released_order(shop, sale_id, keys, {"a": 3})
    await reserve(shop.redis, keys, reservation(shop.ids.new, sale_id, {"a": 3}, user="other", limits={"a": 3}))
    assert (await lua.reacquire(shop.redis, keys, item)).outcome is ReacquireOutcome.REFUSED
    await lua.change_stock(shop.redis, keys, uuid4(), shop.clock.now_ms(), "a", 10)
    before = await state(shop, keys)
    assert (await lua.reacquire(shop.redis, keys, item))[1:] == (ReacquireOutcome.REFUSED, 0)
    assert await state(shop, keys) == before
    assert await lua.change_seqs(shop.redis, keys, [(item.reacquire_id, item.created_ms)]) == [-1]


async def test_the_limit_holds(shop: CliServices, sale_id: str, keys: SaleKeys) -> None:
    """P4: meanwhile the user bought others."""
    item = await released_order(shop, sale_id, keys, {"a": 2})
    await reserve(shop.redis, keys, reservation(shop.ids.new, sale_id, {"a": 2}, limits={"a": 3}))
    before = await state(shop, keys)
    assert (await lua.reacquire(shop.redis, keys, item)).outcome is ReacquireOutcome.REFUSED
    assert await state(shop, keys) == before == ({"a": 3, "b": 3}, {b"user\0a": 2})


async def test_up_to_the_limit_is_within_it(shop: CliServices, sale_id: str, keys: SaleKeys) -> None:
    item = await released_order(shop, sale_id, keys, {"a": 2})
    await reserve(shop.redis, keys, reservation(shop.ids.new, sale_id, {"a": 1}, limits={"a": 3}))
    assert (await lua.reacquire(shop.redis, keys, item)).outcome is ReacquireOutcome.APPLIED
    assert await state(shop, keys) == ({"a": 2, "b": 3}, {b"user\0a": 3})


async def test_the_last_units(shop: CliServices, sale_id: str, keys: SaleKeys) -> None:
    """As many as are left are enough, and a SKU that the sale does not have is short."""
    item = await released_order(shop, sale_id, keys, {"b": 3})
    assert (await lua.reacquire(shop.redis, keys, item)).outcome is ReacquireOutcome.APPLIED
    assert (await lua.cut(shop.redis, keys)).stock["b"] == 0
    strange = Reacquire(uuid4(), item.created_ms, "user", {"a": (1, 3), "z": (1, 0)})
    assert (await lua.reacquire(shop.redis, keys, strange)).outcome is ReacquireOutcome.REFUSED
    assert await state(shop, keys) == ({"a": 5, "b": 0}, {})


async def test_a_wiped_redis_says_that_it_is_not_ready(shop: CliServices, sale_id: str, keys: SaleKeys) -> None:
    """Never that it refuses, which would send the money back; and it remembers nothing of being asked."""
    item = await released_order(shop, sale_id, keys, {"a": 2})
    await lua.unload(shop.redis, keys, shop.clock.now_ms() // DAY_MS)
    assert await lua.reacquire(shop.redis, keys, item) == ReacquireResult(0, ReacquireOutcome.NOT_READY, 0)
    wiped = [keys.meta, keys.stock, keys.buyers, keys.changes(item.created_ms // DAY_MS)]
    await shop.redis.delete(*wiped)
    assert await lua.reacquire(shop.redis, keys, item) == ReacquireResult(0, ReacquireOutcome.NOT_READY, 0)
    assert await shop.redis.exists(*wiped) == 0


async def test_too_old_to_know_takes_nothing(shop: CliServices, sale_id: str, keys: SaleKeys) -> None:
    now = shop.clock.now_ms()
    young = Reacquire(uuid4(), now - 7 * DAY_MS, "user", {"a": (1, 3)})
    assert (await lua.reacquire(shop.redis, keys, young)).outcome is ReacquireOutcome.APPLIED
    before = await state(shop, keys)
    old = Reacquire(uuid4(), now - 8 * DAY_MS, "user", {"a": (1, 3)})
    assert (await lua.reacquire(shop.redis, keys, old))[1:] == (ReacquireOutcome.TOO_OLD, 0)
    assert await state(shop, keys) == before


@pytest.mark.parametrize("taken", [True, False])
async def test_what_is_remembered_is_forgotten_after_eight_days(
    shop: CliServices, sale_id: str, keys: SaleKeys, taken: bool
) -> None:
    """Kept exactly as long as the script trusts it, a refusal too."""
    item = await released_order(shop, sale_id, keys, {"a": 1})
    day = item.created_ms // DAY_MS - 2  # of its own, so that no release has set when this key ends
    older = Reacquire(item.reacquire_id, day * DAY_MS, "user", {"a": (1 if taken else 6, 0)})
    outcome = (await lua.reacquire(shop.redis, keys, older)).outcome
    assert outcome is (ReacquireOutcome.APPLIED if taken else ReacquireOutcome.REFUSED)
    left_ms = await shop.redis.pttl(keys.changes(day).decode())
    assert abs(shop.clock.now_ms() + left_ms - (day + 8) * DAY_MS) < 10_000


async def test_reserve_release_and_retake_keep_the_sums(shop: CliServices, sale_id: str) -> None:
    """P1, P4: in any order, each maybe repeated, what is taken and what is free is what there was at first."""
    keys = await make_sale(shop, sale_id, {"a": (12, 100, 4), "b": (9, 50, None)})
    dice = random.Random(11)
    held: list[Reacquire] = []
    back: list[Reacquire] = []
    seen: Counter[ReacquireOutcome] = Counter()
    for _ in range(80):
        now, user = shop.clock.now_ms(), dice.choice("uvw")
        units = {"a": dice.randint(1, 2), "b": dice.randint(1, 3)}
        order = reservation(shop.ids.new, sale_id, units, user=user, limits={"a": 4})
        if (await reserve(shop.redis, keys, order))[0].outcome is ReserveOutcome.ACCEPTED:
            held.append(Reacquire(order.order_id, now, user, {"a": (units["a"], 4), "b": (units["b"], 0)}))
        if held:
            gone = held.pop(dice.randrange(len(held)))
            counts = {sku: count for sku, (count, _) in gone.units.items()}
            release = Release(gone.reacquire_id, gone.created_ms, gone.user_id, counts)
            await lua.release(shop.redis, keys, [release] * dice.randint(1, 2))
            back.append(Reacquire(shop.ids.new(), now, gone.user_id, gone.units))
        if back and dice.random() < 0.6:
            item = back.pop(dice.randrange(len(back)))
            outcomes = [(await lua.reacquire(shop.redis, keys, item)).outcome for _ in range(dice.randint(1, 3))]
            seen[outcomes[0]] += 1
            if outcomes[0] is ReacquireOutcome.APPLIED:
                assert set(outcomes[1:]) <= {ReacquireOutcome.ALREADY_APPLIED}
                # It may go back once more, under another id, as a new order would.
                held.append(Reacquire(shop.ids.new(), now, item.user_id, item.units))
            else:
                assert set(outcomes) == {ReacquireOutcome.REFUSED}
        taken: Counter[str] = Counter()
        bought: Counter[bytes] = Counter()
        for one in held:
            taken.update({sku: count for sku, (count, _) in one.units.items()})
            bought[f"{one.user_id}\0a".encode()] += one.units["a"][0]
        assert await state(shop, keys) == ({"a": 12 - taken["a"], "b": 9 - taken["b"]}, dict(bought))
        assert max(bought.values(), default=0) <= 4
    assert min(seen[ReacquireOutcome.APPLIED], seen[ReacquireOutcome.REFUSED]) > 5, seen
