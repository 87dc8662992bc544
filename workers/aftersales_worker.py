"""Has rules decide cases, moves cases and conversations on, indexes orders, and adds up sales.

Several may run.
"""

from __future__ import annotations

import asyncio
from functools import partial
from zoneinfo import ZoneInfo

from commerce.aftersales.case_deadlines import CaseJobs
from commerce.aftersales.case_decisions import CaseDecisions
from commerce.aftersales.case_exchanges import CaseExchanges
from commerce.aftersales.kept_units import KeptUnitCases
from commerce.aftersales.service import Aftersales
from commerce.case_rules.rule_jobs import RuleJobs
from commerce.conversations.conversation_jobs import ConversationJobs
from commerce.conversations.deadline_keeper import DeadlineKeeper
from commerce.exchanges.service import ReplacementOrders
from commerce.kernel.ids import IdGenerator
from commerce.kernel.jobs import RetryPolicy
from commerce.order_search.service import index_contacts
from commerce.sales_figures.event_counter import EventCounter
from workers import metrics
from workers.job_runner import JobRunner
from workers.loop import run_steps
from workers.runtime import WorkerServices

_INDEX_INTERVAL_S = 1.0
_COUNT_INTERVAL_S = 1.0
_BATCHES_PER_STEP = 5
"""of up to 2,000 orders"""


async def aftersales_worker(services: WorkerServices) -> None:
    """Do jobs of cases and conversations until the process stops; running jobs are finished."""
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
    conversations = ConversationJobs(
        *(services.db, services.clock, services.settings.conversations),
        *(RetryPolicy.from_settings(settings), settings.max_attempts),
    )
    rules = RuleJobs(
        *(services.db, services.clock, decisions, cases.requests, zone),
        *(RetryPolicy.from_settings(settings), settings.max_attempts),
    )
    queues = [jobs.queue, conversations.queue, rules.queue]
    due = services.due_jobs.event(*(queue.name for queue in queues))
    wake_ups = {queue.name: services.due_jobs.event(queue.name) for queue in queues}
    runner = JobRunner("aftersales_worker", queues, (), settings, services.clock, due, wake_ups)
    poll_s = settings.poll_ms / 1000
    keeper = DeadlineKeeper(
        services.db, services.clock, lambda kind: metrics.ESCALATED_CONVERSATIONS.labels(kind).inc()
    )
    async with asyncio.TaskGroup() as group:
        group.create_task(_index_orders(services))
        group.create_task(_add_up_sales(services))
        group.create_task(run_steps("aftersales_worker", keeper.step, services.stop, policy.deadlines_every_s))
        await run_steps("aftersales_worker", runner.start_due_jobs, services.stop, poll_s, due, runner.may_have_more)
    await runner.drain()


async def _index_orders(services: WorkerServices) -> None:
    """Copy recipients of stored orders to where staff search for them."""
    step = partial(index_contacts, services.db, _BATCHES_PER_STEP)
    await run_steps("aftersales_worker", step, services.stop, _INDEX_INTERVAL_S)


async def _add_up_sales(services: WorkerServices) -> None:
    """Add what has happened to the sums that reports on sales read."""
    counter = EventCounter(services.db, services.clock, ZoneInfo(services.settings.shop.time_zone))
    await run_steps("aftersales_worker", counter.step, services.stop, _COUNT_INTERVAL_S)
