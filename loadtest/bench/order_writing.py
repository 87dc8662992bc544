"""How fast accepted orders get into Postgres: the writer against plain COPY, and whether it keeps pace with a load."""

from __future__ import annotations

import asyncio
import io
import secrets
from time import perf_counter

import msgspec

import lua
from commerce.kernel.clock import DAY_MS
from commerce.kernel.ids import IdGenerator
from commerce.orders.copy_format import LINE_COLUMNS, ORDER_COLUMNS
from commerce.orders.model import PlaceOrder
from commerce.orders.pricing import OrderLimits, price_order
from loadtest.bench.environment import SALE_ID, BenchEnvironment
from loadtest.bench.machine import Cpu, children
from loadtest.bench.wrk import LoadFailed, wrk
from lua import Reservation, SaleKeys
from ops.local.subprocesses import RunningProcess

_TABLES = {"orders": ORDER_COLUMNS, "order_lines": LINE_COLUMNS}
_BATCH = 64
_LOOK_S = 0.01
_TIMEOUT_S, _QUIET_S = 300.0, 0.1
_LIMITS = OrderLimits(lines=1_000, addresses=50, payments=8, quantity=100_000)


class WriteMeasurement(msgspec.Struct, frozen=True):
    """One run: orders a second of the writer and of plain COPY, and what an order costs the writer and Postgres."""

    orders: int
    writer_per_s: float
    copy_per_s: float
    cpu_us: dict[str, float]
    wal_bytes: float


class SustainedLoad(msgspec.Struct, frozen=True):
    """A load with the writer running: accepted and stored orders a second, and what was left when the load ended."""

    orders: int
    accepted_per_s: float
    stored_per_s: float
    backlog: int
    drained_s: float


async def write(arena: BenchEnvironment, orders: int) -> WriteMeasurement:
    """Queue orders, let one writer store them, then COPY the very same rows into the same tables once more."""
    await _empty(arena)
    await queue(arena, orders)
    writer = await arena.run("writer", "workers", "order_writer")
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            while await waiting(arena) == orders:  # noqa: ASYNC110  # Redis tells nobody
                await asyncio.sleep(_LOOK_S)
        # What was stored until now went along with the writer's start, so the clock begins here.
        left, started = await waiting(arena), perf_counter()
        cpu, wal = Cpu({"writer": [writer.pid], "postgres": children(arena.postgres.pid)}), await _wal(arena)
        await drained(arena)
        seconds = perf_counter() - started
        used, wal = cpu.used(), await _wal(arena) - wal
    finally:
        await writer.stop()
    copied = await _copy_again(arena)
    cpu_us = {kind: s / left * 1e6 for kind, s in used.items()}
    return WriteMeasurement(orders, left / seconds, orders / copied, cpu_us, wal / left)


async def sustain_load(
    arena: BenchEnvironment, url: str, connections: int, seconds: float, pause_ms: float = 0
) -> SustainedLoad:
    """Load a gateway while a writer runs, and see how long the writer needs to finish after the load has ended."""
    await _empty(arena)
    sold = await arena.sold()
    writer: RunningProcess = await arena.run("writer", "workers", "order_writer")
    try:
        started = perf_counter()
        load = await wrk(url, connections, seconds, *arena.load(arena.tokens, pause_ms))
        ended, backlog = perf_counter(), await waiting(arena)
        orders, stored = 1, 0
        async with asyncio.timeout(_TIMEOUT_S):
            while orders != stored:  # when wrk hangs up, the gateway still has orders in hand
                await drained(arena)
                orders, stored = await arena.sold() - sold, await _stored(arena)
        done = perf_counter()
    finally:
        await writer.stop()
    if load.refused or load.failed:
        raise LoadFailed(f"{orders} were accepted and stored, but {load.refused} refused, and {load.failed} failed")
    return SustainedLoad(orders, orders / load.seconds, orders / (done - started), backlog, done - ended)


async def _stored(arena: BenchEnvironment) -> int:
    async with arena.shop.db.connection() as connection:
        return int(await connection.fetchval("SELECT count(*) FROM orders"))


async def waiting(arena: BenchEnvironment) -> int:
    """Orders that are accepted and not yet in Postgres."""
    [count] = await lua.accepted_counts(arena.shop.redis, [SaleKeys(SALE_ID)])
    return count


async def drained(arena: BenchEnvironment) -> None:
    """Return when everything is stored. Raises `TimeoutError` if that takes too long."""
    async with asyncio.timeout(_TIMEOUT_S):
        while await waiting(arena):  # noqa: ASYNC110
            await asyncio.sleep(_LOOK_S)


async def _wal(arena: BenchEnvironment) -> int:
    """Bytes that Postgres has written ahead so far."""
    async with arena.shop.db.connection() as connection:
        return int(await connection.fetchval("SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn"))


async def _empty(arena: BenchEnvironment) -> None:
    """No orders, in Redis or in Postgres, nor on their way from a load that has just ended."""
    before = -1
    while before != (before := await arena.sold()):  # noqa: ASYNC110  # Redis tells nobody
        await asyncio.sleep(_QUIET_S)
    await arena.sweep()
    async with arena.shop.db.connection() as connection:
        await connection.execute("TRUNCATE orders, order_lines, order_events CASCADE")


async def queue(arena: BenchEnvironment, count: int) -> None:
    """Accepted orders in the stream, as the gateway would have put them there."""
    place = msgspec.json.decode(arena.order.read_bytes().replace(b"@", b"0"), type=PlaceOrder)
    [sale] = [sale for sale in await arena.shop.sales.list_opened() if sale.sale_id == SALE_ID]
    snapshot = await arena.shop.sales.read_snapshot(sale, None)
    ids, run, today = IdGenerator(), secrets.token_hex(4), arena.shop.clock.now_ms() // DAY_MS

    def order(number: int) -> Reservation:
        return price_order(
            place,
            snapshot,
            _LIMITS,
            user_id=f"user-{number % 10_000}",
            idempotency_key=f"{run}-{number}",
            order_id=ids.new(),
        )

    for first in range(0, count, _BATCH):
        batch = [order(number) for number in range(first, min(first + _BATCH, count))]
        await lua.reserve(arena.shop.redis, SaleKeys(SALE_ID), today, batch)


async def _copy_again(arena: BenchEnvironment) -> float:
    """Seconds that plain COPY takes for all rows that are stored now, into the same tables, emptied before."""
    async with arena.shop.db.connection() as connection:
        rows: dict[str, bytes] = {}
        for table, columns in _TABLES.items():
            buffer = io.BytesIO()
            await connection.copy_from_table(table, output=buffer, columns=columns, format="binary")
            rows[table] = buffer.getvalue()
        await connection.execute("TRUNCATE orders, order_lines, order_events CASCADE")
        started = perf_counter()
        async with connection.transaction():
            for table, columns in _TABLES.items():
                source = io.BytesIO(rows[table])
                await connection.copy_to_table(table, source=source, columns=columns, format="binary")
        return perf_counter() - started
