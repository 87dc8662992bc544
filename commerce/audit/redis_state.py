"""The part of a sale in Redis at one cut."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

import msgspec
from redis.asyncio import Redis

import lua
from commerce.audit.store import StockMovement
from commerce.kernel.stream_payload import AcceptedOrder, decode_accepted
from lua import Cut, EntryId, SaleKeys

_MAX_ORPHANS = 100


class SaleReloaded(Exception):
    """The sale was loaded during the audit."""


@dataclass(frozen=True, slots=True)
class RedisState:
    """Promised orders, the cut, and the stream's orders up to it.

    Orders that cannot be decoded are None. `orphans` are entries that no writer gets.
    """

    promised: dict[UUID, str]
    cut: Cut
    streamed: dict[UUID, AcceptedOrder | None]
    orphans: list[EntryId]


async def read_redis_state(redis: Redis, keys: SaleKeys) -> RedisState:
    """Read the promised orders, then the cut, then the stream up to it, without consuming it."""
    promised = await lua.read_all_accepted(redis, keys)
    cut = await lua.cut(redis, keys)
    streamed: dict[UUID, AcceptedOrder | None] = {}
    async for entry in lua.iter_stream(redis, keys, up_to=cut.last_entry):
        for field, payload in entry.orders:
            streamed[UUID(bytes=field) if len(field) == 16 else _substitute_id(entry.id)] = _decode(payload)
    orphans = await lua.claim_orphans(redis, keys, "", _MAX_ORPHANS)
    return RedisState(promised, cut, streamed, [entry.id for entry in orphans])


async def select_applied(
    redis: Redis, keys: SaleKeys, cut: Cut, changes: Sequence[StockMovement]
) -> list[StockMovement]:
    """Return the unmarked changes that Redis had applied at the cut. Raises `SaleReloaded`."""
    seqs = await lua.read_change_seqs(redis, keys, [(change.change_id, change.created_ms) for change in changes])
    # Only this check ensures that the seqs belong to the load of the cut.
    if await lua.read_loaded_epoch(redis, keys) != cut.epoch:
        raise SaleReloaded
    return [change for change, seq in zip(changes, seqs, strict=True) if seq is not None and 0 < seq <= cut.change_seq]


def _decode(payload: bytes) -> AcceptedOrder | None:
    try:
        return decode_accepted(payload)
    except msgspec.MsgspecError:
        return None


def _substitute_id(entry: EntryId) -> UUID:
    """Make an id for a stream field that is no order id."""
    return UUID(int=(entry.ms << 64) | entry.seq)
