"""A hypothesis state machine: Redis against a model of twenty lines, over any sequence of calls.

P1, P3, P4 and P5 are compared after every step: stock, limits, what each key stands for, what came back.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter, defaultdict
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)
from redis.asyncio import Redis

import lua
from commerce.kernel.clock import DAY_MS, SystemClock
from lua import ChangeStockOutcome, EntryId, Release, ReleaseOutcome, ReserveOutcome, SaleKeys, SaleTerms
from tests.support.sales import reservation, reserve
from tests.support.servers import Servers

SKUS = ("a", "b", "c")
LIMITS = {"a": 2, "b": 5}
USERS = ("u", "v", "w")
UNITS = st.dictionaries(st.sampled_from(SKUS), st.integers(1, 4), min_size=1)


class SaleMachine(RuleBasedStateMachine):
    """`taken` has the model's accepted orders: id → (user, units)."""

    redis_url = ""
    sale_prefix = ""
    orders = Bundle("orders")

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.redis = Redis.from_url(self.redis_url)
        self.sale_id = f"{self.sale_prefix}-{uuid4().hex[:12]}"
        self.keys = SaleKeys(self.sale_id)
        self.free: Counter[str] = Counter()
        self.bought: Counter[tuple[str, str]] = Counter()
        self.standing: dict[tuple[str, str], tuple[bytes, UUID]] = {}
        self.taken: dict[UUID, tuple[str, dict[str, int]]] = {}
        self.released: set[UUID] = set()
        self.clock = SystemClock()

    def do(self, work):  # type: ignore[no-untyped-def]
        return self.runner.run(work)

    @initialize(stock=st.fixed_dictionaries({sku: st.integers(0, 12) for sku in SKUS}))
    def load(self, stock: dict[str, int]) -> None:
        self.free.update(stock)
        terms = SaleTerms(1, 1, "open", self.clock.now_ms() - 1_000, None)
        self.do(lua.load(self.redis, self.keys, terms, stock.items(), [], EntryId(0, 1)))

    @rule(
        target=orders,
        batch=st.lists(
            st.tuples(
                st.sampled_from(USERS), st.sampled_from("12345678"), st.sampled_from([b"x" * 16, b"y" * 16]), UNITS
            ),
            min_size=1,
            max_size=5,
        ),
    )
    def order(self, batch: list[tuple[str, str, bytes, dict[str, int]]]):  # type: ignore[no-untyped-def]
        sent = [
            reservation(uuid4, self.sale_id, units, user=user, key=key, digest=digest, limits=LIMITS)
            for user, key, digest, units in batch
        ]
        answers = self.do(reserve(self.redis, self.keys, *sent))
        accepted = []
        for order, (user, key, digest, units), answer in zip(sent, batch, answers, strict=True):
            expected = self._expected(user, key, digest, units)
            assert answer.outcome is expected, (answer, expected)
            if expected is ReserveOutcome.REPLAYED:
                assert answer.record is not None
                assert answer.record.order_id == self.standing[user, key][1]
            if expected is ReserveOutcome.ACCEPTED:
                self.standing[user, key] = (digest, order.order_id)
                self.taken[order.order_id] = (user, units)
                self.free.subtract(units)
                for sku, count in units.items():
                    if sku in LIMITS:
                        self.bought[user, sku] += count
                accepted.append(order.order_id)
        return multiple(*accepted)

    def _expected(self, user: str, key: str, digest: bytes, units: dict[str, int]) -> ReserveOutcome:
        if (user, key) in self.standing:
            return ReserveOutcome.REPLAYED if self.standing[user, key][0] == digest else ReserveOutcome.KEY_REUSED
        for sku, count in units.items():
            if count > self.free[sku]:
                return ReserveOutcome.SOLD_OUT
            if sku in LIMITS and self.bought[user, sku] + count > LIMITS[sku]:
                return ReserveOutcome.OVER_LIMIT
        return ReserveOutcome.ACCEPTED

    @rule(order_id=orders, times=st.integers(1, 3))
    def release(self, order_id: UUID, times: int) -> None:
        user, units = self.taken[order_id]
        release = Release(order_id, self.clock.now_ms(), user, units)
        _, answers = self.do(lua.release(self.redis, self.keys, [release] * times))
        first = ReleaseOutcome.ALREADY_APPLIED if order_id in self.released else ReleaseOutcome.APPLIED
        assert [answer.outcome for answer in answers] == [first] + [ReleaseOutcome.ALREADY_APPLIED] * (times - 1)
        if order_id not in self.released:
            self.released.add(order_id)
            self.free.update(units)
            for sku, count in units.items():
                if sku in LIMITS:
                    self.bought[user, sku] -= count

    @rule(sku=st.sampled_from(SKUS), delta=st.integers(-6, 6).filter(bool))
    def restock(self, sku: str, delta: int) -> None:
        answer = self.do(lua.change_stock(self.redis, self.keys, uuid4(), self.clock.now_ms(), sku, delta))
        if self.free[sku] + delta < 0:
            assert (answer.outcome, answer.number) == (ChangeStockOutcome.NOT_ENOUGH, self.free[sku])
        else:
            assert answer.outcome is ChangeStockOutcome.APPLIED
            self.free[sku] += delta

    @rule()
    def writer(self) -> None:
        """The writer takes what is there; stock is not its business."""
        entries = self.do(lua.read_new(self.redis, self.keys, "writer", 100, 1))
        if entries:
            assert self.do(lua.acknowledge(self.redis, self.keys, entries)) == len(entries)

    @invariant()
    def agrees(self) -> None:
        cut = self.do(lua.cut(self.redis, self.keys))
        assert cut.stock == {sku: self.free[sku] for sku in cut.stock}
        assert min(cut.stock.values(), default=0) >= 0
        counted = {f"{user}\0{sku}".encode(): units for (user, sku), units in self.bought.items() if units}
        assert self.do(lua.buyers(self.redis, self.keys)) == counted
        assert all(self.bought[user, sku] <= limit for user in USERS for sku, limit in LIMITS.items())

    @invariant()
    def keys_stand(self) -> None:
        by_user = defaultdict(list)
        for (user, key), (_, order_id) in self.standing.items():
            by_user[user].append((key, order_id))
        day = self.clock.now_ms() // DAY_MS
        for user, keys in by_user.items():
            for key, order_id in keys[-2:]:
                [record] = self.do(lua.find_key_records(self.redis, [self.keys], day, user, key))
                assert record is not None
                assert record.order_id == order_id

    def teardown(self) -> None:
        async def close() -> None:
            names = [key async for key in self.redis.scan_iter(f"{{sale:{self.sale_id}}}*")]
            if names:
                await self.redis.delete(*names)
            await self.redis.aclose()

        self.do(close())
        self.runner.close()


@pytest.mark.timeout(300)
def test_redis_agrees_with_the_model(servers: Servers, sale_prefix: str) -> None:
    SaleMachine.redis_url, SaleMachine.sale_prefix = servers.redis_url, sale_prefix
    wanted = settings(
        max_examples=int(os.environ.get("FLOODGATE_TEST_EXAMPLES", "15")),
        stateful_step_count=30,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(SaleMachine, settings=wanted)
