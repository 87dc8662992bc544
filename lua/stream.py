"""The stream of accepted orders: reads, claims, acknowledgement of stored orders."""

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

_acknowledge = Script("acknowledge")
_claim_orphans = Script("claim_orphans")
_delete_consumers = Script("delete_consumers")
_find_entries = Script("find_entries")
_find_used_keys = Script("find_used_keys")
_renew_claims = Script("renew_claims")
_oldest_entry = Script("oldest_entry")
_FIRST = b"0-0"
_ORDERS_FIELD = b"orders"
_ID_BYTES, _PAYLOAD_HEAD = 16, 20
_PAGE_ENTRIES = 200
_SCAN_COUNT = 1_000
_RECORDS_PER_CALL = 2_000
_KEY_DAYS, _DAY_S = 3, 86_400


class Entry(msgspec.Struct, frozen=True):
    """One stream entry: a batch of accepted orders as (order id in 16 bytes, payload).

    `epoch` is that of the sale's load when the entry was read, 0 if it is not known.
    """

    id: EntryId
    orders: Sequence[tuple[bytes, bytes]]
    epoch: int = 0


class StreamMissing(Exception):
    """The sale has no stream: it is not loaded, or Redis was wiped."""


def _split_payloads(packed: bytes) -> tuple[tuple[bytes, bytes], ...]:
    """Split the payloads that `reserve` packs into (order id in 16 bytes, payload).

    What is cut off or too short comes as an order that nothing can decode, so that it is kept as a dead letter.
    """
    orders, at = [], 0
    while at < len(packed):
        start = at + _PAYLOAD_HEAD
        end = start + int.from_bytes(packed[at + _ID_BYTES : start])
        orders.append((packed[at : at + _ID_BYTES], packed[start:end]))
        at = end
    return tuple(orders)


def _orders_of(fields: dict[bytes, bytes]) -> Sequence[tuple[bytes, bytes]]:
    """Return the orders of an entry; entries of earlier releases have a field for each order."""
    packed = fields.get(_ORDERS_FIELD)
    return tuple(fields.items()) if packed is None else _split_payloads(packed)


def _entries(raw: Any, epoch: int = 0) -> list[Entry]:
    # Any: the client types its replies for every protocol and decoding at once. Our replies are always bytes.
    return [
        Entry(EntryId.parse(entry_id), _orders_of(fields), epoch)
        for entry_id, fields in raw
        if fields  # an entry that was deleted while it was pending comes without fields
    ]


async def read_new(client: Redis, keys: SaleKeys, consumer: str, count: int, block_ms: int) -> list[Entry]:
    """Read entries that no consumer has read, waiting up to `block_ms` for the first.

    They become pending with this consumer. Raises `StreamMissing` if the sale has no stream.
    """
    return _entries(*await _read(client, keys, consumer, b">", count, block_ms))


async def read_pending(
    client: Redis, keys: SaleKeys, consumer: str, after: EntryId, count: int
) -> tuple[list[Entry], EntryId | None]:
    """Read entries again that this consumer has not acknowledged, after an id.

    A restart under the same name needs them. Returns them and the id to continue after, None at the end. Raises
    `StreamMissing` if the sale has no stream.
    """
    raw, epoch = await _read(client, keys, consumer, str(after).encode(), count, None)
    return _entries(raw, epoch), EntryId.parse(raw[-1][0]) if raw else None


async def _read(
    client: Redis, keys: SaleKeys, consumer: str, after: bytes, count: int, block_ms: int | None
) -> tuple[Any, int]:
    """Return the raw entries and the epoch of the server that they come from, as one connection sees them."""
    pipe = client.pipeline(transaction=False)
    pipe.hget(keys.meta, "epoch")
    pipe.xreadgroup(GROUP, consumer, {keys.orders: after}, count=count, block=block_ms)
    try:
        epoch, reply = await pipe.execute()
    except ResponseError as error:
        if "NOGROUP" in str(error):
            raise StreamMissing from None
        raise
    return (reply[0][1] if reply else []), int(epoch or 0)


async def find_entries(client: Redis, keys: SaleKeys, ids: Sequence[EntryId]) -> tuple[int, set[EntryId]]:
    """Return the epoch of the sale's load (0: not loaded), and those of the entries that still exist."""
    arguments: list[Argument] = [len(ids), *map(str, ids)]
    epoch, *existing = await _find_entries.call(client, [keys.meta, keys.orders], arguments)
    return int(epoch or 0), {EntryId.parse(id_) for id_ in existing}


async def claim_idle_entries(client: Redis, keys: SaleKeys, consumer: str, idle_ms: int, count: int) -> list[Entry]:
    """Claim for this consumer entries that were read at least `idle_ms` ago and are not acknowledged.

    Its own entries are among them, unless it renews them. Raises `StreamMissing` if the sale has no stream.
    """
    start: Any = _FIRST
    while True:
        try:
            start, raw, *_ = await client.xautoclaim(keys.orders, GROUP, consumer, idle_ms, start, count=count)
        except ResponseError as error:
            if "NOGROUP" in str(error):
                raise StreamMissing from None
            raise
        if (entries := _entries(raw)) or start == _FIRST:  # one call looks at ten times `count` entries at most
            return entries


async def renew_claims(client: Redis, keys: SaleKeys, consumer: str, entries: Sequence[Entry]) -> int:
    """Reset the idle time of this consumer's entries, so that no other claims them.

    Returns the number of those that no other has claimed.
    """
    arguments: list[Argument] = [GROUP, consumer, *(str(entry.id) for entry in entries)]
    return int(await _renew_claims.call(client, [keys.orders], arguments))


async def claim_orphans(client: Redis, keys: SaleKeys, consumer: str, count: int, *, idle_ms: int = 0) -> list[Entry]:
    """Claim for this consumer entries that are neither pending nor new, and give them an idle time.

    An orphan is what is left when a consumer with pending entries is deleted, or when a failover loses that an entry is
    pending. Without a consumer ("") nothing changes.
    """
    orphans: list[Entry] = []
    after: Any = b""
    while True:
        arguments: list[Argument] = [GROUP, consumer, idle_ms, after, count - len(orphans)]
        after, raw = await _claim_orphans.call(client, [keys.orders], arguments)
        for id_, fields in raw:
            orphans.append(Entry(EntryId.parse(id_), _orders_of(dict(zip(fields[::2], fields[1::2], strict=True)))))
        if not after or len(orphans) == count:
            return orphans


async def delete_idle_consumers(client: Redis, keys: SaleKeys, idle_ms: int) -> int:
    """Delete consumers with nothing pending that have not read for `idle_ms`. Returns their number."""
    return int(await _delete_consumers.call(client, [keys.orders], [GROUP, idle_ms]))


async def acknowledge(client: Redis, keys: SaleKeys, entries: Sequence[Entry]) -> int:
    """Remove entries whose orders are all in Postgres or dead-lettered. Safe to repeat.

    Returns the number of entries that were still there.
    """
    orders = [order_id for entry in entries for order_id, _ in entry.orders]
    arguments: list[Argument] = [GROUP, len(entries), *(str(entry.id) for entry in entries), *orders]
    return int(await _acknowledge.call(client, [keys.orders, keys.accepted], arguments))


async def iter_stream(client: Redis, keys: SaleKeys, up_to: EntryId | None = None) -> AsyncIterator[Entry]:
    """Yield every entry in the stream, oldest first and up to an id if given, without making any pending."""
    start, last = "-", "+" if up_to is None else str(up_to)
    while page := _entries(await client.xrange(keys.orders, start, last, count=_PAGE_ENTRIES)):
        for entry in page:
            yield entry
        start = f"({page[-1].id}"


@dataclass(frozen=True, slots=True)
class Backlog:
    """Orders accepted and not acknowledged yet; `oldest_ms` is the first acceptance, None if none."""

    orders: int
    oldest_ms: int | None


async def read_backlog(client: Redis, keys: SaleKeys) -> Backlog:
    """Count the orders that the writer has yet to store."""
    orders = int(await client.hlen(keys.accepted))
    first: Any = await client.xrange(keys.orders, count=1)
    return Backlog(orders, EntryId.parse(first[0][0]).ms if first else None)


async def read_accepted_users(client: Redis, keys: Sequence[SaleKeys], order_id: UUID) -> list[str | None]:
    """Return for each sale the user who placed this order, None if the sale has no such accepted order."""
    pipe = client.pipeline(transaction=False)
    for sale in keys:
        pipe.hget(sale.accepted, order_id.bytes)
    return [None if user is None else user.decode() for user in await pipe.execute()]


async def find_accepted_users(
    client: Redis, keys: Sequence[SaleKeys], order_ids: Sequence[UUID]
) -> list[tuple[int, str] | None]:
    """Find each order among the accepted ones of these sales.

    Returns for each the index of its sale and its user, None if it is in none.
    """
    pipe = client.pipeline(transaction=False)
    for sale in keys:
        pipe.hmget(sale.accepted, [order_id.bytes for order_id in order_ids])
    result: list[tuple[int, str] | None] = [None] * len(order_ids)
    for index, users in enumerate(await pipe.execute() if order_ids else ()):
        for number, user in enumerate(users):
            if user is not None:
                result[number] = index, user.decode()
    return result


async def read_all_accepted(client: Redis, keys: SaleKeys) -> dict[UUID, str]:
    """Return every accepted order that is not acknowledged yet, with its user.

    Orders accepted during the call may be missing.
    """
    users: dict[UUID, str] = {}
    async for order_id, user in client.hscan_iter(keys.accepted, count=_SCAN_COUNT):
        users[UUID(bytes=order_id)] = user.decode()
    return users


async def find_key_records(
    client: Redis, keys: Sequence[SaleKeys], day: int, user_id: str, idempotency_key: str
) -> list[KeyRecord | None]:
    """Return for each sale the record of a user's key, None if it has none.

    The key may be of today, yesterday or (by another clock) tomorrow.
    """
    field = idempotency_field(user_id, idempotency_key)
    pipe = client.pipeline(transaction=False)
    for sale in keys:
        for near_day in (day + 1, day, day - 1):
            pipe.hget(sale.keys(near_day), field)
    values = await pipe.execute()
    by_sale = [[value for value in values[i : i + 3] if value is not None] for i in range(0, len(values), 3)]
    return [KeyRecord.parse(records[0]) if records else None for records in by_sale]


async def iter_key_records(client: Redis, keys: SaleKeys, day: int) -> AsyncIterator[tuple[str, str, KeyRecord]]:
    """Yield user, idempotency key and record of every key of a day."""
    async for field, record in client.hscan_iter(keys.keys(day), count=_SCAN_COUNT):
        user_id, _, idempotency_key = field.decode().partition("\0")
        yield user_id, idempotency_key, KeyRecord.parse(record)


async def restore_key_records(client: Redis, keys: SaleKeys, records: Sequence[tuple[str, str, KeyRecord]]) -> None:
    """Write records as `reserve` does, for (user, idempotency key, record), by the day of acceptance.

    Existing records are kept.
    """
    for first in range(0, len(records), _RECORDS_PER_CALL):
        part = records[first : first + _RECORDS_PER_CALL]
        pipe = client.pipeline(transaction=False)
        for user_id, idempotency_key, record in part:
            day = record.entry.ms // DAY_MS
            pipe.hsetnx(keys.keys(day), idempotency_field(user_id, idempotency_key), record.pack())
        for day in {record.entry.ms // DAY_MS for _, _, record in part}:
            pipe.expireat(keys.keys(day), (day + _KEY_DAYS) * _DAY_S)
        await pipe.execute()


async def read_units_taken(client: Redis, keys: SaleKeys) -> dict[bytes, int]:
    """Return (user NUL sku) → units taken, for SKUs with a limit."""
    taken: dict[bytes, int] = {}
    async for field, units in client.hscan_iter(keys.buyers, count=_SCAN_COUNT):
        taken[field] = int(units)
    return taken


async def read_units_taken_by(client: Redis, keys: SaleKeys, fields: Sequence[bytes]) -> list[int]:
    """Return the units taken of each (user NUL sku), 0 of those that the sale does not have."""
    taken: list[int] = []
    for first in range(0, len(fields), _RECORDS_PER_CALL):
        units = await client.hmget(keys.buyers, list(fields[first : first + _RECORDS_PER_CALL]))
        taken += [int(value or 0) for value in units]
    return taken


async def read_units_free(client: Redis, keys: SaleKeys, skus: Sequence[str]) -> list[int | None]:
    """Return the free units of each SKU, None if the sale is not loaded or does not have it."""
    stock = await client.hmget(keys.stock, list(skus)) if skus else []
    return [None if units is None else int(units) for units in stock]


async def read_change_seqs(client: Redis, keys: SaleKeys, changes: Sequence[tuple[UUID, int]]) -> list[int | None]:
    """Return the seq of each change (id, created_ms) in the current load, None if it has none."""
    pipe = client.pipeline(transaction=False)
    for change_id, created_ms in changes:
        pipe.hget(keys.changes(created_ms // DAY_MS), change_id.bytes)
    return [None if seq is None else int(seq) for seq in await pipe.execute()]


async def read_used_keys(
    client: Commands, keys: Sequence[SaleKeys], day: int, orders: Sequence[tuple[str, str]]
) -> list[bool]:
    """Return for each (user, idempotency key) whether one of these sales has an order under it."""
    fields = [idempotency_field(user_id, idempotency_key) for user_id, idempotency_key in orders]
    arguments: list[Argument] = [len(fields), *fields]
    days = (day + 1, day, day - 1)
    replies = await asyncio.gather(
        *(_find_used_keys.call(client, [sale.keys(near_day) for near_day in days], arguments) for sale in keys)
    )
    used = {position for positions in replies for position in positions}
    return [position in used for position in range(len(orders))]


async def wait_for_replicas(client: Commands, keys: SaleKeys, replicas: int, timeout_ms: int) -> bool:
    """Wait until that many replicas have all earlier writes of any connection to the server.

    `client` must be one connection, the one of the writes: any other may lead to another server. Returns False after
    `timeout_ms`. WAIT covers the last write of its own connection only, so this writes the fence first.
    """
    _, confirmed = await asyncio.gather(
        client.execute_command("INCR", keys.fence), client.execute_command("WAIT", replicas, timeout_ms)
    )
    return int(confirmed) >= replicas


async def read_stream_bytes(client: Redis, keys: Sequence[SaleKeys]) -> int:
    """Estimate the memory of the sales' streams: Redis looks at a few entries of each."""
    pipe = client.pipeline(transaction=False)
    for sale in keys:
        pipe.memory_usage(sale.orders)
    return sum(size or 0 for size in await pipe.execute())


async def read_oldest_entry(client: Redis, keys: SaleKeys) -> EntryId | None:
    """Return the id of the oldest entry that waits for the writer, None if there is none."""
    oldest = await _oldest_entry.call(client, [keys.orders], [])
    return EntryId.parse(oldest) if oldest else None


async def read_accepted_counts(client: Redis, keys: Sequence[SaleKeys]) -> list[int | None]:
    """Count for each sale the orders accepted and not acknowledged yet.

    A count is None if Redis refuses it. Raises redis's errors if Redis does not answer."""
    pipe = client.pipeline(transaction=False)
    for sale in keys:
        pipe.hlen(sale.accepted)
    counts = await pipe.execute(raise_on_error=False)
    for count in counts:
        if isinstance(count, Exception) and not isinstance(count, ResponseError):
            raise count
    return [None if isinstance(count, ResponseError) else int(count) for count in counts]
