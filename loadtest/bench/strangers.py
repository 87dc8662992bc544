"""The part `crowd`: what an order costs at the start of a sale, when nobody is known to the process.

Each circumstance adds one thing to that before it: users whose token no process has seen, new connections, a second
sale, a writer. wrk cannot hang up without announcing it, which leads to a slower path, so the customers are those of
`crowd_process`.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from math import inf
from operator import sub
from time import monotonic

import lua
from loadtest.bench.comparison import BenchedServer
from loadtest.bench.crowd import Crowd, list_addresses, open_crowd
from loadtest.bench.environment import SALE_ID, UNITS, BenchEnvironment, create_sale, encode_order, open_environment
from loadtest.bench.machine import CpuMeter, read_family_cpu_seconds
from loadtest.bench.order_writing import count_waiting, delete_orders, wait_until_drained
from loadtest.bench.peers import Peers
from loadtest.bench.scaling import rewrite_append_only_file
from loadtest.bench.stranger_figures import CIRCUMSTANCES, StrangerFigures, StrangerTurn
from loadtest.bench.stranger_tokens import write_stranger_tokens
from loadtest.bench.wrk import LoadFailed

NEW_CONNECTION_SHARE = 0.2
"""of the orders"""
_SECOND_SALE_ID = "bench-2"
_RAMP_ORDERS = 12_000  # each known user has ordered then: strangers have displaced their tokens
_RAMP_TIMEOUT_S, _POLL_INTERVAL_S = 120.0, 0.1
_MAX_PER_S, _SLACK_S = 50_000, 1.0  # for each turn so many tokens are signed
_SOURCES = list_addresses(1, 40)  # a port of an address rests for a minute after its connection was closed


@dataclass(frozen=True, slots=True)
class _Circumstance:
    """A shop, and how customers order there."""

    environment: BenchEnvironment
    floodgate: BenchedServer
    are_strangers: bool = True
    new_connection_share: float = NEW_CONNECTION_SHARE
    has_writer: bool = False


@dataclass(frozen=True, slots=True)
class Counters:
    """Orders of all sales so far, those that wait for the writer, and the work of Redis."""

    sold: int
    waiting: int
    calls: lua.StreamCalls
    aof_bytes: int


async def measure_strangers(figures: StrangerFigures, *, connections: int, seconds: float, repeats: int) -> None:
    """Measure all circumstances in turn, several times. A first round warms up and is not kept."""
    async with open_environment() as single, open_environment() as opened, AsyncExitStack() as stack:
        await create_sale(opened, _SECOND_SALE_ID, UNITS)
        double = replace(opened, sale_ids=(SALE_ID, _SECOND_SALE_ID))
        for environment in (single, double):  # no turn has a rewrite within it: each begins after one
            await environment.shop.redis.config_set("auto-aof-rewrite-percentage", 0)
        at_one = single, await Peers(single, stack).start_floodgate()
        at_two = double, await Peers(double, stack).start_floodgate()
        circumstances = {
            "known": _Circumstance(*at_one, are_strangers=False, new_connection_share=0),
            "strangers": _Circumstance(*at_one, new_connection_share=0),
            "new_connections": _Circumstance(*at_one),
            "two_sales": _Circumstance(*at_two),
            "stored": _Circumstance(*at_two, has_writer=True),
        }
        figures.turns = {name: [] for name in CIRCUMSTANCES}
        for number in range(repeats + 1):
            names = list(CIRCUMSTANCES)
            for name in names if number % 2 == 0 else reversed(names):  # none is always the first
                try:
                    turn = await _measure_turn(circumstances[name], connections, seconds)
                except (LoadFailed, TimeoutError) as error:
                    raise LoadFailed(f"{CIRCUMSTANCES[name]}: {str(error) or 'too few orders were accepted'}") from None
                if number:
                    figures.turns[name].append(turn)
    figures.ratios = figures.compute_ratios()


async def _measure_turn(circumstance: _Circumstance, connections: int, seconds: float) -> StrangerTurn:
    """Let customers order. Raises `LoadFailed` if anything but 202 came back."""
    environment = circumstance.environment
    await delete_orders(environment)
    await rewrite_append_only_file(environment)
    processes = {"gateway": circumstance.floodgate.processes["server"], "redis": [environment.redis_pid]}
    async with AsyncExitStack() as stack:
        if circumstance.has_writer:
            writer = await environment.run_module("writer", "workers", "order_writer")
            stack.push_async_callback(writer.stop)
            processes |= {"writer": [writer.pid], "postgres": [environment.postgres_pid]}
        customers = await _Customers.open(stack, circumstance, connections, seconds)
        await customers.wait_for_orders(_RAMP_ORDERS)
        before, started = await _read_counters(environment), monotonic()
        meter = CpuMeter(processes, read_family_cpu_seconds)  # Postgres starts processes as it needs them
        await asyncio.sleep(seconds)
        used, elapsed_s, after = meter.read_used(), monotonic() - started, await _read_counters(environment)
        await customers.leave()
        if circumstance.has_writer:
            for sale_id in environment.sale_ids:
                await wait_until_drained(environment, sale_id)
    return compute_turn(before, after, used, elapsed_s)


class _Customers:
    """Customers of all sales of an environment, with equal parts of the connections and of the tokens."""

    def __init__(self, crowds: Sequence[Crowd], max_orders: float) -> None:
        self._crowds = crowds
        self._max_orders = max_orders
        self._orders = 0

    @classmethod
    async def open(
        cls, stack: AsyncExitStack, circumstance: _Circumstance, connections: int, seconds: float
    ) -> _Customers:
        environment, crowds = circumstance.environment, []
        count = int(_RAMP_ORDERS + _MAX_PER_S * (seconds + _SLACK_S)) // len(environment.sale_ids)
        for sale_id in environment.sale_ids:
            order, users = environment.home / f"order-{sale_id}.json", environment.tokens
            order.write_bytes(encode_order(sale_id))
            if circumstance.are_strangers:
                users = environment.home / f"strangers-{sale_id}"
                run = f"{sale_id}-{secrets.token_hex(4)}"
                write_stranger_tokens(users, environment.settings.auth, environment.shop.clock, run, count)
            crowd = open_crowd(
                environment,
                circumstance.floodgate.url,
                connections // len(environment.sale_ids),
                users=users,
                order=order,
                rotates_users=True,
                is_once=circumstance.are_strangers,
                new_connection_share=circumstance.new_connection_share,
                sources=_SOURCES,
            )
            crowds.append(await stack.enter_async_context(crowd))
        return cls(crowds, count if circumstance.are_strangers else inf)

    async def wait_for_orders(self, orders: int) -> None:
        """Wait until so many were accepted. Raises `TimeoutError` after two minutes."""
        async with asyncio.timeout(_RAMP_TIMEOUT_S):
            while self._orders < orders:
                await asyncio.sleep(_POLL_INTERVAL_S)
                # While all connect at once, a gateway that is busy may drop some; they connect again.
                await self._check_answers(expected=("202", "closed", "failed"))

    async def leave(self) -> None:
        await self._check_answers(expected=("202",))
        for crowd in self._crowds:
            await crowd.leave()

    async def _check_answers(self, expected: Sequence[str]) -> None:
        """Count the answers. Raises `LoadFailed` if there are others than expected, or no tokens are left."""
        for crowd in self._crowds:
            counts = (await crowd.take_sample()).counts
            if not counts.keys() <= {*expected}:
                raise LoadFailed(f"not all orders were accepted: {counts}")
            self._orders += counts.get("202", 0)
        if self._orders / len(self._crowds) >= self._max_orders:
            raise LoadFailed(f"each stranger has ordered: the turn has more than {_MAX_PER_S:,} orders per second")


async def _read_counters(environment: BenchEnvironment) -> Counters:
    redis = environment.shop.redis
    return Counters(
        await environment.count_sold(),
        sum([await count_waiting(environment, sale_id) for sale_id in environment.sale_ids]),
        await lua.read_stream_calls(redis),
        int((await redis.info("persistence"))["aof_current_size"]),
    )


def compute_turn(before: Counters, after: Counters, used_s: Mapping[str, float], elapsed_s: float) -> StrangerTurn:
    """Compute the figures of a turn from what was counted at its ends and the seconds of processor time."""
    accepted = after.sold - before.sold
    stored = accepted - (after.waiting - before.waiting) if "writer" in used_s else 0
    orders = {"gateway": accepted, "redis": accepted, "writer": stored, "postgres": stored}
    batches, reads, acknowledgements, storing_us = map(sub, after.calls, before.calls)
    return StrangerTurn(
        accepted,
        stored,
        accepted / elapsed_s,
        {kind: seconds / orders[kind] * 1e6 for kind, seconds in used_s.items()},
        storing_us / accepted,
        1 + (reads + acknowledgements) / batches,
        (after.aof_bytes - before.aof_bytes) / accepted,
    )
