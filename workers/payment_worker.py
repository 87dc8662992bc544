"""Carries payments and refunds on: asks providers, looks whether they are paid, closes them, gives money back."""

from __future__ import annotations

from contextlib import AsyncExitStack

from commerce.kernel.ids import IdGenerator
from commerce.kernel.jobs import RateLimiter, RetryPolicy
from commerce.payments.model import ClaimedRefund, Payment
from commerce.payments.payment_jobs import PaymentJobs
from commerce.payments.providers import open_providers
from commerce.reservations.reacquisition import StockReacquisition
from workers.external_jobs import ExternalJobRunner
from workers.loop import run_steps
from workers.runtime import WorkerServices


async def payment_worker(shop: WorkerServices) -> None:
    """Until it is to stop; then what is in hand is finished."""
    driver, ids = shop.settings.jobs, IdGenerator(shop.clock)
    policy = RetryPolicy.from_settings(driver)
    async with AsyncExitStack() as stack:
        providers = await stack.enter_async_context(
            open_providers(
                shop.settings.payments,
                shop.clock,
                timeout_s=driver.call_timeout_s,
                connections=driver.concurrent_jobs_per_system,
            )
        )
        retaking = StockReacquisition(shop.db, shop.redis, shop.clock, ids)
        pace = RateLimiter(shop.clock, driver.refunds_per_s)
        jobs = PaymentJobs(shop.db, shop.clock, ids, policy, driver.max_attempts, providers, retaking, pace)
        doors: ExternalJobRunner[Payment | ClaimedRefund] = ExternalJobRunner(
            "payment", jobs, _system, providers, driver, shop.clock
        )
        await run_steps("payment", doors.start_due_jobs, shop.stop, driver.poll_ms / 1000)
        await doors.drain()


def _system(job: Payment | ClaimedRefund) -> str:
    """Who is called; nobody for what is our own to do."""
    return "ours" if isinstance(job, Payment) and job.task in ("recover_order", "update_order") else job.method
