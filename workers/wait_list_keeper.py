"""Keeps the wait-lists: offers returned units, withdraws what nobody took. Several may run."""

from __future__ import annotations

import asyncio
import logging

from commerce.kernel.failures import Failures
from commerce.kernel.ids import IdGenerator
from commerce.wait_lists.model import WaitList
from commerce.wait_lists.offer_keeper import WaitListKeeper
from commerce.wait_lists.service import WaitLists
from workers import metrics
from workers.loop import run_steps
from workers.runtime import WorkerServices

_logger = logging.getLogger(__name__)
_POLL_INTERVAL_S = 0.5
_MAX_RUNNING_STEPS = 4


def _count_offers(outcome: str, offers: int) -> None:
    metrics.WAIT_LIST_OFFERS.labels(outcome).inc(offers)


async def wait_list_keeper(services: WorkerServices) -> None:
    """Take a step of every wait-list twice a second; one that fails keeps no other from its own."""
    wait_lists = WaitLists(services.db, services.redis, services.sales, services.clock)
    keeper = WaitListKeeper(services.db, services.redis, services.clock, IdGenerator(services.clock), _count_offers)
    slots = asyncio.Semaphore(_MAX_RUNNING_STEPS)

    async def keep(wait_list: WaitList, failures: Failures) -> None:
        async with slots:
            with failures.catch(sale_id=wait_list.sale_id):
                await keeper.step(wait_list)

    async def step() -> int:
        failures = Failures("keep a wait-list", _logger)
        await asyncio.gather(*(keep(wait_list, failures) for wait_list in await wait_lists.list_kept()))
        failures.raise_any()
        return 0

    await run_steps("wait_list_keeper", step, services.stop, _POLL_INTERVAL_S)
