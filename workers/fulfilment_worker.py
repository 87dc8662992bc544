"""Plans shipments of paid orders; books, cancels and tracks them and return shipments at carriers."""

from __future__ import annotations

from contextlib import AsyncExitStack

from commerce.aftersales.return_steps import CaseFollower
from commerce.cancellations.cancellation_jobs import CancellationJobs
from commerce.fulfilment.carrier_assignment import CarrierAssignment
from commerce.fulfilment.fulfilment_jobs import FulfilmentJobs
from commerce.kernel.ids import IdGenerator
from commerce.kernel.jobs import RetryPolicy
from commerce.rates.service import Rates
from commerce.return_shipments.carrier_selection import ReturnCarriers
from commerce.return_shipments.return_jobs import ReturnShipmentJobs
from commerce.shipping.carriers import open_carriers
from workers.job_runner import JobRunner
from workers.loop import run_steps
from workers.runtime import WorkerServices


async def fulfilment_worker(services: WorkerServices) -> None:
    """Do jobs of orders, shipments and returns until the process stops; running jobs are finished."""
    settings, policy = services.settings.jobs, services.settings.shipping
    async with AsyncExitStack() as stack:
        carriers = await stack.enter_async_context(
            open_carriers(
                policy,
                services.clock,
                timeout_s=settings.call_timeout_s,
                connections=settings.concurrent_jobs_per_system,
            )
        )
        ids, rates = IdGenerator(services.clock), Rates(services.db, services.clock)
        jobs = FulfilmentJobs(
            services.db,
            services.clock,
            ids,
            RetryPolicy.from_settings(settings),
            settings.max_attempts,
            carriers,
            CarrierAssignment(rates, carriers, policy),
            policy,
        )
        return_carriers = ReturnCarriers(rates, carriers, policy, ids)
        returns = ReturnShipmentJobs(
            *(services.db, services.clock, RetryPolicy.from_settings(settings), settings.max_attempts),
            *(return_carriers, policy, CaseFollower(ids, services.settings.aftersales)),
        )
        cancellations = CancellationJobs(
            *(services.db, services.clock, ids, RetryPolicy.from_settings(settings), settings.max_attempts),
            *(carriers, policy, services.settings.aftersales),
        )
        systems = {carrier.system for carrier in carriers.by_name.values() if carrier.is_external}
        queues = [jobs.shipments, jobs.orders, returns.queue, cancellations.queue]
        names = [queue.name for queue in queues]
        due, wake_ups = services.due_jobs.event(*names), {name: services.due_jobs.event(name) for name in names}
        runner = JobRunner("fulfilment_worker", queues, systems, settings, services.clock, due, wake_ups)

        async def start_due_jobs() -> int:
            await jobs.reassign(runner.unavailable_systems)
            return await runner.start_due_jobs()

        poll_s = settings.poll_ms / 1000
        await run_steps("fulfilment_worker", start_due_jobs, services.stop, poll_s, due, runner.may_have_more)
        await runner.drain()
