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

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from uuid import UUID

from redis.asyncio import Redis

from commerce.audit import sealing, store
from commerce.audit.limits import LimitCheck
from commerce.audit.model import Finding, SaleAudit, SealedSale, StockRow, Sums, UnitSums, add_sums, make_finding
from commerce.audit.order_checks import OrderFindings, check_all_orders, check_orders
from commerce.audit.redis_state import RedisState, SaleReloaded, read_redis_state, select_applied
from commerce.audit.sealing import HistoryNeeded, StoredState
from commerce.audit.store import AuditedItem, AuditSnapshot
from commerce.kernel.clock import Clock, from_ms
from commerce.kernel.errors import NotReady
from commerce.kernel.postgres import Database
from commerce.kernel.stream_payload import AcceptedOrder
from commerce.payments.ledger_sums import LedgerSums
from commerce.sales.errors import InvalidSaleState
from lua import SaleKeys

_MAX_ATTEMPTS, _RETRY_INTERVAL_S = 10, 0.3
_LEDGER = "the ledger does not add up"
_STOCK = "the stock of warehouses differs from its movements"
_ALLOTMENTS = "units that are allotted to the sale differ from its movements, changes or shipments"
_SHOP_IDLE_RATIO, _MIN_REUSED_S = 10, 0.25


Progress = Callable[[int, int], None]
"""takes the number of orders that are checked, and of all that there were at the beginning"""


def _ignore_progress(checked: int, orders: int) -> None:
    """Report to nobody."""


class Audit:
    """Audits sales over both databases."""

    def __init__(self, db: Database, redis: Redis, clock: Clock) -> None:
        self._db = db
        self._redis = redis
        self._clock = clock
        self._ledger = LedgerSums(db)
        self._sealing = asyncio.Lock()  # two that write the same seal would fail, after all that one has read
        self._shop_findings: list[Finding] = []
        self._shop_findings_until_s = 0.0

    async def audit_sale(
        self, sale_id: str, report_progress: Callable[[int, int], None] = _ignore_progress
    ) -> SaleAudit:
        """Audit all history of a sale, and its seal. Writes nothing.

        Raises `InvalidSaleState` if it was never opened, `NotReady` if every attempt meets a load of the sale.
        """
        return await self._audit_history(sale_id, report_progress, writes_seal=False)

    async def audit_changes(self, sale_id: str) -> SaleAudit:
        """Audit what has changed since the last clean audit, and seal the sale if this one is clean.

        Reads all history if there is no seal to go on from. Raises as `audit_sale`.
        """
        try:
            return await self._repeat(sale_id, OrderFindings(), is_whole=False, writes_seal=True)
        except HistoryNeeded:
            return await self.seal_history(sale_id)

    async def seal_history(self, sale_id: str) -> SaleAudit:
        """Audit all history of a sale, and seal it if it is clean. Raises as `audit_sale`.

        A wrong seal is a finding, and is removed.
        """
        return await self._audit_history(sale_id, _ignore_progress, writes_seal=True)

    async def list_seals(self) -> list[SealedSale]:
        """List the sales with a seal, those first whose whole history was audited longest ago."""
        async with self._db.connection() as connection:
            return await store.list_seals(connection)

    async def count_dead_letters(self) -> int:
        """Count the dead letters that wait for staff."""
        async with self._db.connection() as connection:
            return await store.count_dead_letters(connection)

    async def _audit_history(self, sale_id: str, report_progress: Progress, *, writes_seal: bool) -> SaleAudit:
        findings = OrderFindings()
        async with self._db.connection() as connection:
            orders = await store.count_orders(connection, sale_id)
        await check_all_orders(
            self._db, sale_id, findings, lambda checked: report_progress(min(checked, orders), orders)
        )
        return await self._repeat(sale_id, findings, is_whole=True, writes_seal=writes_seal)

    async def _repeat(self, sale_id: str, orders: OrderFindings, *, is_whole: bool, writes_seal: bool) -> SaleAudit:
        for _ in range(_MAX_ATTEMPTS):
            try:
                async with self._sealing if writes_seal else nullcontext():
                    return await self._try_audit(sale_id, orders, is_whole=is_whole, writes_seal=writes_seal)
            except SaleReloaded:
                await self._clock.sleep(_RETRY_INTERVAL_S)
        raise NotReady(f"cannot audit {sale_id}: it is loaded again and again; repeat the audit later")

    async def _try_audit(self, sale_id: str, orders: OrderFindings, *, is_whole: bool, writes_seal: bool) -> SaleAudit:
        """Audit at one cut. Orders that have changed are checked before they are sealed."""
        keys = SaleKeys(sale_id)
        redis_state = await read_redis_state(self._redis, keys)
        ledger = [] if is_whole else await self._check_ledger_sums()
        async with store.open_audit_snapshot(self._db, sale_id, redis_state.cut, readonly=not writes_seal) as snapshot:
            epoch, loaded_epoch, sale_state = await snapshot.read_state()
            if epoch == 0:
                raise InvalidSaleState(f"cannot audit {sale_id!r}: no such sale was opened")
            if redis_state.cut.epoch == 0 and epoch == loaded_epoch:
                return await self._audit_unloaded(sale_id, snapshot)
            if not redis_state.cut.epoch == epoch == loaded_epoch:
                raise SaleReloaded
            state = await (sealing.read_history(snapshot) if is_whole else sealing.read_changes(snapshot, epoch))
            seal_findings = await sealing.check_seal(snapshot, state) if is_whole else []
            if writes_seal:  # a seal says that they are clean in this snapshot
                await check_orders(snapshot.connection, state.changed, orders)
            audit, has_compared, is_resting = await self._compare(keys, redis_state, snapshot, state, is_whole=is_whole)
            audit.findings.extend(
                [*orders.list_findings(), *seal_findings, *(await self._check_shop(snapshot) if is_whole else ledger)]
            )
            if seal_findings and writes_seal:
                await snapshot.delete_seal()
            elif audit.clean and writes_seal:
                await sealing.write_seal(
                    snapshot,
                    state,
                    epoch,
                    from_ms(self._clock.now_ms()),
                    is_resting=is_resting and sale_state == "closed",
                    has_compared=has_compared,
                )
            return audit

    async def _compare(
        self, keys: SaleKeys, redis_state: RedisState, snapshot: AuditSnapshot, state: StoredState, *, is_whole: bool
    ) -> tuple[SaleAudit, bool, bool]:
        """Compare Postgres with Redis at the cut.

        Returns what was found, whether the counts per user were compared, and whether nothing of the sale is under way.
        """
        persisted = await snapshot.find_persisted([*redis_state.promised, *redis_state.streamed])
        streamed = {id_: order for id_, order in redis_state.streamed.items() if id_ not in persisted}
        open_releases = await snapshot.list_open_releases()
        unmarked = await select_applied(self._redis, keys, redis_state.cut, open_releases)
        items = await snapshot.list_items()
        initial, open_changes = await self._sum_initial(keys, redis_state, snapshot, items)
        sums = add_sums(state.sums, await snapshot.sum_after_cut(), sign=-1)
        for release in unmarked:
            sums = add_sums(sums, release.sums())
        rows = _make_rows(initial, redis_state.cut.units_available(), sums, streamed.values())
        check = LimitCheck(self._redis, keys, redis_state, items, streamed.values(), unmarked)
        limits, has_compared = (
            (await check.check_all(snapshot), True) if is_whole else await check.check_changed(snapshot, state.changed)
        )
        findings = [
            *_check_stock(rows),
            *make_finding(
                "P1", "nothing is done about pending stock changes", await snapshot.list_changes_without_job()
            ),
            *_check_lost_orders(redis_state, persisted),
            *make_finding("P2", "stream entries are neither pending nor new", map(str, redis_state.orphans)),
            *_check_stream_keys(streamed),
            *limits,
            *make_finding("P7", _ALLOTMENTS, await snapshot.list_allotment_differences(is_whole=is_whole)),
        ]
        audit = SaleAudit(
            snapshot.sale_id, rows, state.orders + len(streamed), findings, await _make_notes(snapshot, streamed)
        )
        under_way = redis_state.promised or redis_state.streamed or open_releases or open_changes
        return audit, has_compared, not under_way

    async def _check_ledger_sums(self) -> list[Finding]:
        """Check the running sums of the ledger, which is of no single sale."""
        sums = await self._ledger.read() or {}
        return make_finding("P6", _LEDGER, [f"the ledger in {currency}" for currency, sum_ in sums.items() if sum_])

    async def _check_shop(self, snapshot: AuditSnapshot) -> list[Finding]:
        """Add up the whole ledger and the stock of all warehouses, which are of no single sale.

        A round over many sales takes over the findings for ten times as long as it took to get them, if that was long.
        """
        started_s = self._clock.monotonic()
        if started_s >= self._shop_findings_until_s:
            self._shop_findings = [
                *make_finding("P6", _LEDGER, await snapshot.list_ledger_differences()),
                *make_finding("P7", _STOCK, await snapshot.list_stock_differences()),
            ]
            took_s = self._clock.monotonic() - started_s
            idle_s = took_s * _SHOP_IDLE_RATIO if took_s >= _MIN_REUSED_S else 0
            self._shop_findings_until_s = started_s + took_s + idle_s
        return self._shop_findings

    async def _audit_unloaded(self, sale_id: str, snapshot: AuditSnapshot) -> SaleAudit:
        """Report a sale that Redis does not have: nothing can be compared, which is a finding."""
        detail = "the sale is not loaded in Redis, so its orders get not_ready: run `floodgate rebuild`"
        return SaleAudit(sale_id, [], await snapshot.count_orders(), [Finding("P1", detail, 1, [sale_id])], [])

    async def _sum_initial(
        self, keys: SaleKeys, redis_state: RedisState, snapshot: AuditSnapshot, items: dict[str, AuditedItem]
    ) -> tuple[Counter[str], int]:
        """Sum the units at the opening and of stock changes. Returns also how many changes are open."""
        initial = Counter({sku: item.initial for sku, item in items.items()})
        initial.update(await snapshot.sum_applied_changes())
        unmarked = await snapshot.list_open_changes()
        for change in await select_applied(self._redis, keys, redis_state.cut, unmarked):
            initial.update(change.units)
        return initial, len(unmarked)


def _make_rows(
    initial: Counter[str], available: dict[str, int], sums: Sums, streamed: Iterable[AcceptedOrder | None]
) -> list[StockRow]:
    in_stream: Counter[str] = Counter()
    for order in streamed:
        if order is not None:
            in_stream.update(order.units())
    zero = UnitSums()
    rows = []
    for sku in sorted(initial.keys() | available.keys() | sums.keys() | in_stream.keys()):
        units = sums.get(sku, zero)
        counts = (initial[sku], available.get(sku, 0), units.held, units.sold, units.written_off, in_stream[sku])
        rows.append(StockRow(sku, *counts))
    return rows


def _check_stock(rows: Sequence[StockRow]) -> list[Finding]:
    mismatched = [f"{row.sku}: {row.difference:+d}" for row in rows if row.difference]
    negative = [f"{row.sku}: {row.available}" for row in rows if row.available < 0]
    return [
        *make_finding("P1", "initial is not available + held + sold + written off + in stream", mismatched),
        *make_finding("P1", "the available stock is negative", negative),
    ]


def _check_lost_orders(redis_state: RedisState, persisted: set[UUID]) -> list[Finding]:
    lost = [str(id_) for id_ in redis_state.promised if id_ not in persisted and id_ not in redis_state.streamed]
    return make_finding("P2", "accepted orders are lost", lost)


def _check_stream_keys(streamed: dict[UUID, AcceptedOrder | None]) -> list[Finding]:
    """Check P3 in the stream.

    An order with the key of a stored order is allowed, because the writer refuses it.
    """
    keys = Counter((order.user_id, order.idempotency_key) for order in streamed.values() if order)
    repeated = [f"{user} {key}" for (user, key), count in keys.items() if count > 1]
    return make_finding("P3", "orders in the stream share a key", repeated)


async def _make_notes(snapshot: AuditSnapshot, streamed: dict[UUID, AcceptedOrder | None]) -> list[str]:
    unreadable = sum(order is None for order in streamed.values())
    dead = len(await snapshot.list_unreadable())
    return [
        *([f"{unreadable} orders in the stream cannot be read, so their units are unknown"] if unreadable else []),
        *([f"{dead} dead letters cannot be read, so their units are unknown"] if dead else []),
    ]
