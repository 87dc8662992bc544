"""Records of idempotency keys that a load restores."""

from __future__ import annotations

import pytest
from redis.asyncio import Redis
from redis.asyncio.client import Pipeline

import lua
from lua import KeyRecord
from lua.keys import SaleKeys
from lua.stock import DAY_MS, EntryId
from ops.services import CliServices
from tests.support.sales import make_sale

RECORDS, MAX_COMMANDS = 4_501, 2_010


async def test_many_key_records_are_restored_in_parts_that_fit_a_call(
    shop: CliServices, sale_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sale of a million keys in one call takes a gigabyte and more than the time that a call has."""
    keys = await make_sale(shop, sale_id, {"a": (3, 100, None)})
    today = shop.clock.now_ms() // DAY_MS
    order_id = shop.ids.new()
    records = [
        (f"u{number}", "k", KeyRecord(order_id, bytes(16), 100, EntryId((today - number % 2) * DAY_MS, number)))
        for number in range(RECORDS)
    ]
    calls: list[int] = []
    execute = Pipeline.execute

    async def count_commands(pipe: Pipeline, raise_on_error: bool = True) -> list[object]:
        calls.append(len(pipe.command_stack))
        return list(await execute(pipe, raise_on_error))

    with monkeypatch.context() as patch:
        patch.setattr(Pipeline, "execute", count_commands)
        await lua.restore_key_records(shop.redis, keys, records)
    assert max(calls) <= MAX_COMMANDS
    restored: list[tuple[str, str, KeyRecord]] = []
    for day in (today, today - 1):
        restored += [record async for record in lua.iter_key_records(shop.redis, keys, day)]
    assert sorted(restored) == sorted(records)
    await check_expiry(shop.redis, keys, today)


async def check_expiry(redis: Redis, keys: SaleKeys, today: int) -> None:
    for day in (today, today - 1):
        seconds, _ = await redis.time()
        expected_s = (day + 3) * DAY_MS // 1_000 - seconds
        assert abs(await redis.ttl(keys.keys(day).decode()) - expected_s) <= 2


async def test_no_key_records_are_restored_as_none(shop: CliServices, sale_id: str) -> None:
    keys = await make_sale(shop, sale_id, {"a": (3, 100, None)})
    await lua.restore_key_records(shop.redis, keys, [])
    assert not await shop.redis.exists(keys.keys(shop.clock.now_ms() // DAY_MS))
