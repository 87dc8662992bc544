"""The stream of accepted orders: reading it, taking over from a dead reader, forgetting what Postgres has."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import msgspec
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from lua.keys import GROUP, SaleKeys, idempotency_field
from lua.script import Argument, Commands, Script
from lua.stock import DAY_MS, EntryId, KeyRecord

_settle = Script("settle")
_PAGE = 200


class Entry(msgspec.Struct, frozen=True):
    """One stream entry: a batch of accepted orders as (field, payload); the field is the order id's 16 bytes."""

    id: EntryId
    orders: Sequence[tuple[bytes, bytes]]


class StreamMissing(Exception):
    """The sale has no stream: it is not loaded, or Redis was wiped."""


def _entries(raw: Any) -> list[Entry]:
    # Any: the client types its replies for every protocol and decoding at once; ours are always bytes.
    return [
        Entry(EntryId.parse(entry_id), tuple(fields.items()))
        for entry_id, fields in raw
        if fields  # an entry that was deleted while it was pending comes without any
    ]


async def read_new(client: Redis, keys: SaleKeys, consumer: str, count: int, wait_ms: int) -> list[Entry]:
    """Entries nobody has read yet; they become pending with this consumer. Waits at most `wait_ms` for the first."""
    return await _read(client, keys, consumer, b">", count, wait_ms)


async def read_pending(client: Redis, keys: SaleKeys, consumer: str, count: int) -> list[Entry]:
    """Entries this consumer has read before and not settled, as after a restart under the same name."""
    return await _read(client, keys, consumer, b"0", count, None)


async def _read(
    client: Redis, keys: SaleKeys, consumer: str, after: bytes, count: int, wait_ms: int | None
) -> list[Entry]:
    try:
        reply: Any = await client.xreadgroup(GROUP, consumer, {keys.orders: after}, count=count, block=wait_ms)
    except ResponseError as error:
        if "NOGROUP" in str(error):
            raise StreamMissing from None
        raise
    return _entries(reply[0][1]) if reply else []


async def claim_idle_entries(client: Redis, keys: SaleKeys, consumer: str, idle_ms: int, count: int) -> list[Entry]:
    """Entries that another consumer read at least `idle_ms` ago and never settled; they are now this one's."""
    try:
        reply = await client.xautoclaim(keys.orders, GROUP, consumer, idle_ms, count=count)
    except ResponseError as error:
        if "NOGROUP" in str(error):
            raise StreamMissing from None
        raise
    return _entries(reply[1])


async def delete_idle_consumers(client: Redis, keys: SaleKeys, idle_ms: int) -> int:
    """Drop consumers that have nothing pending and have not asked for a long time; their number."""
    gone = 0
    for reader in await client.xinfo_consumers(keys.orders, GROUP):
        if reader["pending"] == 0 and reader["idle"] >= idle_ms:
            await client.xgroup_delconsumer(keys.orders, GROUP, reader["name"])
            gone += 1
    return gone


async def acknowledge(client: Redis, keys: SaleKeys, entries: Sequence[Entry]) -> int:
    """Forget entries whose orders are all in Postgres or dead-lettered. Safe to repeat; gives how many were there."""
    orders = [order_id for entry in entries for order_id, _ in entry.orders]
    arguments: list[Argument] = [GROUP, len(entries), *(str(entry.id) for entry in entries), *orders]
    return int(await _settle.call(client, [keys.orders, keys.accepted], arguments))


async def iter_stream(client: Redis, keys: SaleKeys, up_to: EntryId | None = None) -> AsyncIterator[Entry]:
    """Every entry still in the stream, oldest first, without taking any; up to an id where one is given."""
    start, last = "-", "+" if up_to is None else str(up_to)
    while page := _entries(await client.xrange(keys.orders, start, last, count=_PAGE)):
        for entry in page:
            yield entry
        start = f"({page[-1].id}"


@dataclass(frozen=True, slots=True)
class Backlog:
    """`orders` accepted and not settled yet; `oldest_ms` is when the oldest of them was accepted, None if none is."""

    orders: int
    oldest_ms: int | None


async def backlog(client: Redis, keys: SaleKeys) -> Backlog:
    """How much the writer has before it."""
    orders = int(await client.hlen(keys.accepted))
    first: Any = await client.xrange(keys.orders, count=1)
    return Backlog(orders, EntryId.parse(first[0][0]).ms if first else None)


async def accepted_users(client: Redis, keys: Sequence[SaleKeys], order_id: UUID) -> list[str | None]:
    """For each sale the user whose accepted, not yet settled order this is; None where it is not."""
    pipe = client.pipeline(transaction=False)
    for sale in keys:
        pipe.hget(sale.accepted, order_id.bytes)
    return [None if user is None else user.decode() for user in await pipe.execute()]


async def all_accepted(client: Redis, keys: SaleKeys) -> dict[UUID, str]:
    """Every promised order that is not settled yet, with its user. Orders that come meanwhile may be missing."""
    found: dict[UUID, str] = {}
    async for order_id, user in client.hscan_iter(keys.accepted, count=1_000):
        found[UUID(bytes=order_id)] = user.decode()
    return found


async def find_key_records(
    client: Redis, keys: Sequence[SaleKeys], day: int, user_id: str, idempotency_key: str
) -> list[KeyRecord | None]:
    """For each sale what is kept under a user's key today, yesterday or (by another clock) tomorrow."""
    field = idempotency_field(user_id, idempotency_key)
    pipe = client.pipeline(transaction=False)
    for sale in keys:
        for near in (day + 1, day, day - 1):
            pipe.hget(sale.keys(near), field)
    found = await pipe.execute()
    rows = [[value for value in found[i : i + 3] if value is not None] for i in range(0, len(found), 3)]
    return [KeyRecord.parse(row[0]) if row else None for row in rows]


async def restore_key_records(client: Redis, keys: SaleKeys, records: Sequence[tuple[str, str, KeyRecord]]) -> None:
    """Put back what `reserve` had kept under (user, idempotency key), by the day of acceptance. Overwrites nothing."""
    pipe = client.pipeline(transaction=False)
    for user_id, idempotency_key, record in records:
        day = record.entry.ms // DAY_MS
        pipe.hsetnx(keys.keys(day), idempotency_field(user_id, idempotency_key), record.pack())
    for day in {record.entry.ms // DAY_MS for _, _, record in records}:
        pipe.expireat(keys.keys(day), (day + 3) * 86_400)
    await pipe.execute()


async def buyers(client: Redis, keys: SaleKeys) -> dict[bytes, int]:
    """(user NUL sku) → units taken, for SKUs with a limit."""
    found: dict[bytes, int] = {}
    async for field, units in client.hscan_iter(keys.buyers, count=1_000):
        found[field] = int(units)
    return found


async def units_free(client: Redis, keys: SaleKeys, skus: Sequence[str]) -> list[int | None]:
    """Units free of each SKU; None where the sale is not loaded or does not have it."""
    found = await client.hmget(keys.stock, list(skus)) if skus else []
    return [None if units is None else int(units) for units in found]


async def change_seqs(client: Redis, keys: SaleKeys, changes: Sequence[tuple[UUID, int]]) -> list[int | None]:
    """For each release or stock change, (id, when it was made in ms), its seq in the present load if it has one."""
    pipe = client.pipeline(transaction=False)
    for change_id, created_ms in changes:
        pipe.hget(keys.changes(created_ms // DAY_MS), change_id.bytes)
    return [None if seq is None else int(seq) for seq in await pipe.execute()]


async def used_keys(
    client: Commands, keys: Sequence[SaleKeys], day: int, orders: Sequence[tuple[str, str]]
) -> list[bool]:
    """For each (user, idempotency key) whether one of these sales has an order under it."""
    fields = [idempotency_field(user_id, idempotency_key) for user_id, idempotency_key in orders]
    found = await asyncio.gather(
        *(
            client.execute_command("HMGET", sale.keys(near), *fields)
            for sale in keys
            for near in (day + 1, day, day - 1)
        )
    )
    return [any(row[number] is not None for row in found) for number in range(len(orders))]


async def wait_for_replicas(client: Redis, keys: SaleKeys, replicas: int, timeout_ms: int) -> bool:
    """Whether that many replicas have all that was written before, by whichever connection.

    WAIT looks at what its own connection wrote last, so something is written first.
    """
    pipe = client.pipeline(transaction=False)
    pipe.incr(keys.fence)
    pipe.wait(replicas, timeout_ms)
    return int((await pipe.execute())[1]) >= replicas


async def accepted_counts(client: Redis, keys: Sequence[SaleKeys]) -> list[int]:
    """Orders accepted and not settled yet, for each sale."""
    pipe = client.pipeline(transaction=False)
    for sale in keys:
        pipe.hlen(sale.accepted)
    return [int(count) for count in await pipe.execute()]
