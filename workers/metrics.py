"""What the workers count and measure."""

from __future__ import annotations

from typing import Literal

from prometheus_client import Counter, Gauge, Histogram

_LATEST: Literal["livemostrecent"] = "livemostrecent"

WRITTEN = Counter(
    "floodgate_written_orders_total",
    "Orders taken from the stream, by what became of them: stored, known (stored before), refused, dead",
    ["result"],
)
WRITE_SECONDS = Histogram(
    "floodgate_write_seconds",
    "Time to bring one batch into Postgres, commit included",
    buckets=(0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
WRITE_LAG_SECONDS = Histogram(
    "floodgate_write_lag_seconds",
    "Time from acceptance to Postgres, of the oldest order of each batch",
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300),
)
WRITE_FAILURES = Counter("floodgate_write_failures_total", "Batches that had to be tried again")
DRIVER_STEPS = Counter("floodgate_driver_jobs_total", "Jobs that a driver has worked on", ["driver"])
DRIVER_FAILURES = Counter(
    "floodgate_driver_failures_total", "Steps of a driver that failed and are repeated", ["driver"]
)

BACKLOG_ORDERS = Gauge(
    "floodgate_stream_backlog_orders", "Orders accepted and not in Postgres", ["sale"], multiprocess_mode=_LATEST
)
BACKLOG_AGE = Gauge(
    "floodgate_stream_oldest_seconds", "Age of the oldest order in the stream", ["sale"], multiprocess_mode=_LATEST
)
DEAD_LETTERS = Gauge("floodgate_dead_letters", "Orders that wait for a person's decision", multiprocess_mode=_LATEST)
PARKED = Gauge("floodgate_parked_jobs", "Jobs that were given up", ["kind"], multiprocess_mode=_LATEST)
PENDING_RELEASES = Gauge("floodgate_pending_releases", "Releases that are due or waiting", multiprocess_mode=_LATEST)
OLDEST_RELEASE = Gauge(
    "floodgate_oldest_release_seconds", "How long the oldest release has been due", multiprocess_mode=_LATEST
)
SALE_UNITS = Gauge(
    "floodgate_sale_units",
    "Units of a sale at its last audit: initial, available, held, sold, in_stream",
    ["sale", "kind"],
    multiprocess_mode=_LATEST,
)
AUDIT_DIFFERENCE = Gauge(
    "floodgate_audit_difference_units",
    "Units too many or too few at the last audit; anything but 0 is a broken promise",
    ["sale"],
    multiprocess_mode=_LATEST,
)
AUDIT_FINDINGS = Gauge(
    "floodgate_audit_findings",
    "Things the last audit found, by promise",
    ["sale", "promise"],
    multiprocess_mode=_LATEST,
)
AUDITED_AT = Gauge(
    "floodgate_audit_timestamp_seconds", "When a sale was last audited", ["sale"], multiprocess_mode=_LATEST
)

OUTSIDE_JOBS = Counter(
    "floodgate_outside_jobs_total", "Jobs of a driver that calls out, by result", ["driver", "system", "result"]
)
OUTSIDE_SECONDS = Histogram(
    "floodgate_outside_job_seconds",
    "Time of one job of a driver that calls out",
    ["driver", "system"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)
BREAKER_OPEN = Gauge(
    "floodgate_breaker_open",
    "1: a system did not answer and is left alone",
    ["driver", "system"],
    multiprocess_mode=_LATEST,
)
OLDEST_JOB = Gauge(
    "floodgate_oldest_job_seconds", "How long the oldest job has been due", ["kind"], multiprocess_mode=_LATEST
)
LEDGER_DIFFERENCE = Gauge(
    "floodgate_ledger_difference_minor",
    "What the ledger does not add up to; not 0 is a broken promise",
    ["currency"],
    multiprocess_mode=_LATEST,
)
PARCELS = Gauge(
    "floodgate_parcels",
    "Shipments on each worklist (to_pack, parked, on_hold, overdue, stalled, no_first_scan, ...), and due ones",
    ["list"],
    multiprocess_mode=_LATEST,
)
OPEN_PARCELS = Gauge(
    "floodgate_open_parcels", "Parcels that are not over", ["carrier", "status"], multiprocess_mode=_LATEST
)
FULFILMENT_SECONDS = Gauge(
    "floodgate_fulfilment_seconds",
    "Time from paid to handed_over and to delivered, of so large a share of the last day's orders",
    ["until", "quantile"],
    multiprocess_mode=_LATEST,
)
