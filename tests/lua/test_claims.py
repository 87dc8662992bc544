"""P2: every entry of a stream is new, pending, or an orphan that is found and claimed again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from redis.asyncio import Redis

import lua
from lua import EntryId, SaleKeys
from lua.keys import GROUP
from ops.services import CliServices
from tests.support.sales import make_sale, reservation, reserve

START = EntryId(0, 0)


async def add_entries(shop: CliServices, sale_id: str, count: int) -> SaleKeys:
    """Make a sale with `count` stream entries, quickly: none of them is an order."""
    keys = await make_sale(shop, sale_id, {"a": (50, 100, None)})
    pipe = shop.redis.pipeline(transaction=False)
    for _ in range(count):
        pipe.xadd(keys.orders.decode(), {"field": "value"})
    await pipe.execute()
    return keys


async def list_ids(shop: CliServices, keys: SaleKeys) -> list[EntryId]:
    return [entry.id async for entry in lua.iter_stream(shop.redis, keys)]


async def lose_claims(shop: CliServices, keys: SaleKeys, ids: Sequence[EntryId]) -> None:
    """Make pending entries orphans, as the deletion of their consumer does."""
    if ids:
        await shop.redis.xclaim(keys.orders, GROUP, "deleted", 0, [str(id_) for id_ in ids])
    await shop.redis.xgroup_delconsumer(keys.orders, GROUP, "deleted")


async def test_claim_idle_entries_moves_entries_of_dead_consumer(shop: CliServices, sale_id: str) -> None:
    keys = await make_sale(shop, sale_id, {"a": (50, 100, None)})
    await reserve(shop.redis, keys, reservation(shop.ids.new, sale_id, {"a": 1}))
    entries = await lua.read_new(shop.redis, keys, "dead", 10, 100)
    assert await lua.claim_idle_entries(shop.redis, keys, "alive", 60_000, 10) == []
    claimed = await lua.claim_idle_entries(shop.redis, keys, "alive", 0, 10)
    assert [entry.orders for entry in claimed] == [entry.orders for entry in entries]
    assert await lua.read_pending(shop.redis, keys, "dead", START, 10) == ([], None)
    await lua.acknowledge(shop.redis, keys, entries)
    assert await lua.delete_idle_consumers(shop.redis, keys, 0) == 2


async def test_claim_idle_entries_finds_those_behind_many_that_are_not_idle(shop: CliServices, sale_id: str) -> None:
    """One XAUTOCLAIM looks at ten times its count only."""
    keys = await add_entries(shop, sale_id, 60)
    entries = await lua.read_new(shop.redis, keys, "writer", 60, 100)
    await shop.redis.xclaim(keys.orders, GROUP, "dead", 0, [str(entries[-1].id)], idle=100_000)
    [claimed] = await lua.claim_idle_entries(shop.redis, keys, "alive", 60_000, 2)
    assert claimed.id == entries[-1].id


async def test_read_pending_continues_after_last_id(shop: CliServices, sale_id: str) -> None:
    """Also behind pending entries that are no longer in the stream."""
    keys = await add_entries(shop, sale_id, 5)
    ids = [entry.id for entry in await lua.read_new(shop.redis, keys, "writer", 5, 100)]
    await shop.redis.xdel(keys.orders, str(ids[0]), str(ids[1]))
    assert await lua.read_pending(shop.redis, keys, "writer", START, 2) == ([], ids[1])
    entries, after = await lua.read_pending(shop.redis, keys, "writer", ids[1], 2)
    assert ([entry.id for entry in entries], after) == (ids[2:4], ids[3])


class BusyRedis:
    """A client whose every command is followed by a read of another process, as the consumer `busy`."""

    def __init__(self, client: Redis, keys: SaleKeys) -> None:
        self._client = client
        self._keys = keys

    async def execute_command(self, *command: Any) -> Any:
        reply = await self._client.execute_command(*command)  # type: ignore[no-untyped-call]
        await lua.read_new(self._client, self._keys, "busy", 1, 1)
        return reply

    async def xinfo_consumers(self, *arguments: Any) -> Any:
        reply = await self._client.xinfo_consumers(*arguments)
        await lua.read_new(self._client, self._keys, "busy", 1, 1)
        return reply

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)


async def test_delete_idle_consumers_deletes_none_that_reads_meanwhile(shop: CliServices, sale_id: str) -> None:
    keys = await add_entries(shop, sale_id, 3)
    await lua.acknowledge(shop.redis, keys, await lua.read_new(shop.redis, keys, "busy", 1, 100))
    await lua.delete_idle_consumers(BusyRedis(shop.redis, keys), keys, 0)  # type: ignore[arg-type]
    pending = await shop.redis.xpending(keys.orders, GROUP)
    new = await lua.read_new(shop.redis, keys, "other", 10, 100)
    assert pending["pending"] + len(new) == len(await list_ids(shop, keys))


async def test_delete_idle_consumers_keeps_those_with_entries(shop: CliServices, sale_id: str) -> None:
    keys = await add_entries(shop, sale_id, 2)
    entries = await lua.read_new(shop.redis, keys, "idle", 1, 100)
    await lua.acknowledge(shop.redis, keys, entries)
    await lua.read_new(shop.redis, keys, "holds", 1, 100)
    assert await lua.delete_idle_consumers(shop.redis, keys, 60_000) == 0
    assert await lua.delete_idle_consumers(shop.redis, keys, 0) == 1
    [consumer] = await shop.redis.xinfo_consumers(keys.orders, GROUP)
    assert consumer["name"] == b"holds"


ORPHANS = {
    "none": (10, []),
    "the first": (10, [0]),
    "the last that was read": (10, [9]),
    "a gap": (10, [4, 5]),
    "all": (10, list(range(10))),
    "more than one claim takes": (20, [*range(3), *range(6, 19)]),
    "behind a page of pending ones": (2_100, [1, 1_500, 2_099]),
    "at the borders of pages": (2_100, [0, 999, 1_000, 1_001, 2_000]),
}


@pytest.mark.parametrize("case", ORPHANS)
async def test_orphans_are_found_and_claimed_once(shop: CliServices, sale_id: str, case: str) -> None:
    count, numbers = ORPHANS[case]
    keys = await add_entries(shop, sale_id, count + 3)  # three stay new
    read = [entry.id for entry in await lua.read_new(shop.redis, keys, "writer", count, 100)]
    orphans = [read[number] for number in numbers]
    await lose_claims(shop, keys, orphans)
    assert [entry.id for entry in await lua.claim_orphans(shop.redis, keys, "", 100)] == orphans
    claimed: list[EntryId] = []
    while entries := await lua.claim_orphans(shop.redis, keys, "finder", 4):
        assert len(entries) <= 4
        claimed += [entry.id for entry in entries]
    assert claimed == orphans
    pending, _ = await lua.read_pending(shop.redis, keys, "finder", START, 100)
    assert [entry.id for entry in pending] == orphans
    assert len(await lua.read_new(shop.redis, keys, "writer", 10, 100)) == 3


async def test_orphans_of_sale_without_stream_are_none(shop: CliServices, sale_id: str) -> None:
    assert await lua.claim_orphans(shop.redis, SaleKeys(sale_id), "finder", 4) == []


async def test_renewed_entries_are_claimed_by_no_other(shop: CliServices, sale_id: str) -> None:
    keys = await add_entries(shop, sale_id, 3)
    entries = await lua.read_new(shop.redis, keys, "writer", 3, 100)
    ids: list[Any] = [str(entry.id) for entry in entries]
    await shop.redis.xclaim(keys.orders, GROUP, "writer", 0, ids[:2], idle=100_000)
    await shop.redis.xclaim(keys.orders, GROUP, "other", 0, ids[2:], idle=100_000)
    assert await lua.renew_claims(shop.redis, keys, "writer", entries) == 2
    [claimed] = await lua.claim_idle_entries(shop.redis, keys, "third", 60_000, 10)
    assert claimed.id == entries[2].id
