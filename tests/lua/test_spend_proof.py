"""`spend_proof.lua`: a nonce counts once until it has expired, and the number of nonces is limited."""

from __future__ import annotations

import asyncio

import lua
from lua import SaleKeys, SpendOutcome
from ops.services import CliServices

_MINUTE_MS = 60_000


async def test_nonce_counts_once_however_many_spend_it(shop: CliServices, sale_id: str) -> None:
    keys, expires_ms = SaleKeys(sale_id), shop.clock.now_ms() + _MINUTE_MS
    results = await asyncio.gather(*(lua.spend_proof(shop.redis, keys, b"one", expires_ms, 10) for _ in range(20)))
    assert sorted(result.outcome for result in results) == [SpendOutcome.SPENT, *[SpendOutcome.SPENT_BEFORE] * 19]
    assert {result.remembered for result in results} == {1}
    assert await lua.spend_proof(shop.redis, keys, b"two", expires_ms, 10) == (SpendOutcome.SPENT, 2)
    other = SaleKeys(f"{sale_id}-other")
    assert await lua.spend_proof(shop.redis, other, b"one", expires_ms, 10) == (SpendOutcome.SPENT, 1)


async def test_nonces_are_limited_and_forgotten_a_minute_after_they_expire(shop: CliServices, sale_id: str) -> None:
    keys, now_ms = SaleKeys(sale_id), shop.clock.now_ms()
    for number in range(3):
        assert (await lua.spend_proof(shop.redis, keys, b"old%d" % number, now_ms - 2 * _MINUTE_MS, 3)).outcome == 0
    # Each call has forgotten what was there before it.
    assert await shop.redis.zcard(keys.proofs) == 1
    assert (await lua.spend_proof(shop.redis, keys, b"late", now_ms - _MINUTE_MS // 2, 2)).outcome is SpendOutcome.SPENT
    assert (await lua.spend_proof(shop.redis, keys, b"late", now_ms, 2)).outcome is SpendOutcome.SPENT_BEFORE
    assert (await lua.spend_proof(shop.redis, keys, b"new", now_ms + _MINUTE_MS, 2)).outcome is SpendOutcome.SPENT
    assert await lua.spend_proof(shop.redis, keys, b"more", now_ms, 2) == (SpendOutcome.FULL, 2)
    assert 2 * _MINUTE_MS < await shop.redis.pttl(keys.proofs) <= 3 * _MINUTE_MS


async def test_key_lives_as_long_as_its_latest_nonce(shop: CliServices, sale_id: str) -> None:
    keys, now_ms = SaleKeys(sale_id), shop.clock.now_ms()
    await lua.spend_proof(shop.redis, keys, b"long", now_ms + 10 * _MINUTE_MS, 10)
    await lua.spend_proof(shop.redis, keys, b"short", now_ms + _MINUTE_MS, 10)
    assert await shop.redis.pttl(keys.proofs) > 11 * _MINUTE_MS
