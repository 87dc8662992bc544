"""Keeps the gauges: how much waits, how old it is, what was given up."""

from __future__ import annotations

import asyncio

import lua
from commerce.fulfilment.worklists import Worklists
from lua import SaleKeys
from workers import metrics
from workers.loop import run_steps
from workers.runtime import WorkerServices


async def observer(shop: WorkerServices) -> None:
    """Look at the streams of all sales that were opened, and at the jobs.

    Each of the two goes on while the other's database is away. The streams are those of the sales that were last known:
    with Postgres gone orders pile up in them.
    """
    sales: list[str] = []
    desk, shown = Worklists(shop.db, shop.clock, shop.settings.shipping), set[tuple[str, str]]()

    async def jobs() -> int:
        first = not sales
        sales[:] = [sale.sale_id for sale in await shop.sales.list_opened()]
        if first:  # or the streams would be seen only at their next look
            await streams()
        counts = await shop.audit.count_waiting()
        metrics.DEAD_LETTERS.set(counts["dead_letters"])
        metrics.PARKED.labels("release").set(counts["parked_releases"])
        metrics.PARKED.labels("stock_change").set(counts["parked_stock_changes"])
        metrics.PENDING_RELEASES.set(counts["pending_releases"])
        metrics.OLDEST_RELEASE.set(counts["oldest_release_s"])
        for kind in ("payment", "refund"):
            metrics.PARKED.labels(kind).set(counts[f"parked_{kind}s"])
            metrics.OLDEST_JOB.labels(kind).set(counts[f"oldest_{kind}_s"])
        await _show_parcels(desk, shown)
        for currency, difference in (await shop.audit.sum_ledger()).items():
            metrics.LEDGER_DIFFERENCE.labels(currency).set(difference)
        return 0

    async def streams() -> int:
        for sale_id in tuple(sales):
            waiting = await lua.backlog(shop.redis, SaleKeys(sale_id))
            age_ms = 0 if waiting.oldest_ms is None else max(0, shop.clock.now_ms() - waiting.oldest_ms)
            metrics.BACKLOG_ORDERS.labels(sale_id).set(waiting.orders)
            metrics.BACKLOG_AGE.labels(sale_id).set(age_ms / 1000)
        return 0

    every_s = shop.settings.observer.gauges_every_s
    await asyncio.gather(*(run_steps("observer", step, shop.stop, every_s) for step in (jobs, streams)))


async def _show_parcels(desk: Worklists, shown: set[tuple[str, str]]) -> None:
    """`shown` are the (carrier, status) that were shown so far: what has emptied since must be seen to be empty."""
    counts = await desk.count_worklists()
    for kind in ("shipment", "order"):
        metrics.OLDEST_JOB.labels(kind).set(counts.pop(f"oldest_{kind}_s"))
    metrics.PARKED.labels("shipment").set(counts["parked"])
    metrics.PARKED.labels("order").set(counts.pop("unplanned"))
    for name, count in counts.items():
        metrics.PARCELS.labels(name).set(count)
    found = await desk.count_open_shipments()
    for carrier, status in shown - found.keys():
        metrics.OPEN_PARCELS.labels(carrier, status).set(0)
    for (carrier, status), parcels in found.items():
        metrics.OPEN_PARCELS.labels(carrier, status).set(parcels)
    shown |= found.keys()
    for until, values in (await desk.measure_fulfilment_times()).items():
        for quantile, seconds in zip(("0.5", "0.9", "0.99"), values, strict=True):
            metrics.FULFILMENT_SECONDS.labels(until, quantile).set(seconds)
