"""reacquire.lua: each outcome, its repeat, and that it takes all units of an order or none."""

from __future__ import annotations

import random
from collections import Counter
from uuid import uuid4

import pytest

import lua
from commerce.kernel.clock import DAY_MS
from lua import ReacquireOutcome, ReacquireResult, Reacquisition, Release, ReserveOutcome, SaleKeys
from ops.services import CliServices
from tests.support.sales import make_sale, reservation, reserve


@pytest.fixture
async def keys(shop: CliServices, sale_id: str) -> SaleKeys:
    return await make_sale(shop, sale_id, {"a": (5, 100, 3), "b": (3, 50, None)})


async def released_order(
    shop: CliServices, sale_id: str, keys: SaleKeys, units: dict[str, int], user: str = "user"
) -> Reacquisition:
    """Place and release an order; return the request to reacquire its stock."""
    order = reservation(shop.ids.new, sale_id, units, user=user, limits={"a": 3})
    [result] = await reserve(shop.redis, keys, order)
    assert result.outcome is ReserveOutcome.ACCEPTED
    now = shop.clock.now_ms()
    await lua.release(shop.redis, keys, [Release(order.order_id, now, user, units)])
    limits = {"a": 3}
    return Reacquisition(shop.ids.new(), now, user, {sku: (count, limits.get(sku, 0)) for sku, count in units.items()})


async def state(shop: CliServices, keys: SaleKeys) -> tuple[dict[str, int], dict[bytes, int]]:
    return (await lua.cut(shop.redis, keys)).stock, await lua.read_units_taken(shop.redis, keys)


async def test_reacquire_applied_takes_stock_and_limit(shop: CliServices, sale_id: str, keys: SaleKeys) -> None:
    request = await released_order(shop, sale_id, keys, {"a": 2, "b": 1})
    epoch = (await shop.sales.get(sale_id)).epoch
    assert await lua.reacquire(shop.redis, keys, request) == ReacquireResult(epoch, ReacquireOutcome.APPLIED, 2)
    assert await state(shop, keys) == ({"a": 3, "b": 2}, {b"user\0a": 2})
    assert (await lua.cut(shop.redis, keys)).change_seq == 2


async def test_reacquire_repeated_takes_nothing_more(shop: CliServices, sale_id: str, keys: SaleKeys) -> None:
    request = await released_order(shop, sale_id, keys, {"a": 2, "b": 1})
    first = await lua.reacquire(shop.redis, keys, request)
    before = await state(shop, keys)
    for _ in range(3):
        again = await lua.reacquire(shop.redis, keys, request)
        assert again == ReacquireResult(first.epoch, ReacquireOutcome.ALREADY_APPLIED, first.seq)
    assert await state(shop, keys) == before


async def test_reacquire_with_short_sku_takes_nothing(shop: CliServices, sale_id: str, keys: SaleKeys) -> None:
    """Only the last SKU is short."""
    request = await released_order(shop, sale_id, keys, {"a": 2, "b": 2})
    await reserve(shop.redis, keys, reservation(shop.ids.new, sale_id, {"b": 2}, user="other"))
    before = await state(shop, keys)
    assert (await lua.reacquire(shop.redis, keys, request))[1:] == (ReacquireOutcome.REFUSED, 0)
    assert await state(shop, keys) == before == ({"a": 5, "b": 1}, {})
    assert (await lua.cut(shop.redis, keys)).change_seq == 1, "a refusal changes no stock"


async def test_reacquire_repeated_after_refusal_is_refused_despite_new_stock(
    shop: CliServices, sale_id: str, keys: SaleKeys
) -> None:
    """By then the order is being refunded: units taken on a repeat would belong to no order."""
    request = await released_order(shop, sale_id, keys, {"a": 3})
    await reserve(shop.redis, keys, reservation(shop.ids.new, sale_id, {"a": 3}, user="other", limits={"a": 3}))
    assert (await lua.reacquire(shop.redis, keys, request)).outcome is ReacquireOutcome.REFUSED
    await lua.change_stock(shop.redis, keys, uuid4(), shop.clock.now_ms(), "a", 10)
    before = await state(shop, keys)
    assert (await lua.reacquire(shop.redis, keys, request))[1:] == (ReacquireOutcome.REFUSED, 0)
    assert await state(shop, keys) == before
    assert await lua.read_change_seqs(shop.redis, keys, [(request.reacquire_id, request.created_ms)]) == [-1]


async def test_reacquire_over_limit_is_refused(shop: CliServices, sale_id: str, keys: SaleKeys) -> None:
    """P4: the user has bought more units meanwhile."""
    request = await released_order(shop, sale_id, keys, {"a": 2})
    await reserve(shop.redis, keys, reservation(shop.ids.new, sale_id, {"a": 2}, limits={"a": 3}))
    before = await state(shop, keys)
    assert (await lua.reacquire(shop.redis, keys, request)).outcome is ReacquireOutcome.REFUSED
    assert await state(shop, keys) == before == ({"a": 3, "b": 3}, {b"user\0a": 2})


async def test_reacquire_up_to_limit_is_applied(shop: CliServices, sale_id: str, keys: SaleKeys) -> None:
    request = await released_order(shop, sale_id, keys, {"a": 2})
    await reserve(shop.redis, keys, reservation(shop.ids.new, sale_id, {"a": 1}, limits={"a": 3}))
    assert (await lua.reacquire(shop.redis, keys, request)).outcome is ReacquireOutcome.APPLIED
    assert await state(shop, keys) == ({"a": 2, "b": 3}, {b"user\0a": 3})


async def test_reacquire_of_last_units_is_applied_and_of_unknown_sku_refused(
    shop: CliServices, sale_id: str, keys: SaleKeys
) -> None:
    """A SKU that the sale does not have counts as short."""
    request = await released_order(shop, sale_id, keys, {"b": 3})
    assert (await lua.reacquire(shop.redis, keys, request)).outcome is ReacquireOutcome.APPLIED
    assert (await lua.cut(shop.redis, keys)).stock["b"] == 0
    unknown_sku = Reacquisition(uuid4(), request.created_ms, "user", {"a": (1, 3), "z": (1, 0)})
    assert (await lua.reacquire(shop.redis, keys, unknown_sku)).outcome is ReacquireOutcome.REFUSED
    assert await state(shop, keys) == ({"a": 5, "b": 0}, {})


async def test_reacquire_in_wiped_redis_is_not_ready_and_writes_nothing(
    shop: CliServices, sale_id: str, keys: SaleKeys
) -> None:
    """A refusal would refund the order. Nothing of the call may be kept."""
    request = await released_order(shop, sale_id, keys, {"a": 2})
    await lua.unload(shop.redis, keys, shop.clock.now_ms() // DAY_MS)
    assert await lua.reacquire(shop.redis, keys, request) == ReacquireResult(0, ReacquireOutcome.NOT_READY, 0)
    wiped = [keys.meta, keys.stock, keys.buyers, keys.changes(request.created_ms // DAY_MS)]
    await shop.redis.delete(*wiped)
    assert await lua.reacquire(shop.redis, keys, request) == ReacquireResult(0, ReacquireOutcome.NOT_READY, 0)
    assert await shop.redis.exists(*wiped) == 0


async def test_reacquire_after_dedup_days_is_too_old_and_takes_nothing(
    shop: CliServices, sale_id: str, keys: SaleKeys
) -> None:
    now = shop.clock.now_ms()
    recent = Reacquisition(uuid4(), now - 7 * DAY_MS, "user", {"a": (1, 3)})
    assert (await lua.reacquire(shop.redis, keys, recent)).outcome is ReacquireOutcome.APPLIED
    before = await state(shop, keys)
    old = Reacquisition(uuid4(), now - 8 * DAY_MS, "user", {"a": (1, 3)})
    assert (await lua.reacquire(shop.redis, keys, old))[1:] == (ReacquireOutcome.TOO_OLD, 0)
    assert await state(shop, keys) == before


@pytest.mark.parametrize("taken", [True, False])
async def test_reacquire_outcome_expires_after_dedup_days(
    shop: CliServices, sale_id: str, keys: SaleKeys, taken: bool
) -> None:
    """Applied and refused ids are kept exactly as long as the script relies on them."""
    request = await released_order(shop, sale_id, keys, {"a": 1})
    day = request.created_ms // DAY_MS - 2  # a day of its own: no release has set the expiry of its key
    older = Reacquisition(request.reacquire_id, day * DAY_MS, "user", {"a": (1 if taken else 6, 0)})
    outcome = (await lua.reacquire(shop.redis, keys, older)).outcome
    assert outcome is (ReacquireOutcome.APPLIED if taken else ReacquireOutcome.REFUSED)
    left_ms = await shop.redis.pttl(keys.changes(day).decode())
    assert abs(shop.clock.now_ms() + left_ms - (day + 8) * DAY_MS) < 10_000


async def test_random_reserve_release_and_reacquire_keep_sums_and_limits(shop: CliServices, sale_id: str) -> None:
    """P1, P4: in any sequence and with repeats, taken and free units add up to the initial stock."""
    keys = await make_sale(shop, sale_id, {"a": (12, 100, 4), "b": (9, 50, None)})
    rng = random.Random(11)
    held: list[Reacquisition] = []
    released: list[Reacquisition] = []
    outcome_counts: Counter[ReacquireOutcome] = Counter()
    for _ in range(80):
        now, user = shop.clock.now_ms(), rng.choice("uvw")
        units = {"a": rng.randint(1, 2), "b": rng.randint(1, 3)}
        order = reservation(shop.ids.new, sale_id, units, user=user, limits={"a": 4})
        if (await reserve(shop.redis, keys, order))[0].outcome is ReserveOutcome.ACCEPTED:
            held.append(Reacquisition(order.order_id, now, user, {"a": (units["a"], 4), "b": (units["b"], 0)}))
        if held:
            order_to_release = held.pop(rng.randrange(len(held)))
            counts = {sku: count for sku, (count, _) in order_to_release.units.items()}
            release = Release(
                order_to_release.reacquire_id, order_to_release.created_ms, order_to_release.user_id, counts
            )
            await lua.release(shop.redis, keys, [release] * rng.randint(1, 2))
            released.append(Reacquisition(shop.ids.new(), now, order_to_release.user_id, order_to_release.units))
        if released and rng.random() < 0.6:
            request = released.pop(rng.randrange(len(released)))
            outcomes = [(await lua.reacquire(shop.redis, keys, request)).outcome for _ in range(rng.randint(1, 3))]
            outcome_counts[outcomes[0]] += 1
            if outcomes[0] is ReacquireOutcome.APPLIED:
                assert set(outcomes[1:]) <= {ReacquireOutcome.ALREADY_APPLIED}
                # It may be released again under another id, as a new order would.
                held.append(Reacquisition(shop.ids.new(), now, request.user_id, request.units))
            else:
                assert set(outcomes) == {ReacquireOutcome.REFUSED}
        taken: Counter[str] = Counter()
        bought: Counter[bytes] = Counter()
        for held_order in held:
            taken.update({sku: count for sku, (count, _) in held_order.units.items()})
            bought[f"{held_order.user_id}\0a".encode()] += held_order.units["a"][0]
        assert await state(shop, keys) == ({"a": 12 - taken["a"], "b": 9 - taken["b"]}, dict(bought))
        assert max(bought.values(), default=0) <= 4
    assert min(outcome_counts[ReacquireOutcome.APPLIED], outcome_counts[ReacquireOutcome.REFUSED]) > 5, outcome_counts
