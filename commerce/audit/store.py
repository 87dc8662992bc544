"""The audit's queries of Postgres, all in one snapshot."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import asyncpg
import orjson

from commerce.jobs import store as jobs
from commerce.kernel.clock import from_ms, to_ms
from commerce.kernel.postgres import Connection, Database
from commerce.kernel.sql import load_queries
from commerce.sales import store as sales
from lua import Cut

queries = load_queries(__package__)
_AUDIT_TIMEOUT_S = 600


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

    `applied_position` is its (epoch, seq) if Postgres has it marked as applied.
    """

    change_id: UUID
    created_ms: int
    units: dict[str, int]
    user_id: str = ""
    applied_position: tuple[int, int] | None = None


class AuditSnapshot:
    """Reads one sale up to a cut, from one snapshot of the database."""

    def __init__(self, connection: Connection, sale_id: str, cut: Cut) -> None:
        self._connection = connection
        self._sale_id = sale_id
        self._cut = cut

    @property
    def _cut_position(self) -> tuple[datetime, int]:
        return from_ms(self._cut.last_entry.ms), self._cut.last_entry.seq

    async def read_epochs(self) -> tuple[int, int]:
        """Return the epochs of the latest load and of the latest finished load, (0, 0) for an unknown sale."""
        row = await self._connection.fetchrow(queries.read_epochs, self._sale_id)
        return (row["epoch"], row["loaded_epoch"]) if row else (0, 0)

    async def list_items(self) -> dict[str, AuditedItem]:
        rows = await self._fetch(queries.list_items, self._sale_id)
        return {row["sku"]: AuditedItem(row["initial_units"], row["limit_bound"]) for row in rows}

    async def list_stock_changes(self) -> list[StockMovement]:
        """List stock changes that may have been applied by the cut."""
        return [
            StockMovement(
                row["change_id"],
                to_ms(row["created_at"]),
                {row["sku"]: row["units"]},
                applied_position=(row["epoch"], row["seq"]) if row["status"] == "applied" else None,
            )
            for row in await self._fetch(queries.list_stock_changes, self._sale_id)
        ]

    async def sum_applied_releases(self) -> dict[str, int]:
        """Sum units by SKU of releases that are marked as applied by the cut."""
        rows = await self._fetch(queries.sum_applied_releases, self._sale_id, self._cut.epoch, self._cut.change_seq)
        return {row["sku"]: row["units"] for row in rows}

    async def list_open_releases(self) -> list[StockMovement]:
        """List releases that are not marked as applied."""
        return [
            StockMovement(row["release_id"], to_ms(row["created_at"]), orjson.loads(row["units"]), row["user_id"])
            for row in await self._fetch(queries.list_open_releases, self._sale_id)
        ]

    async def sum_reserved(self) -> tuple[dict[str, int], dict[str, int]]:
        """Sum units by SKU of stored orders up to the cut. Returns all of them, and those that are sold."""
        rows = await self._fetch(queries.sum_reserved, self._sale_id, *self._cut_position)
        return {row["sku"]: row["reserved"] for row in rows}, {row["sku"]: row["sold"] for row in rows}

    async def sum_dead_letters(self) -> dict[str, int]:
        """Sum units by SKU of dead letters up to the cut, without retried ones."""
        rows = await self._fetch(queries.sum_dead_letters, self._sale_id, *self._cut_position)
        return {row["sku"]: row["units"] for row in rows}

    async def count_orders(self) -> int:
        return int(await self._connection.fetchval(queries.count_orders, self._sale_id, timeout=_AUDIT_TIMEOUT_S))

    async def find_persisted(self, order_ids: Sequence[UUID]) -> set[UUID]:
        return await sales.find_persisted(self._connection, order_ids)

    async def sum_bought(self) -> dict[tuple[str, str], int]:
        """Sum units up to the cut by (user, SKU), for SKUs with a limit."""
        rows = await self._fetch(
            queries.sum_bought, self._sale_id, *self._cut_position, self._cut.epoch, self._cut.change_seq
        )
        return {(row["user_id"], row["sku"]): row["units"] for row in rows}

    async def list_violations(self, name: str) -> list[str]:
        """Run the SQL block `name`, whose parameter is the sale or nothing. Returns the first column: ids."""
        query: str = getattr(queries, name)
        rows = await self._fetch(query, *([self._sale_id] if "$1" in query else []))
        return [row[0] for row in rows]

    async def _fetch(self, query: str, *arguments: object) -> list[asyncpg.Record]:
        return await self._connection.fetch(query, *arguments, timeout=_AUDIT_TIMEOUT_S)


@asynccontextmanager
async def open_audit_snapshot(db: Database, sale_id: str, cut: Cut) -> AsyncIterator[AuditSnapshot]:
    """Open a read-only snapshot whose statements may take up to ten minutes."""
    async with db.transaction(isolation="repeatable_read", readonly=True) as connection:
        await connection.execute(queries.allow_long_statements)
        yield AuditSnapshot(connection, sale_id, cut)


async def count_waiting(connection: Connection, now: datetime) -> dict[str, float]:
    """Count waiting dead letters and jobs by name.

    `oldest_…_s` is the time since the oldest job became due.
    """
    row = await connection.fetchrow(queries.count_waiting, now)
    assert row is not None
    parked = await jobs.count_parked(connection)
    due = [due_at for queue, _, _, due_at in await jobs.measure_due(connection) if queue == "releases"]
    return {
        **row,
        "parked_releases": parked.get("releases", 0),
        "parked_stock_changes": parked.get("stock_changes", 0),
        "pending_releases": await jobs.count_jobs(connection, "releases"),
        "oldest_release_s": max(0.0, (now - min(due, default=now)).total_seconds()),
    }
