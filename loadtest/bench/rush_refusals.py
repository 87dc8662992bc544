"""Cost of refusals: where nothing more can be stored, and after a sale has sold out."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, suppress
from time import monotonic
from uuid import uuid4

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from commerce.sales.model import StockChangeInput
from loadtest.bench.comparison import BenchedServer
from loadtest.bench.crowd import Crowd, list_addresses, open_crowd
from loadtest.bench.environment import SKU_PREFIX, BenchEnvironment, create_sale, encode_order, find_free_port
from loadtest.bench.machine import CpuMeter, read_cpu_parts
from loadtest.bench.order_writing import queue_orders
from loadtest.bench.peers import Peers
from loadtest.bench.rush_crowds import wait_until_calm
from loadtest.bench.rush_figures import FULL, RefusalFigures, SoldOutFigures
from loadtest.bench.wrk import LoadFailed

_RAMP_S = 2.5  # limits on the backlog are polled, metrics are flushed once a second
_ORDER_CONNECTIONS = 256
_MIN_SECONDS = 10.0  # the system counts processor time in hundredths of a second
_SOLD_OUT_SALE, _UNITS = "sold-out", 1_000
_RETURNED_UNITS, _RETURNS = 20, 3
_POLL_INTERVAL_S, _BUY_TIMEOUT_S = 0.005, 10.0
_ADMIN_PORT = "FLOODGATE_HTTP__ADMIN_PORT"


async def measure_refusals(environment: BenchEnvironment, seconds: float) -> RefusalFigures:
    """Let an impatient crowd come to a gateway whose backlog is full, so that it refuses every order."""
    seconds = max(seconds, _MIN_SECONDS)
    await environment.sweep()
    await queue_orders(environment, 64)
    async with AsyncExitStack() as stack:
        settings = {"FLOODGATE_LIMITS__BACKLOG_ORDERS": "1"}
        floodgate = await Peers(environment, stack).start_floodgate(settings)
        idle_s = await _measure_idle(floodgate, seconds)
        crowd = await stack.enter_async_context(
            open_crowd(environment, floodgate.url, FULL, sources=list_addresses(1, 10))
        )
        await crowd.wait_until_connected()
        await asyncio.sleep(_RAMP_S)
        figures = await _measure_refused(crowd, floodgate, seconds, idle_s)
    await environment.sweep()
    return figures


async def _measure_idle(server: BenchedServer, seconds: float) -> float:
    """Return the processor time that a server takes while nobody is connected, in seconds per second."""
    await asyncio.sleep(_RAMP_S)
    meter = CpuMeter({"server": server.processes["server"]})
    await asyncio.sleep(seconds)
    return meter.read_used()["server"] / seconds


async def _measure_refused(crowd: Crowd, server: BenchedServer, seconds: float, idle_s: float) -> RefusalFigures:
    """Measure a server that accepts nothing. Raises `LoadFailed` if it does."""
    [pid] = server.processes["server"]
    await crowd.take_sample()
    user_before, system_before = read_cpu_parts(pid)
    await asyncio.sleep(seconds)
    user, system = read_cpu_parts(pid)
    sample = await crowd.take_sample()
    if sample.accepted or not sample.refused:
        raise LoadFailed(f"{server.name} should refuse everything; it answered {sample.counts}")
    return RefusalFigures(
        sample.refused,
        sample.refused / sample.seconds,
        (user - user_before) / sample.refused * 1e6,
        (system - system_before) / sample.refused * 1e6,
        idle_s * sample.seconds / sample.refused * 1e6,
    )


async def measure_sold_out(environment: BenchEnvironment, seconds: float) -> SoldOutFigures:
    """Sell a sale out to an impatient crowd that stays, then add units several times."""
    await environment.sweep()
    await create_sale(environment, _SOLD_OUT_SALE, _UNITS)
    order = environment.home / "order-sold-out.json"
    order.write_bytes(encode_order(_SOLD_OUT_SALE))
    async with AsyncExitStack() as stack:
        admin_port = find_free_port()
        floodgate = await Peers(environment, stack).start_floodgate({_ADMIN_PORT: str(admin_port)})
        idle_s = await _measure_idle(floodgate, seconds)
        polls = await _count_commands(environment, seconds)
        accepted_cpu_us = await _measure_accepted(environment, floodgate, seconds)
        crowd = await stack.enter_async_context(
            open_crowd(environment, floodgate.url, FULL, order=order, sources=list_addresses(1, 10))
        )
        await crowd.wait_until_connected()
        await _wait_until_sold_out(environment)
        await asyncio.sleep(_RAMP_S)
        reserved_before = await _read_reserved(admin_port)
        figures, commands = await asyncio.gather(
            _measure_refused(crowd, floodgate, seconds, idle_s), _count_commands(environment, seconds)
        )
        reserved = await _read_reserved(admin_port)
        bought_after_ms = [await _add_stock(environment) for _ in range(_RETURNS)]
    await environment.sweep()
    return SoldOutFigures(
        accepted_cpu_us,
        figures,
        (reserved - reserved_before) / figures.refusals,
        (commands - polls) / seconds / figures.per_s,
        bought_after_ms,
    )


async def _measure_accepted(environment: BenchEnvironment, server: BenchedServer, seconds: float) -> float:
    """Return the gateway's processor time for an accepted order in microseconds."""
    async with open_crowd(environment, server.url, _ORDER_CONNECTIONS) as crowd:
        await crowd.wait_until_connected()
        await asyncio.sleep(_RAMP_S)
        await crowd.take_sample()
        meter = CpuMeter({"server": server.processes["server"]})
        await asyncio.sleep(seconds)
        used = meter.read_used()["server"]
        sample = await crowd.take_sample()
    await wait_until_calm(environment)
    return used / max(1, sample.accepted) * 1e6


async def _count_free(environment: BenchEnvironment) -> int:
    return sum(map(int, await environment.read_stock(_SOLD_OUT_SALE)))


async def _wait_until_sold_out(environment: BenchEnvironment) -> None:
    """Wait until the sale has no units. Raises `LoadFailed` after 10 s."""
    deadline = monotonic() + _BUY_TIMEOUT_S
    while await _count_free(environment):
        if monotonic() > deadline:
            raise LoadFailed(f"{_UNITS} units were not bought within {_BUY_TIMEOUT_S:g} s")
        await asyncio.sleep(_POLL_INTERVAL_S)


async def _add_stock(environment: BenchEnvironment) -> float:
    """Add units to a sale that is sold out, and return the milliseconds until they are bought."""
    change = StockChangeInput(f"{SKU_PREFIX}0", _RETURNED_UNITS, "stock is added")
    await environment.shop.stock.change(_SOLD_OUT_SALE, uuid4(), change, "bench")
    started = monotonic()
    await _wait_until_sold_out(environment)
    elapsed_ms = (monotonic() - started) * 1e3
    await asyncio.sleep(_RAMP_S)
    return elapsed_ms


async def _read_reserved(admin_port: int) -> float:
    """Return how many orders the gateways have asked Redis for, by their metrics."""
    url = f"http://127.0.0.1:{admin_port}/metrics"
    async with aiohttp.ClientSession() as client, client.get(url) as response:
        response.raise_for_status()
        text = await response.text()
    return sum(
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == "floodgate_reserve_batch_orders_sum"
    )


async def _count_commands(environment: BenchEnvironment, seconds: float) -> int:
    """Return how many commands clients send to Redis in this time, without those that scripts call."""
    count = 0
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds), environment.shop.redis.monitor() as monitor:
            async for command in monitor.listen():
                count += command["client_type"] != "lua"
    return count
