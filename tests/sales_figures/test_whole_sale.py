"""Sums over whole sales are those of a second calculation over the raw rows, in any sequence."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from functools import partial
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from commerce.kernel.postgres import Connection, Database
from commerce.promotions.model import PromotionClass, PromotionInput, RepeatedReduction
from commerce.sales_figures.event_counter import EventCounter
from config.settings import Settings
from ops.services import CliServices, open_cli_services
from tests.sales_figures.raw_figures import Cells, by_day, calculate, read_raw_rows
from tests.support.order_actions import OrderActions
from tests.support.whole_shop import WholeShop, open_whole_shop

ZONE = ZoneInfo("America/St_Johns")  # days that begin at half past three or two in UTC
ITEMS = {"a": (100_000, 101, None), "b": (100_000, 57, None)}
_GOOD, _MIXED = ["resellable"] * 3, ["resellable", "damaged", "rejected"]
_methods = st.sampled_from(["balance", "alipay", "cod"])
_units = st.tuples(st.integers(1, 4), st.integers(0, 3)).map(lambda counts: {"a": counts[0], "b": counts[1]})
_numbers, _quantities = st.integers(0, 9), st.integers(0, 2)
_steps = st.sampled_from([("approve",), ("decline",), ("cancel",), ("approve", "receive", "resolve")])
_stages = st.sampled_from(["placed", "paid", "booked", "delivered", "delivered"])
_story = st.lists(
    st.one_of(
        st.tuples(st.just("place"), _units, _methods, _stages),
        st.tuples(st.just("expire"), _units, _methods, st.booleans()),
        st.tuples(st.just("cancel"), _numbers, st.integers(0, 1), _quantities, st.booleans()),
        st.tuples(st.just("return"), _numbers, st.integers(1, 2), _steps),
        st.tuples(st.just("refund"), _numbers, _quantities, st.integers(1, 90)),
        st.tuples(st.just("report"), _numbers, st.sampled_from(["delivered", "lost", "returned_to_sender"])),
    ),
    min_size=4,
    max_size=9,
)


class Story:
    """Actions of customers and staff, between which events are counted one at a time, or not at all."""

    def __init__(self, whole: WholeShop, shop: CliServices) -> None:
        self.actions = OrderActions(whole)
        self.whole = whole
        self.counter = EventCounter(shop.db, shop.clock, ZONE, events_per_step=1)
        self.shop = shop

    async def act(self, name: str, *values: Any) -> None:
        actions = self.actions
        if name == "place":
            await actions.place(*values)
            return
        if name == "expire":  # an order of its own: it is dated back, which must be before it is counted
            late = await actions.place(values[0], values[1])
            await actions.pay(late, is_completed=False)
            await actions.expire(late, is_paid_late=values[2])
            return
        order = actions.placed[-1 - values[0] % len(actions.placed)]
        if name == "cancel":
            await actions.cancel(order, values[1], values[2], is_staff=values[3])
        elif name == "return":
            if await actions.request_case(order, 0, values[1], "return", "a"):
                await actions.take_steps(order, values[2], values[1], _MIXED)
        elif name == "refund":
            await actions.refund(order, 0, values[1], values[2])
        else:
            await actions.report(order, 0, values[1])

    async def play(self, story: list[tuple[Any, ...]], *, in_steps: bool) -> None:
        await self.actions.place({"a": 2, "b": 1}, "alipay", "paid")
        for action in story:
            await self.act(*action)
            if in_steps:
                await self.counter.step()
        await self.whole.work_until_idle()


async def read_cells(connection: Connection, table: str, column: str) -> Cells:
    """Read the sums of a table."""
    rows = await connection.fetch(
        f"SELECT sale_id, sku, {column}, figure, reason, events, units, amount_minor FROM {table}"
    )
    return {tuple(row)[:5]: tuple(row)[5:] for row in rows}


async def compare(db: Database, counter: EventCounter) -> Cells:
    """Count until nothing waits, and compare the sums with the second calculation in one snapshot."""
    while True:
        while await counter.step():
            pass
        async with db.snapshot() as connection:
            if await connection.fetchval("SELECT count(*) FROM events_to_count"):
                continue  # workers have gone on
            expected = calculate(await read_raw_rows(connection))
            assert await read_cells(connection, "sales_by_minute", "minute") == expected
            assert await read_cells(connection, "sales_by_day", "day") == by_day(expected, ZONE)
            return expected


FIXED: list[tuple[Any, ...]] = [
    ("expire", {"a": 2, "b": 1}, "alipay", True),
    ("place", {"a": 3, "b": 2}, "balance", "delivered"),
    ("return", 0, 2, ("approve", "receive", "resolve")),
    ("refund", 0, 0, 40),
    ("refund", 0, 1, 0),
    ("place", {"a": 2, "b": 0}, "cod", "booked"),
    ("cancel", 0, 0, 1, False),
    ("report", 0, "returned_to_sender"),
    ("place", {"a": 1, "b": 1}, "alipay", "paid"),
    ("cancel", 0, 0, 0, True),
    ("place", {"a": 1, "b": 0}, "balance", "delivered"),
    ("return", 0, 1, ("decline",)),
    ("place", {"a": 1, "b": 0}, "cod", "placed"),
    ("cancel", 0, 0, 0, False),
    ("place", {"a": 1, "b": 0}, "cod", "placed"),
    ("cancel", 0, 0, 0, True),
]
"""A story with each figure and reason that is easy to reach."""
FIGURES = {
    *("accepted", "lapsed", "recovered", "paid", "cancelled", "delivered"),
    *("requested", "withdrawn", "received", "refunded"),
}


@pytest.mark.timeout(900)
def test_sums_are_those_of_the_raw_rows_after_any_story(
    make_settings: Callable[..., Settings], sale_id: str, short_polls: None
) -> None:
    """However often events are counted meanwhile, and when all of them are counted again."""
    make_settings = partial(make_settings, jobs={"backoff_max_s": 0.5})
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()

        async def open_shop() -> tuple[WholeShop, CliServices]:
            shop = await stack.enter_async_context(open_cli_services(make_settings()))
            whole = await stack.enter_async_context(open_whole_shop(shop, make_settings, sale_id, ITEMS))
            reduction = RepeatedReduction(threshold=200, amount=33, max_times=9)
            promotion = PromotionInput("every-2", "Every 2.00 less 0.33", PromotionClass.ORDER, reduction)
            await shop.promotions.create(sale_id, promotion, "test")
            return whole, shop

        whole, shop = runner.run(open_shop())

        def play(story: list[tuple[Any, ...]], in_steps: bool) -> Cells:
            async def work() -> Cells:
                chapter = Story(whole, shop)
                await chapter.play(story, in_steps=in_steps)
                counter = EventCounter(shop.db, shop.clock, ZONE)
                await compare(shop.db, chapter.counter if in_steps else counter)
                await counter.recount(sale_id)
                return await compare(shop.db, counter)

            return runner.run(_with_time(work()))

        def play_any(story: list[tuple[Any, ...]], in_steps: bool) -> None:
            play(story, in_steps)

        play_many = settings(
            max_examples=int(os.environ.get("FLOODGATE_TEST_EXAMPLES") or 6),
            derandomize="FLOODGATE_TEST_EXAMPLES" not in os.environ,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.generate],
            database=None,
        )(given(_story, st.booleans())(play_any))
        try:
            reached = {(figure, reason) for _, _, _, figure, reason in play(FIXED, True)}
            assert {figure for figure, _ in reached} == FIGURES
            assert {reason for figure, reason in reached if figure == "lapsed"} == {
                "expired",
                "by_customer",
                "by_staff",
            }
            play_many()
        finally:
            runner.run(stack.aclose())


async def _with_time(work: Coroutine[Any, Any, Cells]) -> Cells:
    async with asyncio.timeout(240):
        return await work
