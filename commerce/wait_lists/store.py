"""Rows of wait-lists, their counts and their places."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

import orjson

from commerce.kernel.clock import from_ms
from commerce.kernel.postgres import Connection
from commerce.kernel.sql import load_queries
from commerce.sales.model import SaleState
from commerce.wait_lists.model import (
    MAX_WAIT_LISTS,
    AwaitedSku,
    RecordedOffer,
    WaitList,
    WaitListEntry,
    WaitListJoin,
    WaitListSettings,
)
from lua import EntryId

queries = load_queries(__package__, wait_list_entries=WaitListEntry.__struct_fields__)


class SkuCounts(NamedTuple):
    """The counts of a SKU that decide about a new place."""

    sku: str
    last_number: int
    waiting: int
    offered: int
    offered_number: int

    @property
    def is_awaited(self) -> bool:
        """Tell whether people wait or have offers."""
        return self.waiting > 0 or self.offered > 0


async def put(connection: Connection, sale_id: str, settings: WaitListSettings, now: datetime) -> None:
    await connection.execute(
        queries.put_wait_list, sale_id, settings.mode, settings.accept_s, settings.max_people_per_sku, now
    )


async def get_settings(connection: Connection, sale_id: str) -> WaitListSettings | None:
    row = await connection.fetchrow(queries.get_settings, sale_id)
    return WaitListSettings(**row) if row else None


async def log(connection: Connection, sale_id: str, at: datetime, actor: str, action: str, detail: Any) -> None:
    await connection.execute(queries.log, sale_id, at, actor, action, orjson.dumps(detail).decode())


async def count_others(connection: Connection, sale_id: str) -> int:
    """Count the wait-lists of sales that are not closed, without that of a sale.

    Nobody else adds one until the transaction ends.
    """
    await connection.execute(queries.lock_lists)
    return int(await connection.fetchval(queries.count_others, sale_id))


async def list_wait_lists(connection: Connection, closed_after: datetime, sale_id: str | None = None) -> list[WaitList]:
    """List the wait-lists of running sales, and those that still end.

    With `sale_id` only that of one sale is listed, whatever its state.
    """
    rows = await connection.fetch(queries.list_wait_lists, closed_after, sale_id, MAX_WAIT_LISTS)
    return [
        WaitList(
            **{
                **row,
                "sale_state": SaleState(row["sale_state"]),
                "skus": [AwaitedSku(*counts) for counts in orjson.loads(row["skus"])],
            }
        )
        for row in rows
    ]


async def lock_skus(connection: Connection, sale_id: str, skus: Sequence[str]) -> dict[str, SkuCounts]:
    """Lock the counts of SKUs until the transaction ends; those that the sale does not offer are left out."""
    await connection.execute(queries.add_skus, sale_id, list(skus))
    rows = await connection.fetch(queries.lock_skus, sale_id, list(skus))
    return {row["sku"]: SkuCounts(*row.values()) for row in rows}


async def count_awaited_skus(connection: Connection, sale_id: str) -> int:
    """Count the SKUs for which people wait or have offers. Nobody adds one until the transaction ends.

    Call while the SKUs that are to be added are locked.
    """
    await connection.execute(queries.lock_list, sale_id)
    return int(await connection.fetchval(queries.count_awaited_skus, sale_id))


async def list_open_places(
    connection: Connection, sale_id: str, pairs: Sequence[tuple[str, str]]
) -> dict[tuple[str, str], WaitListEntry]:
    """Return the places of those of the (user, SKU) who wait or have an offer."""
    users, skus = [user_id for user_id, _ in pairs], [sku for _, sku in pairs]
    rows = await connection.fetch(queries.list_open_places, sale_id, users, skus)
    return {(row["user_id"], row["sku"]): WaitListEntry(**row) for row in rows}


async def insert_places(
    connection: Connection, sale_id: str, places: Sequence[tuple[str, int, WaitListJoin]], now: datetime
) -> None:
    """Insert places as (user, number, join). Call while the lock of their SKUs is held."""
    await connection.execute(
        queries.insert_places,
        sale_id,
        [join.sku for _, _, join in places],
        [number for _, number, _ in places],
        [user_id for user_id, _, _ in places],
        [join.quantity for _, _, join in places],
        now,
    )
    people = Counter(join.sku for _, _, join in places)
    await connection.execute(queries.count_joined, sale_id, list(people), list(people.values()))


async def get_latest_place(connection: Connection, sale_id: str, sku: str, user_id: str) -> WaitListEntry | None:
    row = await connection.fetchrow(queries.get_latest_place, sale_id, sku, user_id)
    return WaitListEntry(**row) if row else None


async def leave(connection: Connection, sale_id: str, sku: str, user_id: str, now: datetime) -> bool:
    """End a place, or the time of its offer. Call while the lock of the SKU is held.

    Returns False if the customer has neither, or an offer that Redis does not have yet.
    """
    arguments = sale_id, sku, user_id, now
    if await connection.fetchval(queries.leave_waiting, *arguments) is not None:
        await connection.execute(queries.count_left, sale_id, sku, 1)
        return True
    return await connection.fetchval(queries.leave_offer, *arguments) is not None


async def end_waiting(connection: Connection, sale_id: str, sku: str, now: datetime, count: int) -> int:
    """End up to `count` places of those who wait for a SKU. Call while its lock is held. Returns how many."""
    ended = len(await connection.fetch(queries.end_waiting, sale_id, sku, now, count))
    await connection.execute(queries.count_left, sale_id, sku, ended)
    return ended


async def continue_offers(connection: Connection, sale_id: str, now: datetime) -> None:
    """Note that orders are taken now, and add the time in which they were not to all offers."""
    await connection.execute(queries.continue_offers, sale_id, now)


async def lock_loaded(connection: Connection, sale_id: str, epoch: int) -> bool:
    """Keep loads from beginning until the transaction ends.

    Returns False if `epoch` is not the current load.
    """
    return await connection.fetchval(queries.lock_loaded, sale_id, epoch) is not None


async def lock_epoch(connection: Connection, sale_id: str) -> int:
    """Keep loads from beginning until the transaction ends. Returns the epoch."""
    return int(await connection.fetchval(queries.lock_epoch, sale_id))


async def sum_unapplied(connection: Connection, sale_id: str, sku: str) -> int:
    """Sum the units of recorded offers that Redis may still hold back."""
    return int(await connection.fetchval(queries.sum_unapplied, sale_id, sku))


async def list_waiting(connection: Connection, sale_id: str, sku: str, count: int) -> list[tuple[int, int]]:
    """Return number and quantity of those who have waited longest."""
    return [
        (row["number"], row["quantity"]) for row in await connection.fetch(queries.list_waiting, sale_id, sku, count)
    ]


async def record_offers(
    connection: Connection,
    sale_id: str,
    sku: str,
    offers: Sequence[tuple[int, UUID, int]],
    now: datetime,
    after: EntryId,
) -> None:
    """Record offers as (number, id, units), after a stream entry. Call while the SKU is locked."""
    numbers, units = [number for number, _, _ in offers], [count for _, _, count in offers]
    ids = [offer_id for _, offer_id, _ in offers]
    await connection.execute(
        queries.record_offers, sale_id, sku, numbers, ids, units, now, from_ms(after.ms), after.seq
    )
    await connection.execute(queries.count_offered, sale_id, sku, len(offers), sum(units), max(numbers))


async def list_unapplied(connection: Connection, sale_id: str, count: int) -> list[RecordedOffer]:
    """List recorded offers that Redis may not have yet, with the epoch of the present load."""
    return [RecordedOffer(**row) for row in await connection.fetch(queries.list_unapplied, sale_id, count)]


async def list_over(
    connection: Connection, sale_id: str, now: datetime, *, all_over: bool, count: int
) -> list[RecordedOffer]:
    """List offers in Redis whose time is over, the oldest end first; with `all_over` all offers."""
    rows = await connection.fetch(queries.list_over, sale_id, now, all_over, count)
    return [RecordedOffer(**row) for row in rows]


async def list_running(
    connection: Connection, sale_id: str, now: datetime, after: UUID, count: int
) -> list[RecordedOffer]:
    """List offers that Redis has and that are not over, in order of their ids, those after one."""
    rows = await connection.fetch(queries.list_running, sale_id, now, after, count)
    return [RecordedOffer(**row) for row in rows]


async def mark_offers_applied(
    connection: Connection, applied: Sequence[tuple[UUID, int]], epoch: int, now: datetime
) -> None:
    """Mark offers, given as (id, seq), as applied to Redis; the time to accept begins.

    Call while the epoch and their SKUs are locked.
    """
    ids, seqs = [id_ for id_, _ in applied], [seq for _, seq in applied]
    await connection.execute(queries.mark_offers_applied, ids, seqs, epoch, now)


async def refuse_offers(connection: Connection, offers: Sequence[UUID]) -> None:
    """Let those wait again whose offers Redis refused. Call while the epoch and their SKUs are locked."""
    await connection.execute(queries.refuse_offers, list(offers))


async def end_offers(connection: Connection, ended: Sequence[tuple[UUID, str, int]], epoch: int, now: datetime) -> None:
    """End offers, given as (id, state, seq of the withdrawal or 0).

    Call while the epoch and their SKUs are locked.
    """
    ids, states, seqs = [id_ for id_, _, _ in ended], [state for _, state, _ in ended], [seq for _, _, seq in ended]
    await connection.execute(queries.end_offers, ids, states, seqs, epoch, now)
