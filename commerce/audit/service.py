"""The audit. How it gets one view of two databases while orders flow:

1. The orders that Redis promises (`accepted`) are listed.
2. The cut: one script reads the stock, the stream's last id L and the last change's seq R in one step. Every order
   up to L has its units off that stock, every change up to R is in it, and nothing later is.
3. The stream is read up to L, without taking anything.
4. Postgres is read in one snapshot, orders up to L and changes up to R. The writer moves orders from the stream to
   Postgres, never back; since Postgres is read last, each order up to L is seen at least once, and is counted once by
   its id. Changes that Redis has applied and Postgres has not marked yet are looked up in Redis by their ids.

If the sale was loaded anew in between, the numbers do not belong together and the audit starts over.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from uuid import UUID

import msgspec
from redis.asyncio import Redis

import lua
from commerce.audit import store
from commerce.audit.model import Finding, SaleAudit, StockRow
from commerce.audit.store import AuditSnapshot, StockMovement
from commerce.kernel.clock import Clock, from_ms
from commerce.kernel.errors import NotReady
from commerce.kernel.postgres import Database
from commerce.kernel.stream_payload import AcceptedOrder, decode_accepted
from commerce.sales.errors import InvalidSaleState
from lua import Cut, EntryId, SaleKeys

_TRIES, _AGAIN_S = 10, 0.3
_EXAMPLES = 5


class _LoadedAnew(Exception):
    """The sale was loaded while it was audited."""


@dataclass(frozen=True, slots=True)
class _Redis:
    """What was read of Redis: the promised orders, the cut, and the stream's orders up to it."""

    promised: dict[UUID, str]
    cut: Cut
    waiting: dict[UUID, AcceptedOrder | None]


class Audit:
    """Audits sales over both databases."""

    def __init__(self, db: Database, redis: Redis, clock: Clock) -> None:
        self._db = db
        self._redis = redis
        self._clock = clock

    async def audit_sale(self, sale_id: str) -> SaleAudit:
        """Audit one sale that was opened. Raises `NotReady` if it is being loaded over and over."""
        for _ in range(_TRIES):
            try:
                return await self._once(sale_id)
            except _LoadedAnew:
                await self._clock.sleep(_AGAIN_S)
        raise NotReady(f"{sale_id} is being loaded again and again: audit it later")

    async def count_waiting(self) -> dict[str, float]:
        """Dead letters and jobs that wait, by name."""
        async with self._db.connection() as connection:
            return await store.counts(connection, from_ms(self._clock.now_ms()))

    async def sum_ledger(self) -> dict[str, int]:
        """What all of the ledger adds up to, by currency: nothing, or money was made or lost."""
        async with self._db.connection() as connection:
            return await store.ledger(connection)

    async def _once(self, sale_id: str) -> SaleAudit:
        keys = SaleKeys(sale_id)
        seen = await self._look(keys)
        async with store.open_audit_snapshot(self._db, sale_id, seen.cut) as books:
            epoch, loaded_epoch = await books.epochs()
            if epoch == 0:
                raise InvalidSaleState(f"there is no sale {sale_id!r} that was ever opened")
            if seen.cut.epoch == 0 and epoch == loaded_epoch:
                return await self._unloaded(sale_id, books)
            if not seen.cut.epoch == epoch == loaded_epoch:
                raise _LoadedAnew
            persisted = await books.persisted([*seen.promised, *seen.waiting])
            streamed = {id_: order for id_, order in seen.waiting.items() if id_ not in persisted}
            open_releases = await self._applied_unmarked(keys, seen.cut, await books.open_releases())
            rows = await self._stock(keys, seen, books, streamed.values(), open_releases)
            findings = [
                *_stock_findings(rows),
                *_lost(seen, persisted),
                *_double_keys(streamed),
                *await self._limit_findings(keys, seen, books, streamed.values(), open_releases),
                *await _listed_findings(books),
            ]
            return SaleAudit(
                sale_id, rows, await books.orders() + len(streamed), findings, await _notes(books, streamed)
            )

    async def _look(self, keys: SaleKeys) -> _Redis:
        promised = await lua.all_accepted(self._redis, keys)
        cut = await lua.cut(self._redis, keys)
        waiting: dict[UUID, AcceptedOrder | None] = {}
        async for entry in lua.iter_stream(self._redis, keys, up_to=cut.last_entry):
            for field, payload in entry.orders:
                waiting[UUID(bytes=field) if len(field) == 16 else _stand_in(entry.id)] = _read(payload)
        return _Redis(promised, cut, waiting)

    async def _unloaded(self, sale_id: str, books: AuditSnapshot) -> SaleAudit:
        """Redis has nothing of the sale: there is nothing to compare, and that is a finding."""
        detail = "the sale is not loaded in Redis, so its orders get not_ready: see `floodgate rebuild`"
        return SaleAudit(sale_id, [], await books.orders(), [Finding("P1", detail, 1, [sale_id])], [])

    async def _applied_unmarked(
        self, keys: SaleKeys, cut: Cut, changes: Sequence[StockMovement]
    ) -> list[StockMovement]:
        """Those that were in the stock at the cut although Postgres does not say so yet."""
        seqs = await lua.change_seqs(self._redis, keys, [(change.change_id, change.created_ms) for change in changes])
        # Only now is it sure that the seqs are of the load the cut was made in.
        if await lua.loaded_epoch(self._redis, keys) != cut.epoch:
            raise _LoadedAnew
        return [
            change for change, seq in zip(changes, seqs, strict=True) if seq is not None and 0 < seq <= cut.change_seq
        ]

    async def _stock(
        self,
        keys: SaleKeys,
        seen: _Redis,
        books: AuditSnapshot,
        streamed: Iterable[AcceptedOrder | None],
        open_releases: Sequence[StockMovement],
    ) -> list[StockRow]:
        cut = seen.cut
        items = await books.items()
        initial = Counter({sku: item.initial for sku, item in items.items()})
        changes = await books.changes()
        in_force = [
            change
            for change in changes
            if change.applied_position and change.applied_position <= (cut.epoch, cut.change_seq)
        ]
        in_force += await self._applied_unmarked(
            keys, cut, [change for change in changes if not change.applied_position]
        )
        for change in in_force:
            initial.update(change.units)
        taken, sold = await books.taken()
        held = Counter(taken)
        held.update(await books.dead())
        held.subtract(sold)
        held.subtract(await books.applied_releases())
        for change in open_releases:
            held.subtract(change.units)
        in_stream: Counter[str] = Counter()
        for order in streamed:
            if order is not None:
                in_stream.update(order.units())
        skus = sorted(items.keys() | cut.stock.keys() | held.keys() | in_stream.keys())
        return [
            StockRow(sku, initial[sku], cut.stock.get(sku, 0), held[sku], sold.get(sku, 0), in_stream[sku])
            for sku in skus
        ]

    async def _limit_findings(
        self,
        keys: SaleKeys,
        seen: _Redis,
        books: AuditSnapshot,
        streamed: Iterable[AcceptedOrder | None],
        open_releases: Sequence[StockMovement],
    ) -> list[Finding]:
        """P4, against the highest limit ever in force; and whether Redis counts the same, if nothing moved."""
        bounds = {sku: item.limit_bound for sku, item in (await books.items()).items()}
        bought = Counter(await books.bought())
        limited = {sku for sku, bound in bounds.items() if bound is not None}
        for order in streamed:
            for sku, units in order.units().items() if order else ():
                if sku in limited:
                    bought[order.user_id, sku] += units  # type: ignore[union-attr]
        for change in open_releases:
            for sku, units in change.units.items():
                if sku in limited:
                    bought[change.user_id, sku] -= units
        over = [
            f"{user} {sku}: {units}"
            for (user, sku), units in bought.items()
            if (bound := bounds.get(sku)) is not None and units > bound
        ]
        findings = _finding("P4", "users have more than the limit", over)
        counted = await lua.buyers(self._redis, keys)
        if await lua.cut(self._redis, keys) != seen.cut:
            return findings  # orders flow: the counts have moved on and cannot be compared
        known = {
            lua.idempotency_field(user, sku): units for (user, sku), units in bought.items() if units and sku in limited
        }
        counted = {field: units for field, units in counted.items() if field.split(b"\0")[1].decode() in limited}
        other = [
            field.decode().replace("\0", " ")
            for field in sorted(known.keys() | counted.keys())
            if known.get(field) != counted.get(field)
        ]
        return findings + _finding("P4", "Redis counts other units for a user than were ordered", other)


def _read(payload: bytes) -> AcceptedOrder | None:
    try:
        return decode_accepted(payload)
    except msgspec.MsgspecError:
        return None


def _stand_in(entry: EntryId) -> UUID:
    """An id for something in the stream that has none of its own."""
    return UUID(int=(entry.ms << 64) | entry.seq)


def _finding(promise: str, detail: str, found: Sequence[str]) -> list[Finding]:
    return [Finding(promise, detail, len(found), list(found[:_EXAMPLES]))] if found else []


def _stock_findings(rows: Sequence[StockRow]) -> list[Finding]:
    off = [f"{row.sku}: {row.difference:+d}" for row in rows if row.difference]
    negative = [f"{row.sku}: {row.available}" for row in rows if row.available < 0]
    return [
        *_finding("P1", "initial is not available + held + sold + in stream", off),
        *_finding("P1", "fewer than no units are available", negative),
    ]


def _lost(seen: _Redis, persisted: set[UUID]) -> list[Finding]:
    lost = [str(id_) for id_ in seen.promised if id_ not in persisted and id_ not in seen.waiting]
    return _finding("P2", "promised orders are nowhere", lost)


def _double_keys(streamed: dict[UUID, AcceptedOrder | None]) -> list[Finding]:
    """P3. One that stands under the key of a stored order is no breach: the writer will refuse it."""
    keys = Counter((order.user_id, order.idempotency_key) for order in streamed.values() if order)
    doubles = [f"{user} {key}" for (user, key), count in keys.items() if count > 1]
    return _finding("P3", "orders in the stream share a key", doubles)


async def _notes(books: AuditSnapshot, streamed: dict[UUID, AcceptedOrder | None]) -> list[str]:
    unreadable = sum(order is None for order in streamed.values())
    dead = len(await books.listed("unreadable_dead_letters"))
    return [
        *([f"{unreadable} orders in the stream cannot be read, so their units are unknown"] if unreadable else []),
        *([f"{dead} dead letters cannot be read, so their units are unknown"] if dead else []),
    ]


_LISTED = (
    ("P2", "orders_without_lines", "orders have no lines"),
    ("P2", "wrong_totals", "orders' totals are not those of their lines"),
    ("P3", "double_keys", "a user's key stands for several orders"),
    ("P5", "cancelled_without_release", "cancelled orders do not give their goods back"),
    ("P5", "release_without_cause", "goods go back of orders that were not cancelled"),
    ("P5", "release_of_other_units", "other goods go back than were taken"),
    ("P5", "taken_again_without_cause", "goods were taken again and the order is cancelled"),
    ("P5", "taken_again_of_other_units", "other goods were taken again than went back"),
    ("P6", "unbalanced_postings", "postings in the ledger do not balance"),
    ("P6", "payments_and_ledger", "payments or refunds are not in the ledger as they are"),
    ("P6", "money_without_order", "captured money is on no order and does not go back"),
    ("P6", "paid_without_money", "orders are paid by other amounts than their totals"),
    ("P6", "over_refunded", "more goes back than was captured"),
    ("P6", "ledger_sums", "the ledger does not add up"),
    ("P7", "goods_out_of_balance", "more arrived than left, or more left than was ordered"),
    ("P7", "goods_and_parcels", "lines are counted otherwise than their parcels hold"),
    ("P7", "sent_without_goods", "orders are said to have left or arrived, or not to, and it is not so"),
    ("P7", "booked_twice", "parcels are booked more than once"),
    ("P7", "sent_without_booking", "parcels are on their way without a booking"),
    ("P7", "forgotten_orders", "orders are paid and nobody is to send them"),
    ("P8", "broken_histories", "orders' histories do not lead to their status"),
    ("P8", "broken_journeys", "parcels' histories do not lead to their status"),
)


async def _listed_findings(books: AuditSnapshot) -> list[Finding]:
    findings = []
    for promise, name, detail in _LISTED:
        findings += _finding(promise, detail, await books.listed(name))
    return findings
