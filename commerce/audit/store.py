"""What the audit reads from Postgres, all of it in one snapshot."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import asyncpg
import orjson

from commerce.kernel.clock import from_ms, to_ms
from commerce.kernel.postgres import Connection, Database
from commerce.kernel.sql import load_queries
from commerce.sales import store as sales
from lua import Cut

queries = load_queries(__package__)
_LONG_S = 600


@dataclass(frozen=True, slots=True)
class Item:
    """`limit_bound` is the highest limit that was ever in force, None if there was a time without one."""

    initial: int
    limit_bound: int | None


@dataclass(frozen=True, slots=True)
class StockMovement:
    """A stock change or release: units by SKU; `marked` with its (epoch, seq) if Postgres knows it was applied."""

    change_id: UUID
    created_ms: int
    units: dict[str, int]
    user_id: str = ""
    applied_position: tuple[int, int] | None = None


class AuditSnapshot:
    """One sale in one snapshot of the database, up to a cut."""

    def __init__(self, connection: Connection, sale_id: str, cut: Cut) -> None:
        self._connection = connection
        self._sale_id = sale_id
        self._cut = cut

    @property
    def _until(self) -> tuple[datetime, int]:
        return from_ms(self._cut.last_entry.ms), self._cut.last_entry.seq

    async def epochs(self) -> tuple[int, int]:
        """The sale's latest load, and the latest that was finished."""
        row = await self._connection.fetchrow(queries.epochs, self._sale_id)
        return (row["epoch"], row["loaded_epoch"]) if row else (0, 0)

    async def items(self) -> dict[str, Item]:
        rows = await self._fetch(queries.items, self._sale_id)
        return {row["sku"]: Item(row["initial_units"], row["limit_bound"]) for row in rows}

    async def changes(self) -> list[StockMovement]:
        """Stock changes, marked or not."""
        return [
            StockMovement(
                row["change_id"],
                to_ms(row["created_at"]),
                {row["sku"]: row["units"]},
                applied_position=(row["epoch"], row["seq"]) if row["status"] == "applied" else None,
            )
            for row in await self._fetch(queries.changes, self._sale_id)
        ]

    async def applied_releases(self) -> dict[str, int]:
        """Units by SKU of releases that are marked and were applied by the cut."""
        rows = await self._fetch(queries.applied_releases, self._sale_id, self._cut.epoch, self._cut.change_seq)
        return {row["sku"]: row["units"] for row in rows}

    async def open_releases(self) -> list[StockMovement]:
        return [
            StockMovement(row["release_id"], to_ms(row["created_at"]), orjson.loads(row["units"]), row["user_id"])
            for row in await self._fetch(queries.open_releases, self._sale_id)
        ]

    async def taken(self) -> tuple[dict[str, int], dict[str, int]]:
        """Units by SKU of stored orders up to the cut: all, and those that are sold."""
        rows = await self._fetch(queries.taken, self._sale_id, *self._until)
        return {row["sku"]: row["taken"] for row in rows}, {row["sku"]: row["sold"] for row in rows}

    async def dead(self) -> dict[str, int]:
        rows = await self._fetch(queries.dead, self._sale_id, *self._until)
        return {row["sku"]: row["units"] for row in rows}

    async def orders(self) -> int:
        return int(await self._connection.fetchval(queries.count_orders, self._sale_id, timeout=_LONG_S))

    async def persisted(self, order_ids: Sequence[UUID]) -> set[UUID]:
        return await sales.find_persisted(self._connection, order_ids)

    async def bought(self) -> dict[tuple[str, str], int]:
        """(user, SKU) → units up to the cut, for SKUs with a limit."""
        rows = await self._fetch(queries.bought, self._sale_id, *self._until, self._cut.epoch, self._cut.change_seq)
        return {(row["user_id"], row["sku"]): row["units"] for row in rows}

    async def listed(self, name: str) -> list[str]:
        """The ids that a check finds; `name` is that of a block which takes the sale or nothing."""
        query: str = getattr(queries, name)
        rows = await self._fetch(query, *([self._sale_id] if "$1" in query else []))
        return [row[0] for row in rows]

    async def _fetch(self, query: str, *arguments: object) -> list[asyncpg.Record]:
        return await self._connection.fetch(query, *arguments, timeout=_LONG_S)


@asynccontextmanager
async def open_audit_snapshot(db: Database, sale_id: str, cut: Cut) -> AsyncIterator[AuditSnapshot]:
    """Read-only, and from one snapshot however long it takes."""
    async with db.transaction(isolation="repeatable_read", readonly=True) as connection:
        await connection.execute(queries.allow_long_statements)
        yield AuditSnapshot(connection, sale_id, cut)


async def counts(connection: Connection, now: datetime) -> dict[str, float]:
    """Dead letters and jobs that wait, by name; `oldest_release_s` is how long the oldest has been due."""
    row = await connection.fetchrow(queries.counts, now)
    assert row is not None
    return dict(row)


async def ledger(connection: Connection) -> dict[str, int]:
    """What the ledger adds up to, by currency."""
    rows = await connection.fetch(queries.ledger_by_currency, timeout=_LONG_S)
    return {row["currency"]: row["difference"] for row in rows}
