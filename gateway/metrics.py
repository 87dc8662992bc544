"""What the gateway counts. Names follow Prometheus's conventions: base units, `_total` on counters."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

REQUEST_BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
REDIS_BOUNDS = (0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)
BATCH_BOUNDS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)

REQUESTS = Counter(
    "floodgate_http_requests_total", "HTTP requests by route, method and status", ["route", "method", "status"]
)
REQUEST_SECONDS = Histogram(
    "floodgate_http_request_seconds",
    "Time from a request's head to the end of its handler",
    ["route"],
    buckets=REQUEST_BOUNDS,
)
ORDERS = Counter("floodgate_orders_total", "Orders that were sent, by outcome", ["outcome"])
BATCH_ORDERS = Histogram("floodgate_batch_orders", "Orders in one Redis call", buckets=BATCH_BOUNDS)
REDIS_SECONDS = Histogram(
    "floodgate_redis_call_seconds",
    "Time of one reserve call, the wait for the disk included",
    buckets=REDIS_BOUNDS,
)
WAITING = Gauge(
    "floodgate_intake_waiting_orders", "Orders that wait for their turn with Redis", multiprocess_mode="livesum"
)
CONNECTIONS = Gauge(
    "floodgate_http_connections", "Open connections by port: public, admin", ["port"], multiprocess_mode="livesum"
)
EVENT_STREAMS = Gauge("floodgate_event_streams", "Open event streams", multiprocess_mode="livesum")
SNAPSHOT_AGE = Gauge(
    "floodgate_snapshot_age_seconds", "Time since the sales were last looked at", multiprocess_mode="livemax"
)
NOTICES = Counter(
    "floodgate_payment_notices_total", "Callbacks of payment providers, by what became of them", ["provider", "result"]
)
NOTICE_LAG = Histogram(
    "floodgate_payment_notice_lag_seconds",
    "Time from a payment to the callback that tells of it",
    ["provider"],
    buckets=(0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1_800, 7_200),
)
PUSHES = Counter("floodgate_carrier_pushes_total", "Pushes of carriers, by what became of them", ["system", "result"])
UNKNOWN_STATES = Counter(
    "floodgate_carrier_unknown_states_total", "Pushed news with a state that nobody here knows", ["system"]
)
