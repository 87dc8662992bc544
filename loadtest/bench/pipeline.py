"""The part `pipeline`: orders that are placed, paid, planned, booked, followed and delivered.

The sandbox plays the payment provider and the carrier. The stages are measured one after the other: the fulfilment
worker is stopped while orders are paid, and no shipment moves while others are booked.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from time import perf_counter

from commerce.warehouses.service import Warehouses
from loadtest.bench.crowd import Crowd, list_addresses, open_crowd
from loadtest.bench.crowd_process import CrowdSample
from loadtest.bench.environment import SKU_PREFIX
from loadtest.bench.machine import CpuMeter, read_cpu_seconds, read_family_cpu_seconds
from loadtest.bench.order_writing import wait_until_drained
from loadtest.bench.pipeline_figures import AnswerTimes, PipelineFigures, StageFigures
from loadtest.bench.sandbox_client import call_sandbox
from loadtest.bench.shop_environment import BenchedShop, open_shop
from loadtest.bench.unpaid_orders import UnpaidOrder, select_unpaid_orders
from loadtest.bench.wrk import LoadFailed

_PAYING_CUSTOMERS = 32
_ORDERING_CUSTOMERS, _ORDERING_PAUSE_MS = 40, 100.0
_PAY_AFTER_MS = 100
_STANDSTILL, _TIME_FACTOR = 1, 14_400  # times as fast as reality: a day and a half in nine seconds
_POLL_INTERVAL_S, _STALLED_AFTER_S = 0.1, 60.0
_WAREHOUSES = """id,name,phone,country,province,city,district,line,postcode,latitude,longitude
hz,Hangzhou,057188880000,CN,Zhejiang,Hangzhou,Yuhang,Cangqian Street 1,311121,30.28,120.02
"""
_PRODUCT_LOGISTICS = f"""sku,warehouse,shelf,weight_g,length_mm,width_mm,height_mm
{SKU_PREFIX}0,hz,A-01,340,150,120,90
"""
_RATES = """carrier,region,from_g,to_g,price,currency,days,cod
sf_express,CN,0,30000,18.00,CNY,1,yes
"""
_COUNT_STORED = "SELECT count(*) FROM orders"
_COUNT_CAPTURED = "SELECT count(*) FROM payments WHERE captured_at IS NOT NULL"
_COUNT_BOOKED = "SELECT count(*) FROM shipments WHERE booked_at IS NOT NULL"
_COUNT_DELIVERED = "SELECT count(*) FROM shipments WHERE status = 'delivered'"
_POLL_ALL = "UPDATE jobs SET due_at = now() WHERE kind = 'shipment.track'"
_COUNT_POLLED = "SELECT count(*) FROM jobs WHERE kind = 'shipment.track' AND due_at > now() + interval '10 minutes'"
_MEASURE_CAPTURES = """
SELECT extract(epoch FROM max(paid.at) - min(payments.created_at))::float8 AS seconds,
       percentile_cont(ARRAY[0.5, 0.99]) WITHIN GROUP (
           ORDER BY extract(epoch FROM paid.at - payments.created_at) * 1000) AS times_ms
FROM payments JOIN order_events AS paid USING (order_id) WHERE paid.to_status = 'paid'
"""


async def measure_pipeline(figures: PipelineFigures, orders: int) -> None:
    """Bring so many orders of an own shop through each stage, then as many through all at once."""
    async with open_shop() as shop:
        await _prepare(shop)
        pipeline = _Pipeline(shop, figures, orders)
        await pipeline.run()
    figures.ratios = figures.compute_ratios()


async def _prepare(shop: BenchedShop) -> None:
    """Import what shipments need, let the provider pay at once and the carrier move nothing yet."""
    services = shop.environment.shop
    warehouses = Warehouses(services.db)
    for text in (_WAREHOUSES, _PRODUCT_LOGISTICS):
        report = await warehouses.import_csv(text.splitlines(keepends=True))
        if report.errors:
            raise LoadFailed(f"cannot import product logistics: {report.errors}")
    await services.rates.import_table(_RATES.splitlines(keepends=True), "bench", "bench")
    await call_sandbox(
        shop.sandbox_url,
        *("PUT", "/faults/alipay"),
        {"approve": "auto", "pay_after_ms": _PAY_AFTER_MS, "webhook_delay_ms": 0},
    )
    await _set_time_factor(shop, _STANDSTILL)


async def _set_time_factor(shop: BenchedShop, factor: int) -> None:
    await call_sandbox(shop.sandbox_url, "PUT", "/faults/sf_express", {"time_factor": factor, "webhook_delay_ms": 0})


@dataclass
class _Pipeline:
    """The stages of one run."""

    shop: BenchedShop
    figures: PipelineFigures
    orders: int
    _unpaid: list[UnpaidOrder] = field(default_factory=list)

    async def run(self) -> None:
        shop, figures, orders = self.shop, self.figures, self.orders
        figures.accepted_alone = await self._place_orders()
        self._unpaid = await select_unpaid_orders(shop.environment, 2 * orders)
        with stopped(shop.pids["fulfilment"]):
            await self._pay_all()
        figures.shipped = await self._measure(_COUNT_BOOKED)
        figures.polled = await self._measure(_COUNT_POLLED, lambda: self._execute(_POLL_ALL))
        figures.delivered = await self._measure(_COUNT_DELIVERED, lambda: _set_time_factor(shop, _TIME_FACTOR))
        figures.accepted_beside = await self._order_beside_all()

    async def _place_orders(self) -> AnswerTimes:
        async with self._open_ordering() as crowd:
            await self._wait_for(_COUNT_STORED, 2 * self.orders)
            sample = await crowd.take_sample()
        await wait_until_drained(self.shop.environment)
        return _find_times(sample)

    @asynccontextmanager
    async def _open_ordering(self) -> AsyncIterator[Crowd]:
        """Run customers who place new orders at a pace that the shop holds easily."""
        async with open_crowd(
            *(self.shop.environment, self.shop.url, _ORDERING_CUSTOMERS),
            is_patient=True,
            pause_ms=_ORDERING_PAUSE_MS,
            sources=list_addresses(101, 20),
        ) as crowd:
            await crowd.wait_until_connected()
            yield crowd

    async def _pay_all(self) -> None:
        """Begin to pay the first half of the orders, and wait until all payments are captured."""
        meter = self._create_meter()
        sample, client_s = await self._begin_payments(self._unpaid[: self.orders], self.orders)
        async with self.shop.environment.shop.db.connection() as connection:
            row = await connection.fetchrow(_MEASURE_CAPTURES)
        assert row is not None
        self.figures.begun = _find_times(sample)
        self.figures.captured = AnswerTimes(self.orders, *row["times_ms"])
        self.figures.paid = create_stage(self.orders, row["seconds"], {**meter.read_used(), "client": client_s})

    async def _begin_payments(self, orders: Sequence[UnpaidOrder], captured: int) -> tuple[CrowdSample, float]:
        """Begin to pay, and wait until so many payments are captured.

        Returns the answers and the client's processor time in seconds.
        """
        async with open_crowd(
            *(self.shop.environment, self.shop.url, _PAYING_CUSTOMERS),
            requests=[order.format_payment() for order in orders],
            is_once=True,
            is_patient=True,
            sources=list_addresses(1, 10),
        ) as crowd:
            await self._wait_for(_COUNT_CAPTURED, captured)
            # Of the last payments the webhooks may have been faster than the answers.
            return await crowd.take_sample(), read_cpu_seconds(crowd.pid)

    async def _measure(self, count_done: str, begin: Callable[[], Awaitable[None]] | None = None) -> StageFigures:
        """Wait until a stage is done, which begins at once or by a call."""
        meter, started = self._create_meter(), perf_counter()
        if begin:
            await begin()
        await self._wait_for(count_done, self.orders)
        return create_stage(self.orders, perf_counter() - started, meter.read_used())

    async def _order_beside_all(self) -> AnswerTimes:
        """Place new orders while the second half of the orders is paid, shipped and delivered."""
        async with self._open_ordering() as crowd:
            await crowd.take_sample()
            await self._begin_payments(self._unpaid[self.orders :], 2 * self.orders)
            return _find_times(await crowd.take_sample())

    def _create_meter(self) -> CpuMeter:
        return CpuMeter(self.shop.pids, read_family_cpu_seconds)

    async def _execute(self, statement: str) -> None:
        async with self.shop.environment.shop.db.connection() as connection:
            await connection.execute(statement)

    async def _wait_for(self, statement: str, target: int) -> None:
        """Wait until a statement counts so many.

        Raises `LoadFailed` once it has counted the same for a minute.
        """
        last, changed_at = -1, perf_counter()
        while True:
            async with self.shop.environment.shop.db.connection() as connection:
                count: int = await connection.fetchval(statement)
            if count >= target:
                return
            if count != last:
                last, changed_at = count, perf_counter()
            elif perf_counter() - changed_at > _STALLED_AFTER_S:
                raise LoadFailed(f"stays at {count} of {target} for {_STALLED_AFTER_S:g} s: {statement}")
            await asyncio.sleep(_POLL_INTERVAL_S)


def create_stage(orders: int, seconds: float, used_s: dict[str, float]) -> StageFigures:
    """Return the figures of a stage from the processor seconds of all its orders."""
    return StageFigures(orders, seconds, {kind: cpu_s / orders * 1e3 for kind, cpu_s in used_s.items()})


def _find_times(sample: CrowdSample) -> AnswerTimes:
    return AnswerTimes(sample.accepted, sample.p50_ms, sample.p99_ms)


@contextmanager
def stopped(pids: Sequence[int]) -> Iterator[None]:
    """Stop processes, and let them continue when the block ends."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
