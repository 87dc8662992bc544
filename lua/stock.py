"""Scripts that move stock: reserve, release, reacquire, change_stock."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, NamedTuple
from uuid import UUID

import msgspec
from redis.asyncio import Redis

from lua.keys import SaleKeys, buyer_field, idempotency_field
from lua.script import Argument, Commands, Script

DAY_MS = 86_400_000
_reserve, _release = Script("reserve"), Script("release")
_recheck = Script("recheck")
_change_stock, _reacquire = Script("change_stock"), Script("reacquire")


class ReserveOutcome(IntEnum):
    """Outcomes of an order; the numbers are those of `reserve.lua`."""

    ACCEPTED = 0
    REPLAYED = 1
    KEY_REUSED = 2
    STALE = 3
    NOT_READY = 4
    NOT_OPEN = 5
    PAUSED = 6
    CLOSED = 7
    SOLD_OUT = 8
    OVER_LIMIT = 9


class ReleaseOutcome(IntEnum):
    """Outcomes of a release; the numbers are those of `release.lua`."""

    APPLIED = 0
    ALREADY_APPLIED = 1
    NOT_READY = 2
    TOO_OLD = 3


class ChangeStockOutcome(IntEnum):
    """Outcomes of a stock change; the numbers are those of `change_stock.lua`."""

    APPLIED = 0
    ALREADY_APPLIED = 1
    NOT_READY = 2
    TOO_OLD = 3
    NOT_ENOUGH = 4


class ReacquireOutcome(IntEnum):
    """Outcomes of a reacquisition; the numbers are those of `reacquire.lua`."""

    APPLIED = 0
    ALREADY_APPLIED = 1
    NOT_READY = 2
    TOO_OLD = 3
    REFUSED = 4


class EntryId(NamedTuple):
    """The id of a stream entry: Redis's clock in milliseconds, and a number within that millisecond."""

    ms: int
    seq: int

    @classmethod
    def parse(cls, text: bytes | str) -> EntryId:
        ms, seq = (text.decode() if isinstance(text, bytes) else text).split("-")
        return cls(int(ms), int(seq))

    def __str__(self) -> str:
        return f"{self.ms}-{self.seq}"


_RECORD = struct.Struct(">16s16sq")
_ORDER, _LINE, _LENGTH = struct.Struct(">QI"), struct.Struct(">IIII"), struct.Struct(">I")


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """The record that Redis keeps under an idempotency key: enough to repeat the first answer."""

    order_id: UUID
    body_digest: bytes
    total_minor: int
    entry: EntryId

    @classmethod
    def parse(cls, data: bytes) -> KeyRecord:
        order_id, digest, total = _RECORD.unpack_from(data)
        return cls(UUID(bytes=order_id), digest, total, EntryId.parse(data[_RECORD.size :]))

    def pack(self) -> bytes:
        return _RECORD.pack(self.order_id.bytes, self.body_digest, self.total_minor) + str(self.entry).encode()


class Reservation(msgspec.Struct, frozen=True, gc=False):
    """One order as `reserve` needs it. `units` has each SKU once: (sku, units, limit or 0)."""

    generation: int
    user_id: str
    idempotency_key: str
    order_id: UUID
    body_digest: bytes
    total_minor: int
    payload: bytes
    units: Sequence[tuple[str, int, int]]


class ReserveResult(NamedTuple):
    """Redis's decision on one order.

    `entry` is set when ACCEPTED, `record` and `entry` when REPLAYED, `sku` when SOLD_OUT or OVER_LIMIT, `opens_ms`
    when NOT_OPEN.
    """

    outcome: ReserveOutcome
    entry: EntryId | None = None
    record: KeyRecord | None = None
    sku: str = ""
    opens_ms: int = 0


_PLAIN_RESULTS = tuple(ReserveResult(outcome) for outcome in ReserveOutcome)


async def reserve(client: Commands, keys: SaleKeys, day: int, orders: Sequence[Reservation]) -> list[ReserveResult]:
    """Take the stock of each order, or of none of its lines, and queue the accepted orders.

    `day` counts from 1970 by the caller's clock; one that is more than a day off Redis's gets NOT_READY. Returns one
    result per order; accepted orders of a batch share one object. Raises redis's errors. After a timeout or a lost
    connection the orders may or may not have been accepted; the same call again finds out.
    """
    skus: dict[str, int] = {}
    user_skus: dict[bytes, int] = {}
    lines = bytearray()
    fields: list[bytes] = []
    payloads: list[bytes] = []
    users: list[str] = []
    records: list[bytes] = []
    for order in orders:
        user_id, order_id, payload = order.user_id, order.order_id.bytes, order.payload
        units = order.units
        lines += _ORDER.pack(order.generation, len(units))
        for sku, count, limit in units:
            user_sku = user_skus.setdefault(buyer_field(user_id, sku), len(user_skus) + 1) if limit else 0
            lines += _LINE.pack(skus.setdefault(sku, len(skus) + 1), count, user_sku, limit)
        fields.append(idempotency_field(user_id, order.idempotency_key))
        payloads += (order_id, _LENGTH.pack(len(payload)), payload)
        users.append(user_id)
        records.append(_RECORD.pack(order_id, order.body_digest, order.total_minor))
    arguments: list[Argument] = [day, len(orders), len(skus), len(user_skus), bytes(lines), b"".join(payloads)]
    arguments += (*skus, *user_skus, *fields, *users, *records)
    reply = await _reserve.call(client, keys.reserve_keys(day), arguments)
    accepted = ReserveResult(ReserveOutcome.ACCEPTED, EntryId.parse(reply[1])) if reply[1] else None
    return [_parse_result(part, accepted) for part in reply[2:]]


def _parse_result(part: int | list[Any], accepted: ReserveResult | None) -> ReserveResult:
    if part == 0 and accepted is not None:
        return accepted
    if isinstance(part, int):
        return _PLAIN_RESULTS[part]
    outcome, detail = ReserveOutcome(part[0]), part[1]
    match outcome:
        case ReserveOutcome.REPLAYED:
            record = KeyRecord.parse(detail)
            return ReserveResult(outcome, record.entry, record)
        case ReserveOutcome.NOT_OPEN:
            return ReserveResult(outcome, opens_ms=int(detail))
        case _:
            return ReserveResult(outcome, sku=detail.decode())


class Recheck(NamedTuple):
    """Redis's decision on a batch of orders that are expected to be refused.

    `outcome` is of the whole sale; None if it takes orders. `free` has the units free of each SKU that was asked for,
    `repeats` the positions of orders whose key is known. `has_offers` tells if units are offered to customers who
    waited, `holders` the positions of orders that such an offer may serve.
    """

    outcome: ReserveResult | None
    free: dict[str, int]
    repeats: set[int]
    has_offers: bool = False
    holders: frozenset[int] = frozenset()


async def recheck(
    client: Commands,
    keys: SaleKeys,
    day: int,
    skus: Sequence[str],
    fields: Sequence[bytes],
    pairs: Sequence[bytes] = (),
) -> Recheck:
    """Read what `reserve` would refuse, without taking anything.

    `fields` are those of the orders in the idempotency keys, `day` is as for `reserve`. `pairs` are their fields in the
    offers, empty ones for orders without; left out as long as nothing is offered. Raises redis's errors.
    """
    arguments: list[Argument] = [day, len(fields), len(skus), len(pairs), *skus, *fields, *pairs]
    outcome, free, repeats, has_offers, holders = await _recheck.call(client, keys.recheck_keys(day), arguments)
    refusal = None if outcome == 0 else _parse_result(outcome, None)
    free_units = dict(zip(skus, free, strict=bool(free)))
    return Recheck(refusal, free_units, set(repeats), bool(has_offers), frozenset(holders))


@dataclass(frozen=True, slots=True)
class Release:
    """Units to return to a sale: sku → units. Those written off return to the limit, and not to the stock.

    Redis keeps the id under the day of `created_ms`, which must therefore never change.
    """

    release_id: UUID
    created_ms: int
    user_id: str
    units: dict[str, int]
    written_off: Mapping[str, int] = field(default_factory=dict)


class ReleaseResult(NamedTuple):
    """Redis's decision on one release. `seq` is set when APPLIED or ALREADY_APPLIED."""

    outcome: ReleaseOutcome
    seq: int


async def release(client: Redis, keys: SaleKeys, releases: Sequence[Release]) -> tuple[int, list[ReleaseResult]]:
    """Return the units of each release to the sale once.

    Returns the epoch of the load (0: not loaded) and a result per release.
    """
    days = sorted({item.created_ms // DAY_MS for item in releases})
    day_numbers = {day: number for number, day in enumerate(days, 1)}
    arguments: list[Argument] = [len(releases)]
    for item in releases:
        day = item.created_ms // DAY_MS
        arguments += (item.release_id.bytes, day, day_numbers[day], item.user_id, len(item.units))
        for sku, units in item.units.items():
            arguments += (sku, units, units - item.written_off.get(sku, 0))
    names = [keys.meta, keys.stock, keys.buyers, keys.held_back, *(keys.changes(day) for day in days)]
    reply = await _release.call(client, names, arguments)
    return int(reply[0] or 0), [ReleaseResult(ReleaseOutcome(outcome), seq) for outcome, seq in reply[1:]]


class ChangeStockResult(NamedTuple):
    """Redis's decision on a stock change.

    `number` is the change's seq when APPLIED or ALREADY_APPLIED, the units free when NOT_ENOUGH.
    """

    epoch: int
    outcome: ChangeStockOutcome
    number: int


async def change_stock(
    client: Redis, keys: SaleKeys, change_id: UUID, created_ms: int, sku: str, delta: int
) -> ChangeStockResult:
    """Change the free units of one SKU once, never below zero.

    Redis keeps the id under the day of `created_ms`, which must therefore never change.
    """
    day = created_ms // DAY_MS
    names = [keys.meta, keys.stock, keys.changes(day), keys.held_back]
    epoch, outcome, number = await _change_stock.call(client, names, [change_id.bytes, day, sku, delta])
    return ChangeStockResult(int(epoch or 0), ChangeStockOutcome(outcome), number)


@dataclass(frozen=True, slots=True)
class Reacquisition:
    """Released units to take again: sku → (units, limit per user or 0). `created_ms` must never change.

    `limits_epoch` is the sale's epoch when its limits were read, 0 if no load can have begun since."""

    reacquire_id: UUID
    created_ms: int
    user_id: str
    units: dict[str, tuple[int, int]]
    limits_epoch: int = 0


class ReacquireResult(NamedTuple):
    """Redis's decision on a reacquisition. `seq` is set when APPLIED or ALREADY_APPLIED."""

    epoch: int
    outcome: ReacquireOutcome
    seq: int


async def reacquire(client: Redis, keys: SaleKeys, request: Reacquisition) -> ReacquireResult:
    """Take all units again or none, once. Redis keeps a refusal too, so a repeat gets the same outcome."""
    day = request.created_ms // DAY_MS
    arguments: list[Argument] = [
        *(request.reacquire_id.bytes, day, request.user_id, request.limits_epoch, len(request.units))
    ]
    for sku, (units, limit) in request.units.items():
        arguments += (sku, units, limit)
    names = [keys.meta, keys.stock, keys.buyers, keys.changes(day)]
    epoch, outcome, seq = await _reacquire.call(client, names, arguments)
    return ReacquireResult(int(epoch or 0), ReacquireOutcome(outcome), seq)
