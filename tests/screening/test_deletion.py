"""Deletion of screened customers, and clearings by staff beside the worker and the deletion."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from commerce.kernel.clock import from_ms
from commerce.screening import store
from commerce.screening.model import MAX_MARKS_PER_KIND
from gateway.request_origin import RequestOrigin
from ops.services import CliServices
from tests.support.rooms import ShiftedClock
from tests.support.sales import eventually, make_sale
from tests.support.screening import ScreenedShop, attackers, colleagues, make_screened_shop

_DAY_MS = 86_400_000


async def _open(shop: CliServices, sale_id: str, **values: Any) -> tuple[ScreenedShop, ShiftedClock]:
    await make_sale(shop, sale_id, {"A1": (10, 100, None)})
    clock = ShiftedClock()
    screened = make_screened_shop(shop, clock, **values)
    await screened.follow_sales()
    return screened, clock


async def _count(shop: CliServices, table: str) -> int:
    async with shop.db.connection() as connection:
        return int(await connection.fetchval(f"SELECT count(*) FROM {table}"))


async def test_addresses_of_forms_are_bounded_and_deleted_with_their_customers(shop: CliServices, sale_id: str) -> None:
    screened, clock = await _open(shop, sale_id)
    for number in range(MAX_MARKS_PER_KIND + 5):
        await screened.note_joins(sale_id, [("ann", RequestOrigin(f"192.0.2.{number}", None, number))])
        await screened.score()
    await screened.note_joins(sale_id, [("ben", RequestOrigin("192.0.2.1", None, 1))])
    await screened.score()
    assert await _count(shop, "screening_marks WHERE kind = 'form_address'") == MAX_MARKS_PER_KIND
    clock.shift_ms = 20 * _DAY_MS
    await screened.note_joins(sale_id, [("ben", RequestOrigin("192.0.2.1", None, 1))])
    await screened.score()
    clock.shift_ms = 40 * _DAY_MS
    assert await screened.screener.delete_old() == 1, "the sale runs on, ben was here, ann was not"
    assert await _count(shop, "screening_marks WHERE kind = 'form_address'") == 0
    await screened.note_joins(sale_id, [("ben", RequestOrigin("192.0.2.1", None, 1))])
    await screened.score()
    assert await _count(shop, "screening_marks WHERE kind = 'form_address'") == 1
    assert await _count(shop, "screening_groups") == 3
    clock.shift_ms = 80 * _DAY_MS
    assert await screened.screener.delete_old() == 1
    assert await _count(shop, "screening_marks") == await _count(shop, "screening_groups") == 0


async def test_sightings_without_worker_are_deleted_with_the_salt(shop: CliServices, sale_id: str) -> None:
    screened, clock = await _open(shop, sale_id, rows_per_step=10)
    await screened.note_joins(sale_id, colleagues(25))
    await shop.sales.close(sale_id, "test")
    assert await screened.screener.delete_old() == 0
    clock.shift_ms = 31 * _DAY_MS
    assert [await screened.screener.delete_old() for _ in range(4)] == [10, 10, 5, 0]
    assert await _count(shop, "screening_sightings") == await _count(shop, "screened_sales") == 0


async def _stop_at(monkeypatch: pytest.MonkeyPatch, name: str) -> tuple[asyncio.Event, Callable[[], None]]:
    """Let a step of the worker wait after a statement. Returns when it is there, and lets it go on."""
    reached, may_go_on, call = asyncio.Event(), asyncio.Event(), getattr(store, name)

    async def stop(*arguments: Any) -> Any:
        result = await call(*arguments)
        reached.set()
        await may_go_on.wait()
        return result

    monkeypatch.setattr(store, name, stop)
    return reached, may_go_on.set


async def test_clearing_waits_for_a_step_of_the_worker_and_wins(
    shop: CliServices, sale_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    screened, clock = await _open(shop, sale_id, accounts_per_device=1)
    await screened.note_joins(sale_id, attackers(5, devices=1))
    reached, go_on = await _stop_at(monkeypatch, "upsert_users")
    until = from_ms(clock.now_ms()) + timedelta(hours=1)
    async with asyncio.TaskGroup() as group:
        step = group.create_task(screened.screener.fold_sightings())
        await reached.wait()
        group.create_task(screened.screening.clear(sale_id, "bot-00000", "a family", until, "mary"))

        async def is_waiting() -> bool:
            return await _count(shop, "pg_locks WHERE NOT granted") > 0

        await eventually(is_waiting)
        go_on()
    assert step.result() == 5
    cleared = (await screened.scores(sale_id))["bot-00000"]
    assert (cleared.score > 0, cleared.cleared_until) == (True, until)


async def test_customer_cleared_during_deletion_stays_cleared(
    shop: CliServices, sale_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    screened, clock = await _open(shop, sale_id)
    await screened.note_joins(sale_id, colleagues(2))
    await screened.score()
    clock.shift_ms = 31 * _DAY_MS
    until = from_ms(clock.now_ms()) + timedelta(hours=1)
    reached, go_on = await _stop_at(monkeypatch, "list_old_users")
    async with asyncio.TaskGroup() as group:
        group.create_task(screened.screener.delete_old())
        await reached.wait()
        clearing = group.create_task(screened.screening.clear(sale_id, "colleague-0001", "a family", until, "mary"))
        await asyncio.wait([clearing], timeout=0.3)
        go_on()
    assert (await screened.screening.get(sale_id, "colleague-0001")).user.cleared_until == until
