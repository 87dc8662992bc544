"""The part `rush`: all measurements with far more customers than can be served."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from loadtest.bench.comparison import BenchedServer
from loadtest.bench.crowd import count_possible_connections, raise_file_limit
from loadtest.bench.environment import SALE_ID, BenchEnvironment, open_environment
from loadtest.bench.order_writing import wait_until_drained
from loadtest.bench.peers import FLOODGATE, Peers
from loadtest.bench.rush_abuse import measure_abuse
from loadtest.bench.rush_crowds import measure_crowd, measure_sizes
from loadtest.bench.rush_figures import FULL, CrowdFigures, RushFigures
from loadtest.bench.rush_priority import measure_priority
from loadtest.bench.rush_reads import measure_reads
from loadtest.bench.rush_refusals import measure_refusals, measure_sold_out
from loadtest.bench.rush_room import measure_room
from loadtest.bench.shop_environment import BenchedShop, open_shop
from loadtest.bench.wrk import LoadFailed
from ops.local.subprocesses import ProcessFailed, ProcessSpec, start_process

STEPS = ("gateway", "peers", "late", "refusal", "sold_out", "shop", "reads", "priority", "abuse", "room")
SIZES = (256, 1_000, 3_000, 6_000, 20_000)
_LATE_SIZES = (256, 1_000, 6_000)
_LATE_MS = 20
_PRIORITY_TIMES = 3  # as long as the other measurements: fewer requests come in the same time
_STORED_CONNECTIONS, _STORED_S = 256, 1.0


@dataclass
class Rush:
    """One run of the part. `skipped` gets the reason for everything that could not be measured."""

    sizes: Sequence[int]
    seconds: float
    repeats: int
    steps: Sequence[str] = STEPS
    figures: RushFigures = field(default_factory=RushFigures)
    skipped: dict[str, str] = field(default_factory=dict)

    async def run(self) -> None:
        """Run all steps. A step that fails is left out; the others go on."""
        raise_file_limit()
        possible = count_possible_connections()
        for size in self.sizes:
            if size > possible:
                self.skipped[f"rush: {size} connections"] = (
                    f"{possible} were opened instead: a process may open {possible + 1_000} files (ulimit -Hn)"
                )
        await self._run_on_gateway()
        await self._try("late", self._measure_late)
        await self._run_on_shop()
        await self._try("abuse", self._measure_abuse)
        await self._try("room", self._measure_room)
        self.figures.ratios = self.figures.compute_ratios()

    async def _try(self, step: str, measure: Callable[[], Awaitable[None]]) -> None:
        if step not in self.steps:
            return
        _show(f"rush: {step}")
        try:
            await measure()
        except (LoadFailed, ProcessFailed, TimeoutError) as error:
            self.skipped[f"rush: {step}"] = str(error) or type(error).__name__
            _show(f"rush: {step} was left out: {self.skipped[f'rush: {step}']}")

    # One gateway, and its peers.

    async def _run_on_gateway(self) -> None:
        if not {"gateway", "peers", "refusal", "sold_out"} & set(self.steps):
            return
        async with open_environment() as environment:
            await self._try("gateway", lambda: self._measure_gateway(environment))
            await self._try("peers", lambda: self._measure_peers(environment, None, self.figures.peers))
            await self._try("refusal", lambda: self._measure_refusals(environment))
            await self._try("sold_out", lambda: self._measure_sold_out(environment))

    async def _measure_gateway(self, environment: BenchEnvironment) -> None:
        async with AsyncExitStack() as stack:
            floodgate = await Peers(environment, stack).start_floodgate()
            self.figures.gateway = await self._measure_sizes(environment, floodgate, self.sizes, environment.sweep)

    async def _measure_sizes(
        self,
        environment: BenchEnvironment,
        server: BenchedServer,
        sizes: Sequence[int],
        prepare: Callable[[], Awaitable[None]],
    ) -> dict[int, list[CrowdFigures]]:
        return await measure_sizes(environment, server, sizes, self.seconds, self.repeats, prepare=prepare, show=_show)

    async def _measure_peers(
        self, environment: BenchEnvironment, redis_socket: str | None, figures: dict[str, list[CrowdFigures]]
    ) -> None:
        async with AsyncExitStack() as stack:
            peers = Peers(environment, stack)
            redis = {"REDIS_URL": f"unix://{redis_socket}"} if redis_socket else {}
            servers = [await peers.start_floodgate(redis), *await peers.start_rivals(redis_socket=redis_socket)]
            self.skipped |= {f"rush: {name}": reason for name, reason in peers.skipped.items()}
            for _ in range(self.repeats):
                for server in servers:
                    await environment.sweep()
                    try:
                        measured = await measure_crowd(environment, server, FULL, self.seconds)
                    except LoadFailed as error:
                        self.skipped[f"rush: {server.name}"] = str(error)
                        continue
                    figures.setdefault(server.name, []).append(measured)
                    _show(f"{server.name}, {FULL:,} impatient: {measured.accepted_per_s:,.0f} accepted/s")

    async def _measure_refusals(self, environment: BenchEnvironment) -> None:
        self.figures.refusal = await measure_refusals(environment, self.seconds)

    async def _measure_sold_out(self, environment: BenchEnvironment) -> None:
        self.figures.sold_out = await measure_sold_out(environment, self.seconds)

    async def _measure_late(self) -> None:
        async with (
            open_environment() as environment,
            _open_late_redis(environment) as socket,
            AsyncExitStack() as stack,
        ):
            floodgate = await Peers(environment, stack).start_floodgate({"REDIS_URL": f"unix://{socket}"})
            sizes = [size for size in _LATE_SIZES if size in self.sizes]
            self.figures.late_gateway = await self._measure_sizes(environment, floodgate, sizes, environment.sweep)
            await self._measure_peers(environment, str(socket), self.figures.late_peers)

    # The shop as `make run` starts it.

    async def _run_on_shop(self) -> None:
        if not {"shop", "reads", "priority"} & set(self.steps):
            return
        async with open_shop() as shop:
            server = BenchedServer(
                f"shop of 2 {FLOODGATE} gateways",
                f"{shop.url}/v1/orders",
                {"gateways": shop.pids["gateway"], "redis": shop.pids["redis"], "writer": shop.pids["writer"]},
                "tokens",
            )
            await self._try("shop", lambda: self._measure_shop(shop, server))
            if "shop" not in self.steps:  # the others need stored orders
                await measure_crowd(shop.environment, server, _STORED_CONNECTIONS, _STORED_S)
                await wait_until_drained(shop.environment)
            await self._try("reads", lambda: self._measure_reads(shop))
            await self._try("priority", lambda: self._measure_priority(shop))

    async def _measure_shop(self, shop: BenchedShop, server: BenchedServer) -> None:
        environment = shop.environment

        async def prepare() -> None:
            await wait_until_drained(environment)

        self.figures.shop = await self._measure_sizes(environment, server, self.sizes, prepare)
        await wait_until_drained(environment)
        audit = await environment.shop.audit.audit_sale(SALE_ID)
        self.figures.audit_differences = audit.differences
        self.figures.audit_findings = [f"{finding.promise}: {finding.detail}" for finding in audit.findings]

    async def _measure_reads(self, shop: BenchedShop) -> None:
        self.figures.reads = await measure_reads(shop, self.seconds)

    async def _measure_priority(self, shop: BenchedShop) -> None:
        self.figures.priority = await measure_priority(shop, _PRIORITY_TIMES * self.seconds)

    async def _measure_room(self) -> None:
        async with open_shop() as shop:
            self.figures.room = await measure_room(shop, self.seconds)

    async def _measure_abuse(self) -> None:
        self.figures.abuse = await measure_abuse(self.seconds, self.repeats)


@asynccontextmanager
async def _open_late_redis(environment: BenchEnvironment) -> AsyncIterator[Path]:
    """Run a proxy through which the environment's Redis answers late. Yields its socket."""
    target = environment.settings.redis().removeprefix("unix://").partition("?")[0]
    socket = environment.home / "late.sock"

    async def check_ready() -> None:
        if not socket.exists():
            raise ConnectionError("the proxy does not listen yet")

    argv = (sys.executable, "-m", "loadtest.bench.late_redis", str(socket), target, str(_LATE_MS))
    running = await start_process(
        ProcessSpec("late-redis", argv, environment.home / "late-redis.log", check_ready=check_ready)
    )
    try:
        yield socket
    finally:
        await running.stop()


def _show(text: str) -> None:
    print(text, flush=True)
