"""What clients were told, and whether all of it can be true at once.

A ledger has every order that was wished for, under its user and key, and every answer that was read. Some lies show in
a single answer (another order for the same key); others only when answers are put side by side (sold out, and later
sold), and those are looked for at the end.
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

from tests.drills.retrying_client import Reply
from tests.support.sales import order_body

LATER = {
    "too_many_requests": 429,
    "overloaded": 503,
    "not_ready": 503,
    "outcome_unknown": 503,
    "not_stored_yet": 409,
}
FINAL = {"sold_out": 409, "over_limit": 409}
_EXAMPLES = 5


@dataclass(slots=True, eq=False)
class IntendedOrder:
    """An order that a user wants, under a key; it may be sent any number of times.

    `unclear`: an attempt may have been carried out without a word of it, so that a replay is no surprise. `body` is
    what is sent, where it says more than the units.
    """

    user: str
    key: str
    units: Mapping[str, int]
    first_sent: float = inf
    under_way: int = 0
    unclear: bool = False
    accepted: int = 0
    order_id: UUID | None = None
    answer: bytes | None = None
    refused: str | None = None
    cancelled: bool = False
    body: bytes | None = None

    def __str__(self) -> str:
        return f"{self.user}/{self.key} {dict(self.units)}"


@dataclass(frozen=True, slots=True)
class FinalRefusal:
    """A final no, and when it was read."""

    at: float
    code: str
    sku: str
    wish: IntendedOrder


@dataclass
class ClientRecord:
    """`token` gives a user's token. With `returns` units come back during the drill, so a sold-out may end."""

    sale_id: str
    token: Callable[[str], str]
    returns: bool = False
    wishes: dict[tuple[str, str], IntendedOrder] = field(default_factory=dict)
    statuses: Counter[str] = field(default_factory=Counter)
    latencies: list[float] = field(default_factory=list)
    refusals: list[FinalRefusal] = field(default_factory=list)
    lies: list[str] = field(default_factory=list)
    accepted: int = 0
    overlaps: int = 0
    _heads: dict[str, str] = field(default_factory=dict)
    _bodies: dict[tuple[tuple[str, int], ...], bytes] = field(default_factory=dict)

    def wish(self, user: str, key: str, units: Mapping[str, int]) -> IntendedOrder:
        """A new wish under a key that is new for the user."""
        made = IntendedOrder(user, key, units)
        assert self.wishes.setdefault((user, key), made) is made
        return made

    def order(self, wish: IntendedOrder) -> OrderRequest:
        """An errand that sends the order, for the first time or once more."""
        return OrderRequest(self, wish)

    def cancellation(self, wish: IntendedOrder) -> CancelRequest:
        """An errand that cancels it."""
        return CancelRequest(self, wish)

    def promised(self) -> dict[UUID, IntendedOrder]:
        """By id, every order whose 202 or 200 was read."""
        return {wish.order_id: wish for wish in self.wishes.values() if wish.order_id is not None}

    def units(self) -> Counter[str]:
        """Units of the promised orders that were not cancelled, by SKU."""
        total: Counter[str] = Counter()
        for wish in self.promised().values():
            if not wish.cancelled:
                total.update(wish.units)
        return total

    def lie(self, text: str) -> None:
        self.lies.append(text)

    def head(self, user: str) -> str:
        """The headers that are the same for all of a user's requests."""
        if user not in self._heads:
            self._heads[user] = (
                "Host: 127.0.0.1\r\nContent-Type: application/json\r\n"
                f"Authorization: Bearer {self.token(user)}\r\nContent-Length: "
            )
        return self._heads[user]

    def body(self, units: Mapping[str, int]) -> bytes:
        """What is sent for a basket."""
        basket = tuple(units.items())
        if basket not in self._bodies:
            self._bodies[basket] = orjson.dumps(order_body(self.sale_id, *basket))
        return self._bodies[basket]

    def said(self, reply: Reply, seconds: float) -> str:
        """Count an answer; gives its status if it is a success, or else its code."""
        self.latencies.append(seconds)
        said = str(reply.status) if reply.status < 300 else str(orjson.loads(reply.body)["code"])
        self.statuses[said] += 1
        return said

    def later(self, said: str, reply: Reply) -> float:
        """How long to wait before a repeat."""
        given = reply.header(b"retry-after")
        if given is None or LATER[said] != reply.status:
            self.lie(f"{reply.status} {said} with Retry-After {given}")
        return float(given or 1)

    def all_lies(self, initial: Mapping[str, int], limits: Mapping[str, int]) -> list[str]:
        """Whatever cannot be true, of single answers and of all together."""
        found = list(self.lies)
        if not self.returns:
            for sku, units in initial.items():
                found += self._sold_out_lies(sku, units)
            found += self._limit_lies(limits)
        return found

    def _sold_out_lies(self, sku: str, initial: int) -> Iterable[str]:
        """Nothing comes back, so fewer are free as time goes on. A refusal when enough must still have been free is a
        lie, and so is an order that was sent after such a refusal was read, and accepted."""
        sold = sorted((wish.first_sent, wish.units[sku], wish) for wish in self._with(sku))
        times, taken = [at for at, _, _ in sold], [0, *accumulate(units for _, units, _ in sold)]
        refusals = [refusal for refusal in self.refusals if (refusal.code, refusal.sku) == ("sold_out", sku)]
        for refusal in refusals:
            free = initial - taken[bisect_right(times, refusal.at)]
            if refusal.wish.units[sku] <= free:
                yield f"{refusal.wish} was told that {sku} is sold out while at least {free} were free"
        least = list(accumulate((refusal.wish.units[sku] for refusal in refusals), min))
        read = [refusal.at for refusal in refusals]
        for at, units, wish in sold:
            before = bisect_right(read, at)
            if before and units >= least[before - 1]:
                yield f"{wish} was accepted after {least[before - 1]} of {sku} had been refused as sold out"

    def _with(self, sku: str) -> Iterable[IntendedOrder]:
        return (wish for wish in self.promised().values() if sku in wish.units)

    def _limit_lies(self, limits: Mapping[str, int]) -> Iterable[str]:
        bought: dict[str, list[IntendedOrder]] = {}
        for wish in self.promised().values():
            bought.setdefault(wish.user, []).append(wish)
        for user, wishes in bought.items():
            for sku, limit in limits.items():
                units = sum(wish.units.get(sku, 0) for wish in wishes)
                if units > limit:
                    yield f"{user} was promised {units} of {sku}, and the limit is {limit}"
        for refusal in self.refusals:
            if refusal.code == "over_limit":
                sku, wish = refusal.sku, refusal.wish
                had = sum(o.units.get(sku, 0) for o in bought.get(wish.user, []) if o.first_sent <= refusal.at)
                if sku not in limits or had + wish.units[sku] <= limits[sku]:
                    yield f"{wish} was told of a limit after {had} of {sku}"

    def figures(self) -> str:
        """Requests, latencies and answers, for the line that a drill prints."""
        ordered = sorted(self.latencies) or [0.0]
        p50, p99 = (ordered[min(len(ordered) - 1, int(len(ordered) * share))] * 1000 for share in (0.5, 0.99))
        again = sum(wish.accepted == 0 for wish in self.promised().values())
        answers = ", ".join(f"{count} {said}" for said, count in sorted(self.statuses.items()))
        return (
            f"{len(self.latencies)} answers ({answers}), {again} orders known by a repeat only, "
            f"latency p50 {p50:.0f} ms, p99 {p99:.0f} ms, longest {ordered[-1]:.1f} s"
        )


def format_examples(lies: Iterable[str]) -> str:
    """The first few, for a message."""
    listed = list(lies)
    return f"{len(listed)}: " + "; ".join(listed[:_EXAMPLES])


class OrderRequest:
    """Sends one wish until it is clear what became of it."""

    def __init__(self, record: ClientRecord, wish: IntendedOrder) -> None:
        self._record = record
        self.wish = wish
        self._begun = False

    def request(self) -> bytes:
        record, wish = self._record, self.wish
        if not self._begun:
            self._begun = True
            if wish.under_way:
                record.overlaps += 1
                wish.unclear = True  # either of the two may be first
            wish.under_way += 1
        wish.first_sent = min(wish.first_sent, perf_counter())
        body = wish.body or record.body(wish.units)
        head = f"POST /v1/orders HTTP/1.1\r\nIdempotency-Key: {wish.key}\r\n{record.head(wish.user)}{len(body)}\r\n\r\n"
        return head.encode() + body

    def answered(self, reply: Reply, seconds: float) -> float | None:
        record, wish = self._record, self.wish
        said = record.said(reply, seconds)
        if said in ("200", "202"):
            self._accepted(reply)
        elif said in LATER:
            wish.unclear = wish.unclear or said == "outcome_unknown"
            return record.later(said, reply)
        elif FINAL.get(said) == reply.status:
            sku = str(orjson.loads(reply.body)["sku"])
            wish.refused = said
            if sku in wish.units:
                record.refusals.append(FinalRefusal(perf_counter(), said, sku, wish))
            else:
                record.lie(f"{wish}: {said} of {sku}, which was not ordered")
        else:
            record.lie(f"{wish}: {reply.status} {said}: {reply.body[:300]!r}")
        if wish.refused and wish.order_id and not record.returns:
            record.lie(f"{wish}: accepted as {wish.order_id}, and refused as {wish.refused}")
        return None

    def _accepted(self, reply: Reply) -> None:
        record, wish = self._record, self.wish
        order_id = UUID(orjson.loads(reply.body)["order_id"])
        wish.accepted += reply.status == 202
        if wish.accepted > 1:
            record.lie(f"{wish}: 202 more than once")
        if wish.answer is None:
            if reply.status == 200 and not wish.unclear:
                record.lie(f"{wish}: 200 at once, as if it had been taken before")
            wish.answer, wish.order_id = reply.body, order_id
            record.accepted += 1
        elif wish.answer != reply.body:
            record.lie(f"{wish}: {reply.body!r}, and before that {wish.answer!r}")

    def broke(self) -> None:
        self.wish.unclear = True
        self._record.statuses["connection broken"] += 1

    def unheard(self) -> None:
        self._record.statuses["nobody listens"] += 1

    def ended(self, clear: bool) -> None:
        self.wish.under_way -= self._begun
        if not clear:
            self._record.lie(f"{self.wish}: no clear answer in all the time a client waits")


class CancelRequest:
    """Cancels one order until that is clear."""

    def __init__(self, record: ClientRecord, wish: IntendedOrder) -> None:
        self._record = record
        self.wish = wish

    def request(self) -> bytes:
        wish = self.wish
        return f"POST /v1/orders/{wish.order_id}/cancel HTTP/1.1\r\n{self._record.head(wish.user)}0\r\n\r\n".encode()

    def answered(self, reply: Reply, seconds: float) -> float | None:
        record, wish = self._record, self.wish
        said = record.said(reply, seconds)
        if said in LATER:
            return record.later(said, reply)
        if said == "200" and orjson.loads(reply.body)["status"] == "cancelled":
            wish.cancelled = True
        else:
            record.lie(f"{wish}: its cancellation was answered {reply.status} {reply.body[:300]!r}")
        return None

    def broke(self) -> None:
        self._record.statuses["connection broken"] += 1

    def unheard(self) -> None:
        self._record.statuses["nobody listens"] += 1

    def ended(self, clear: bool) -> None:
        if not clear:
            self._record.lie(f"{self.wish}: its cancellation got no clear answer in all the time a client waits")
