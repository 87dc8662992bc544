"""The audit's queries of Postgres.

What is compared with Redis is read in one snapshot, and the seal is written there.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

import asyncpg
import orjson

from commerce.audit.model import Seal, SealedSale, Sums, UnitSums
from commerce.kernel.clock import from_ms, to_ms
from commerce.kernel.postgres import Connection, Database
from commerce.kernel.sql import load_queries
from commerce.sales import store as sales
from lua import Cut

queries = load_queries(__package__)
_AUDIT_TIMEOUT_S = 600
_BEGINNING = (from_ms(0), -1, -1, -1)
"""a position before all entries and changes"""


@dataclass(frozen=True, slots=True)
class AuditedItem:
    """An item of a sale.

    `limit_bound` is the highest limit that was ever in force, None if there was a time without one.
    """

    initial: int
    limit_bound: int | None


@dataclass(frozen=True, slots=True)
class StockMovement:
    """A stock change or release with its units by SKU.

    Of those of a release, the ones written off do not return to stock.
    """

    change_id: UUID
    created_ms: int
    units: dict[str, int]
    user_id: str = ""
    written_off: dict[str, int] = field(default_factory=dict)

    def sums(self) -> Sums:
        """Return the units as an applied release adds them."""
        gone = self.written_off
        return {
            sku: UnitSums(released=n - gone.get(sku, 0), written_off=gone.get(sku, 0)) for sku, n in self.units.items()
        }


class AuditSnapshot:
    """Reads one sale from one snapshot of the database, up to a cut where that makes a difference."""

    def __init__(self, connection: Connection, sale_id: str, cut: Cut) -> None:
        self.connection = connection
        self.sale_id = sale_id
        self._cut = cut

    @property
    def _cut_position(self) -> tuple[datetime, int, int, int]:
        entry = self._cut.last_entry
        return from_ms(entry.ms), entry.seq, self._cut.epoch, self._cut.change_seq

    async def read_state(self) -> tuple[int, int, str]:
        """Return the epochs of the latest load and of the latest finished one, and the state.

        Those of an unknown sale are 0.
        """
        row = await self.connection.fetchrow(queries.read_state, self.sale_id)
        return (row["epoch"], row["loaded_epoch"], row["state"]) if row else (0, 0, "draft")

    async def list_items(self) -> dict[str, AuditedItem]:
        rows = await self._fetch(queries.list_items)
        return {row["sku"]: AuditedItem(row["initial_units"], row["limit_bound"]) for row in rows}

    async def sum_applied_changes(self) -> dict[str, int]:
        """Sum units by SKU of stock changes that are marked as applied by the cut."""
        rows = await self._fetch(queries.sum_applied_changes, self._cut.epoch, self._cut.change_seq)
        return {row["sku"]: row["units"] for row in rows}

    async def list_open_changes(self) -> list[StockMovement]:
        """List stock changes that are not marked as applied."""
        return [
            StockMovement(row["change_id"], to_ms(row["created_at"]), {row["sku"]: row["units"]})
            for row in await self._fetch(queries.list_open_changes)
        ]

    async def list_changes_without_job(self) -> list[str]:
        """List pending stock changes that no job is about to apply."""
        return [row[0] for row in await self._fetch(queries.list_changes_without_job)]

    async def list_open_releases(self) -> list[StockMovement]:
        """List releases that are not marked as applied."""
        return [
            StockMovement(
                *(row["release_id"], to_ms(row["created_at"]), orjson.loads(row["units"]), row["user_id"]),
                written_off=orjson.loads(row["written_off"]),
            )
            for row in await self._fetch(queries.list_open_releases)
        ]

    async def sum_history(self) -> Sums:
        """Sum the units of all rows of the sale."""
        return _read_sums(await self._fetch(queries.sum_after, *_BEGINNING))

    async def sum_after_cut(self) -> Sums:
        """Sum the units of rows that belong behind the cut."""
        return _read_sums(await self._fetch(queries.sum_after, *self._cut_position))

    async def count_orders(self) -> int:
        return await count_orders(self.connection, self.sale_id)

    async def find_persisted(self, order_ids: Sequence[UUID]) -> set[UUID]:
        return await sales.find_persisted(self.connection, order_ids)

    async def list_unreadable(self) -> list[str]:
        """List dead letters whose units are unknown."""
        return [row[0] for row in await self._fetch(queries.unreadable_dead_letters)]

    async def sum_bought(self) -> dict[tuple[str, str], int]:
        """Sum units up to the cut by (user, SKU), for SKUs with a limit."""
        rows = await self._fetch(queries.sum_bought, *self._cut_position)
        return {(row["user_id"], row["sku"]): row["units"] for row in rows}

    async def list_users(self, ids: Collection[UUID]) -> set[str]:
        """List the users of orders, releases and dead letters of the sale."""
        return {row["user_id"] for row in await self._fetch(queries.list_users, list(ids))}

    async def sum_bought_by(self, users: Collection[str]) -> dict[tuple[str, str], int]:
        """Sum units as `sum_bought` does, of some users. Includes SKUs of which all units were released."""
        rows = await self._fetch(queries.sum_bought_by, *self._cut_position, list(users))
        return {(row["user_id"], row["sku"]): row["units"] for row in rows}

    async def list_ledger_differences(self) -> list[str]:
        """Add up the whole ledger, of all sales. Returns what does not add up."""
        rows = await self.connection.fetch(queries.ledger_sums, timeout=_AUDIT_TIMEOUT_S)
        return [row["subject"] for row in rows]

    async def list_stock_differences(self) -> list[str]:
        """Add up the movements of all warehouses. Returns the stocks that differ."""
        rows = await self.connection.fetch(queries.stock_sums, timeout=_AUDIT_TIMEOUT_S)
        return [row["subject"] for row in rows]

    async def list_allotment_differences(self, *, is_whole: bool) -> list[str]:
        """Compare what is allotted to the sale with its movements, changes and shipments, if anything is.

        Without `is_whole` the stocks of its SKUs are compared with their newest movements alone."""
        if not await self.connection.fetchval(queries.has_allotted_items, self.sale_id):
            return []
        checks = (queries.allotted_items, queries.held_units) if is_whole else (queries.newest_stock,)
        return [row["subject"] for check in checks for row in await self._fetch(check)]

    async def read_seal(self) -> Seal | None:
        row = await self.connection.fetchrow(queries.read_seal, self.sale_id)
        if row is None:
            return None
        sums = _read_sums(await self._fetch(queries.read_sealed_sums))
        return Seal(row["epoch"], row["orders"], sums, row["whole_at"], row["is_rewritten"])

    async def list_marked(self, *, counted: bool = False) -> list[UUID]:
        """List the ids of what has changed since the seal, each once.

        Or of the orders whose users are still to be compared with the counts of Redis.
        """
        return [row["id"] for row in await self._fetch(queries.list_marked, counted)]

    async def sum_marked(self) -> Sums:
        """Sum what the changes since the seal add to its sums."""
        return _read_sums(await self._fetch(queries.sum_marked))

    async def list_excused(self, ids: Collection[UUID]) -> list[UUID]:
        """List orders that are in order only as long as a job of theirs waits."""
        return [row[0] for row in await self.connection.fetch(queries.list_excused, list(ids))]

    async def write_seal(self, seal: Seal, *, is_at_rest: bool, now: datetime) -> None:
        """Write the seal and its sums. Sums of other SKUs stay as they are."""
        await self.connection.execute(
            queries.write_seal, self.sale_id, seal.epoch, seal.orders, is_at_rest, now, seal.whole_at
        )
        columns = [[getattr(units, name) for units in seal.sums.values()] for name in UnitSums.__struct_fields__]
        await self.connection.execute(queries.write_sealed_sums, self.sale_id, list(seal.sums), *columns)

    async def delete_seal(self) -> None:
        await self.connection.execute(queries.delete_seal, self.sale_id)

    async def replace_marks(self, marks: dict[str, Sequence[UUID]], *, keep_counted: bool) -> None:
        """Delete the marks that this snapshot sees, and write new ones by kind.

        Those to be compared with counts of Redis may stay.
        """
        await self.connection.execute(queries.delete_marks, self.sale_id, not keep_counted)
        for kind, ids in marks.items():
            if ids:
                await self.connection.execute(queries.insert_mark, self.sale_id, kind, ids)

    async def _fetch(self, query: str, *arguments: object) -> list[asyncpg.Record]:
        return await self.connection.fetch(query, self.sale_id, *arguments, timeout=_AUDIT_TIMEOUT_S)


def _read_sums(rows: Sequence[asyncpg.Record]) -> Sums:
    return {row["sku"]: UnitSums(*(row[name] for name in UnitSums.__struct_fields__)) for row in rows}


@asynccontextmanager
async def open_audit_snapshot(
    db: Database, sale_id: str, cut: Cut, *, readonly: bool = True
) -> AsyncIterator[AuditSnapshot]:
    """Open a snapshot whose statements may take up to ten minutes.

    One that is not read-only may write a seal; it fails with a serialization error if another audit was faster.
    """
    async with db.transaction(isolation="repeatable_read", readonly=readonly) as connection:
        await connection.execute(queries.allow_long_statements)
        yield AuditSnapshot(connection, sale_id, cut)


@asynccontextmanager
async def open_order_snapshot(db: Database) -> AsyncIterator[Connection]:
    """Open a read-only snapshot for checks of orders."""
    async with db.snapshot() as connection:
        await connection.execute(queries.allow_long_statements)
        yield connection


async def count_orders(connection: Connection, sale_id: str) -> int:
    return int(await connection.fetchval(queries.count_orders, sale_id, timeout=_AUDIT_TIMEOUT_S))


async def list_violations(connection: Connection, name: str, ids: Sequence[UUID]) -> list[str]:
    """Run the check `name` on orders by their ids. Returns the first column: what violates it."""
    rows = await connection.fetch(getattr(queries, name), ids, timeout=_AUDIT_TIMEOUT_S)
    return [row[0] for row in rows]


async def iter_order_ids(db: Database, sale_id: str, per_page: int) -> AsyncIterator[list[UUID]]:
    """Yield the ids of all orders of a sale in pages, and of releases without an order."""
    after: tuple[datetime, int, UUID] = (from_ms(0), 0, UUID(int=0))
    while True:
        async with db.connection() as connection:
            rows = await connection.fetch(queries.list_order_ids, sale_id, *after, per_page, timeout=_AUDIT_TIMEOUT_S)
        if not rows:
            break
        yield [row["order_id"] for row in rows]
        after = rows[-1]["accepted_at"], rows[-1]["entry_seq"], rows[-1]["order_id"]
    async with db.transaction() as connection:
        await connection.execute(queries.allow_long_statements)
        rows = await connection.fetch(queries.list_ids_without_order, sale_id, timeout=_AUDIT_TIMEOUT_S)
    for first in range(0, len(rows), per_page):
        yield [row["id"] for row in rows[first : first + per_page]]


async def list_seals(connection: Connection) -> list[SealedSale]:
    """List the sales with a seal, those first whose whole history was audited longest ago."""
    return [SealedSale(**row) for row in await connection.fetch(queries.list_seals)]


async def count_dead_letters(connection: Connection) -> int:
    return int(await connection.fetchval(queries.count_dead_letters))
