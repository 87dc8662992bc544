"""Scripts of wait-lists: units that are held back, offered, taken, withdrawn, put on sale."""

from __future__ import annotations

import pytest

import lua
from commerce.kernel.clock import DAY_MS
from lua import (
    EntryId,
    OfferOutcome,
    OfferResult,
    PublishOutcome,
    Recheck,
    ReserveOutcome,
    SaleKeys,
    SaleTerms,
    UnitOffer,
    WithdrawOutcome,
    buyer_field,
    idempotency_field,
)
from ops.services import CliServices
from tests.support.sales import reservation, reserve

ACCEPTED, SOLD_OUT, OVER_LIMIT = ReserveOutcome.ACCEPTED, ReserveOutcome.SOLD_OUT, ReserveOutcome.OVER_LIMIT


def _terms(shop: CliServices, epoch: int, *, has_wait_list: bool = True) -> SaleTerms:
    return SaleTerms(epoch, epoch, "open", shop.clock.now_ms() - 1_000, None, has_wait_list)


def _offer(shop: CliServices, user: str, sku: str, units: int, *, is_over: bool = False) -> UnitOffer:
    return UnitOffer(shop.ids.new(), shop.ids.new(), shop.clock.now_ms(), user, sku, units, is_over)


@pytest.fixture
async def keys(shop: CliServices, sale_id: str) -> SaleKeys:
    """A sale with units of `b` only; 5 of `a` are held back, and 2 are offered to `ann`."""
    keys = SaleKeys(sale_id)
    offers = {buyer_field("ann", "a"): 2}
    stock, held_back = [("a", 0), ("b", 3)], [("a", 5)]
    await lua.load(shop.redis, keys, _terms(shop, 1), stock, [], EntryId(0, 1), held_back, offers.items())
    return keys


async def _units(shop: CliServices, keys: SaleKeys) -> tuple[int, int, int, int]:
    """Return the free units of `a` and `b`, and those of `a` that are held back and offered."""
    cut = await lua.cut(shop.redis, keys)
    return cut.stock["a"], cut.stock["b"], cut.held_back.get("a", 0), cut.offered.get("a", 0)


async def test_order_of_holder_takes_lines_from_offer_and_stock(
    shop: CliServices, sale_id: str, keys: SaleKeys
) -> None:
    new = shop.ids.new
    results = await reserve(
        shop.redis,
        keys,
        reservation(new, sale_id, {"a": 1}, user="ben"),
        reservation(new, sale_id, {"a": 1, "b": 2}, user="ann"),
        reservation(new, sale_id, {"a": 2}, user="ann"),
        reservation(new, sale_id, {"a": 1, "b": 2}, user="ann"),  # too few of b: what it takes of a is put back
        reservation(new, sale_id, {"a": 1}, user="ann", limits={"a": 1}, key="k"),
        reservation(new, sale_id, {"a": 1}, user="ann"),
        reservation(new, sale_id, {"b": 1}, user="ben"),
    )
    assert [result.outcome for result in results] == [
        SOLD_OUT,
        ACCEPTED,
        SOLD_OUT,
        SOLD_OUT,
        ACCEPTED,
        SOLD_OUT,
        ACCEPTED,
    ]
    assert [result.sku for result in results if result.sku] == ["a", "a", "b", "a"]
    assert await _units(shop, keys) == (0, 0, 5, 0)
    assert not await shop.redis.exists(keys.offers)


async def test_limit_holds_for_offered_units(shop: CliServices, sale_id: str, keys: SaleKeys) -> None:
    orders = [reservation(shop.ids.new, sale_id, {"a": 1}, user="ann", limits={"a": 1}) for _ in range(2)]
    assert [result.outcome for result in await reserve(shop.redis, keys, *orders)] == [ACCEPTED, OVER_LIMIT]
    assert await _units(shop, keys) == (0, 3, 5, 1)


async def test_replay_takes_nothing_from_offer(shop: CliServices, sale_id: str, keys: SaleKeys) -> None:
    order = reservation(shop.ids.new, sale_id, {"a": 1}, user="ann", key="k")
    first, second = await reserve(shop.redis, keys, order, order)
    [third] = await reserve(shop.redis, keys, order)
    assert [result.outcome for result in (first, second, third)] == [ACCEPTED, *[ReserveOutcome.REPLAYED] * 2]
    assert await _units(shop, keys) == (0, 3, 5, 1)


async def test_offers_are_applied_and_withdrawn_once(shop: CliServices, keys: SaleKeys) -> None:
    big, small = _offer(shop, "ben", "a", 6), _offer(shop, "ben", "a", 5)
    for _ in range(2):
        refused, applied = await lua.offer_units(shop.redis, keys, 1, [big, small])
        assert refused == OfferResult(OfferOutcome.REFUSED, 0)
        assert applied.seq == 1
    assert await _units(shop, keys) == (0, 3, 0, 7)
    kept = UnitOffer(small.offer_id, small.withdrawal_id, small.created_ms, "ben", "a", 5)
    over = UnitOffer(small.offer_id, small.withdrawal_id, small.created_ms, "ben", "a", 5, is_over=True)
    outcomes = [
        (await lua.withdraw_offers(shop.redis, keys, 1, [offer]))[0].outcome for offer in (kept, over, over, kept)
    ]
    already = WithdrawOutcome.ALREADY_WITHDRAWN
    assert outcomes == [WithdrawOutcome.KEPT, WithdrawOutcome.WITHDRAWN, already, already]
    assert await _units(shop, keys) == (0, 3, 5, 2)


async def test_withdrawal_of_taken_offer_leaves_the_next_one(shop: CliServices, sale_id: str, keys: SaleKeys) -> None:
    first = _offer(shop, "ann", "a", 2, is_over=True)
    await reserve(shop.redis, keys, reservation(shop.ids.new, sale_id, {"a": 2}, user="ann"))
    [result] = await lua.withdraw_offers(shop.redis, keys, 1, [first])
    assert result.outcome is WithdrawOutcome.TAKEN
    await lua.offer_units(shop.redis, keys, 1, [_offer(shop, "ann", "a", 1)])
    [repeat] = await lua.withdraw_offers(shop.redis, keys, 1, [first])
    assert repeat.outcome is WithdrawOutcome.TAKEN
    assert await _units(shop, keys) == (0, 3, 4, 1)


async def test_another_load_and_an_old_offer_move_nothing(shop: CliServices, keys: SaleKeys) -> None:
    offer, before = _offer(shop, "ann", "a", 1, is_over=True), await lua.cut(shop.redis, keys)
    [offered] = await lua.offer_units(shop.redis, keys, 2, [offer])
    [withdrawn] = await lua.withdraw_offers(shop.redis, keys, 2, [offer])
    assert (offered.outcome, withdrawn.outcome) == (OfferOutcome.NOT_READY, WithdrawOutcome.NOT_READY)
    assert await lua.put_on_sale(shop.redis, keys, 2, "a", 1) == -1
    old = UnitOffer(offer.offer_id, offer.withdrawal_id, offer.created_ms - 9 * DAY_MS, "ann", "a", 1, is_over=True)
    [offered] = await lua.offer_units(shop.redis, keys, 1, [old])
    [withdrawn] = await lua.withdraw_offers(shop.redis, keys, 1, [old])
    assert (offered.outcome, withdrawn.outcome) == (OfferOutcome.TOO_OLD, WithdrawOutcome.TOO_OLD)
    await shop.redis.hset(keys.meta.decode(), "run_id", "0" * 40)  # loaded on another server
    [offered] = await lua.offer_units(shop.redis, keys, 1, [offer])
    assert offered.outcome is OfferOutcome.NOT_READY
    assert await lua.put_on_sale(shop.redis, keys, 1, "a", 1) == -1
    assert await lua.cut(shop.redis, keys) == before


async def test_terms_decide_where_units_come_back(shop: CliServices, keys: SaleKeys) -> None:
    for number, has_wait_list in enumerate((True, False), 2):
        terms = SaleTerms(1, number, "open", 0, None, has_wait_list)
        assert await lua.publish(shop.redis, keys, terms) is PublishOutcome.PUBLISHED
        release = lua.Release(shop.ids.new(), shop.clock.now_ms(), "ann", {"a": 1})
        await lua.release(shop.redis, keys, [release])
        await lua.change_stock(shop.redis, keys, shop.ids.new(), shop.clock.now_ms(), "a", 2)
        await lua.change_stock(shop.redis, keys, shop.ids.new(), shop.clock.now_ms(), "b", -1)
    assert await _units(shop, keys) == (3, 1, 8, 2)
    assert await lua.put_on_sale(shop.redis, keys, 1, "a", 9) == 8
    assert await _units(shop, keys) == (11, 1, 0, 2)


async def test_recheck_names_holders_of_offers(shop: CliServices, keys: SaleKeys) -> None:
    day = shop.clock.now_ms() // DAY_MS
    fields = [idempotency_field(user, "k") for user in ("ann", "ben", "ann")]
    without = await lua.recheck(shop.redis, keys, day, ["a"], fields)
    assert without == Recheck(None, {"a": 0}, set(), has_offers=True)
    pairs = [buyer_field("ann", "a"), buyer_field("ben", "a"), b""]
    assert await lua.recheck(shop.redis, keys, day, ["a"], fields, pairs) == without._replace(holders=frozenset({0}))
    await shop.redis.delete(keys.offers)
    assert await lua.recheck(shop.redis, keys, day, ["a"], fields, pairs) == Recheck(None, {"a": 0}, set())


async def test_unload_drops_offers(shop: CliServices, keys: SaleKeys) -> None:
    await lua.unload(shop.redis, keys, shop.clock.now_ms() // DAY_MS)
    assert not await shop.redis.exists(keys.held_back, keys.offers)
