"""Carries paid orders to the door: makes parcels of them, books carriers, cancels, asks for news."""

from __future__ import annotations

from contextlib import AsyncExitStack

from commerce.fulfilment.carrier_assignment import CarrierAssignment
from commerce.fulfilment.fulfilment_jobs import FulfilmentJobs, Job
from commerce.kernel.ids import IdGenerator
from commerce.kernel.jobs import RetryPolicy
from commerce.rates.service import Rates
from commerce.shipping.carriers import open_carriers
from workers.external_jobs import ExternalJobRunner
from workers.loop import run_steps
from workers.runtime import WorkerServices


async def fulfilment_worker(shop: WorkerServices) -> None:
    """Until it is to stop; then what is in hand is finished."""
    driver, rules = shop.settings.jobs, shop.settings.shipping
    policy = RetryPolicy.from_settings(driver)
    async with AsyncExitStack() as stack:
        carriers = await stack.enter_async_context(
            open_carriers(
                rules, shop.clock, timeout_s=driver.call_timeout_s, connections=driver.concurrent_jobs_per_system
            )
        )
        assigning = CarrierAssignment(Rates(shop.db, shop.clock), carriers, rules)
        jobs = FulfilmentJobs(
            shop.db, shop.clock, IdGenerator(shop.clock), policy, driver.max_attempts, carriers, assigning, rules
        )
        systems = {carrier.system for carrier in carriers.by_name.values() if carrier.is_external}
        doors: ExternalJobRunner[Job] = ExternalJobRunner("shipment", jobs, jobs.system_of, systems, driver, shop.clock)
        await run_steps("shipment", doors.start_due_jobs, shop.stop, driver.poll_ms / 1000)
        await doors.drain()
