"""List prices: their history, and prices that are planned for a time."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from uuid import uuid4

import pytest

from commerce.catalog.errors import NoSuchPlannedPrice, NoSuchVariant, PlanEnded
from commerce.catalog.model import PlannedPrice, PriceInput, VariantInput
from commerce.catalog.prices import PLANNED_PRICES, PriceJobs
from commerce.kernel.clock import from_ms
from commerce.kernel.errors import Conflict, Invalid
from commerce.kernel.jobs import RetryPolicy
from ops.services import CliServices
from tests.support.due_jobs import count_open
from tests.support.rooms import ShiftedClock
from tests.support.sales import make_sale

ACTOR = "staff ann"


@pytest.fixture
async def tea(shop: CliServices) -> CliServices:
    await shop.catalog.put("tea", VariantInput("tea", 100, "CNY"), ACTOR, "first")
    return shop


def after(shop: CliServices, hours: float) -> datetime:
    return from_ms(shop.clock.now_ms()) + timedelta(hours=hours)


async def plan(shop: CliServices, price: int, starts_at: datetime, reason: str = "winter") -> PlannedPrice:
    new = PriceInput(price=price, currency="CNY", starts_at=starts_at, reason=reason)
    planned = await shop.prices.set_price("tea", new, ACTOR)
    assert isinstance(planned, PlannedPrice)
    return planned


async def work(shop: CliServices, hours: float) -> int:
    """Do the jobs that are due in so many hours."""
    clock = ShiftedClock()
    clock.shift_ms = int(hours * 3_600_000)
    jobs = PriceJobs(shop.db, clock, RetryPolicy.from_settings(shop.settings.jobs), 3)
    return await jobs.queue.work_due()


async def let_time_come(shop: CliServices) -> None:
    """Let no worker have set what is planned, although its time has come."""
    query = "UPDATE planned_prices SET starts_at = now() - interval '1 hour' WHERE status = 'planned'"
    async with shop.db.connection() as connection:
        await connection.execute(query)


async def prices(shop: CliServices) -> list[tuple[int, str, str]]:
    changes = (await shop.prices.list_changes("tea", None, 50)).items
    return [(change.price, change.actor, change.reason) for change in changes]


async def statuses(shop: CliServices) -> list[tuple[int, str]]:
    return [(plan.price, plan.status) for plan in (await shop.prices.list_plans("tea", None, 50)).items]


async def test_each_change_of_a_price_is_in_its_history_once(tea: CliServices) -> None:
    for _ in range(2):
        await tea.prices.set_price("tea", PriceInput(price=120, currency="CNY", reason="dearer"), ACTOR)
    await tea.catalog.import_csv(["sku,name,price,currency", "tea,tea,1.30,CNY"], actor="cli bob")
    await tea.catalog.put("tea", VariantInput("green tea", 130, "CNY"))
    assert await prices(tea) == [(130, "cli bob", "imported"), (120, ACTOR, "dearer"), (100, ACTOR, "first")]
    first = await tea.prices.list_changes("tea", None, 2)
    assert [change.price for change in (await tea.prices.list_changes("tea", int(first.next or 0), 2)).items] == [100]
    with pytest.raises(NoSuchVariant):
        await tea.prices.list_changes("none", None, 2)


async def test_planned_price_is_set_at_its_time_once(tea: CliServices, sale_id: str) -> None:
    await make_sale(tea, sale_id, {"tea": (5, 100, None)})
    generation = (await tea.sales.get(sale_id)).generation
    planned = await plan(tea, 150, after(tea, 2))
    assert await work(tea, 1) == 0
    assert (await tea.catalog.get("tea")).price == 100
    assert await work(tea, 3) == 1
    assert (await tea.catalog.get("tea")).price == 150
    assert await work(tea, 4) == await count_open(tea, PLANNED_PRICES) == 0
    [change, *_] = (await tea.prices.list_changes("tea", None, 5)).items
    assert (change.plan_id, change.reason) == (planned.plan_id, "winter")
    assert await statuses(tea) == [(150, "applied")]
    assert (await tea.sales.get_item(sale_id, "tea")).price == 100, "sales have their own prices"
    assert (await tea.sales.get(sale_id)).generation == generation + 1, "offers show the list price, too"
    with pytest.raises(PlanEnded):
        await tea.prices.cancel_plan(planned.plan_id, "too late", ACTOR)


async def test_workers_at_once_set_a_price_once(tea: CliServices) -> None:
    starts = [after(tea, hours) for hours in (1, 2, 3)]
    for number, starts_at in enumerate(starts):
        await plan(tea, 200 + number, starts_at)
    await asyncio.gather(*(work(tea, 4) for _ in range(4)))
    assert [price for price, _, _ in await prices(tea)] == [202, 201, 200, 100], "in the sequence of their times"
    assert (await tea.catalog.get("tea")).price == 202
    assert await count_open(tea, PLANNED_PRICES) == 0


async def test_price_that_is_late_does_not_undo_a_newer_one(tea: CliServices) -> None:
    await plan(tea, 150, after(tea, 1))
    await let_time_come(tea)
    await tea.prices.set_price("tea", PriceInput(price=170, currency="CNY", reason="newer"), ACTOR)
    await plan(tea, 160, after(tea, 1))
    await let_time_come(tea)
    await tea.catalog.put("tea", VariantInput("tea", 180, "CNY"))
    assert [price for price, _, _ in await prices(tea)] == [180, 160, 170, 150, 100]
    assert await work(tea, 2) == 0, "their jobs are done"


async def test_plan_is_replaced_and_cancelled_with_actor_and_reason(tea: CliServices) -> None:
    starts_at = after(tea, 1)
    planned = await plan(tea, 150, starts_at)
    assert await plan(tea, 150, starts_at) == planned
    other = await plan(tea, 160, starts_at, "cheaper to buy")
    assert await statuses(tea) == [(160, "planned"), (150, "replaced")]
    for _ in range(2):
        cancelled = await tea.prices.cancel_plan(other.plan_id, "no winter", "staff bob")
        assert (cancelled.status, cancelled.ended_by, cancelled.end_reason) == ("cancelled", "staff bob", "no winter")
    with pytest.raises(PlanEnded, match="replaced"):
        await tea.prices.cancel_plan(planned.plan_id, "no winter", ACTOR)
    with pytest.raises(NoSuchPlannedPrice):
        await tea.prices.cancel_plan(uuid4(), "no winter", ACTOR)
    assert await count_open(tea, PLANNED_PRICES) == await work(tea, 2) == 0
    assert (await tea.catalog.get("tea")).price == 100


async def test_plan_that_makes_no_sense_is_refused(tea: CliServices) -> None:
    with pytest.raises(Invalid, match="that time is past; leave starts_at out"):
        await plan(tea, 150, after(tea, -1))
    with pytest.raises(Invalid, match="it is priced in CNY, not GBP"):
        await tea.prices.set_price("tea", PriceInput(price=1, currency="GBP", reason="x"), ACTOR)
    for number in range(100):
        await plan(tea, 150, after(tea, number + 1))
    with pytest.raises(Conflict, match="cancel one of them first"):
        await plan(tea, 150, after(tea, 200))


async def test_plan_in_a_currency_that_is_gone_is_cancelled(tea: CliServices) -> None:
    await plan(tea, 150, after(tea, 1))
    await tea.catalog.put("tea", VariantInput("tea", 90, "GBP"))
    assert await work(tea, 2) == 1
    assert await statuses(tea) == [(150, "cancelled")]
    assert (await tea.catalog.get("tea")).price == 90
