"""P5: refusals of Redis that come late, when a newer load may have applied the same job."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import uuid4

import pytest

import lua
from commerce.reservations import reacquisition
from commerce.reservations.reacquisition import StockReacquisition
from commerce.reservations.service import Reservations
from commerce.sales import stock_changes
from commerce.sales.errors import NotEnoughFreeUnits
from commerce.sales.loading import load_sale
from commerce.sales.model import StockChangeInput
from commerce.sales.stock_changes import StockChanges
from config.settings import Settings
from lua import ChangeStockOutcome, SaleKeys
from ops.services import CliServices
from tests.commerce.test_expired_jobs import POLICY, is_drained
from tests.support.gateway import run_workers
from tests.support.sales import eventually, expire_all, make_sale, reservation, reserve


async def load_with_units(shop: CliServices, sale_id: str, units: int) -> None:
    """Load a sale again after more units have arrived."""
    await shop.stock.change(sale_id, uuid4(), StockChangeInput("a", units, "more"), "test")
    await load_sale(shop.db, shop.redis, shop.clock, sale_id)


async def check_audit(shop: CliServices, sale_id: str) -> None:
    audit = await shop.audit.audit_sale(sale_id)
    assert (audit.clean, audit.differences) == (True, 0), audit.findings


async def test_refused_reacquisition_of_earlier_load_is_tried_again(
    shop: CliServices, settings: Settings, sale_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = await make_sale(shop, sale_id, {"a": (3, 100, None)})
    order = reservation(shop.ids.new, sale_id, {"a": 3})
    await reserve(shop.redis, keys, order)
    async with run_workers(settings, "order_writer"):
        await eventually(lambda: is_drained(shop, keys))
    reservations = Reservations(shop.db, shop.redis, shop.clock, POLICY)
    await expire_all(shop)
    assert await reservations.expire_unpaid_orders() == 1
    assert await reservations.apply_due_releases() == 1
    await shop.stock.change(sale_id, uuid4(), StockChangeInput("a", -1, "broken"), "test")
    jobs = StockReacquisition(shop.db, shop.redis, shop.clock, shop.ids)

    async def reacquire_slowly(*args: Any) -> lua.ReacquireResult:
        answer = await lua.reacquire(*args)
        await load_with_units(shop, sale_id, 1)
        return answer

    with monkeypatch.context() as patch:
        patch.setattr(reacquisition, "reacquire", reacquire_slowly)
        assert await jobs.reacquire(order.order_id) == "retry"
    assert [await jobs.reacquire(order.order_id) for _ in range(2)] == ["reacquired"] * 2
    assert await lua.read_units_free(shop.redis, keys, ["a"]) == [0]


async def test_repeats_of_reacquisition_at_once_agree(shop: CliServices, settings: Settings, sale_id: str) -> None:
    """One marks the row, the other finds it marked and asks again."""
    keys = await make_sale(shop, sale_id, {"a": (3, 100, None)})
    order = reservation(shop.ids.new, sale_id, {"a": 3})
    await reserve(shop.redis, keys, order)
    async with run_workers(settings, "order_writer"):
        await eventually(lambda: is_drained(shop, keys))
    reservations = Reservations(shop.db, shop.redis, shop.clock, POLICY)
    await expire_all(shop)
    assert await reservations.expire_unpaid_orders() + await reservations.apply_due_releases() == 2
    jobs = StockReacquisition(shop.db, shop.redis, shop.clock, shop.ids)
    decisions = await asyncio.gather(*(jobs.reacquire(order.order_id) for _ in range(5)))
    assert {"reacquired"} <= set(decisions) <= {"reacquired", "retry"}
    assert await jobs.reacquire(order.order_id) == "reacquired"


async def test_refused_stock_change_of_earlier_load_is_applied_later(
    shop: CliServices, sale_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = await make_sale(shop, sale_id, {"a": (1, 100, None)})
    changes = StockChanges(shop.db, shop.redis, shop.clock, POLICY)
    id_, change = uuid4(), StockChangeInput("a", -2, "broken")

    async def change_slowly(*args: Any) -> lua.ChangeStockResult:
        answer = await lua.change_stock(*args)
        if args[2] == id_:
            patch.undo()
            await load_with_units(shop, sale_id, 1)
        return answer

    with monkeypatch.context() as patch:
        patch.setattr(stock_changes, "change_stock", change_slowly)
        assert (await changes.change(sale_id, id_, change, "test")).status == "pending"
    assert (await changes.change(sale_id, id_, change, "test")).status == "applied"
    assert await lua.read_units_free(shop.redis, keys, ["a"]) == [0]
    await check_audit(shop, sale_id)


async def test_refused_stock_change_is_refused_until_the_next_load(shop: CliServices, sale_id: str) -> None:
    """A repeat that came when more units were free would take them although the change is refused."""
    keys: SaleKeys = await make_sale(shop, sale_id, {"a": (1, 100, None)})
    id_, now_ms = uuid4(), shop.clock.now_ms()
    assert (await lua.change_stock(shop.redis, keys, id_, now_ms, "a", -2))[1:] == (ChangeStockOutcome.NOT_ENOUGH, 1)
    await shop.stock.change(sale_id, uuid4(), StockChangeInput("a", 4, "more"), "test")
    for _ in range(2):
        answer = await lua.change_stock(shop.redis, keys, id_, now_ms, "a", -2)
        assert answer[1:] == (ChangeStockOutcome.NOT_ENOUGH, 5)
    with pytest.raises(NotEnoughFreeUnits):
        await shop.stock.change(sale_id, uuid4(), StockChangeInput("a", -6, "broken"), "test")
    await check_audit(shop, sale_id)
