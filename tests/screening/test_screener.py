"""The screener finds an attack and leaves ordinary customers alone; deletion and crashes."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import asyncpg
import pytest

from commerce.kernel.clock import from_ms, to_ms
from commerce.screening import screener as screener_module
from commerce.screening.marks import normalise_phone
from commerce.screening.model import MAX_MARKS_PER_KIND, ScreenedUser
from config.settings import Settings
from gateway.request_origin import RequestOrigin
from ops.services import CliServices
from tests.support.gateway import TestGateway, run_workers
from tests.support.processes import run_processes, wait_for_exit
from tests.support.rooms import ShiftedClock
from tests.support.sales import ADDRESS, eventually, make_sale, order_body
from tests.support.screening import attackers, colleagues, make_screened_shop, strangers


def _signals(scores: dict[str, ScreenedUser]) -> dict[str, list[tuple[str, int]]]:
    return {user_id: [(reason.signal, reason.measured) for reason in user.reasons] for user_id, user in scores.items()}


async def test_attack_behind_one_address_is_found_and_colleagues_are_not(shop: CliServices, sale_id: str) -> None:
    await make_sale(shop, sale_id, {"A1": (10, 100, None)})
    screened = make_screened_shop(shop)
    await screened.follow_sales()
    crowd = [*attackers(10_000, devices=200), *colleagues(500), *strangers(2_000)]
    await screened.note_joins(sale_id, crowd)
    await screened.score()
    scores = await screened.scores(sale_id)
    bots = [user for user_id, user in scores.items() if user_id.startswith("bot-")]
    assert len(bots) == 10_000
    assert {user.score for user in bots} == {85}
    assert {tuple(reason.signal for reason in user.reasons) for user in bots} == {("device", "address", "form")}
    assert all(reason.measured > 3 for user in bots for reason in user.reasons)
    others = {user.score for user_id, user in scores.items() if user_id.startswith("colleague-")}
    assert others == {25}, "an address alone: below the lowest score that may do more than log"
    assert not any(user_id.startswith("stranger-") for user_id in scores)


async def test_form_of_program_is_cleared_when_it_turns_out_to_be_common(shop: CliServices, sale_id: str) -> None:
    await make_sale(shop, sale_id, {"A1": (10, 100, None)})
    screened = make_screened_shop(shop, accounts_per_form=20, rows_per_step=7)
    await screened.follow_sales()
    await screened.note_joins(sale_id, colleagues(40, forms=1))
    await screened.score()
    assert {user.score for user in (await screened.scores(sale_id)).values()} == {20}
    await screened.note_joins(sale_id, strangers(20, forms=1))
    await screened.score()
    assert not await screened.scores(sale_id), "the form comes from as many addresses as the shop's app"


async def test_changed_limit_counts_from_the_next_request_of_a_group(shop: CliServices, sale_id: str) -> None:
    await make_sale(shop, sale_id, {"A1": (10, 100, None)})
    screened = make_screened_shop(shop)
    await screened.follow_sales()
    family = attackers(4, devices=1)
    await screened.note_joins(sale_id, family)
    await screened.score()
    assert len(await screened.scores(sale_id)) == 4
    corrected = make_screened_shop(shop, accounts_per_device=4)
    await corrected.follow_sales()
    await corrected.note_joins(sale_id, family[:1])
    await corrected.score()
    assert not await screened.scores(sale_id)


async def test_fast_and_frequent_requests_are_signals(shop: CliServices, sale_id: str) -> None:
    await make_sale(shop, sale_id, {"A1": (10, 100, None)})
    clock = ShiftedClock()
    screened = make_screened_shop(shop, clock)
    await screened.follow_sales()
    origin = RequestOrigin(None, None, 1)
    opened_ms = to_ms((await shop.sales.get(sale_id)).opens_at)
    clock.now_ms = lambda: opened_ms + 149  # type: ignore[method-assign]
    screened.signals.note_order(sale_id, "ann", origin)
    clock.now_ms = lambda: opened_ms + 150  # type: ignore[method-assign]
    screened.signals.note_order(sale_id, "ben", origin)
    clock.now_ms = lambda: opened_ms - 1  # type: ignore[method-assign]
    screened.signals.note_order(sale_id, "cyd", origin)
    clock.now_ms = lambda: opened_ms + 5_000  # type: ignore[method-assign]
    for number in range(9):
        screened.signals.note_order(sale_id, "dot", origin)
        if number < 8:
            screened.signals.note_order(sale_id, "eve", origin)
    await screened.note_joins(sale_id, [])
    await screened.score()
    assert _signals(await screened.scores(sale_id)) == {"ann": [("fast", 149)], "dot": [("rate", 9)]}


async def test_accounts_with_one_phone_number_are_found_in_stored_orders(
    shop: CliServices, gateway: TestGateway, settings: Settings, sale_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await make_sale(shop, sale_id, {"A1": (100, 100, None)})
    screened = make_screened_shop(shop)
    await screened.follow_sales()
    phones = ["+86 138-0000-0001", "8613800000001", "86 138 0000 0001"]
    async with run_workers(settings, "order_writer"):
        for number in range(8):
            phone = phones[number % 3] if number < 6 else f"1390000000{number}"
            body = order_body(sale_id, ("A1", 1), ship_to=[{**ADDRESS, "phone": phone}])
            assert (await gateway.order(body, user=f"user-{number}")).status == 202

        async def stored() -> bool:
            async with shop.db.connection() as connection:
                return await connection.fetchval("SELECT count(*) FROM orders") == 8

        await eventually(stored)
    assert await screened.screener.fold_orders([sale_id]) == 0, "later ones may have lower ids"
    monkeypatch.setattr(screener_module, "_ORDER_MARGIN_MS", -1_000)
    assert await screened.screener.fold_orders([sale_id]) == 8
    await screened.score()
    expected = {f"user-{number}": [("phone", 6)] for number in range(6)}
    assert _signals(await screened.scores(sale_id)) == expected
    assert await screened.screener.fold_orders([sale_id]) == 0
    async with shop.db.connection() as connection:
        rows = await connection.fetch("SELECT mark, member FROM screening_marks")
    assert not any(b"138" in row["mark"] or "138" in row["member"] for row in rows)


async def test_orders_are_not_read_beyond_the_oldest_that_waits(
    shop: CliServices, gateway: TestGateway, settings: Settings, sale_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(screener_module, "_ORDER_MARGIN_MS", 0)
    await make_sale(shop, sale_id, {"A1": (100, 100, None)})
    screened = make_screened_shop(shop)
    await screened.follow_sales()
    assert (await gateway.order(order_body(sale_id, ("A1", 1)), user="waits")).status == 202
    now = from_ms(shop.clock.now_ms())
    async with shop.db.connection() as connection:  # an order that was accepted later and is stored already
        later = UUID(int=(to_ms(now) + 1) << 80)
        await connection.execute(
            "INSERT INTO orders (order_id, user_id, idempotency_key, body_digest, sale_id, generation, currency, "
            "total_minor, ship_to, payment_plan, accepted_at, entry_seq, persisted_at, pay_by) VALUES "
            "($1, 'later', 'k', decode(repeat('00', 16), 'hex'), $2, 1, 'CNY', 1, '[]', '[]', $3, 0, $3, $4)",
            *(later, sale_id, now, now + timedelta(hours=1)),
        )
    assert await screened.screener.fold_orders([sale_id]) == 0
    async with run_workers(settings, "order_writer"):
        read = 0

        async def read_both() -> bool:
            nonlocal read
            read += await screened.screener.fold_orders([sale_id])
            return read == 2

        await eventually(read_both)


async def test_customer_with_many_devices_has_bounded_marks(shop: CliServices, sale_id: str) -> None:
    await make_sale(shop, sale_id, {"A1": (10, 100, None)})
    screened = make_screened_shop(shop)
    await screened.follow_sales()
    for number in range(MAX_MARKS_PER_KIND + 5):
        await screened.note_joins(sale_id, [("ann", RequestOrigin("192.0.2.1", f"device-{number}", 1))])
        await screened.score()
    async with shop.db.connection() as connection:
        counts = await connection.fetch("SELECT kind, count(*) FROM screening_marks GROUP BY kind")
    assert dict(map(tuple, counts)) == {"address": 1, "device": MAX_MARKS_PER_KIND, "form": 1, "form_address": 1}


async def test_old_customers_are_deleted_in_steps_and_the_salt_last(shop: CliServices, sale_id: str) -> None:
    await make_sale(shop, sale_id, {"A1": (10, 100, None)})
    clock = ShiftedClock()
    screened = make_screened_shop(shop, clock, rows_per_step=10, accounts_per_device=1)
    await screened.follow_sales()
    await screened.note_joins(sale_id, attackers(25, devices=5))
    await screened.score()
    assert len(await screened.scores(sale_id)) == 25
    await screened.screening.clear(sale_id, "bot-00001", "a mistake", from_ms(clock.now_ms()) + timedelta(days=40), "x")
    assert await screened.screener.delete_old() == 0
    clock.shift_ms = 31 * 86_400_000
    assert [await screened.screener.delete_old() for _ in range(4)] == [10, 10, 4, 0]
    assert list(await screened.scores(sale_id)) == ["bot-00001"], "the clearing is not over"
    await shop.sales.close(sale_id, "test")
    clock.shift_ms = 80 * 86_400_000
    assert [await screened.screener.delete_old() for _ in range(2)] == [1, 0]
    async with shop.db.connection() as connection:
        for table in ("marks", "groups", "decisions", "sightings"):
            assert await connection.fetchval(f"SELECT count(*) FROM screening_{table}") == 0, table
        assert await connection.fetchval("SELECT count(*) FROM screened_sales") == 0


@pytest.mark.parametrize("crash_at", ["screening.folded:2", "screening.rescored:2"])
async def test_worker_killed_within_a_step_loses_nothing(
    make_settings: Callable[..., Settings], shop: CliServices, sale_id: str, tmp_path: Path, crash_at: str
) -> None:
    await make_sale(shop, sale_id, {"A1": (10, 100, None)})
    settings = make_settings(screening={"enabled": True, "rows_per_step": 100})
    screened = make_screened_shop(shop)
    await screened.follow_sales()
    await screened.note_joins(sale_id, attackers(600, devices=20))
    async with run_processes(settings, tmp_path) as processes:
        assert await wait_for_exit(await processes.worker("screening_worker", crash_at=crash_at)) == -9
    async with run_workers(settings, "screening_worker"):

        async def are_scored() -> bool:
            scores = await screened.scores(sale_id)
            return len(scores) == 600 and {user.score for user in scores.values()} == {85}

        await eventually(are_scored)
    details = await screened.screening.get(sale_id, "bot-00000")
    assert details.user.joins == 1, "folded once"


async def test_two_workers_count_each_sighting_once(shop: CliServices, settings: Settings, sale_id: str) -> None:
    await make_sale(shop, sale_id, {"A1": (10, 100, None)})
    screened, other = make_screened_shop(shop, rows_per_step=50), make_screened_shop(shop, rows_per_step=50)
    await screened.follow_sales()
    await screened.note_joins(sale_id, attackers(400, devices=400))
    connection = await asyncpg.connect(settings.database())
    try:
        async with connection.transaction():
            await connection.execute("SELECT pg_advisory_xact_lock(hashtextextended('screening', 0))")
            assert await other.screener.fold_sightings() == 0, "the other worker has the lock"
        while await screened.screener.fold_sightings() + await other.screener.fold_sightings():
            pass
        members = await connection.fetchval("SELECT members FROM screening_groups WHERE kind = 'address'")
    finally:
        await connection.close()
    assert members == 400


def test_phone_numbers_are_compared_by_digits() -> None:
    assert normalise_phone("+86 (138) 0000-0001") == "8613800000001"
    assert normalise_phone("none") == ""
