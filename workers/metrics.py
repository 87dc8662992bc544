"""Metrics of the workers."""

from __future__ import annotations

from collections import Counter as Counts
from collections.abc import Iterable, Sequence
from typing import Literal, get_args

from prometheus_client import Counter, Gauge, Histogram

from commerce.jobs.model import Job
from commerce.pictures.model import RefusalReason

WAIT_LIST_OUTCOMES = ("offered", "taken", "lapsed", "refused")
WRITE_RESULTS = ("stored", "duplicate", "refused", "dead_lettered")
_LATEST: Literal["livemostrecent"] = "livemostrecent"

WRITTEN_ORDERS = Counter(
    "floodgate_written_orders_total",
    "Orders taken from the stream, by result: stored, duplicate (stored before), refused, dead_lettered",
    ["result"],
)
WRITE_BATCH_SECONDS = Histogram(
    "floodgate_write_batch_seconds",
    "Time to store one batch in Postgres, commit included",
    buckets=(0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
WRITE_LAG_SECONDS = Histogram(
    "floodgate_write_lag_seconds",
    "Time from acceptance to Postgres, of the oldest order of each batch",
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300),
)
WRITE_FAILURES = Counter("floodgate_write_failures_total", "Attempts to store a batch that failed and are retried")
SUSPECT_BATCHES = Counter(
    "floodgate_suspect_batches_total",
    "Attempts to store a batch whose orders fail alike while no other is stored: probably a defect of the program",
)
WAIT_LIST_OFFERS = Counter(
    "floodgate_wait_list_offers_total",
    "Offers of wait-lists by outcome: offered, taken, lapsed, refused (made again)",
    ["outcome"],
)
RETENTION_DELETED_ROWS = Counter(
    "floodgate_retention_deleted_rows_total", "Rows that were deleted because of their age, by table", ["table"]
)
RETENTION_OVERDUE_SECONDS = Gauge(
    "floodgate_retention_overdue_seconds",
    "How long the oldest row to be deleted is past its age, by table",
    ["table"],
    multiprocess_mode=_LATEST,
)
SALES_FIGURES_LAG_SECONDS = Gauge(
    "floodgate_sales_figures_lag_seconds",
    "Age of the oldest event that reports on sales do not count yet",
    multiprocess_mode=_LATEST,
)
PRODUCT_INDEX_LAG_SECONDS = Gauge(
    "floodgate_product_index_lag_seconds",
    "Age of the oldest change of a product that searches do not find yet",
    multiprocess_mode=_LATEST,
)
REFUSED_PICTURES = Counter(
    "floodgate_refused_pictures_total", "Imports of pictures that were refused, by reason", ["reason"]
)
STORED_PICTURE_BYTES = Gauge(
    "floodgate_stored_picture_bytes", "Size of all files of pictures of products", multiprocess_mode=_LATEST
)
PRODUCT_GRADE_RATIO = Gauge(
    "floodgate_product_grade_ratio", "Share of the products on sale, by grade", ["grade"], multiprocess_mode=_LATEST
)
QUALITY_LAG_SECONDS = Gauge(
    "floodgate_product_quality_lag_seconds",
    "Age of the oldest change of a product that its grade does not know",
    multiprocess_mode=_LATEST,
)
UNGRADED_PRODUCTS = Counter(
    "floodgate_ungraded_products_total", "Products that a defect of the program kept from being graded"
)
WORKER_JOBS = Counter("floodgate_worker_jobs_total", "Jobs that a worker has started", ["worker"])
WORKER_FAILURES = Counter("floodgate_worker_failures_total", "Failed steps of a worker, which are retried", ["worker"])

STREAM_BACKLOG_ORDERS = Gauge(
    "floodgate_stream_backlog_orders", "Orders accepted and not in Postgres", ["sale"], multiprocess_mode=_LATEST
)
STREAM_OLDEST_SECONDS = Gauge(
    "floodgate_stream_oldest_seconds", "Age of the oldest order in the stream", ["sale"], multiprocess_mode=_LATEST
)
DEAD_LETTERS = Gauge("floodgate_dead_letters", "Dead letters that wait for staff", multiprocess_mode=_LATEST)
SALE_UNITS = Gauge(
    "floodgate_sale_units",
    "Units of a sale at its last audit: initial, available, held, sold, written_off, in_stream",
    ["sale", "kind"],
    multiprocess_mode=_LATEST,
)
AUDIT_DIFFERENCE_UNITS = Gauge(
    "floodgate_audit_difference_units",
    "Units too many or too few at the last audit; any value but 0 is a broken promise",
    ["sale"],
    multiprocess_mode=_LATEST,
)
AUDIT_FINDINGS = Gauge(
    "floodgate_audit_findings", "Findings of the last audit, by promise", ["sale", "promise"], multiprocess_mode=_LATEST
)
AUDIT_TIMESTAMP_SECONDS = Gauge(
    "floodgate_audit_timestamp_seconds",
    "Time when a sale was last audited, or seen at rest",
    ["sale"],
    multiprocess_mode=_LATEST,
)

JOBS = Counter(
    "floodgate_jobs_total",
    "Jobs done, by result; error and no_answer are tried again",
    ["queue", "kind", "system", "result"],
)
JOB_SECONDS = Histogram(
    "floodgate_job_seconds",
    "Time of one call that does jobs of one kind and system",
    ["queue", "kind", "system"],
    buckets=(0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)
OPEN_JOBS = Gauge(
    "floodgate_open_jobs",
    "Jobs that are due, up to 100,000 of each kind and system, and parked ones",
    ["queue", "kind", "system", "state"],
    multiprocess_mode=_LATEST,
)
OLDEST_JOB_SECONDS = Gauge(
    "floodgate_oldest_job_seconds",
    "How long the oldest job has been due",
    ["queue", "kind", "system"],
    multiprocess_mode=_LATEST,
)
BREAKER_OPEN = Gauge(
    "floodgate_breaker_open",
    "1: an external system did not answer and its circuit breaker is open",
    ["worker", "system"],
    multiprocess_mode=_LATEST,
)
WAITING_REFUNDS = Gauge(
    "floodgate_waiting_refunds",
    "Refunds that wait at a provider, by reason, or that need another way",
    ["method", "currency", "reason"],
    multiprocess_mode=_LATEST,
)
WAITING_REFUNDS_MINOR = Gauge(
    "floodgate_waiting_refunds_minor",
    "Amount of the waiting refunds in minor units",
    ["method", "currency", "reason"],
    multiprocess_mode=_LATEST,
)
OLDEST_WAITING_REFUND_SECONDS = Gauge(
    "floodgate_oldest_waiting_refund_seconds",
    "How long the first of the waiting refunds has waited",
    ["method", "currency", "reason"],
    multiprocess_mode=_LATEST,
)
LEDGER_DIFFERENCE_MINOR = Gauge(
    "floodgate_ledger_difference_minor",
    "Sum of all ledger entries in minor units; any value but 0 is a broken promise",
    ["currency"],
    multiprocess_mode=_LATEST,
)
HELD_CASH_MINOR = Gauge(
    "floodgate_held_cash_minor",
    "Cash that carriers, drivers and the shop hold, in minor units",
    ["holder", "currency"],
    multiprocess_mode=_LATEST,
)
HELD_CASH_SECONDS = Gauge(
    "floodgate_held_cash_seconds",
    "How long the oldest part of this cash has been held",
    ["holder", "currency"],
    multiprocess_mode=_LATEST,
)
WORKLIST_SHIPMENTS = Gauge(
    "floodgate_worklist_shipments",
    "Shipments on each worklist",
    ["worklist"],
    multiprocess_mode=_LATEST,
)
OPEN_SHIPMENTS = Gauge(
    "floodgate_open_shipments",
    "Shipments that have not reached a final status",
    ["carrier", "status"],
    multiprocess_mode=_LATEST,
)
OPEN_CANCELLATIONS = Gauge(
    "floodgate_open_cancellations",
    "Cancellations of paid orders that wait for a shipment to be stopped",
    multiprocess_mode=_LATEST,
)
OLDEST_CANCELLATION_SECONDS = Gauge(
    "floodgate_oldest_cancellation_seconds", "Age of the oldest open cancellation", multiprocess_mode=_LATEST
)
OPEN_CASES = Gauge(
    "floodgate_open_cases",
    "Returns and claims that have not ended, by whoever must act",
    ["kind", "waits_for"],
    multiprocess_mode=_LATEST,
)
OVERDUE_CASES = Gauge(
    "floodgate_overdue_cases",
    "Open returns and claims past their deadline, by whoever must act",
    ["waits_for"],
    multiprocess_mode=_LATEST,
)
OVERDUE_ARTICLES = Gauge(
    "floodgate_overdue_articles", "Published articles past the day of their review", multiprocess_mode=_LATEST
)
OVERDUE_CONVERSATIONS = Gauge(
    "floodgate_overdue_conversations",
    "Conversations past their deadline, by what is due: first_response, decision, money",
    ["due_kind"],
    multiprocess_mode=_LATEST,
)
UNANSWERED_CONVERSATIONS = Gauge(
    "floodgate_unanswered_conversations",
    "Conversations whose customers wait for a first response",
    multiprocess_mode=_LATEST,
)
OLDEST_UNANSWERED_SECONDS = Gauge(
    "floodgate_oldest_unanswered_seconds",
    "Working time that the customer has waited for a first response who has waited longest",
    multiprocess_mode=_LATEST,
)
OUTDATED_DEADLINES = Gauge(
    "floodgate_outdated_deadlines",
    "Open conversations whose deadlines follow an older policy or calendar",
    multiprocess_mode=_LATEST,
)
UNCERTAIN_CALENDAR_DATES = Gauge(
    "floodgate_uncertain_calendar_dates",
    "Days of the next 30 whose public holidays are not known to a working calendar",
    multiprocess_mode=_LATEST,
)
ESCALATED_CONVERSATIONS = Counter(
    "floodgate_escalated_conversations_total",
    "Late conversations that were escalated, by what was due",
    ["due_kind"],
)
CASE_DECISION_SECONDS = Gauge(
    "floodgate_case_decision_seconds",
    "Time from a request to the shop's first decision, by quantile of the last day's decisions",
    ["quantile"],
    multiprocess_mode=_LATEST,
)
OPEN_CONVERSATIONS = Gauge(
    "floodgate_open_conversations",
    "Conversations with customers that have not ended, by status",
    ["status"],
    multiprocess_mode=_LATEST,
)
OLDEST_UNASSIGNED_CONVERSATION_SECONDS = Gauge(
    "floodgate_oldest_unassigned_conversation_seconds",
    "Age of the oldest conversation that waits for staff and that nobody has",
    multiprocess_mode=_LATEST,
)
CASE_RULES_STOPPED = Gauge(
    "floodgate_case_rules_stopped", "1: the rules that decide cases are switched off", multiprocess_mode=_LATEST
)
CASE_RULE_BUDGET_USED_RATIO = Gauge(
    "floodgate_case_rule_budget_used_ratio",
    "Part of a daily budget of the rules that is used, by amount or by cases, whichever is more",
    ["currency"],
    multiprocess_mode=_LATEST,
)
CASE_RULE_BUDGET_REFUSALS = Gauge(
    "floodgate_case_rule_budget_refusals",
    "Cases of today that were left to a person because a daily budget of the rules had no room",
    ["currency"],
    multiprocess_mode=_LATEST,
)
RETURN_WORKLIST_ITEMS = Gauge(
    "floodgate_return_worklist_items",
    "Items on each worklist of returns",
    ["worklist"],
    multiprocess_mode=_LATEST,
)
LOW_STOCKS = Gauge(
    "floodgate_low_stocks",
    "Stocks of warehouses with fewer units on hand than their warning",
    multiprocess_mode=_LATEST,
)
OLDEST_RETURN_SECONDS = Gauge(
    "floodgate_oldest_return_seconds",
    "How long the oldest return waits at a warehouse: to be received, or to be inspected",
    ["step"],
    multiprocess_mode=_LATEST,
)
RETURN_WARNING_SECONDS = Gauge(
    "floodgate_return_warning_seconds",
    "The setting aftersales.return_warning_after_s",
    multiprocess_mode=_LATEST,
)
FULFILMENT_SECONDS = Gauge(
    "floodgate_fulfilment_seconds",
    "Time from paid to handed_over and to delivered, by quantile of the last day's orders",
    ["until", "quantile"],
    multiprocess_mode=_LATEST,
)


def create_series(worker_names: Iterable[str]) -> None:
    """Create the series of these workers whose labels are known, at 0.

    A series that appears with its first failure has no increase that an alert could see.
    """
    for worker_name in worker_names:
        WORKER_JOBS.labels(worker_name)
        WORKER_FAILURES.labels(worker_name)
        if worker_name == "order_writer":
            for result in WRITE_RESULTS:
                WRITTEN_ORDERS.labels(result)
        if worker_name == "picture_worker":
            for reason in get_args(RefusalReason):
                REFUSED_PICTURES.labels(reason)
        if worker_name == "wait_list_keeper":
            for outcome in WAIT_LIST_OUTCOMES:
                WAIT_LIST_OFFERS.labels(outcome)


def count_results(jobs: Sequence[Job], words: Sequence[str], duration_s: float) -> None:
    """Count the results of jobs of one queue, kind and system that one call has done."""
    labels = (jobs[0].queue, jobs[0].kind, jobs[0].system)
    for word, count in Counts(words).items():
        JOBS.labels(*labels, word).inc(count)
    JOB_SECONDS.labels(*labels).observe(duration_s)
