"""Scripts and reads that concern a sale as a whole: load, unload, adopt, publish, cut."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from itertools import islice
from typing import Any, NamedTuple

from redis.asyncio import Redis

from lua.keys import CHANGE_DEDUP_DAYS, GROUP, SaleKeys
from lua.script import Script
from lua.stock import DAY_MS, EntryId

_load, _unload, _adopt = Script("load"), Script("unload"), Script("adopt")
_publish, _cut = Script("publish"), Script("cut")
_CHUNK_FIELDS = 2_000


class LoadOutcome(IntEnum):
    """Outcomes of a load; the numbers are those of `load.lua`."""

    LOADED = 0
    LOADED_BEFORE = 1


class AdoptOutcome(IntEnum):
    """Outcomes of an adoption; the numbers are those of `adopt.lua`."""

    ADOPTED = 0
    BEHIND = 1
    NOT_READY = 2


class PublishOutcome(IntEnum):
    """Outcomes of a publication; the numbers are those of `publish.lua`."""

    PUBLISHED = 0
    OLDER = 1
    NOT_READY = 2


@dataclass(frozen=True, slots=True)
class SaleTerms:
    """A sale's state in Redis besides its stock. `closes_ms` is None if it never closes.

    With `has_wait_list` returned units are held back for those who wait.
    """

    epoch: int
    generation: int
    state: str
    opens_ms: int
    closes_ms: int | None
    has_wait_list: bool = False

    def _arguments(self) -> list[str | int]:
        closes = "" if self.closes_ms is None else self.closes_ms
        return [self.epoch, self.generation, self.state, self.opens_ms, closes, int(self.has_wait_list)]


async def unload(client: Redis, keys: SaleKeys, today: int) -> bool:
    """Stop a sale at once; its orders get NOT_READY until it is loaded.

    `today` counts days from 1970. Returns True if the sale was loaded. Safe to repeat.
    """
    changes = [keys.changes(day) for day in range(today - CHANGE_DEDUP_DAYS, today + 2)]
    names = [keys.meta, keys.stock, keys.buyers, keys.held_back, keys.offers, *changes]
    return bool(await _unload.call(client, names, []))


async def load(
    client: Redis,
    keys: SaleKeys,
    terms: SaleTerms,
    stock: Iterable[tuple[str, int]],
    buyers: Iterable[tuple[bytes, int]],
    min_entry: EntryId,
    held_back: Iterable[tuple[str, int]] = (),
    offers: Iterable[tuple[bytes, int]] = (),
) -> LoadOutcome:
    """Fill an unloaded sale: `stock` and `held_back` by SKU, `buyers` and `offers` by user NUL sku.

    Entries of its stream get ids above `min_entry`. All hashes are staged under names of this epoch and become
    visible in one step: a load that dies half-way, or two at once, never leave half a stock to sell from.
    """
    staged = [keys.staged(terms.epoch, name) for name in ("stock", "buyers", "held-back", "offers")]
    await client.delete(*staged)
    content: tuple[Iterable[tuple[Any, int]], ...] = (stock, buyers, held_back, offers)
    for key, pairs in zip(staged, content, strict=True):
        await fill(client, key, pairs)
    names = [keys.meta, keys.orders, keys.stock, keys.buyers, keys.held_back, keys.offers, *staged]
    reply = await _load.call(client, names, [*terms._arguments(), GROUP, str(min_entry)])
    return LoadOutcome(reply)


class LoadState(NamedTuple):
    """The load of a sale, as a server has it.

    `epoch` is 0 if it is not loaded. `counted_epoch` is that of the load, which is lower than `epoch` if another server
    adopted it since.
    `is_adopted` is False if it was loaded on another process, of which this server is a copy.
    """

    epoch: int
    counted_epoch: int
    is_adopted: bool


async def read_load_states(client: Redis, keys: Sequence[SaleKeys]) -> list[LoadState]:
    """Read the load of each sale from one server."""
    pipe = client.pipeline(transaction=False)
    pipe.info("server")
    for sale in keys:
        pipe.hmget(sale.meta, "epoch", "counted_epoch", "run_id")
    info, *loads = await pipe.execute()
    run_id = info["run_id"].encode()
    return [LoadState(int(epoch or 0), int(counted or epoch or 0), own == run_id) for epoch, counted, own in loads]


class Position(NamedTuple):
    """Progress of a server in a sale: its stream's last id and the seq of its last change."""

    last_entry: EntryId
    change_seq: int

    def is_behind(self, other: Position) -> bool:
        return self.last_entry < other.last_entry or self.change_seq < other.change_seq


async def read_position(client: Redis, keys: SaleKeys) -> Position:
    """Read how far the server has come. A sale without a stream is at the beginning."""
    pipe = client.pipeline(transaction=False)
    pipe.xinfo_stream(keys.orders)
    pipe.hget(keys.meta, "change_seq")
    stream, change_seq = await pipe.execute(raise_on_error=False)
    if isinstance(stream, Exception) and "no such key" not in str(stream):
        raise stream
    last = EntryId(0, 0) if isinstance(stream, Exception) else EntryId.parse(stream["last-generated-id"])
    return Position(last, int(change_seq or 0))


async def adopt(client: Redis, keys: SaleKeys, epoch: int, terms: SaleTerms, at_least: Position) -> AdoptOutcome:
    """Let a sale that was loaded elsewhere take orders on this server, under the epoch of `terms`.

    Does nothing if the server's epoch is not `epoch`, or if it is behind `at_least`.
    """
    arguments = [epoch, *terms._arguments(), str(at_least.last_entry), at_least.change_seq]
    return AdoptOutcome(await _adopt.call(client, [keys.meta, keys.orders], arguments))


async def fill(client: Redis, key: bytes, pairs: Iterable[tuple[Any, int]]) -> None:
    """Write many fields of a hash, some thousands per command."""
    remaining = iter(pairs)
    chunk: dict[Any, Any]  # the client types keys and values invariantly
    while chunk := dict(islice(remaining, _CHUNK_FIELDS)):
        await client.hset(key, mapping=chunk)


async def publish(client: Redis, keys: SaleKeys, terms: SaleTerms) -> PublishOutcome:
    """Give a loaded sale its terms. An older generation changes nothing."""
    return PublishOutcome(await _publish.call(client, [keys.meta], terms._arguments()))


class Cut(NamedTuple):
    """A sale at one moment. `epoch` is 0 if it is not loaded.

    By SKU: `stock` are the free units, `held_back` those that were returned to a sale with a wait-list, `offered`
    those that are offered to customers who waited.
    """

    epoch: int
    change_seq: int
    last_entry: EntryId
    accepted: int
    stock: dict[str, int]
    held_back: dict[str, int]
    offered: dict[str, int]

    def units_available(self) -> Counter[str]:
        """Add up the units by SKU that no order has."""
        available = Counter(self.stock)
        available.update(self.held_back)
        available.update(self.offered)
        return available


async def dedup_horizon_ms(client: Redis) -> int:
    """Return the moment before which every release and stock change is TOO_OLD for Redis from now on."""
    seconds, _ = await client.time()
    return (seconds * 1000 // DAY_MS - CHANGE_DEDUP_DAYS + 1) * DAY_MS


async def cut(client: Redis, keys: SaleKeys) -> Cut:
    """Read a sale's stock, its stream's last id and its last change in one step."""
    names = [keys.meta, keys.stock, keys.orders, keys.accepted, keys.held_back, keys.offers]
    epoch, change_seq, last_entry, accepted, stock, held_back, offers = await _cut.call(client, names, [])
    offered: Counter[str] = Counter()
    for user_sku, units in _read_units(offers):
        offered[user_sku.split("\0")[1]] += units
    return Cut(
        *(int(epoch or 0), change_seq, EntryId.parse(last_entry), accepted),
        *(dict(_read_units(stock)), dict(_read_units(held_back)), dict(offered)),
    )


def _read_units(reply: Sequence[bytes]) -> Iterator[tuple[str, int]]:
    return zip((field.decode() for field in reply[::2]), map(int, reply[1::2]), strict=True)


async def read_loaded_epoch(client: Redis, keys: SaleKeys) -> int:
    """Return the epoch of the current load, 0 if the sale is not loaded."""
    return int(await client.hget(keys.meta, "epoch") or 0)
