"""Moves cases on that nobody answers in time, and follows their money. Several may run."""

from __future__ import annotations

from commerce.aftersales.case_deadlines import CaseJobs
from commerce.aftersales.case_decisions import CaseDecisions
from commerce.aftersales.case_exchanges import CaseExchanges
from commerce.exchanges.service import ReplacementOrders
from commerce.kernel.ids import IdGenerator
from commerce.kernel.jobs import RetryPolicy
from workers.job_runner import JobRunner
from workers.loop import run_steps
from workers.runtime import WorkerServices


async def aftersales_worker(services: WorkerServices) -> None:
    """Do jobs of cases until the process stops; running jobs are finished."""
    settings, policy = services.settings.jobs, services.settings.aftersales
    ids, replacements = IdGenerator(services.clock), ReplacementOrders(services.db, services.redis, services.clock)
    jobs = CaseJobs(
        services.db,
        services.clock,
        CaseDecisions(ids, policy),
        policy,
        RetryPolicy.from_settings(settings),
        settings.max_attempts,
        CaseExchanges(services.db, services.clock, ids, replacements, policy),
    )
    due = services.due_jobs.event(jobs.queue.name)
    runner = JobRunner("aftersales_worker", [jobs.queue], (), settings, services.clock, due)
    poll_s = settings.poll_ms / 1000
    await run_steps("aftersales_worker", runner.start_due_jobs, services.stop, poll_s, due, runner.may_have_more)
    await runner.drain()
