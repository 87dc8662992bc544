"""Reads that everybody repeats: a sale, its offers and a product, and of own orders."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from time import monotonic
from typing import Any

from commerce.kernel.clock import SystemClock
from gateway.auth import sign_token
from loadtest.bench.environment import SALE_ID, SKU_PREFIX, BenchEnvironment
from loadtest.bench.rush_figures import ReadFigures
from loadtest.bench.shop_environment import BenchedShop
from loadtest.bench.wrk import READS, LoadFailed, LoadResult, run_wrk

_CONNECTIONS = 256
_ORDERS = 5_000
_STATISTICS_S = 1.5  # a session of Postgres reports its counts at most once a second
_PATHS = (f"/v1/sales/{SALE_ID}", f"/v1/sales/{SALE_ID}/offers", f"/v1/variants/{SKU_PREFIX}0")


async def measure_reads(shop: BenchedShop, seconds: float) -> ReadFigures:
    """Read from both gateways over many connections; orders must have been stored before."""
    environment = shop.environment
    catalog, own = environment.home / "reads-catalog", environment.home / "reads-own"
    catalog.write_text("".join(f"{path}\t\n" for path in _PATHS))
    await _write_own_orders(environment, own)
    quiet_per_s = await _count_transactions_per_s(environment, asyncio.sleep(seconds))
    loads: list[LoadResult] = []

    async def load(file: Path) -> None:
        loads.append(await run_wrk(shop.url, _CONNECTIONS, seconds, file, script=READS))

    transactions_per_s = await _count_transactions_per_s(environment, load(catalog))
    await load(own)
    [of_catalog, of_own] = loads
    if of_catalog.requests == 0 or of_own.requests == 0:
        raise LoadFailed(f"reads were not answered: {loads}")
    return ReadFigures(
        (of_catalog.requests - of_catalog.refused) / of_catalog.seconds,
        of_catalog.p99 * 1e3,
        of_catalog.refused + of_catalog.failed,
        transactions_per_s,
        quiet_per_s,
        (of_own.requests - of_own.refused) / of_own.seconds,
        of_own.p99 * 1e3,
        of_own.refused + of_own.failed,
    )


async def _write_own_orders(environment: BenchEnvironment, file: Path) -> None:
    """Write reads of stored orders, each with a token of its user."""
    async with environment.shop.db.connection() as connection:
        rows = await connection.fetch("SELECT order_id, user_id FROM orders LIMIT $1", _ORDERS)
    if not rows:
        raise LoadFailed("no orders are stored that could be read")
    clock, auth = SystemClock(), environment.settings.auth
    tokens = {user: sign_token(auth, clock, user, "floodgate", (), 86_400) for user in {row["user_id"] for row in rows}}
    file.write_text(
        "".join(f"/v1/orders/{row['order_id']}\tAuthorization: Bearer {tokens[row['user_id']]}\n" for row in rows)
    )


async def _count_transactions_per_s(environment: BenchEnvironment, work: Coroutine[Any, Any, None]) -> float:
    """Return the transactions of the shop's database while some work is done, by the seconds it took."""
    started, before = monotonic(), await _read_transactions(environment)
    await work
    await asyncio.sleep(_STATISTICS_S)
    return (await _read_transactions(environment) - before) / (monotonic() - started)


async def _read_transactions(environment: BenchEnvironment) -> int:
    async with environment.shop.db.connection() as connection:
        await connection.execute("SELECT pg_stat_clear_snapshot()")
        return int(
            await connection.fetchval(
                "SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = current_database()"
            )
        )
