"""recheck.lua: what reserve would refuse, without taking anything."""

from __future__ import annotations

from datetime import timedelta

import pytest

import lua
from commerce.kernel.clock import DAY_MS, from_ms
from lua import Recheck, ReserveOutcome, SaleKeys, idempotency_field
from ops.services import CliServices
from tests.support.sales import make_sale, reservation, reserve

HOUR = timedelta(hours=1)


@pytest.fixture
async def keys(shop: CliServices, sale_id: str) -> SaleKeys:
    return await make_sale(shop, sale_id, {"a": (5, 100, 3), "b": (1, 50, None)})


async def recheck(shop: CliServices, keys: SaleKeys, skus: list[str], *fields: tuple[str, str]) -> Recheck:
    day = shop.clock.now_ms() // DAY_MS
    return await lua.recheck(shop.redis, keys, day, skus, [idempotency_field(*field) for field in fields])


async def test_recheck_tells_free_units_and_known_keys(shop: CliServices, sale_id: str, keys: SaleKeys) -> None:
    await reserve(shop.redis, keys, reservation(shop.ids.new, sale_id, {"a": 2, "b": 1}, user="u", key="k"))
    before = await lua.cut(shop.redis, keys)
    result = await recheck(shop, keys, ["b", "a", "missing"], ("u", "other"), ("u", "k"), ("v", "k"))
    assert result == Recheck(None, {"b": 0, "a": 3, "missing": 0}, {1})
    assert await lua.cut(shop.redis, keys) == before


async def test_recheck_finds_key_of_yesterday(shop: CliServices, keys: SaleKeys) -> None:
    yesterday = shop.clock.now_ms() // DAY_MS - 1
    await shop.redis.hset(keys.keys(yesterday).decode(), idempotency_field("u", "k").decode(), "record")
    assert (await recheck(shop, keys, [], ("u", "k"), ("u", "l"))).repeats == {0}


async def test_recheck_of_thousands_finds_each_known_key(shop: CliServices, sale_id: str, keys: SaleKeys) -> None:
    """More than Lua passes to one command."""
    await reserve(shop.redis, keys, reservation(shop.ids.new, sale_id, {"a": 1}, user="u", key="k"))
    fields = [("u", "k") if number in (0, 3_999, 4_000, 8_999) else ("u", f"{number}") for number in range(9_000)]
    skus = ["a", *(f"s{number}" for number in range(4_500)), "b"]
    result = await recheck(shop, keys, skus, *fields)
    assert result.repeats == {0, 3_999, 4_000, 8_999}
    assert len(result.free) == 4_502
    assert (result.free["a"], result.free["b"]) == (4, 1)


async def test_recheck_tells_state_of_sale(shop: CliServices, sale_id: str) -> None:
    now = from_ms(shop.clock.now_ms()).replace(microsecond=0)
    for name, opens_at, closes_at, expected in (
        ("early", now + HOUR, None, ReserveOutcome.NOT_OPEN),
        ("closed", now - HOUR, now + HOUR, ReserveOutcome.CLOSED),
        ("open", now - HOUR, now + HOUR, None),
    ):
        keys = await make_sale(
            shop, f"{sale_id}-{name}", {f"{name}-a": (1, 100, None)}, opens_at=opens_at, closes_at=closes_at
        )
        if expected is ReserveOutcome.CLOSED:
            await shop.sales.close(f"{sale_id}-closed", "test")
        outcome = (await recheck(shop, keys, [], ("u", "k"))).outcome
        assert (outcome and outcome.outcome) == expected
        if expected is ReserveOutcome.NOT_OPEN:
            assert outcome is not None
            assert from_ms(outcome.opens_ms) == opens_at
    await shop.sales.pause(f"{sale_id}-open", "test")
    outcome = (await recheck(shop, SaleKeys(f"{sale_id}-open"), [], ("u", "k"))).outcome
    assert outcome is not None
    assert outcome.outcome is ReserveOutcome.PAUSED


async def test_recheck_without_sale_or_stock_is_not_ready(shop: CliServices, sale_id: str, keys: SaleKeys) -> None:
    for missing in ("meta", "stock"):
        await shop.redis.rename(getattr(keys, missing), "kept")
        outcome = (await recheck(shop, keys, ["a"], ("u", "k"))).outcome
        assert outcome is not None
        assert outcome.outcome is ReserveOutcome.NOT_READY
        await shop.redis.rename("kept", getattr(keys, missing))
    await shop.redis.hset(keys.meta.decode(), "run_id", "0" * 40)  # loaded on another server
    outcome = (await recheck(shop, keys, ["a"], ("u", "k"))).outcome
    assert outcome is not None
    assert outcome.outcome is ReserveOutcome.NOT_READY
