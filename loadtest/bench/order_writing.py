"""Speed of the writer: against plain COPY, and under a sustained load."""

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
from loadtest.bench.machine import CpuMeter, list_children
from loadtest.bench.wrk import LoadFailed, run_wrk
from lua import Reservation, SaleKeys
from ops.local.subprocesses import RunningProcess

_TABLES = {"orders": ORDER_COLUMNS, "order_lines": LINE_COLUMNS}
_BATCH = 64
_POLL_INTERVAL_S, _IDLE_INTERVAL_S = 0.01, 0.1
_TIMEOUT_S = 300.0
_LIMITS = OrderLimits(lines=1_000, addresses=50, payments=8, coupons=8, quantity=100_000)


class WriteMeasurement(msgspec.Struct, frozen=True):
    """One measurement: orders per second of the writer and of plain COPY, and the cost per order."""

    orders: int
    writer_per_s: float
    copy_per_s: float
    cpu_us: dict[str, float]
    wal_bytes: float


class SustainedLoad(msgspec.Struct, frozen=True):
    """A load with a running writer: orders per second, and the backlog at the end of the load."""

    orders: int
    accepted_per_s: float
    stored_per_s: float
    backlog: int
    drained_s: float


async def measure_writing(environment: BenchEnvironment, orders: int) -> WriteMeasurement:
    """Queue orders, let one writer store them, then COPY the same rows into the same tables again."""
    await delete_orders(environment)
    await queue_orders(environment, orders)
    writer = await environment.run_module("writer", "workers", "order_writer")
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            while await count_waiting(environment) == orders:  # noqa: ASYNC110  # Redis sends no event
                await asyncio.sleep(_POLL_INTERVAL_S)
        # Orders that are stored by now belong to the writer's start, so the clock starts here.
        remaining, started = await count_waiting(environment), perf_counter()
        meter = CpuMeter({"writer": [writer.pid], "postgres": list_children(environment.postgres_pid)})
        wal_before = await _read_wal_position(environment)
        await wait_until_drained(environment)
        seconds = perf_counter() - started
        used, wal_bytes = meter.read_used(), await _read_wal_position(environment) - wal_before
    finally:
        await writer.stop()
    copy_seconds = await _copy_again(environment)
    cpu_us = {kind: cpu_seconds / remaining * 1e6 for kind, cpu_seconds in used.items()}
    return WriteMeasurement(orders, remaining / seconds, orders / copy_seconds, cpu_us, wal_bytes / remaining)


async def sustain_load(
    environment: BenchEnvironment, url: str, connections: int, seconds: float, pause_ms: float = 0
) -> SustainedLoad:
    """Load a gateway while a writer runs, and measure how long the writer needs after the load.

    Raises `LoadFailed` if a request was refused or failed.
    """
    await delete_orders(environment)
    sold_before = await environment.count_sold()
    writer: RunningProcess = await environment.run_module("writer", "workers", "order_writer")
    try:
        started = perf_counter()
        load = await run_wrk(url, connections, seconds, *environment.load_arguments(environment.tokens, pause_ms))
        ended, backlog = perf_counter(), await count_waiting(environment)
        orders, stored = 1, 0
        async with asyncio.timeout(_TIMEOUT_S):
            while orders != stored:  # when wrk ends, the gateway still has pending orders
                await wait_until_drained(environment)
                orders, stored = await environment.count_sold() - sold_before, await _count_stored(environment)
        done = perf_counter()
    finally:
        await writer.stop()
    if load.refused or load.failed:
        raise LoadFailed(
            f"{orders} orders were accepted and stored, but {load.refused} refused, and {load.failed} failed"
        )
    return SustainedLoad(orders, orders / load.seconds, orders / (done - started), backlog, done - ended)


async def _count_stored(environment: BenchEnvironment) -> int:
    async with environment.shop.db.connection() as connection:
        return int(await connection.fetchval("SELECT count(*) FROM orders"))


async def count_waiting(environment: BenchEnvironment, sale_id: str = SALE_ID) -> int:
    """Return the number of accepted orders that are not in Postgres yet."""
    [count] = await lua.read_accepted_counts(environment.shop.redis, [SaleKeys(sale_id)])
    if count is None:
        raise LoadFailed("cannot count the waiting orders: Redis refuses")
    return count


async def wait_until_drained(environment: BenchEnvironment, sale_id: str = SALE_ID) -> None:
    """Wait until all orders are stored. Raises `LoadFailed` after five minutes."""
    deadline = asyncio.get_running_loop().time() + _TIMEOUT_S
    while waiting := await count_waiting(environment, sale_id):
        if asyncio.get_running_loop().time() > deadline:
            raise LoadFailed(f"{waiting} orders were not stored within {_TIMEOUT_S:g} s")
        await asyncio.sleep(_POLL_INTERVAL_S)


async def _read_wal_position(environment: BenchEnvironment) -> int:
    """Return the bytes that Postgres has written to its write-ahead log so far."""
    async with environment.shop.db.connection() as connection:
        return int(await connection.fetchval("SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn"))


async def delete_orders(environment: BenchEnvironment) -> None:
    """Delete the orders in Redis and Postgres, once a load that has just ended adds no more."""
    sold = -1
    while sold != (sold := await environment.count_sold()):  # noqa: ASYNC110  # Redis sends no event
        await asyncio.sleep(_IDLE_INTERVAL_S)
    await environment.sweep()
    async with environment.shop.db.connection() as connection:
        await connection.execute("TRUNCATE orders, order_lines, order_events CASCADE")


async def queue_orders(environment: BenchEnvironment, count: int) -> None:
    """Add accepted orders to the stream as the gateway does."""
    body = msgspec.json.decode(environment.order.read_bytes().replace(b"@", b"0"), type=PlaceOrder)
    [sale] = [sale for sale in await environment.shop.sales.list_opened() if sale.sale_id == SALE_ID]
    snapshot = await environment.shop.sales.read_snapshot(sale, None)
    ids, run, today = IdGenerator(), secrets.token_hex(4), environment.shop.clock.now_ms() // DAY_MS

    def create_order(number: int) -> Reservation:
        return price_order(
            body,
            snapshot,
            _LIMITS,
            user_id=f"user-{number % 10_000}",
            idempotency_key=f"{run}-{number}",
            order_id=ids.new(),
        )

    for first in range(0, count, _BATCH):
        batch = [create_order(number) for number in range(first, min(first + _BATCH, count))]
        await lua.reserve(environment.shop.redis, SaleKeys(SALE_ID), today, batch)


async def _copy_again(environment: BenchEnvironment) -> float:
    """Return the seconds that plain COPY takes for all stored rows, into the same emptied tables."""
    async with environment.shop.db.connection() as connection:
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
