"""Creates, queries and closes payments at providers, and refunds them."""

from __future__ import annotations

from contextlib import AsyncExitStack

from commerce.kernel.ids import IdGenerator
from commerce.kernel.jobs import RateLimiter, RetryPolicy
from commerce.payments.payment_jobs import PaymentJobs
from commerce.payments.providers import open_providers
from commerce.reservations.reacquisition import StockReacquisition
from workers.job_runner import JobRunner
from workers.loop import run_steps
from workers.runtime import WorkerServices


async def payment_worker(services: WorkerServices) -> None:
    """Do payment and refund jobs until the process stops; running jobs are finished."""
    settings, ids = services.settings.jobs, IdGenerator(services.clock)
    async with AsyncExitStack() as stack:
        providers = await stack.enter_async_context(
            open_providers(
                services.settings.payments,
                services.clock,
                timeout_s=settings.call_timeout_s,
                connections=settings.concurrent_jobs_per_system,
            )
        )
        jobs = PaymentJobs(
            services.db,
            services.clock,
            ids,
            RetryPolicy.from_settings(settings),
            settings.max_attempts,
            providers,
            StockReacquisition(services.db, services.redis, services.clock, ids),
            RateLimiter(services.clock, settings.refunds_per_s),
            services.settings.payments.refunds,
        )
        names = [queue.name for queue in jobs.queues]
        due, wake_ups = services.due_jobs.event(*names), {name: services.due_jobs.event(name) for name in names}
        runner = JobRunner("payment_worker", jobs.queues, providers, settings, services.clock, due, wake_ups)
        poll_s = settings.poll_ms / 1000
        await run_steps("payment_worker", runner.start_due_jobs, services.stop, poll_s, due, runner.may_have_more)
        await runner.drain()
