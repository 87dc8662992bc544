"""Sets the gauges: how many orders and jobs wait, how old they are, and how many are parked."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from datetime import datetime
from functools import partial
from typing import get_args
from zoneinfo import ZoneInfo

import lua
from commerce.aftersales.case_gauges import CaseGauges
from commerce.aftersales.case_returns import measure_worklists
from commerce.audit.service import Audit
from commerce.cancellations.open_cancellations import OpenCancellations
from commerce.case_rules.service import CaseRules
from commerce.conversations.deadline_keeper import DeadlineKeeper
from commerce.conversations.deadlines import DeadlineKind
from commerce.conversations.service import ConversationGauges
from commerce.fulfilment.worklists import Worklists
from commerce.jobs.model import GroupLoad, GroupName
from commerce.jobs.staff_jobs import StaffJobs
from commerce.kernel.clock import Clock, from_ms
from commerce.kernel.failures import Failures
from commerce.kernel.ids import IdGenerator
from commerce.kernel.postgres import Database
from commerce.knowledge.service import Knowledge
from commerce.ledger.service import Ledger
from commerce.payments.ledger_sums import LedgerSums
from commerce.payments.other_ways import measure_refunds
from commerce.pictures.picture_policy import measure_stored_bytes
from commerce.product_search.indexer import ProductIndexer
from commerce.sales_figures.event_counter import EventCounter
from commerce.warehouse_stock.service import WarehouseStock
from config.aftersales import AftersalesSettings
from lua import SaleKeys
from workers import metrics
from workers.loop import run_steps
from workers.runtime import WorkerServices

_logger = logging.getLogger(__name__)
_PICTURES_EVERY_S = 300.0
"""reads a row of each file"""


async def observer(services: WorkerServices) -> None:
    """Measure the streams of all sales that were ever opened, the jobs and the shipments.

    Each continues while the other's database is unavailable, and no gauge waits for one that fails. The streams are
    those of the sales listed last: without Postgres, orders pile up in them. Measuring the shipments reads all that are
    on their way and the last day's orders."""
    sale_ids: list[str] = []
    worklists = Worklists(services.db, services.clock, services.settings.shipping)
    jobs = StaffJobs(services.db, services.clock, services.settings.jobs.lease_s)
    shown_shipments: set[tuple[str, str]] = set()
    case_gauges = CaseGauges(services.db, services.clock)
    stock = WarehouseStock(services.db, services.clock, IdGenerator(services.clock))
    shown_cases, shown_holders = set[tuple[str, str]](), set[tuple[str, str]]()
    shown_groups, shown_refunds = set[GroupName](), set[tuple[str, str, str]]()

    async def measure_jobs() -> int:
        is_first = not sale_ids
        sale_ids[:] = [sale.sale_id for sale in await services.sales.list_opened()]
        failures = Failures("measure", _logger)
        if is_first:  # otherwise the streams would be measured one interval later
            with failures.catch(gauges="streams"):
                await measure_streams()
        measures = (
            ("jobs", partial(_measure_jobs, jobs, shown_groups, from_ms(services.clock.now_ms()))),
            ("dead_letters", partial(_measure_dead_letters, services.audit)),
            ("ledger", partial(_measure_ledger, LedgerSums(services.db))),
            ("sales_figures", partial(_measure_sales_figures, services)),
            ("product_index", partial(_measure_product_index, services)),
            ("refunds", partial(_measure_refunds, services.db, shown_refunds, from_ms(services.clock.now_ms()))),
        )
        return await _measure_each(measures, failures)

    async def measure_shipments() -> int:
        failures = Failures("measure", _logger)
        now, ledger_of_cash = from_ms(services.clock.now_ms()), Ledger(services.db, services.clock)
        measures = (
            ("shipments", partial(_measure_shipments, worklists, shown_shipments)),
            ("cancellations", partial(_measure_cancellations, OpenCancellations(services.db, services.clock))),
            ("cases", partial(_measure_cases, case_gauges, shown_cases)),
            ("support", partial(_measure_support, services)),
            ("held_cash", partial(_measure_held_cash, ledger_of_cash, shown_holders, services.clock)),
            ("returns", partial(_measure_returns, services.db, services.settings.aftersales, now)),
            ("stock", partial(_measure_stock, stock)),
        )
        return await _measure_each(measures, failures)

    async def measure_streams() -> int:
        failures = Failures("measure a stream", _logger)
        for sale_id in tuple(sale_ids):
            with failures.catch(sale_id=sale_id):
                backlog = await lua.read_backlog(services.redis, SaleKeys(sale_id))
                age_ms = 0 if backlog.oldest_ms is None else max(0, services.clock.now_ms() - backlog.oldest_ms)
                metrics.STREAM_BACKLOG_ORDERS.labels(sale_id).set(backlog.orders)
                metrics.STREAM_OLDEST_SECONDS.labels(sale_id).set(age_ms / 1000)
        failures.raise_any()
        return 0

    intervals = services.settings.observer
    steps = (
        (measure_jobs, intervals.gauges_every_s),
        (measure_streams, intervals.gauges_every_s),
        (measure_shipments, intervals.shipments_every_s),
        (partial(_measure_pictures, services.db), _PICTURES_EVERY_S),
    )
    await asyncio.gather(*(run_steps("observer", step, services.stop, interval_s) for step, interval_s in steps))


async def _measure_each(measures: Iterable[tuple[str, Callable[[], Awaitable[None]]]], failures: Failures) -> int:
    """Measure all gauges, the others too if one cannot be measured."""
    for gauges, measure in measures:
        with failures.catch(gauges=gauges):
            await measure()
    failures.raise_any()
    return 0


async def _measure_dead_letters(audit: Audit) -> None:
    metrics.DEAD_LETTERS.set(await audit.count_dead_letters())


async def _measure_jobs(jobs: StaffJobs, shown: set[GroupName], now: datetime) -> None:
    """Set the gauges of jobs by group.

    `shown` holds the groups so far: those without jobs are set to 0."""
    loads = await jobs.measure_groups()
    for queue, system, kind in shown | loads.keys():
        load = loads.get((queue, system, kind), GroupLoad(0, 0, None))
        metrics.OPEN_JOBS.labels(queue, kind, system, "due").set(load.due)
        metrics.OPEN_JOBS.labels(queue, kind, system, "parked").set(load.parked)
        age_s = 0.0 if load.first_due_at is None else max(0.0, (now - load.first_due_at).total_seconds())
        metrics.OLDEST_JOB_SECONDS.labels(queue, kind, system).set(age_s)
    shown.update(loads)


async def _measure_refunds(db: Database, shown: set[tuple[str, str, str]], now: datetime) -> None:
    """Set the gauges of waiting refunds. `shown` holds the groups so far: those without any are set to 0."""
    loads = {(load.method, load.currency, load.reason): load for load in await measure_refunds(db)}
    for group in shown | loads.keys():
        load = loads.get(group)
        age_s = max(0.0, (now - load.since).total_seconds()) if load else 0.0
        metrics.WAITING_REFUNDS.labels(*group).set(load.refunds if load else 0)
        metrics.WAITING_REFUNDS_MINOR.labels(*group).set(load.amount_minor if load else 0)
        metrics.OLDEST_WAITING_REFUND_SECONDS.labels(*group).set(age_s)
    shown.update(loads.keys())


async def _measure_ledger(ledger: LedgerSums) -> None:
    for currency, difference in (await ledger.read() or {}).items():
        metrics.LEDGER_DIFFERENCE_MINOR.labels(currency).set(difference)


async def _measure_sales_figures(services: WorkerServices) -> None:
    counter = EventCounter(services.db, services.clock, ZoneInfo(services.settings.shop.time_zone))
    metrics.SALES_FIGURES_LAG_SECONDS.set((await counter.measure_lag()).total_seconds())


async def _measure_product_index(services: WorkerServices) -> None:
    lag = await ProductIndexer(services.db, services.clock).measure_lag()
    metrics.PRODUCT_INDEX_LAG_SECONDS.set(lag.total_seconds())


async def _measure_held_cash(ledger: Ledger, shown: set[tuple[str, str]], clock: Clock) -> None:
    """Set the gauges of held cash.

    `shown` holds the (holder, currency) pairs so far: those without cash are set to 0."""
    held_cash = {(held.holder, held.currency): held for held in await ledger.list_held_cash()}
    now = from_ms(clock.now_ms())
    for key in shown | held_cash.keys():
        held = held_cash.get(key)
        age_s = 0.0 if held is None or held.oldest_at is None else max(0.0, (now - held.oldest_at).total_seconds())
        metrics.HELD_CASH_MINOR.labels(*key).set(0 if held is None else held.balance)
        metrics.HELD_CASH_SECONDS.labels(*key).set(age_s)
    shown.update(held_cash)


async def _measure_returns(db: Database, policy: AftersalesSettings, now: datetime) -> None:
    """Set the gauges of returns."""
    metrics.RETURN_WARNING_SECONDS.set(policy.return_warning_after_s)
    lengths = await measure_worklists(db, policy, now)
    for worklist, count in lengths.by_worklist.items():
        metrics.RETURN_WORKLIST_ITEMS.labels(worklist).set(count)
    for step, since in (("receive", lengths.oldest_arrival), ("inspect", lengths.oldest_receipt)):
        metrics.OLDEST_RETURN_SECONDS.labels(step).set((now - since).total_seconds() if since else 0.0)


async def _measure_shipments(worklists: Worklists, shown: set[tuple[str, str]]) -> None:
    """Set the gauges of shipments.

    `shown` holds the (carrier, status) pairs so far: those without shipments are set to 0."""
    counts = await worklists.count_worklists()
    counts.pop("unplanned")
    for worklist, count in counts.items():
        metrics.WORKLIST_SHIPMENTS.labels(worklist).set(count)
    open_shipments = await worklists.count_open_shipments()
    for carrier, status in shown - open_shipments.keys():
        metrics.OPEN_SHIPMENTS.labels(carrier, status).set(0)
    for (carrier, status), count in open_shipments.items():
        metrics.OPEN_SHIPMENTS.labels(carrier, status).set(count)
    shown.update(open_shipments)
    for until, durations in (await worklists.measure_fulfilment_times()).items():
        for quantile, seconds in zip(("0.5", "0.9", "0.99"), durations, strict=True):
            metrics.FULFILMENT_SECONDS.labels(until, quantile).set(seconds)


async def _measure_stock(stock: WarehouseStock) -> None:
    metrics.LOW_STOCKS.set(await stock.count_low())


async def _measure_cancellations(cancellations: OpenCancellations) -> None:
    count, oldest_s = await cancellations.measure()
    metrics.OPEN_CANCELLATIONS.set(count)
    metrics.OLDEST_CANCELLATION_SECONDS.set(oldest_s)


async def _measure_pictures(db: Database) -> int:
    metrics.STORED_PICTURE_BYTES.set(await measure_stored_bytes(db))
    return 0


async def _measure_articles(services: WorkerServices) -> None:
    knowledge = Knowledge(services.db, services.clock, ZoneInfo(services.settings.shipping.timezone))
    metrics.OVERDUE_ARTICLES.set((await knowledge.measure_overdue()).count)


async def _measure_support(services: WorkerServices) -> None:
    await _measure_conversations(ConversationGauges(services.db, services.clock))
    await _measure_deadlines(DeadlineKeeper(services.db, services.clock))
    await _measure_articles(services)
    await _measure_rules(services)


async def _measure_deadlines(keeper: DeadlineKeeper) -> None:
    load = await keeper.measure()
    for due_kind in get_args(DeadlineKind):
        metrics.OVERDUE_CONVERSATIONS.labels(due_kind).set(load.overdue.get(due_kind, 0))
    metrics.UNANSWERED_CONVERSATIONS.set(load.unanswered)
    metrics.OLDEST_UNANSWERED_SECONDS.set(load.oldest_unanswered_s)
    metrics.OUTDATED_DEADLINES.set(load.outdated)
    metrics.UNCERTAIN_CALENDAR_DATES.set(load.uncertain_days)


async def _measure_cases(gauges: CaseGauges, shown: set[tuple[str, str]]) -> None:
    """Set the gauges of returns and claims.

    `shown` holds the (kind, actor) pairs so far: those without cases are set to 0."""
    counts = await gauges.count_open()
    overdue = dict.fromkeys((waits_for for _, waits_for in shown | counts.keys()), 0)
    for kind, waits_for in shown | counts.keys():
        open_cases, overdue_cases = counts.get((kind, waits_for), (0, 0))
        metrics.OPEN_CASES.labels(kind, waits_for).set(open_cases)
        overdue[waits_for] += overdue_cases
    for waits_for, overdue_cases in overdue.items():
        metrics.OVERDUE_CASES.labels(waits_for).set(overdue_cases)
    shown.update(counts)
    for quantile, seconds in zip(("0.5", "0.9", "0.99"), await gauges.measure_decisions(), strict=False):
        metrics.CASE_DECISION_SECONDS.labels(quantile).set(seconds)


async def _measure_conversations(gauges: ConversationGauges) -> None:
    counts, oldest_s = await gauges.measure()
    for status, count in counts.items():
        metrics.OPEN_CONVERSATIONS.labels(status).set(count)
    metrics.OLDEST_UNASSIGNED_CONVERSATION_SECONDS.set(oldest_s)


async def _measure_rules(services: WorkerServices) -> None:
    """Set the gauges of the rules that decide cases.

    Budgets are never deleted, so no gauge keeps an old value."""
    zone = ZoneInfo(services.settings.shipping.timezone)
    state = await CaseRules(services.db, services.clock, zone).get_state()
    metrics.CASE_RULES_STOPPED.set(not state.is_on and state.active_version is not None)
    for budget in state.budgets:
        ratio = max(budget.amount / max(1, budget.max_amount), budget.cases / max(1, budget.max_cases))
        metrics.CASE_RULE_BUDGET_USED_RATIO.labels(budget.currency).set(ratio)
        metrics.CASE_RULE_BUDGET_REFUSALS.labels(budget.currency).set(budget.refused_cases)
