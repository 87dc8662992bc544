"""An order between gateway and intake is resolved once; a failed batch repeats only undecided orders."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, cast
from uuid import UUID

import pytest

import lua
from commerce.kernel.clock import SystemClock
from commerce.kernel.errors import NotReady, OutcomeUnknown
from commerce.kernel.redis_multiplexer import RedisConnectionLost
from config.settings import load
from gateway import order_intake
from gateway.admission import Admission
from gateway.metrics_buffer import MetricsBuffer
from gateway.order_intake import OrderIntake
from gateway.pending_order import Outcome, PendingOrder
from lua import EntryId, Reservation, ReserveOutcome, ReserveResult
from tests.support.compiled import interpreted_only

pytestmark = interpreted_only

ACCEPTED = ReserveResult(ReserveOutcome.ACCEPTED, EntryId(1, 0))
SALE, OTHER_SALE = "sale", "other"


def build_reservation(number: int) -> Reservation:
    return Reservation(
        1, f"user-{number}", f"key-{number}", UUID(int=number), b"d" * 16, 100, b"payload", [("a", 1, 0)]
    )


class FakeRedis:
    """Replaces the calls of the intake.

    `used` has keys of the other sale, `failures` the errors of the next reserve calls.
    """

    def __init__(self) -> None:
        self.used: set[str] = set()
        self.failures: list[Exception] = []
        self.checked: list[list[str]] = []
        self.reserved: list[list[str]] = []

    async def read_used_keys(
        self, _client: object, _keys: object, _day: int, orders: Sequence[tuple[str, str]]
    ) -> list[bool]:
        self.checked.append([key for _, key in orders])
        return [key in self.used for _, key in orders]

    async def reserve(
        self, _client: object, _keys: object, _day: int, orders: Sequence[Reservation]
    ) -> list[ReserveResult]:
        self.reserved.append([order.idempotency_key for order in orders])
        if self.failures:
            raise self.failures.pop(0)
        return [ACCEPTED] * len(orders)

    async def check_redis(self, *_arguments: object) -> None:
        """Redis is reachable again."""


@pytest.fixture
def redis(monkeypatch: pytest.MonkeyPatch) -> FakeRedis:
    fake = FakeRedis()
    monkeypatch.setattr(lua, "read_used_keys", fake.read_used_keys)
    monkeypatch.setattr(lua, "reserve", fake.reserve)
    monkeypatch.setattr(order_intake, "check_redis", fake.check_redis)
    return fake


@pytest.fixture
async def intake(redis: FakeRedis) -> OrderIntake:
    settings, clock = load(redis_url="redis://fake", database_url="postgresql://fake"), SystemClock()
    none = cast(Any, None)
    admission = Admission(settings.limits, clock)
    return OrderIntake(none, none, settings, clock, admission, MetricsBuffer(), lambda: [SALE, OTHER_SALE])


async def submit_and_wait(
    intake: OrderIntake, count: int, on_resolved: Callable[[int, Outcome], None] | None = None
) -> list[list[Outcome]]:
    """Submit orders in one iteration; return the outcomes that each was given."""
    outcomes: list[list[Outcome]] = [[] for _ in range(count)]

    def resolver(number: int) -> Callable[[Outcome], None]:
        def resolve(outcome: Outcome) -> None:
            outcomes[number].append(outcome)
            if on_resolved is not None:
                on_resolved(number, outcome)

        return resolve

    for number in range(count):
        intake.submit(SALE, PendingOrder(build_reservation(number), resolver(number)))
    await asyncio.wait_for(intake.drain(), 10)
    return outcomes


def test_pending_order_resolved_twice_keeps_first_outcome() -> None:
    outcomes: list[Outcome] = []
    order = PendingOrder(build_reservation(1), outcomes.append)
    assert not order.is_resolved
    assert order.resolve(ACCEPTED)
    assert order.is_resolved
    assert not order.resolve(NotReady("too late"))
    assert outcomes == [ACCEPTED]


def test_pending_order_resolved_by_its_own_callback_is_resolved_once() -> None:
    outcomes: list[Outcome] = []

    def resolve_again(outcome: Outcome) -> None:
        outcomes.append(outcome)
        assert not order.resolve(NotReady("again"))

    order = PendingOrder(build_reservation(1), resolve_again)
    assert order.resolve(ACCEPTED)
    assert outcomes == [ACCEPTED]


async def test_batch_with_used_key_and_lost_connection_repeats_only_undecided_orders(
    redis: FakeRedis, intake: OrderIntake
) -> None:
    redis.used, redis.failures = {"key-1"}, [RedisConnectionLost("lost", sent=True)]
    outcomes = await submit_and_wait(intake, 3)
    assert outcomes == [[ACCEPTED], [ReserveResult(ReserveOutcome.KEY_REUSED)], [ACCEPTED]]
    assert redis.checked == [["key-0", "key-1", "key-2"]]  # a repeat asks its own sale only
    assert redis.reserved == [["key-0", "key-2"], ["key-0", "key-2"]]


async def test_batch_with_used_key_and_error_fails_only_undecided_orders(redis: FakeRedis, intake: OrderIntake) -> None:
    redis.used, redis.failures = {"key-1"}, [RuntimeError("a bug")]
    first, second, third = await submit_and_wait(intake, 3)
    assert second == [ReserveResult(ReserveOutcome.KEY_REUSED)]
    assert [len(first), len(third)] == [1, 1]
    assert isinstance(first[0], OutcomeUnknown)
    assert isinstance(third[0], OutcomeUnknown)


async def test_batch_with_raising_callback_resolves_every_order_once(redis: FakeRedis, intake: OrderIntake) -> None:
    """Orders after the raising one get `OutcomeUnknown`, orders before it no second outcome."""

    def raise_for_second(number: int, _outcome: Outcome) -> None:
        if number == 1:
            raise RuntimeError("a bug")

    first, second, third = await submit_and_wait(intake, 3, raise_for_second)
    assert (first, second) == ([ACCEPTED], [ACCEPTED])
    assert len(third) == 1
    assert isinstance(third[0], OutcomeUnknown)


async def test_place_of_cancelled_caller_leaves_order_resolved(redis: FakeRedis, intake: OrderIntake) -> None:
    placing = asyncio.create_task(intake.place(SALE, build_reservation(1)))
    await asyncio.sleep(0)
    placing.cancel()
    await asyncio.wait([placing])
    await asyncio.wait_for(intake.drain(), 10)
    assert redis.reserved == [["key-1"]]
    assert await intake.place(SALE, build_reservation(2)) == ACCEPTED
