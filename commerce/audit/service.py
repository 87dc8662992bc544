"""Audits sales. These steps yield a consistent view of both databases while orders continue:

1. List the orders that Redis promises (`accepted`).
2. Take the cut: one script reads the stock, the stream's last id L and the last change's seq R in one step. The stock
   includes exactly the orders up to L and the changes up to R.
3. Read the stream up to L without consuming it.
4. Read Postgres in one snapshot: orders up to L and changes up to R. The writer only moves orders from the stream to
   Postgres, and Postgres is read last, so each order up to L is read at least once; it is counted once by its id.
   Changes that Redis has applied and Postgres has not marked yet are looked up in Redis by their ids.

If the sale was loaded again meanwhile, the numbers do not belong together, and the audit starts again.
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

_MAX_ATTEMPTS, _RETRY_INTERVAL_S = 10, 0.3
_MAX_EXAMPLES = 5
_LEDGER_IDLE_RATIO, _MIN_REUSED_S = 10, 0.25
_MAX_ORPHANS = 100


class _SaleReloaded(Exception):
    """The sale was loaded during the audit."""


@dataclass(frozen=True, slots=True)
class _RedisState:
    """The part of a sale in Redis: promised orders, the cut, and the stream's orders up to it.

    Orders that cannot be decoded are None. `orphans` are entries that no writer gets.
    """

    promised: dict[UUID, str]
    cut: Cut
    streamed: dict[UUID, AcceptedOrder | None]
    orphans: list[EntryId]


class Audit:
    """Audits sales over both databases."""

    def __init__(self, db: Database, redis: Redis, clock: Clock) -> None:
        self._db = db
        self._redis = redis
        self._clock = clock
        self._ledger_findings: list[Finding] = []
        self._ledger_findings_until_s = 0.0

    async def audit_sale(self, sale_id: str) -> SaleAudit:
        """Audit a sale at one cut.

        Raises `InvalidSaleState` if it was never opened, `NotReady` if every attempt meets a load of the sale.
        """
        for _ in range(_MAX_ATTEMPTS):
            try:
                return await self._try_audit(sale_id)
            except _SaleReloaded:
                await self._clock.sleep(_RETRY_INTERVAL_S)
        raise NotReady(f"cannot audit {sale_id}: it is loaded again and again; repeat the audit later")

    async def count_waiting(self) -> dict[str, float]:
        """Count waiting dead letters and jobs by name, with the ages of the oldest jobs in seconds."""
        async with self._db.connection() as connection:
            return await store.count_waiting(connection, from_ms(self._clock.now_ms()))

    async def _try_audit(self, sale_id: str) -> SaleAudit:
        keys = SaleKeys(sale_id)
        redis_state = await self._read_redis(keys)
        async with store.open_audit_snapshot(self._db, sale_id, redis_state.cut) as snapshot:
            epoch, loaded_epoch = await snapshot.read_epochs()
            if epoch == 0:
                raise InvalidSaleState(f"cannot audit {sale_id!r}: no such sale was opened")
            if redis_state.cut.epoch == 0 and epoch == loaded_epoch:
                return await self._audit_unloaded(sale_id, snapshot)
            if not redis_state.cut.epoch == epoch == loaded_epoch:
                raise _SaleReloaded
            persisted = await snapshot.find_persisted([*redis_state.promised, *redis_state.streamed])
            streamed = {id_: order for id_, order in redis_state.streamed.items() if id_ not in persisted}
            unmarked_releases = await self._select_applied(keys, redis_state.cut, await snapshot.list_open_releases())
            rows = await self._compute_stock(keys, redis_state, snapshot, streamed.values(), unmarked_releases)
            findings = [
                *_check_stock(rows),
                *_check_lost_orders(redis_state, persisted),
                *_make_finding("P2", "stream entries are neither pending nor new", list(map(str, redis_state.orphans))),
                *_check_stream_keys(streamed),
                *await self._check_limits(keys, redis_state, snapshot, streamed.values(), unmarked_releases),
                *await _run_sql_checks(snapshot),
                *await self._check_ledger(snapshot),
            ]
            orders = await snapshot.count_orders() + len(streamed)
            return SaleAudit(sale_id, rows, orders, findings, await _make_notes(snapshot, streamed))

    async def _check_ledger(self, snapshot: AuditSnapshot) -> list[Finding]:
        """Add up the whole ledger, which is of no single sale.

        A round over many sales takes over the findings for ten times as long as it took to get them, if that was long.
        """
        started_s = self._clock.monotonic()
        if started_s >= self._ledger_findings_until_s:
            examples = await snapshot.list_violations("ledger_sums")
            self._ledger_findings = _make_finding("P6", "the ledger does not add up", examples)
            took_s = self._clock.monotonic() - started_s
            idle_s = took_s * _LEDGER_IDLE_RATIO if took_s >= _MIN_REUSED_S else 0
            self._ledger_findings_until_s = started_s + took_s + idle_s
        return self._ledger_findings

    async def _read_redis(self, keys: SaleKeys) -> _RedisState:
        promised = await lua.read_all_accepted(self._redis, keys)
        cut = await lua.cut(self._redis, keys)
        streamed: dict[UUID, AcceptedOrder | None] = {}
        async for entry in lua.iter_stream(self._redis, keys, up_to=cut.last_entry):
            for field, payload in entry.orders:
                streamed[UUID(bytes=field) if len(field) == 16 else _substitute_id(entry.id)] = _decode(payload)
        orphans = await lua.claim_orphans(self._redis, keys, "", _MAX_ORPHANS)
        return _RedisState(promised, cut, streamed, [entry.id for entry in orphans])

    async def _audit_unloaded(self, sale_id: str, snapshot: AuditSnapshot) -> SaleAudit:
        """Report a sale that Redis does not have: nothing can be compared, which is a finding."""
        detail = "the sale is not loaded in Redis, so its orders get not_ready: run `floodgate rebuild`"
        return SaleAudit(sale_id, [], await snapshot.count_orders(), [Finding("P1", detail, 1, [sale_id])], [])

    async def _select_applied(self, keys: SaleKeys, cut: Cut, changes: Sequence[StockMovement]) -> list[StockMovement]:
        """Return the unmarked changes that Redis had applied at the cut."""
        seqs = await lua.read_change_seqs(
            self._redis, keys, [(change.change_id, change.created_ms) for change in changes]
        )
        # Only this check ensures that the seqs belong to the load of the cut.
        if await lua.read_loaded_epoch(self._redis, keys) != cut.epoch:
            raise _SaleReloaded
        return [
            change for change, seq in zip(changes, seqs, strict=True) if seq is not None and 0 < seq <= cut.change_seq
        ]

    async def _compute_stock(
        self,
        keys: SaleKeys,
        redis_state: _RedisState,
        snapshot: AuditSnapshot,
        streamed: Iterable[AcceptedOrder | None],
        unmarked_releases: Sequence[StockMovement],
    ) -> list[StockRow]:
        cut = redis_state.cut
        items = await snapshot.list_items()
        initial = Counter({sku: item.initial for sku, item in items.items()})
        changes = await snapshot.list_stock_changes()
        applied = [
            change
            for change in changes
            if change.applied_position and change.applied_position <= (cut.epoch, cut.change_seq)
        ]
        applied += await self._select_applied(keys, cut, [change for change in changes if not change.applied_position])
        for change in applied:
            initial.update(change.units)
        reserved, sold = await snapshot.sum_reserved()
        held = Counter(reserved)
        held.update(await snapshot.sum_dead_letters())
        held.subtract(sold)
        held.subtract(await snapshot.sum_applied_releases())
        for change in unmarked_releases:
            held.subtract(change.units)
        in_stream: Counter[str] = Counter()
        for order in streamed:
            if order is not None:
                in_stream.update(order.units())
        available = cut.units_available()
        skus = sorted(items.keys() | available.keys() | held.keys() | in_stream.keys())
        return [
            StockRow(sku, initial[sku], available[sku], held[sku], sold.get(sku, 0), in_stream[sku]) for sku in skus
        ]

    async def _check_limits(
        self,
        keys: SaleKeys,
        redis_state: _RedisState,
        snapshot: AuditSnapshot,
        streamed: Iterable[AcceptedOrder | None],
        unmarked_releases: Sequence[StockMovement],
    ) -> list[Finding]:
        """Check P4: purchases against the highest limit ever in force, and against the counts of Redis.

        The counts of Redis are compared only if no order was accepted since the cut.
        """
        bounds = {sku: item.limit_bound for sku, item in (await snapshot.list_items()).items()}
        bought = Counter(await snapshot.sum_bought())
        limited = {sku for sku, bound in bounds.items() if bound is not None}
        for order in streamed:
            for sku, units in order.units().items() if order else ():
                if sku in limited:
                    bought[order.user_id, sku] += units  # type: ignore[union-attr]
        for change in unmarked_releases:
            for sku, units in change.units.items():
                if sku in limited:
                    bought[change.user_id, sku] -= units
        over = [
            f"{user} {sku}: {units}"
            for (user, sku), units in bought.items()
            if (bound := bounds.get(sku)) is not None and units > bound
        ]
        findings = _make_finding("P4", "users bought more than their limit", over)
        counted = await lua.read_units_taken(self._redis, keys)
        if await lua.cut(self._redis, keys) != redis_state.cut:
            return findings  # new orders have changed the counts since the cut
        expected = {
            lua.buyer_field(user, sku): units for (user, sku), units in bought.items() if units and sku in limited
        }
        counted = {field: units for field, units in counted.items() if field.split(b"\0")[1].decode() in limited}
        mismatched = [
            field.decode().replace("\0", " ")
            for field in sorted(expected.keys() | counted.keys())
            if expected.get(field) != counted.get(field)
        ]
        return findings + _make_finding("P4", "Redis counts other units per user than were ordered", mismatched)


def _decode(payload: bytes) -> AcceptedOrder | None:
    try:
        return decode_accepted(payload)
    except msgspec.MsgspecError:
        return None


def _substitute_id(entry: EntryId) -> UUID:
    """Make an id for a stream field that is no order id."""
    return UUID(int=(entry.ms << 64) | entry.seq)


def _make_finding(promise: str, detail: str, violations: Sequence[str]) -> list[Finding]:
    return [Finding(promise, detail, len(violations), list(violations[:_MAX_EXAMPLES]))] if violations else []


def _check_stock(rows: Sequence[StockRow]) -> list[Finding]:
    mismatched = [f"{row.sku}: {row.difference:+d}" for row in rows if row.difference]
    negative = [f"{row.sku}: {row.available}" for row in rows if row.available < 0]
    return [
        *_make_finding("P1", "initial is not available + held + sold + in stream", mismatched),
        *_make_finding("P1", "the available stock is negative", negative),
    ]


def _check_lost_orders(redis_state: _RedisState, persisted: set[UUID]) -> list[Finding]:
    lost = [str(id_) for id_ in redis_state.promised if id_ not in persisted and id_ not in redis_state.streamed]
    return _make_finding("P2", "accepted orders are lost", lost)


def _check_stream_keys(streamed: dict[UUID, AcceptedOrder | None]) -> list[Finding]:
    """Check P3 in the stream.

    An order with the key of a stored order is allowed, because the writer refuses it.
    """
    keys = Counter((order.user_id, order.idempotency_key) for order in streamed.values() if order)
    repeated = [f"{user} {key}" for (user, key), count in keys.items() if count > 1]
    return _make_finding("P3", "orders in the stream share a key", repeated)


async def _make_notes(snapshot: AuditSnapshot, streamed: dict[UUID, AcceptedOrder | None]) -> list[str]:
    unreadable = sum(order is None for order in streamed.values())
    dead = len(await snapshot.list_violations("unreadable_dead_letters"))
    return [
        *([f"{unreadable} orders in the stream cannot be read, so their units are unknown"] if unreadable else []),
        *([f"{dead} dead letters cannot be read, so their units are unknown"] if dead else []),
    ]


_SQL_CHECKS = (
    ("P2", "orders_without_lines", "orders have no lines"),
    ("P2", "wrong_totals", "totals of orders are not the sums of their lines"),
    ("P3", "repeated_keys", "an idempotency key of a user has several orders"),
    ("P5", "cancelled_without_release", "the stock of cancelled orders is not released"),
    ("P5", "orphan_releases", "stock is released for orders that are not cancelled"),
    ("P5", "released_other_units", "other units are released than were reserved"),
    ("P5", "reacquired_without_cause", "stock was reacquired for orders that are cancelled"),
    ("P5", "reacquired_other_units", "other units were reacquired than released"),
    ("P6", "unbalanced_postings", "postings in the ledger do not balance"),
    ("P6", "payments_and_ledger", "payments or refunds differ from their ledger entries"),
    ("P6", "money_without_order", "captured money belongs to no paid order and is not refunded"),
    ("P6", "paid_without_money", "payments of orders do not add up to their totals"),
    ("P6", "over_refunded", "refunds exceed the captured amount"),
    ("P7", "fulfilment_counts_out_of_order", "lines have more units delivered than shipped, or shipped than ordered"),
    ("P7", "fulfilment_and_shipments", "counts of fulfilment lines differ from their shipments"),
    ("P7", "shipped_without_counts", "statuses of orders contradict the counts of their fulfilment lines"),
    ("P7", "booked_twice", "shipments have several current bookings"),
    ("P7", "shipped_without_booking", "shipments are with a carrier without a booking"),
    ("P7", "paid_without_fulfilment", "paid orders have no fulfilment"),
    ("P8", "broken_histories", "histories of orders do not lead to their status"),
    ("P8", "broken_shipment_histories", "histories of shipments do not lead to their status"),
)


async def _run_sql_checks(snapshot: AuditSnapshot) -> list[Finding]:
    findings = []
    for promise, name, detail in _SQL_CHECKS:
        findings += _make_finding(promise, detail, await snapshot.list_violations(name))
    return findings
