"""Moves cases on that nobody answers in time, and follows their money. Several may run."""

from __future__ import annotations

from zoneinfo import ZoneInfo

from commerce.aftersales.case_deadlines import CaseJobs
from commerce.aftersales.case_decisions import CaseDecisions
from commerce.aftersales.case_exchanges import CaseExchanges
from commerce.aftersales.kept_units import KeptUnitCases
from commerce.aftersales.service import Aftersales
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
    decisions, zone = CaseDecisions(ids, policy), ZoneInfo(services.settings.shipping.timezone)
    cases = Aftersales(services.db, services.clock, ids, policy, zone, services.redis)
    jobs = CaseJobs(
        services.db,
        services.clock,
        decisions,
        policy,
        RetryPolicy.from_settings(settings),
        settings.max_attempts,
        CaseExchanges(services.db, services.clock, ids, replacements, policy),
        KeptUnitCases(services.db, services.clock, cases.requests, decisions, zone),
    )
    due = services.due_jobs.event(jobs.queue.name)
    runner = JobRunner("aftersales_worker", [jobs.queue], (), settings, services.clock, due)
    poll_s = settings.poll_ms / 1000
    await run_steps("aftersales_worker", runner.start_due_jobs, services.stop, poll_s, due, runner.may_have_more)
    await runner.drain()
