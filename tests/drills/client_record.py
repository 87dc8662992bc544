"""Record of the replies that clients received, and detection of contradictions between them.

A record holds every intended order, by user and key, and every reply that was read. Some contradictions show in a
single reply, such as another order for the same key. Others show only when replies are compared, such as "sold out" and
a later sale; `find_contradictions` looks for these at the end.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import accumulate
from math import inf
from time import perf_counter
from uuid import UUID

import orjson

from commerce.kernel.coupon_skus import COUPON_PREFIX, coupon_sku, is_coupon_sku
from tests.drills.retrying_client import Reply
from tests.support.sales import order_body

RETRYABLE = {
    "too_many_requests": 429,
    "overloaded": 503,
    "not_ready": 503,
    "outcome_unknown": 503,
    "not_stored_yet": 409,
}
FINAL = {"sold_out": 409, "over_limit": 409, "coupon_used_up": 409, "coupon_limit": 409}
_CODES_OF_COUPONS = {"coupon_used_up": "sold_out", "coupon_limit": "over_limit"}
"""refusals because of a coupon, as those of any unit"""
_MAX_EXAMPLES = 5


@dataclass(slots=True, eq=False)
class IntendedOrder:
    """An order that a user wants, under a key; it may be sent any number of times.

    * `may_exist`: an attempt without a reply may have been accepted, so that a replay is no surprise.
    * `first_sent_at`: seconds of `perf_counter`.
    * `body`: sent instead of a body made from `units`.
    """

    user: str
    key: str
    units: Mapping[str, int]
    first_sent_at: float = inf
    requests_in_progress: int = 0
    may_exist: bool = False
    times_accepted: int = 0
    order_id: UUID | None = None
    reply_body: bytes | None = None
    refusal_code: str | None = None
    is_cancelled: bool = False
    body: bytes | None = None

    def __str__(self) -> str:
        return f"{self.user}/{self.key} {dict(self.units)}"


@dataclass(frozen=True, slots=True)
class FinalRefusal:
    """A refusal that repeats cannot change, and when its reply was read."""

    at: float
    code: str
    sku: str
    intended: IntendedOrder


@dataclass
class ClientRecord:
    """Intended orders of one sale and the replies to them.

    `make_token` signs the token of a user. With `releases_stock` stock is released during the drill, so that a sold-out
    SKU may be sold again.
    """

    sale_id: str
    make_token: Callable[[str], str]
    releases_stock: bool = False
    intended_orders: dict[tuple[str, str], IntendedOrder] = field(default_factory=dict)
    statuses: Counter[str] = field(default_factory=Counter)
    latencies_s: list[float] = field(default_factory=list)
    refusals: list[FinalRefusal] = field(default_factory=list)
    contradictions: list[str] = field(default_factory=list)
    accepted: int = 0
    overlaps: int = 0
    _heads: dict[str, str] = field(default_factory=dict)
    _bodies: dict[tuple[tuple[str, int], ...], bytes] = field(default_factory=dict)

    def add_intended(self, user: str, key: str, units: Mapping[str, int]) -> IntendedOrder:
        """Add an intended order under a key that is new for the user."""
        intended = IntendedOrder(user, key, units)
        assert self.intended_orders.setdefault((user, key), intended) is intended
        return intended

    def make_order_request(self, intended: IntendedOrder) -> OrderRequest:
        """Make a request that sends the order, for the first time or again."""
        return OrderRequest(self, intended)

    def make_cancel_request(self, intended: IntendedOrder) -> CancelRequest:
        return CancelRequest(self, intended)

    def promised_orders(self) -> dict[UUID, IntendedOrder]:
        """Return every order whose 202 or 200 was read, by id."""
        return {
            intended.order_id: intended for intended in self.intended_orders.values() if intended.order_id is not None
        }

    def count_promised_units(self) -> Counter[str]:
        """Count the units of promised orders that were not cancelled, by SKU."""
        total: Counter[str] = Counter()
        for intended in self.promised_orders().values():
            if not intended.is_cancelled:
                total.update(intended.units)
        return total

    def add_contradiction(self, text: str) -> None:
        self.contradictions.append(text)

    def request_headers(self, user: str) -> str:
        """Return the headers of a user's requests, up to the value of Content-Length."""
        if user not in self._heads:
            self._heads[user] = (
                "Host: 127.0.0.1\r\nContent-Type: application/json\r\n"
                f"Authorization: Bearer {self.make_token(user)}\r\nContent-Length: "
            )
        return self._heads[user]

    def encode_body(self, units: Mapping[str, int]) -> bytes:
        """Encode the body of an order of these units, products and coupons, to one address."""
        key = tuple(units.items())
        if key not in self._bodies:
            lines = [line for line in key if not is_coupon_sku(line[0])]
            coupons = [sku.removeprefix(COUPON_PREFIX) for sku in units if is_coupon_sku(sku)]
            self._bodies[key] = orjson.dumps(order_body(self.sale_id, *lines, coupons=coupons))
        return self._bodies[key]

    def count_reply(self, reply: Reply, seconds: float) -> str:
        """Count a reply. Returns its status if it is a success, otherwise its problem code."""
        self.latencies_s.append(seconds)
        result = str(reply.status) if reply.status < 300 else str(orjson.loads(reply.body)["code"])
        self.statuses[result] += 1
        return result

    def read_retry_after(self, code: str, reply: Reply) -> float:
        """Return the seconds to wait before the request is repeated."""
        retry_after = reply.header(b"retry-after")
        if retry_after is None or RETRYABLE[code] != reply.status:
            self.add_contradiction(f"{reply.status} {code} with Retry-After {retry_after}")
        return float(retry_after or 1)

    def find_contradictions(self, initial: Mapping[str, int], limits: Mapping[str, int]) -> list[str]:
        """Return all contradictions, of single replies and between replies."""
        contradictions = list(self.contradictions)
        if not self.releases_stock:
            for sku, units in initial.items():
                contradictions += self._find_sold_out_contradictions(sku, units)
            contradictions += self._find_limit_contradictions(limits)
        return contradictions

    def _find_sold_out_contradictions(self, sku: str, initial: int) -> Iterable[str]:
        """Compare refusals as sold out with accepted orders of a SKU.

        No stock is released, so free units only decrease. A refusal while enough units must have been free is a
        contradiction. An order that was sent after such a refusal was read, and accepted, is one too.
        """
        sold = sorted((order.first_sent_at, order.units[sku], order) for order in self._promised_with(sku))
        times, sums = [at for at, _, _ in sold], [0, *accumulate(units for _, units, _ in sold)]
        refusals = [refusal for refusal in self.refusals if (refusal.code, refusal.sku) == ("sold_out", sku)]
        for refusal in refusals:
            free = initial - sums[bisect_right(times, refusal.at)]
            if refusal.intended.units[sku] <= free:
                yield f"{refusal.intended} was refused as sold out while at least {free} of {sku} were free"
        min_refused = list(accumulate((refusal.intended.units[sku] for refusal in refusals), min))
        refused_at = [refusal.at for refusal in refusals]
        for at, units, order in sold:
            earlier = bisect_right(refused_at, at)
            if earlier and units >= min_refused[earlier - 1]:
                yield f"{order} was accepted after {min_refused[earlier - 1]} of {sku} had been refused as sold out"

    def _promised_with(self, sku: str) -> Iterable[IntendedOrder]:
        return (order for order in self.promised_orders().values() if sku in order.units)

    def _find_limit_contradictions(self, limits: Mapping[str, int]) -> Iterable[str]:
        by_user: dict[str, list[IntendedOrder]] = {}
        for order in self.promised_orders().values():
            by_user.setdefault(order.user, []).append(order)
        for user, orders in by_user.items():
            for sku, limit in limits.items():
                units = sum(order.units.get(sku, 0) for order in orders)
                if units > limit:
                    yield f"{user} was promised {units} of {sku}, and the limit is {limit}"
        for refusal in self.refusals:
            if refusal.code == "over_limit":
                sku, intended = refusal.sku, refusal.intended
                earlier = [order for order in by_user.get(intended.user, []) if order.first_sent_at <= refusal.at]
                bought = sum(order.units.get(sku, 0) for order in earlier)
                if sku not in limits or bought + intended.units[sku] <= limits[sku]:
                    yield f"{intended} was refused as over the limit after {bought} of {sku}"

    def format_summary(self) -> str:
        """Format requests, latencies and replies for the line that a drill prints."""
        p50_ms, p99_ms = percentiles_ms(self.latencies_s)
        repeated = sum(intended.times_accepted == 0 for intended in self.promised_orders().values())
        replies = ", ".join(f"{count} {result}" for result, count in sorted(self.statuses.items()))
        return (
            f"{len(self.latencies_s)} replies ({replies}), {repeated} orders confirmed by a repeat only, "
            f"latency p50 {p50_ms:.0f} ms, p99 {p99_ms:.0f} ms, max {max(self.latencies_s, default=0.0):.1f} s"
        )


def percentiles_ms(seconds: list[float]) -> tuple[float, float]:
    """Return the median and the 99th percentile in milliseconds."""
    ordered = sorted(seconds) or [0.0]
    p50, p99 = (ordered[min(len(ordered) - 1, int(len(ordered) * share))] * 1000 for share in (0.5, 0.99))
    return p50, p99


def format_examples(texts: Iterable[str]) -> str:
    """Format the number of texts and the first few of them."""
    listed = list(texts)
    return f"{len(listed)}: " + "; ".join(listed[:_MAX_EXAMPLES])


class OrderRequest:
    """Sends one intended order until its outcome is known."""

    def __init__(self, record: ClientRecord, intended: IntendedOrder) -> None:
        self._record = record
        self.intended = intended
        self._is_started = False

    def encode(self) -> bytes:
        record, intended = self._record, self.intended
        if not self._is_started:
            self._is_started = True
            if intended.requests_in_progress:
                record.overlaps += 1
                intended.may_exist = True  # either of the two may be first
            intended.requests_in_progress += 1
        intended.first_sent_at = min(intended.first_sent_at, perf_counter())
        body = intended.body or record.encode_body(intended.units)
        headers = f"Idempotency-Key: {intended.key}\r\n{record.request_headers(intended.user)}{len(body)}"
        return f"POST /v1/orders HTTP/1.1\r\n{headers}\r\n\r\n".encode() + body

    def on_reply(self, reply: Reply, seconds: float) -> float | None:
        record, intended = self._record, self.intended
        result = record.count_reply(reply, seconds)
        if result in ("200", "202"):
            self._on_accepted(reply)
        elif result in RETRYABLE:
            intended.may_exist = intended.may_exist or result == "outcome_unknown"
            return record.read_retry_after(result, reply)
        elif FINAL.get(result) == reply.status:
            problem = orjson.loads(reply.body)
            sku = coupon_sku(problem["coupon"]) if result in _CODES_OF_COUPONS else str(problem["sku"])
            intended.refusal_code = result
            if sku in intended.units:
                code = _CODES_OF_COUPONS.get(result, result)
                record.refusals.append(FinalRefusal(perf_counter(), code, sku, intended))
            else:
                record.add_contradiction(f"{intended}: {result} of {sku}, which was not ordered")
        else:
            record.add_contradiction(f"{intended}: {reply.status} {result}: {reply.body[:300]!r}")
        if intended.refusal_code and intended.order_id and not record.releases_stock:
            record.add_contradiction(
                f"{intended}: accepted as {intended.order_id}, and refused as {intended.refusal_code}"
            )
        return None

    def _on_accepted(self, reply: Reply) -> None:
        record, intended = self._record, self.intended
        order_id = UUID(orjson.loads(reply.body)["order_id"])
        intended.times_accepted += reply.status == 202
        if intended.times_accepted > 1:
            record.add_contradiction(f"{intended}: 202 more than once")
        if intended.reply_body is None:
            if reply.status == 200 and not intended.may_exist:
                record.add_contradiction(f"{intended}: 200 to the first request, as if it had been accepted before")
            intended.reply_body, intended.order_id = reply.body, order_id
            record.accepted += 1
        elif intended.reply_body != reply.body:
            record.add_contradiction(f"{intended}: {reply.body!r}, and before that {intended.reply_body!r}")

    def on_connection_lost(self) -> None:
        self.intended.may_exist = True
        self._record.statuses["connection lost"] += 1

    def on_connection_refused(self) -> None:
        self._record.statuses["connection refused"] += 1

    def on_end(self, is_outcome_known: bool) -> None:
        self.intended.requests_in_progress -= self._is_started
        if not is_outcome_known:
            self._record.add_contradiction(f"{self.intended}: no outcome before the client gave up")


class CancelRequest:
    """Cancels one order until the outcome is known."""

    def __init__(self, record: ClientRecord, intended: IntendedOrder) -> None:
        self._record = record
        self.intended = intended

    def encode(self) -> bytes:
        line = f"POST /v1/orders/{self.intended.order_id}/cancel HTTP/1.1"
        return f"{line}\r\n{self._record.request_headers(self.intended.user)}0\r\n\r\n".encode()

    def on_reply(self, reply: Reply, seconds: float) -> float | None:
        record, intended = self._record, self.intended
        result = record.count_reply(reply, seconds)
        if result in RETRYABLE:
            return record.read_retry_after(result, reply)
        if result == "200" and orjson.loads(reply.body)["status"] == "cancelled":
            intended.is_cancelled = True
        else:
            record.add_contradiction(f"{intended}: reply to its cancellation is {reply.status} {reply.body[:300]!r}")
        return None

    def on_connection_lost(self) -> None:
        self._record.statuses["connection lost"] += 1

    def on_connection_refused(self) -> None:
        self._record.statuses["connection refused"] += 1

    def on_end(self, is_outcome_known: bool) -> None:
        if not is_outcome_known:
            self._record.add_contradiction(f"{self.intended}: no outcome of its cancellation before the client gave up")
