"""Keeps writers from storing orders that the stock was counted without.

A writer may hold entries that Redis lost: it was wiped, or another server took its place. If the sale is loaded or
adopted meanwhile, those orders are in neither stream nor Postgres, and their units are for sale again. To store them
then would sell the units twice. Each load and adoption therefore raises the sale's epoch, and an entry that was read
under another epoch is stored only if the stream of today still has it.
"""

from __future__ import annotations

from collections.abc import Sequence

from redis.asyncio import Redis

import lua
from commerce.kernel.postgres import Connection
from commerce.sales import store
from commerce.sales.errors import LoadInProgress
from lua import Entry, SaleKeys


async def split_lost_entries(
    connection: Connection, redis: Redis, sale_id: str, entries: Sequence[Entry]
) -> tuple[list[Entry], list[Entry]]:
    """Return the entries that may be stored until the transaction ends, and those that were lost.

    Raises `LoadInProgress` while that cannot be decided.
    """
    epoch = await store.read_epoch(connection, sale_id)
    doubtful = [entry.id for entry in entries if entry.epoch != epoch]
    if not doubtful:
        return list(entries), []
    loaded_epoch, existing = await lua.find_entries(redis, SaleKeys(sale_id), doubtful)
    if loaded_epoch != epoch:
        raise LoadInProgress(f"cannot store orders of {sale_id}: it is being loaded; retry in a moment")
    lost = set(doubtful) - existing
    return [entry for entry in entries if entry.id not in lost], [entry for entry in entries if entry.id in lost]
