"""A hypothesis state machine compares Redis with a small model over any sequence of calls.

It checks P1, P3, P4 and P5 after every step: stock, limits, the order of each key, released units, and those that a
wait-list holds back and offers.
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
from lua import (
    ChangeStockOutcome,
    EntryId,
    OfferOutcome,
    Release,
    ReleaseOutcome,
    ReserveOutcome,
    SaleKeys,
    SaleTerms,
    UnitOffer,
    WithdrawOutcome,
)
from tests.support.sales import reservation, reserve
from tests.support.servers import Servers

SKUS = ("a", "b", "c")
LIMITS = {"a": 2, "b": 5}
USERS = ("u", "v", "w")
UNITS = st.dictionaries(st.sampled_from(SKUS), st.integers(1, 4), min_size=1)


class SaleMachine(RuleBasedStateMachine):
    """A sale in Redis and its model.

    `orders_by_key` maps (user, key) to (digest, order id), `accepted` an order id to (user, units).
    """

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
        self.orders_by_key: dict[tuple[str, str], tuple[bytes, UUID]] = {}
        self.accepted: dict[UUID, tuple[str, dict[str, int]]] = {}
        self.released: set[UUID] = set()
        self.has_wait_list = False
        self.held_back: Counter[str] = Counter()
        self.offers: Counter[tuple[str, str]] = Counter()
        self.clock = SystemClock()

    def run(self, work):  # type: ignore[no-untyped-def]
        return self.runner.run(work)

    @initialize(
        stock=st.fixed_dictionaries({sku: st.integers(0, 12) for sku in SKUS}),
        has_wait_list=st.booleans(),
    )
    def load(self, stock: dict[str, int], has_wait_list: bool) -> None:
        self.free.update(stock)
        self.has_wait_list = has_wait_list
        terms = SaleTerms(1, 1, "open", self.clock.now_ms() - 1_000, None, has_wait_list)
        self.run(lua.load(self.redis, self.keys, terms, stock.items(), [], EntryId(0, 1)))

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
        results = self.run(reserve(self.redis, self.keys, *sent))
        accepted = []
        for order, (user, key, digest, units), result in zip(sent, batch, results, strict=True):
            expected = self._expected(user, key, digest, units)
            assert result.outcome is expected, (result, expected)
            if expected is ReserveOutcome.REPLAYED:
                assert result.record is not None
                assert result.record.order_id == self.orders_by_key[user, key][1]
            if expected is ReserveOutcome.ACCEPTED:
                self.orders_by_key[user, key] = (digest, order.order_id)
                self.accepted[order.order_id] = (user, units)
                for sku, count in units.items():
                    if count <= self.free[sku]:
                        self.free[sku] -= count
                    else:
                        self.offers[user, sku] -= count
                    if sku in LIMITS:
                        self.bought[user, sku] += count
                accepted.append(order.order_id)
        return multiple(*accepted)

    def _expected(self, user: str, key: str, digest: bytes, units: dict[str, int]) -> ReserveOutcome:
        if (user, key) in self.orders_by_key:
            return ReserveOutcome.REPLAYED if self.orders_by_key[user, key][0] == digest else ReserveOutcome.KEY_REUSED
        for sku, count in units.items():
            if count > self.free[sku] and count > self.offers[user, sku]:
                return ReserveOutcome.SOLD_OUT
            if sku in LIMITS and self.bought[user, sku] + count > LIMITS[sku]:
                return ReserveOutcome.OVER_LIMIT
        return ReserveOutcome.ACCEPTED

    @rule(order_id=orders, times=st.integers(1, 3))
    def release(self, order_id: UUID, times: int) -> None:
        user, units = self.accepted[order_id]
        release = Release(order_id, self.clock.now_ms(), user, units)
        _, results = self.run(lua.release(self.redis, self.keys, [release] * times))
        first = ReleaseOutcome.ALREADY_APPLIED if order_id in self.released else ReleaseOutcome.APPLIED
        assert [result.outcome for result in results] == [first] + [ReleaseOutcome.ALREADY_APPLIED] * (times - 1)
        if order_id not in self.released:
            self.released.add(order_id)
            self._returned().update(units)
            for sku, count in units.items():
                if sku in LIMITS:
                    self.bought[user, sku] -= count

    @rule(sku=st.sampled_from(SKUS), delta=st.integers(-6, 6).filter(bool))
    def change_stock(self, sku: str, delta: int) -> None:
        result = self.run(lua.change_stock(self.redis, self.keys, uuid4(), self.clock.now_ms(), sku, delta))
        if self.free[sku] + delta < 0:
            assert (result.outcome, result.number) == (ChangeStockOutcome.NOT_ENOUGH, self.free[sku])
        else:
            assert result.outcome is ChangeStockOutcome.APPLIED
            (self._returned() if delta > 0 else self.free)[sku] += delta

    def _returned(self) -> Counter[str]:
        return self.held_back if self.has_wait_list else self.free

    @rule(user=st.sampled_from(USERS), sku=st.sampled_from(SKUS), units=st.integers(1, 3), times=st.integers(1, 2))
    def offer(self, user: str, sku: str, units: int, times: int) -> None:
        offer = UnitOffer(uuid4(), uuid4(), self.clock.now_ms(), user, sku, units)
        results = self.run(lua.offer_units(self.redis, self.keys, 1, [offer] * times))
        if self.held_back[sku] < units:
            assert {result.outcome for result in results} == {OfferOutcome.REFUSED}
        else:
            assert [result.outcome for result in results][:1] == [OfferOutcome.APPLIED]
            assert {result.outcome for result in results[1:]} <= {OfferOutcome.ALREADY_APPLIED}
            self.held_back[sku] -= units
            self.offers[user, sku] += units

    @rule(user=st.sampled_from(USERS), sku=st.sampled_from(SKUS), is_over=st.booleans())
    def withdraw(self, user: str, sku: str, is_over: bool) -> None:
        offer = UnitOffer(uuid4(), uuid4(), self.clock.now_ms(), user, sku, 1, is_over)
        first, second = self.run(lua.withdraw_offers(self.redis, self.keys, 1, [offer] * 2))
        left = self.offers[user, sku]
        if not left:
            assert first.outcome is second.outcome is WithdrawOutcome.TAKEN
        elif not is_over:
            assert first.outcome is second.outcome is WithdrawOutcome.KEPT
        else:
            assert first.outcome is WithdrawOutcome.WITHDRAWN
            assert second.outcome is WithdrawOutcome.ALREADY_WITHDRAWN
            self.offers[user, sku] -= left
            self.held_back[sku] += left

    @rule(sku=st.sampled_from(SKUS), units=st.integers(1, 5))
    def put_on_sale(self, sku: str, units: int) -> None:
        moved = self.run(lua.put_on_sale(self.redis, self.keys, 1, sku, units))
        assert moved == min(units, self.held_back[sku])
        self.held_back[sku] -= moved
        self.free[sku] += moved

    @rule()
    def acknowledge(self) -> None:
        """Read and acknowledge all entries as the writer does; stock must not change."""
        entries = self.run(lua.read_new(self.redis, self.keys, "writer", 100, 1))
        if entries:
            assert self.run(lua.acknowledge(self.redis, self.keys, entries)) == len(entries)

    @invariant()
    def stock_and_limits_agree(self) -> None:
        cut = self.run(lua.cut(self.redis, self.keys))
        assert cut.stock == {sku: self.free[sku] for sku in cut.stock}
        assert min(cut.stock.values(), default=0) >= 0
        assert cut.held_back == {sku: units for sku, units in self.held_back.items() if units}
        offered: Counter[str] = Counter()
        for (_, sku), units in self.offers.items():
            offered[sku] += units
        assert cut.offered == {sku: units for sku, units in offered.items() if units}
        bought = {lua.buyer_field(user, sku): units for (user, sku), units in self.bought.items() if units}
        assert self.run(lua.read_units_taken(self.redis, self.keys)) == bought
        assert all(self.bought[user, sku] <= limit for user in USERS for sku, limit in LIMITS.items())

    @invariant()
    def keys_name_their_orders(self) -> None:
        by_user = defaultdict(list)
        for (user, key), (_, order_id) in self.orders_by_key.items():
            by_user[user].append((key, order_id))
        day = self.clock.now_ms() // DAY_MS
        for user, keys in by_user.items():
            for key, order_id in keys[-2:]:
                [record] = self.run(lua.find_key_records(self.redis, [self.keys], day, user, key))
                assert record is not None
                assert record.order_id == order_id

    def teardown(self) -> None:
        async def close() -> None:
            names = [key async for key in self.redis.scan_iter(f"{{sale:{self.sale_id}}}*")]
            if names:
                await self.redis.delete(*names)
            await self.redis.aclose()

        self.run(close())
        self.runner.close()


@pytest.mark.timeout(300)
def test_redis_agrees_with_model(servers: Servers, sale_prefix: str) -> None:
    SaleMachine.redis_url, SaleMachine.sale_prefix = servers.redis_url, sale_prefix
    run_settings = settings(
        max_examples=int(os.environ.get("FLOODGATE_TEST_EXAMPLES", "15")),
        stateful_step_count=30,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(SaleMachine, settings=run_settings)
