"""Metrics of the gateway. Names follow Prometheus's conventions: base units, `_total` on counters."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import Counter, Gauge, Histogram

from commerce.kernel.external import InvalidWebhook

REQUEST_BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
RESERVE_BOUNDS = (0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)
CONNECTION_WAIT_BOUNDS = (0.0001, 0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
BATCH_BOUNDS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)

ORDER_OUTCOMES = (
    *(
        "accepted",
        "replayed",
        "sold_out",
        "over_limit",
        "coupon_used_up",
        "coupon_limit",
        "sale_not_open",
        "sale_paused",
        "sale_closed",
        "key_reused",
    ),
    *("not_your_turn", "turn_missed", "ticket_invalid", "refused_by_screening"),
    *("bad_request", "invalid", "not_found", "unauthorized", "too_many_requests", "request_timeout", "body_too_large"),
    *("unsupported_media_type", "not_ready", "overloaded", "outcome_unknown"),
)
DATABASE_SHARES = ("customers", "staff", "webhooks", "background", "search")
RATE_LIMITS = ("user", "address", "device", "guest_carts", "articles", "searches")
ROOM_JOIN_OUTCOMES = ("placed", "listed", "full", "not_ready", "left")
SCREENING_ACTIONS_TAKEN = ("log", "proof_of_work", "wait", "refuse")
SCREENING_DROPPED_KINDS = ("sightings", "customers")
PROOF_RESULTS = ("issued", "solved", "invalid", "used_before", "full")
WAIT_LIST_JOIN_OUTCOMES = (
    *("placed", "left", "still_available", "over_limit", "overloaded", "not_ready", "not_found", "sale_not_open"),
    "wait_list_ended",
)
PAYMENT_WEBHOOK_RESULTS = (
    *("captured", "refunded", "unchanged", "duplicate", "recorded", "refused", "not_stored"),
    *InvalidWebhook.CODES,
)
CARRIER_WEBHOOK_RESULTS = (
    *("status_changed", "recorded", "unchanged", "duplicate", "unknown_tracking_no", "not_stored"),
    *InvalidWebhook.CODES,
)

REQUESTS = Counter(
    "floodgate_http_requests_total", "HTTP requests by route, method and status", ["route", "method", "status"]
)
REQUEST_SECONDS = Histogram(
    "floodgate_http_request_seconds",
    "Time from a request's head to the end of its handler",
    ["route"],
    buckets=REQUEST_BOUNDS,
)
ORDERS = Counter("floodgate_orders_total", "Answered orders by outcome", ["outcome"])
CACHED_READS = Counter(
    "floodgate_cached_reads_total",
    "Reads by cache and result: hit, or miss, which asks Postgres or Redis",
    ["cache", "result"],
)
RESERVE_BATCH_ORDERS = Histogram("floodgate_reserve_batch_orders", "Orders per reserve call", buckets=BATCH_BOUNDS)
RESERVE_SECONDS = Histogram(
    "floodgate_reserve_seconds",
    "Time of one reserve call, including the wait for the disk",
    buckets=RESERVE_BOUNDS,
)
INTAKE_WAIT_SECONDS = Histogram(
    "floodgate_intake_wait_seconds",
    "Wait of the oldest order of a batch from its arrival until the batch is sent to Redis",
    buckets=RESERVE_BOUNDS,
)
RESTING_CONNECTIONS = Gauge(
    "floodgate_resting_connections",
    "Connections that were refused and are not read before their Retry-After",
    multiprocess_mode="livesum",
)
WAITING = Gauge("floodgate_intake_waiting_orders", "Orders that wait to be sent to Redis", multiprocess_mode="livesum")
SALES_BEHIND = Gauge(
    "floodgate_sales_behind",
    "Sales whose Redis lacks orders or changes that were seen before; they take no orders",
    multiprocess_mode="livemax",
)
RATE_LIMITED = Counter(
    "floodgate_rate_limited_total", "Requests refused by a rate limit, such as user or address", ["limit"]
)
USAGE_SHARED = Counter(
    "floodgate_usage_shared_total",
    "Users, addresses and devices whose use was reported to the other gateways",
    ["limit"],
)
USAGE_EXCHANGE_FAILURES = Counter(
    "floodgate_usage_exchange_failures_total", "Failed exchanges of use: rate limits held for each gateway alone"
)
CONNECTIONS = Gauge(
    "floodgate_http_connections", "Open connections by port: public, admin", ["port"], multiprocess_mode="livesum"
)
DATABASE_CONNECTIONS = Gauge(
    "floodgate_database_connections",
    "Connections to Postgres in use by share: customers, staff, webhooks, background, search",
    ["share"],
    multiprocess_mode="livesum",
)
DATABASE_WAIT_SECONDS = Histogram(
    "floodgate_database_wait_seconds",
    "Wait for a connection to Postgres by share",
    ["share"],
    buckets=CONNECTION_WAIT_BOUNDS,
)
DATABASE_REFUSALS = Counter(
    "floodgate_database_refusals_total", "Uses of Postgres that got no connection in time, by share", ["share"]
)
PRODUCT_SEARCHES = Counter(
    "floodgate_product_searches_total",
    "Searches of products by who answered: memory, or Postgres, because of words or because that is unavailable",
    ["answered_by"],
)
EVENT_STREAMS = Gauge("floodgate_event_streams", "Open event streams", multiprocess_mode="livesum")
SNAPSHOT_AGE = Gauge(
    "floodgate_snapshot_age_seconds", "Time since the sales were last read", multiprocess_mode="livemax"
)
SNAPSHOT_FAILURES = Counter(
    "floodgate_snapshot_failures_total", "Sales that could not be read; their last prices and limits stay in use"
)
PAYMENT_WEBHOOKS = Counter(
    "floodgate_payment_webhooks_total", "Webhooks of payment providers, by result", ["provider", "result"]
)
PAYMENT_WEBHOOK_LAG = Histogram(
    "floodgate_payment_webhook_lag_seconds",
    "Time from a payment to the webhook that reports it",
    ["provider"],
    buckets=(0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1_800, 7_200),
)
CARRIER_WEBHOOKS = Counter("floodgate_carrier_webhooks_total", "Webhooks of carriers, by result", ["system", "result"])
CARRIER_UNKNOWN_CODES = Counter(
    "floodgate_carrier_unknown_codes_total", "Tracking events in webhooks with an unknown code", ["system"]
)


ROOM_JOINS = Counter(
    "floodgate_room_joins_total",
    "Joins of waiting rooms by outcome: placed, listed (before the draw), full, not_ready; and left",
    ["outcome"],
)
ROOM_OPEN = Gauge(
    "floodgate_room_open",
    "1: orders of the sale need a ticket of its waiting room",
    ["sale"],
    multiprocess_mode="livemax",
)
ROOM_WAITING = Gauge(
    "floodgate_room_waiting_people",
    "Numbers given in a waiting room that are not served yet; from the closing of the list on",
    ["sale"],
    multiprocess_mode="livemax",
)
ROOM_SERVED = Gauge(
    "floodgate_room_served_number",
    "Number up to which a waiting room has served",
    ["sale"],
    multiprocess_mode="livemax",
)
ROOM_PACE = Gauge(
    "floodgate_room_pace_people_per_second",
    "People whom a waiting room lets in per second",
    ["sale"],
    multiprocess_mode="livemax",
)
ROOM_STALLED = Gauge(
    "floodgate_room_stalled",
    "1: people wait, units are left, and nobody was let in for longer than a turn",
    ["sale"],
    multiprocess_mode="livemax",
)
SCREENING_ACTIONS = Counter(
    "floodgate_screening_actions_total",
    "Joins and orders of suspected customers by action: log, proof_of_work, wait, refuse",
    ["action"],
)
SCREENING_SUSPECTS = Gauge(
    "floodgate_screening_suspects",
    "Customers of running sales whose score leads to an action, cleared ones included",
    ["action"],
    multiprocess_mode="livemax",
)
SCREENING_DROPPED = Counter(
    "floodgate_screening_dropped_total",
    "What a limit of screening left out: sightings, customers who are not acted on",
    ["what"],
)
DROPPED_VISITS = Counter(
    "floodgate_dropped_visits_total",
    "Views, cart lines and refused orders that are in no report, because too many were counted at once",
)
PROOFS = Counter(
    "floodgate_proofs_of_work_total",
    "Proofs of work at waiting rooms by result: issued, solved, invalid, used_before, full",
    ["result"],
)
PROOFS_REMEMBERED = Gauge(
    "floodgate_proofs_remembered",
    "Nonces of solved proofs of work that Redis remembers, as of the last one",
    ["sale"],
    multiprocess_mode="livemostrecent",
)
WAIT_LIST_JOINS = Counter(
    "floodgate_wait_list_joins_total",
    "Joins of wait-lists by outcome: placed, or the code of the problem; and left",
    ["outcome"],
)
WAIT_LIST_WAITING = Gauge(
    "floodgate_wait_list_waiting_people",
    "People on the wait-list of a sale, over all SKUs",
    ["sale"],
    multiprocess_mode="livemax",
)
WAIT_LIST_OFFERED_UNITS = Gauge(
    "floodgate_wait_list_offered_units",
    "Units that a wait-list offers and nobody has taken yet",
    ["sale"],
    multiprocess_mode="livemax",
)
WAIT_LIST_STALLED = Gauge(
    "floodgate_wait_list_stalled",
    "1: the sale takes orders, and no keeper has taken a step of its wait-list for 30 seconds",
    ["sale"],
    multiprocess_mode="livemax",
)


def create_series(providers: Iterable[str], carrier_systems: Iterable[str]) -> None:
    """Create the series whose labels are known, at 0.

    A series that appears with its first failure has no increase that an alert could see.
    """
    for kind in RATE_LIMITS:
        RATE_LIMITED.labels(kind)
        USAGE_SHARED.labels(kind)
    for share in DATABASE_SHARES:
        DATABASE_WAIT_SECONDS.labels(share)
    for counter, words in (
        (DATABASE_REFUSALS, DATABASE_SHARES),
        (ROOM_JOINS, ROOM_JOIN_OUTCOMES),
        (WAIT_LIST_JOINS, WAIT_LIST_JOIN_OUTCOMES),
        (SCREENING_ACTIONS, SCREENING_ACTIONS_TAKEN),
        (SCREENING_DROPPED, SCREENING_DROPPED_KINDS),
        (PROOFS, PROOF_RESULTS),
        (ORDERS, ORDER_OUTCOMES),
    ):
        for word in words:
            counter.labels(word)
    for provider in providers:
        PAYMENT_WEBHOOK_LAG.labels(provider)
        for result in PAYMENT_WEBHOOK_RESULTS:
            PAYMENT_WEBHOOKS.labels(provider, result)
    for system in carrier_systems:
        CARRIER_UNKNOWN_CODES.labels(system)
        for result in CARRIER_WEBHOOK_RESULTS:
            CARRIER_WEBHOOKS.labels(system, result)
