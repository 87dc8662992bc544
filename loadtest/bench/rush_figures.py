"""Figures of the part `rush`: what happens when far more come than can be served."""

from __future__ import annotations

from datetime import datetime
from statistics import median

import msgspec

from loadtest.bench.peers import FLOODGATE

FULL = 6_000
"""impatient connections: far more than can be served"""


class PatientFigures(msgspec.Struct, frozen=True):
    """Patient customers, who wait as `Retry-After` says and repeat with the same key.

    Times are of accepted orders, from the first byte sent to the answer: of the attempt that was accepted, and from the
    first attempt.
    """

    accepted: int
    refused: int
    p50_ms: float
    p99_ms: float
    all_attempts_p99_ms: float


class CrowdFigures(msgspec.Struct, frozen=True):
    """One measurement with so many impatient connections: those that the server had accepted.

    `accepted_per_s` is what Redis sold, to whomever. `refused_share`, `answers` and `p99_ms`, of accepted orders, are
    those of the impatient; `closed` counts connections that the server closed. `calm_after_ms` is the time from their
    leaving until patient customers were served as before they came.
    """

    connections: int
    accepted_per_s: float
    refused_share: float
    answers: dict[str, int]
    p99_ms: float
    cpu_share: dict[str, float]
    patient: PatientFigures | None = None
    calm_after_ms: float | None = None


class RefusalFigures(msgspec.Struct, frozen=True):
    """Processor time of a gateway for refusals, in microseconds per refusal.

    `idle_us` is what the same process takes in the same time with nobody connected; `user_us` and `system_us` contain
    it, `cpu_us` does not.
    """

    refusals: int
    per_s: float
    user_us: float
    system_us: float
    idle_us: float

    @property
    def cpu_us(self) -> float:
        return self.user_us + self.system_us - self.idle_us


class SoldOutFigures(msgspec.Struct, frozen=True):
    """Refusals after a sale has sold out, and an order in the same process before.

    `reserved_share` is the number of orders that the gateway asked Redis for, by the refusals; `commands_share` that of
    the commands that Redis got, without those of a quiet time. `bought_after_ms` is the time from stock that was added
    until it was bought.
    """

    accepted_cpu_us: float
    refusals: RefusalFigures
    reserved_share: float
    commands_share: float
    bought_after_ms: list[float]


class ReadFigures(msgspec.Struct, frozen=True):
    """Reads per second from two gateways: a sale, its offers and a product in turn; then own orders.

    Transactions are all that Postgres ended in the shop's database, workers included, in as long a time.
    """

    catalog_per_s: float
    catalog_p99_ms: float
    catalog_failed: int
    transactions_per_s: float
    quiet_transactions_per_s: float
    own_order_per_s: float
    own_order_p99_ms: float
    own_order_failed: int


class PriorityFigures(msgspec.Struct, frozen=True):
    """Requests that come before new orders, in a quiet hour and at full overload: until they succeed."""

    quiet_p50_ms: float
    quiet_p99_ms: float
    p50_ms: float
    p99_ms: float
    requests: int
    refused: int
    statuses: dict[str, int]


class AbuseFigures(msgspec.Struct, frozen=True):
    """Accepted orders per second of ordinary customers, alone just before and beside others."""

    alone_per_s: float
    beside_per_s: float

    @property
    def loss(self) -> float:
        return 1 - self.beside_per_s / self.alone_per_s


class RoomFigures(msgspec.Struct, frozen=True):
    """A waiting room of so many customers, at a shop of two gateways.

    Those who did not join over HTTP in time joined by the gateways' script. `draw_s` is the time from the closing of
    the list until all have their places, a round of the delay included; `reads_per_s` is of the page, from one process.
    `known_after_s` is the time from the last unit sold until everybody who asks for the page reads that nothing is
    left, `ended_after_s` until it says that the room has ended.

    `accepted_early` counts accepted orders before anybody had a turn, `accepted_twice` those beyond the first of a
    customer, `accepted_out_of_order` those of customers without a turn.
    """

    customers: int
    joined_over_http: int
    joins_per_s: float
    join_p99_ms: float
    bytes_per_person: float
    draw_s: float
    reads_per_s: float
    reads_p99_ms: float
    known_after_s: float
    ended_after_s: float
    sold: int
    accepted_early: int
    accepted_twice: int
    accepted_out_of_order: int
    audit_differences: int


class RushFigures(msgspec.Struct):
    """All measurements of the part, by impatient connections or server, and when and where they were made.

    `peers` and `late_peers` have those that take turns, a gateway among them.

    The names of what could not be measured are in `skipped` of the whole run, with the reason.
    """

    at: datetime | None = None
    machine: dict[str, str | int] = {}
    options: dict[str, float] = {}
    gateway: dict[int, list[CrowdFigures]] = {}
    shop: dict[int, list[CrowdFigures]] = {}
    peers: dict[str, list[CrowdFigures]] = {}
    late_gateway: dict[int, list[CrowdFigures]] = {}
    late_peers: dict[str, list[CrowdFigures]] = {}
    refusal: RefusalFigures | None = None
    audit_differences: int | None = None
    audit_findings: list[str] = []
    sold_out: SoldOutFigures | None = None
    reads: ReadFigures | None = None
    priority: dict[str, PriorityFigures] = {}
    abuse: dict[str, list[AbuseFigures]] = {}
    room: RoomFigures | None = None
    ratios: dict[str, float] = {}

    def compute_ratios(self) -> dict[str, float]:
        """Return the figures that have thresholds; each compares measurements of this run, or is a time in it."""
        ratios: dict[str, float] = {}
        for name, by_size in (("gateway", self.gateway), ("shop", self.shop), ("late_gateway", self.late_gateway)):
            ratios |= _compute_crowd_ratios(name, by_size)
        for name, figures_by_server in (("gateway", self.peers), ("late_gateway", self.late_peers)):
            if len(figures_by_server) > 1:
                ratios[f"{name}_vs_best_peer"] = _compare_with_best_peer(figures_by_server)
        if self.refusal:
            ratios["refusal_cpu_us"] = self.refusal.cpu_us
            ratios["refusing_cpu_share"] = self.refusal.cpu_us * self.refusal.per_s / 1e6
        if self.sold_out:
            ratios["sold_out_vs_accepted_cpu"] = self.sold_out.refusals.cpu_us / self.sold_out.accepted_cpu_us
            ratios["sold_out_reserved_share"] = self.sold_out.reserved_share
            ratios["sold_out_commands_share"] = self.sold_out.commands_share
            ratios["bought_after_ms"] = max(self.sold_out.bought_after_ms)
        if self.reads:
            ratios["catalog_reads_per_s"] = self.reads.catalog_per_s
            ratios["own_order_reads_per_s"] = self.reads.own_order_per_s
        for name, priority in self.priority.items():
            ratios[f"{name}_p99_vs_quiet"] = priority.p99_ms / priority.quiet_p99_ms if priority.quiet_p99_ms else 0.0
        for name, abuse in self.abuse.items():
            ratios[f"{name}_loss"] = median(figures.loss for figures in abuse)
        if self.room:
            ratios |= _find_room_ratios(self.room)
        return {name: round(ratio, 4) for name, ratio in ratios.items()}


def _find_room_ratios(room: RoomFigures) -> dict[str, float]:
    return {
        "room_joins_per_s": room.joins_per_s,
        "room_reads_per_s": room.reads_per_s,
        "room_bytes_per_person": room.bytes_per_person,
        "room_draw_s": room.draw_s,
        "room_known_after_s": room.known_after_s,
        "room_wrong_turns": room.accepted_early + room.accepted_twice + room.accepted_out_of_order,
        "room_audit_differences": room.audit_differences,
    }


def _compare_with_best_peer(figures_by_server: dict[str, list[CrowdFigures]]) -> float:
    """Return accepted orders per second of a gateway by those of the best peer, the median over the turns."""
    gateway = figures_by_server[FLOODGATE]
    peers = [figures for name, figures in figures_by_server.items() if name != FLOODGATE]
    best_rates = [
        max((figures[turn].accepted_per_s for figures in peers if turn < len(figures)), default=0.0)
        for turn in range(len(gateway))
    ]
    turns = zip(gateway, best_rates, strict=True)
    return median([figures.accepted_per_s / best for figures, best in turns if best] or [0.0])


def find_rate(measurements: list[CrowdFigures]) -> float:
    """Return the median of accepted orders per second."""
    return median(figures.accepted_per_s for figures in measurements)


def _compute_crowd_ratios(name: str, by_size: dict[int, list[CrowdFigures]]) -> dict[str, float]:
    ratios: dict[str, float] = {}
    if not by_size:
        return ratios
    best = max(map(find_rate, by_size.values()))
    for size in sorted(by_size):
        if size >= FULL:
            measurements = by_size[size]
            ratios[f"{name}_{size}_vs_best"] = find_rate(measurements) / best if best else 0.0
            patient = [figures.patient.p99_ms for figures in measurements if figures.patient]
            calm = [figures.calm_after_ms for figures in measurements if figures.calm_after_ms is not None]
            if patient:
                ratios[f"{name}_{size}_p99_ms"] = median(patient)
            if calm:
                ratios[f"{name}_{size}_calm_after_ms"] = median(calm)
    return ratios
