"""Limits of screening: a gateway's memory, waiting rows, customers who are acted on."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from prometheus_client import REGISTRY

from commerce.kernel.clock import from_ms
from commerce.kernel.errors import NotReady
from commerce.screening.errors import RefusedByScreening
from commerce.screening.model import Score, ScoreReason, Sighting
from commerce.screening.store import set_scores
from config.screening import ScreeningSettings
from gateway.screening_actions import ScreeningActions
from ops.services import CliServices
from tests.support.rooms import ShiftedClock
from tests.support.sales import make_sale
from tests.support.screening import JOIN_OPENED_MS, ScreenedShop, colleagues, make_screened_shop


def _dropped(kind: str) -> float:
    return REGISTRY.get_sample_value("floodgate_screening_dropped_total", {"what": kind}) or 0


async def _open(shop: CliServices, sale_id: str, **values: Any) -> ScreenedShop:
    await make_sale(shop, sale_id, {"A1": (10, 100, None)})
    screened = make_screened_shop(shop, **values)
    await screened.follow_sales()
    return screened


def _note(screened: ScreenedShop, sale_id: str, count: int) -> None:
    for user_id, origin in colleagues(count):
        screened.signals.note_join(sale_id, user_id, origin, JOIN_OPENED_MS)


async def test_customers_beyond_the_buffer_are_counted_and_not_kept(shop: CliServices, sale_id: str) -> None:
    screened = await _open(shop, sale_id, buffered_customers=50, sightings_per_s=20)
    before = _dropped("sightings")
    _note(screened, sale_id, 60)
    _note(screened, "a-sale-that-is-not-screened", 60)
    assert len(screened.signals._activities) == 50
    assert [await screened.signals.export() for _ in range(4)] == [20, 20, 10, 0]
    assert _dropped("sightings") == before + 10
    await screened.score()
    assert (await screened.screening.get(sale_id, "colleague-0049")).user.joins == 1


async def test_sightings_wait_in_memory_while_they_cannot_be_stored(
    shop: CliServices, sale_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    screened = await _open(shop, sale_id, buffered_customers=50)
    before = _dropped("sightings")
    _note(screened, sale_id, 40)

    async def fail(*_: object) -> bool:
        _note(screened, sale_id, 41)  # 40 of them are known; the buffer seems empty meanwhile
        raise NotReady("Postgres does not answer")

    with monkeypatch.context() as outage:
        outage.setattr(screened.screening, "record", fail)
        with pytest.raises(NotReady):
            await screened.signals.export()
    assert len(screened.signals._activities) == 41
    assert await screened.signals.export() == 41
    await screened.score()
    assert {(await screened.screening.get(sale_id, f"colleague-{number:04}")).user.joins for number in range(40)} == {2}
    assert _dropped("sightings") == before


async def test_rows_that_wait_for_the_worker_are_limited(shop: CliServices, sale_id: str) -> None:
    screened = await _open(shop, sale_id, waiting_sightings=30, sightings_per_s=30)
    _note(screened, sale_id, 40)
    assert [await screened.signals.export() for _ in range(3)] == [30, 0, 0]
    assert len(screened.signals._activities) == 10, "kept until the worker has made place"
    await screened.score()
    assert await screened.signals.export() == 10


async def test_number_of_customers_acted_on_is_limited(shop: CliServices, sale_id: str) -> None:
    screened = await _open(shop, sale_id)
    await screened.note_joins(sale_id, colleagues(30))
    await screened.score()
    settings = ScreeningSettings(enabled=True, refuse_min_score=80, acted_on_customers=20)
    actions = ScreeningActions(screened.screening, screened.signals, settings, shop.clock)
    before = _dropped("customers")

    async def set_all(score: int) -> None:
        scores = {
            user_id: Score(score, (ScoreReason("device", score, 9),) if score else ()) for user_id, _ in colleagues(30)
        }
        async with shop.db.transaction() as connection:
            await set_scores(connection, sale_id, scores, from_ms(shop.clock.now_ms()))
        await actions.refresh()

    await set_all(100)
    refused = [user_id for user_id, _ in colleagues(30) if actions.check_order(sale_id, user_id)]
    assert len(refused) == 20
    assert _dropped("customers") == before + 10
    assert actions.is_refusing
    with pytest.raises(RefusedByScreening):
        actions.check_join(sale_id, refused[0], 0, has_number=True)
    await set_all(0)
    assert not actions.is_refusing
    assert not any(actions.check_order(sale_id, user_id) for user_id, _ in colleagues(30))
    await shop.sales.close(sale_id, "test")
    await actions.refresh()
    assert not actions._sales


async def test_changes_are_read_in_pages_and_only_once(
    shop: CliServices, sale_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.screening_actions._PAGE_SIZE", 7)
    screened = await _open(shop, sale_id, accounts_per_device=1, accounts_per_address=1)
    await screened.note_joins(sale_id, colleagues(20))
    await screened.score()
    settings = ScreeningSettings(enabled=True, log_min_score=25)
    actions = ScreeningActions(screened.screening, screened.signals, settings, shop.clock)
    await actions.refresh()
    assert len(actions._sales[sale_id].customers) == 20
    pages = 0
    list_suspects = screened.screening.list_suspects

    async def count_pages(*arguments: Any) -> Any:
        nonlocal pages
        pages += 1
        return await list_suspects(*arguments)

    monkeypatch.setattr(screened.screening, "list_suspects", count_pages)
    await actions.refresh()
    assert pages == 0
    await screened.note_joins(sale_id, colleagues(21))
    await screened.score()
    await actions.refresh()
    assert (pages, len(actions._sales[sale_id].customers)) == (1, 21)


async def test_deleted_customer_is_forgotten_at_the_next_full_read(shop: CliServices, sale_id: str) -> None:
    clock = ShiftedClock()
    screened = await _open(shop, sale_id, accounts_per_address=1)
    await screened.note_joins(sale_id, colleagues(5))
    await screened.score()
    settings = ScreeningSettings(enabled=True, log_min_score=25, acted_on_customers=5)
    actions = ScreeningActions(screened.screening, screened.signals, settings, clock)
    await actions.refresh()
    assert len(actions._sales[sale_id].customers) == 5
    clock.shift_ms = 31 * 86_400_000
    assert await make_screened_shop(shop, clock).screener.delete_old() == 5
    await actions.refresh()
    assert len(actions._sales[sale_id].customers) == 5, "a deletion is no change"
    actions._full_read_at = 0
    await actions.refresh()
    assert not actions._sales[sale_id].customers


async def test_first_read_that_breaks_off_begins_again(
    shop: CliServices, sale_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.screening_actions._PAGE_SIZE", 2)
    screened = await _open(shop, sale_id, accounts_per_address=1)
    await screened.note_joins(sale_id, colleagues(5))
    await screened.score()
    settings = ScreeningSettings(enabled=True, log_min_score=25)
    actions = ScreeningActions(screened.screening, screened.signals, settings, shop.clock)
    list_suspects = screened.screening.list_suspects

    async def fail_later(sale: str, after: tuple[int, str], *arguments: Any) -> Any:
        if after[1] > "colleague-0000":
            raise NotReady("Postgres does not answer")
        return await list_suspects(sale, after, *arguments)

    with monkeypatch.context() as outage:
        outage.setattr(screened.screening, "list_suspects", fail_later)
        with pytest.raises(NotReady):
            await actions.refresh()
    scores = {f"colleague-{number:04}": Score(0, ()) for number in range(2)}
    async with shop.db.transaction() as connection:
        await set_scores(connection, sale_id, scores, from_ms(shop.clock.now_ms()))
    await actions.refresh()
    assert sorted(actions._sales[sale_id].customers) == [f"colleague-{number:04}" for number in range(2, 5)]


async def test_export_and_changes_leave_time_to_others(
    shop: CliServices, sale_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    screened = await _open(shop, sale_id)
    _note(screened, sale_id, 1_000)
    iterations, loop = 0, asyncio.get_running_loop()

    def count() -> None:
        nonlocal iterations
        iterations += 1
        loop.call_soon(count)

    async def record(sightings: Sequence[Sighting], _: int) -> bool:
        assert len(sightings) == 1_000
        return iterations >= 10

    monkeypatch.setattr(screened.screening, "record", record)
    loop.call_soon(count)
    assert await screened.signals.export() == 1_000, "orders waited for all of them"


async def test_number_of_customers_by_action_follows_their_scores(shop: CliServices, sale_id: str) -> None:
    screened = await _open(shop, sale_id)
    await screened.note_joins(sale_id, colleagues(3))
    await screened.score()
    settings = ScreeningSettings(enabled=True, log_min_score=20, refuse_min_score=80)
    actions = ScreeningActions(screened.screening, screened.signals, settings, shop.clock)
    for score, logged, refused in ((100, 0, 3), (50, 3, 0), (60, 3, 0), (90, 0, 3), (0, 0, 0)):
        reasons = (ScoreReason("device", score, 9),) if score else ()
        async with shop.db.transaction() as connection:
            scores = {user_id: Score(score, reasons) for user_id, _ in colleagues(3)}
            await set_scores(connection, sale_id, scores, from_ms(shop.clock.now_ms()))
        actions._full_read_at = 0 if score == 60 else actions._full_read_at
        await actions.refresh()
        counts = [
            REGISTRY.get_sample_value("floodgate_screening_suspects", {"action": action})
            for action in ("log", "refuse")
        ]
        assert counts == [logged, refused], score
        assert actions.is_refusing == bool(refused)
