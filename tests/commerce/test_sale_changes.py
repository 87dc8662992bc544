"""Drafts change in everything and can be deleted, opened sales in title, end and time to pay."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import Any

import msgspec
import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

import lua
from commerce.kernel.clock import from_ms, to_ms
from commerce.kernel.errors import Invalid, NotReady
from commerce.kernel.postgres import Connection
from commerce.sale_changes import service
from commerce.sale_changes.model import ChangedSale
from commerce.sales.errors import InvalidSaleState, NoSuchItem, NoSuchSale
from commerce.sales.model import Sale, SaleState
from commerce.wait_lists.model import WaitListSettings
from commerce.waiting_rooms.errors import InvalidRoomState, NoRoom
from commerce.waiting_rooms.model import RoomSettings
from lua import ReserveOutcome, SaleKeys
from ops.services import CliServices
from tests.support.sales import eventually, make_sale, reservation, reserve

HOUR = timedelta(hours=1)
ITEMS = {"a": (5, 100, None), "b": (3, 200, 2)}


def _now(shop: CliServices) -> datetime:
    return from_ms(shop.clock.now_ms())


async def _change(shop: CliServices, sale_id: str, **values: Any) -> Sale:
    return await shop.sale_changes.change(sale_id, ChangedSale(**values), "test")


async def _add_promotion(connection: Connection, sale_id: str) -> None:
    await connection.execute(
        """INSERT INTO promotions (sale_id, promotion_id, label, promotion_class, rule, skus, new_customers_only,
                                   enabled, changed_generation, created_at, updated_at)
           VALUES ($1, 'ten-off', 'Ten off', 'item', '{"kind": "percent_off"}', '{b}', false, true, 1, now(), now())""",
        sale_id,
    )


async def _log(shop: CliServices, sale_id: str) -> list[tuple[str, dict[str, Any]]]:
    async with shop.db.connection() as connection:
        rows = await connection.fetch("SELECT action, detail FROM sale_log WHERE sale_id = $1 ORDER BY log_id", sale_id)
    return [(row["action"], msgspec.json.decode(row["detail"])) for row in rows]


async def test_draft_changes_in_given_members_and_keeps_the_others(shop: CliServices, sale_id: str) -> None:
    await make_sale(shop, sale_id, {}, opened=False)
    before, opens_at = await shop.sales.get(sale_id), _now(shop) + HOUR
    values: list[dict[str, Any]] = [
        {"title": "Another sale"},
        {"currency": "GBP"},
        {"closes_at": opens_at + HOUR},
        {"opens_at": opens_at},
        {"pay_within_s": 60},
        {"closes_at": None},
    ]
    for number, value in enumerate(values, 1):
        changed = await _change(shop, sale_id, **value)
        before = msgspec.structs.replace(before, **value, generation=before.generation + 1)
        assert (changed, len(await _log(shop, sale_id))) == (before, number + 1)
    assert (await _log(shop, sale_id))[1] == ("change", {"title": ["A sale", "Another sale"]})
    for same in ({}, {"title": "Another sale", "pay_within_s": 60, "closes_at": None}):
        assert await _change(shop, sale_id, **same) == before, "nothing is changed or recorded"
    assert len(await _log(shop, sale_id)) == len(values) + 1
    with pytest.raises(NoSuchSale):
        await _change(shop, "missing", title="A")


async def test_currency_of_items_and_unknown_currency_are_refused(shop: CliServices, sale_id: str) -> None:
    await make_sale(shop, sale_id, ITEMS, opened=False)
    with pytest.raises(InvalidSaleState, match="its items are in CNY; remove them first"):
        await _change(shop, sale_id, currency="GBP")
    for sku in ITEMS:
        await shop.sale_changes.remove_item(sale_id, sku, "test")
    with pytest.raises(Invalid, match="ZZZ"):
        await _change(shop, sale_id, currency="ZZZ")
    async with shop.db.connection() as connection:
        await connection.execute("INSERT INTO freight_templates VALUES ('post', 1, 'CNY', 'pieces', 0, now(), 'test')")
        await connection.execute("UPDATE sales SET freight_template = 'post'")
        with pytest.raises(InvalidSaleState, match="its freight template post is in CNY"):
            await _change(shop, sale_id, currency="GBP")
        await connection.execute("UPDATE sales SET freight_template = NULL")
        await _add_promotion(connection, sale_id)
        with pytest.raises(InvalidSaleState, match="its promotions are in CNY"):
            await _change(shop, sale_id, currency="GBP")
        await connection.execute("DELETE FROM promotions")
    assert (await _change(shop, sale_id, currency="GBP")).currency == "GBP"


async def test_end_in_the_past_or_before_the_opening_is_refused(shop: CliServices, sale_id: str) -> None:
    now = _now(shop)
    await make_sale(shop, sale_id, ITEMS, opens_at=now - 2 * HOUR, closes_at=now + HOUR, opened=False)
    before = await shop.sales.get(sale_id)
    for is_opened in (False, True):
        if is_opened:
            before = await shop.sales.open(sale_id, "test")
        with pytest.raises(Invalid, match="closes_at is past; name a later moment, or end an opened sale") as refused:
            await _change(shop, sale_id, closes_at=now - HOUR)
        assert refused.value.extra["errors"][0]["pointer"] == "/closes_at"
        with pytest.raises(Invalid, match="closes_at must be after opens_at"):
            await _change(shop, sale_id, closes_at=now - 3 * HOUR)
    assert await shop.sales.get(sale_id) == before


async def test_opened_sale_keeps_currency_and_opening_and_changes_the_rest(shop: CliServices, sale_id: str) -> None:
    now = _now(shop)
    keys = await make_sale(shop, sale_id, ITEMS, opens_at=now - HOUR)
    for state in (SaleState.OPEN, SaleState.PAUSED):
        for fixed in ({"currency": "GBP"}, {"opens_at": now + HOUR}):
            with pytest.raises(InvalidSaleState, match=f"cannot change {next(iter(fixed))} of .* close it and create"):
                await _change(shop, sale_id, title="Not this either", **fixed)
        changed = await _change(
            shop, sale_id, title=f"It is {state}", closes_at=now + HOUR, pay_within_s=60, currency="CNY"
        )
        assert (changed.title, changed.state, changed.pay_within_s) == (f"It is {state}", state, 60)
        assert changed.published_generation == changed.generation, "orders on the old terms are refused from here on"
        assert int(await shop.redis.hget(keys.meta, "closes_ms")) == to_ms(now + HOUR)
        if state is SaleState.OPEN:
            await shop.sales.pause(sale_id, "test")
    await shop.sales.close(sale_id, "test")
    for value in ({"title": "Closed"}, {"closes_at": now + 2 * HOUR}, {"closes_at": None}, {"pay_within_s": 90}):
        with pytest.raises(InvalidSaleState, match="it is closed; create another sale"):
            await _change(shop, sale_id, **value)


async def test_shortened_end_ends_the_sale_in_redis_and_is_not_moved_again(shop: CliServices, sale_id: str) -> None:
    keys = await make_sale(shop, sale_id, ITEMS, closes_at=_now(shop) + HOUR)
    await _change(shop, sale_id, closes_at=_now(shop) + timedelta(seconds=2))

    async def order() -> ReserveOutcome:
        [result] = await reserve(shop.redis, keys, reservation(shop.ids.new, sale_id, {"a": 1}))
        return result.outcome

    assert await order() is ReserveOutcome.ACCEPTED
    for closes_at in (_now(shop) + HOUR, None):
        with pytest.raises(InvalidSaleState, match="it is over, or will be within seconds; create another sale"):
            await _change(shop, sale_id, closes_at=closes_at)

    async def is_closed() -> bool:
        return await order() is ReserveOutcome.CLOSED

    await eventually(is_closed)
    with pytest.raises(InvalidSaleState, match="it is over"):
        await _change(shop, sale_id, closes_at=_now(shop) + HOUR)
    assert await order() is ReserveOutcome.CLOSED


async def test_keys_of_a_moved_end_live_until_days_after_the_end_that_redis_has(
    shop: CliServices, sale_id: str
) -> None:
    now, days = _now(shop), timedelta(days=4)
    await make_sale(shop, sale_id, ITEMS, closes_at=now + 10 * days)
    earlier = await _change(shop, sale_id, closes_at=now + HOUR)
    assert earlier.has_live_keys(now + HOUR)
    assert not earlier.has_live_keys(now + HOUR + days)
    unpublished = msgspec.structs.replace(earlier, generation=earlier.generation + 1)
    assert unpublished.has_live_keys(now + HOUR + days), "Redis still has the later end"
    later = await _change(shop, sale_id, closes_at=now + 2 * days)
    assert later.has_live_keys(now + HOUR + days)
    assert (await _change(shop, sale_id, closes_at=None)).has_live_keys(now + 100 * days)


async def test_opening_before_the_end_of_the_room_s_list_is_refused(shop: CliServices, sale_id: str) -> None:
    opens_at = _now(shop) + 3 * HOUR
    await make_sale(shop, sale_id, ITEMS, opens_at=opens_at, opened=False)
    room = RoomSettings("on", _now(shop))
    await shop.rooms.put(sale_id, room, "test")
    with pytest.raises(InvalidSaleState, match=f"first close it earlier with `floodgate room set {sale_id} --list"):
        await _change(shop, sale_id, opens_at=opens_at - HOUR)
    assert (await _change(shop, sale_id, opens_at=opens_at + HOUR)).opens_at == opens_at + HOUR
    assert (await shop.rooms.get(sale_id)).list_closes_at == opens_at, "what was announced stays"
    await shop.rooms.put(sale_id, msgspec.structs.replace(room, list_closes_at=opens_at - 2 * HOUR), "test")
    assert (await _change(shop, sale_id, opens_at=opens_at - HOUR)).opens_at == opens_at - HOUR
    async with shop.db.connection() as connection:
        await connection.execute("UPDATE waiting_rooms SET state = 'ended', ended_at = now()")
    with pytest.raises(InvalidSaleState, match="its waiting room ended with the previous end"):
        await _change(shop, sale_id, closes_at=opens_at + HOUR)


async def test_room_that_is_set_up_while_the_opening_moves_is_refused(
    shop: CliServices, sale_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    opens_at = _now(shop) + 3 * HOUR
    await make_sale(shop, sale_id, ITEMS, opens_at=opens_at, opened=False)
    get = type(shop.sales).get

    async def get_and_move(sales: Any, sale_id: str) -> Sale:
        monkeypatch.undo()
        sale = await get(sales, sale_id)
        await _change(shop, sale_id, opens_at=opens_at - 2 * HOUR)
        return sale

    monkeypatch.setattr(type(shop.sales), "get", get_and_move)
    with pytest.raises(InvalidRoomState, match="was changed at this moment"):
        await shop.rooms.put(sale_id, RoomSettings("on", _now(shop)), "test")
    with pytest.raises(NoRoom):
        await shop.rooms.get(sale_id)


async def test_deleted_draft_leaves_its_log_and_its_id(shop: CliServices, sale_id: str) -> None:
    keys = await make_sale(shop, sale_id, ITEMS, opens_at=_now(shop) + HOUR, opened=False)
    await shop.wait_lists.put(sale_id, WaitListSettings(), "test")
    room = RoomSettings("on", _now(shop))
    await shop.rooms.put(sale_id, room, "test")
    await lua.stage_room(shop.redis, keys, "open", 0, 7, (await lua.read_room(shop.redis, keys)).run_id)
    with pytest.raises(InvalidSaleState, match=f"first turn it off with `floodgate room set {sale_id} --off`"):
        await shop.sale_changes.delete(sale_id, "test")
    await shop.rooms.put(sale_id, msgspec.structs.replace(room, mode="off"), "test")
    await shop.sale_changes.delete(sale_id, "ann")
    with pytest.raises(NoSuchSale):
        await shop.sale_changes.delete(sale_id, "ann")
    assert not await shop.redis.exists(keys.room, keys.room_meta, keys.room_left)
    async with shop.db.connection() as connection:
        for table in ("sales", "sale_items", "promotions", "wait_lists", "waiting_rooms", "waiting_room_lists"):
            assert await connection.fetchval(f"SELECT count(*) FROM {table}") == 0, table
    assert (await _log(shop, sale_id))[-1] == ("delete", {"title": "A sale"})
    await make_sale(shop, sale_id, ITEMS)


async def test_deletion_names_the_rows_in_its_way(
    shop: CliServices, sale_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await make_sale(shop, sale_id, ITEMS, opens_at=_now(shop) + HOUR, opened=False)
    await shop.rooms.put(sale_id, RoomSettings("automatic", _now(shop)), "test")
    async with shop.db.connection() as connection:
        await connection.execute(
            "CREATE TABLE vouchers (sale_id text REFERENCES sales, sku text, "
            "FOREIGN KEY (sale_id, sku) REFERENCES sale_items)"
        )
        await connection.execute("INSERT INTO vouchers VALUES ($1, NULL), ($1, 'a')", sale_id)
        await _add_promotion(connection, sale_id)
        with pytest.raises(InvalidSaleState, match="its promotion ten-off names it; change that first"):
            await shop.sale_changes.remove_item(sale_id, "b", "test")
        with pytest.raises(InvalidSaleState, match=r"cannot remove a of .*: rows of vouchers refer to it"):
            await shop.sale_changes.remove_item(sale_id, "a", "test")
        for _ in range(2):
            with pytest.raises(InvalidSaleState, match=r"cannot delete .*: rows of vouchers refer to it"):
                await shop.sale_changes.delete(sale_id, "test")
            await connection.execute("UPDATE vouchers SET sku = NULL")
        await connection.execute("DROP TABLE vouchers")

    async def break_down(*_: object) -> None:
        raise RedisConnectionError("down")

    monkeypatch.setattr(service, "forget_room", break_down)
    with pytest.raises(NotReady, match="Redis may have its room"):
        await shop.sale_changes.delete(sale_id, "test")
    monkeypatch.undo()
    assert [action for action, _ in await _log(shop, sale_id)] == ["create", "room"], "nothing is half done"
    assert len((await shop.sales.list_items(sale_id, None, 10)).items) == len(ITEMS)
    await shop.sale_changes.delete(sale_id, "test")


async def test_opened_sale_is_not_deleted_and_keeps_its_items(shop: CliServices, sale_id: str) -> None:
    await make_sale(shop, sale_id, ITEMS)
    for method in ("open", "pause", "close"):
        await getattr(shop.sales, method)(sale_id, "test")
        with pytest.raises(InvalidSaleState, match="only a draft can be deleted"):
            await shop.sale_changes.delete(sale_id, "test")
        with pytest.raises(InvalidSaleState, match="take its free units away with `floodgate sale change-stock`"):
            await shop.sale_changes.remove_item(sale_id, "a", "test")
    assert len((await shop.sales.list_items(sale_id, None, 10)).items) == len(ITEMS)


async def test_deletion_and_opening_at_once_have_one_winner(shop: CliServices, sale_id: str) -> None:
    await make_sale(shop, sale_id, ITEMS, opened=False)
    deleted, opened = await asyncio.gather(
        shop.sale_changes.delete(sale_id, "ann"), shop.sales.open(sale_id, "ben"), return_exceptions=True
    )
    if deleted is None:
        assert isinstance(opened, NoSuchSale)
    else:
        assert isinstance(deleted, InvalidSaleState)
        assert (await shop.sales.get(sale_id)).is_loaded


async def test_items_of_a_draft_change_in_units_and_are_removed(shop: CliServices, sale_id: str) -> None:
    keys = SaleKeys(sale_id)
    await make_sale(shop, sale_id, ITEMS, opened=False)
    generation = (await shop.sales.get(sale_id)).generation
    item = await shop.sales.change_item(sale_id, "a", 90, 4, "test", 8)
    assert (item.price, item.limit_per_user, item.initial_units) == (90, 4, 8)
    await shop.sale_changes.remove_item(sale_id, "b", "test")
    with pytest.raises(NoSuchItem):
        await shop.sale_changes.remove_item(sale_id, "b", "test")
    assert (await shop.sales.get(sale_id)).generation == generation + 2
    assert (await _log(shop, sale_id))[-1] == ("remove_item", {"sku": "b", "price": 200, "limit": 2, "units": 3})
    async with shop.db.connection() as connection:
        bound = await connection.fetchval("SELECT limit_bound FROM sale_items WHERE sale_id = $1", sale_id)
    assert bound == 4, "no customer bought before there was a limit"
    await shop.sales.open(sale_id, "test")
    assert (await lua.cut(shop.redis, keys)).stock == {"a": 8}
    with pytest.raises(InvalidSaleState, match="was opened; change its stock instead"):
        await shop.sales.change_item(sale_id, "a", 80, 3, "test", 9)
    assert (await shop.sales.get_item(sale_id, "a")).price == 90
    assert (await shop.sales.change_item(sale_id, "a", 80, 3, "test", 8)).price == 80, "the same units are no change"
