"""Sales: creation, states, terms, stock changes, and synchronisation with Redis."""

from __future__ import annotations

from datetime import timedelta

import asyncpg
import msgspec
import pytest

import lua
from commerce.catalog.model import VariantInput
from commerce.kernel.clock import from_ms
from commerce.kernel.errors import Conflict, Invalid, KeyReused
from commerce.sales.errors import InvalidSaleState, NoSuchSale, NotEnoughFreeUnits
from commerce.sales.loading import load_sale
from commerce.sales.model import ItemInput, SaleInput, SaleState, StockChangeInput
from lua import ReserveOutcome
from ops.services import CliServices
from tests.support.sales import make_sale, reservation, reserve


def sale_input(shop: CliServices, sale_id: str, **changes: object) -> SaleInput:
    sale = SaleInput(sale_id, "A sale", "CNY", from_ms(shop.clock.now_ms()))
    return msgspec.structs.replace(sale, **changes)


async def test_sale_changes_through_all_states(shop: CliServices, sale_id: str) -> None:
    keys = await make_sale(shop, sale_id, {"a": (5, 100, None)}, opened=False)
    assert (await shop.sales.get(sale_id)).state is SaleState.DRAFT
    assert await lua.read_loaded_epoch(shop.redis, keys) == 0
    for method, state in (("open", "open"), ("pause", "paused"), ("open", "open"), ("close", "closed")):
        sale = await getattr(shop.sales, method)(sale_id, "test")
        assert sale.state == state
        assert sale.is_loaded
        assert sale.published_generation == sale.generation
    with pytest.raises(InvalidSaleState):
        await shop.sales.open(sale_id, "test")
    async with shop.db.connection() as connection:
        rows = await connection.fetch("SELECT actor, action FROM sale_log ORDER BY log_id")
    assert [row["action"] for row in rows] == ["create", "open", "paused", "open", "closed"]
    assert {row["actor"] for row in rows} == {"test"}


async def test_database_sets_closed_at_only_when_sale_is_closed(shop: CliServices, sale_id: str) -> None:
    """Whichever program closes it."""
    await make_sale(shop, sale_id, {"a": (5, 100, None)})
    assert (await shop.sales.pause(sale_id, "test")).closed_at is None
    async with shop.db.connection() as connection:
        with pytest.raises(asyncpg.CheckViolationError):
            await connection.execute("UPDATE sales SET closed_at = now() WHERE sale_id = $1", sale_id)
        await connection.execute("UPDATE sales SET state = 'closed' WHERE sale_id = $1", sale_id)
        closed = (await shop.sales.get(sale_id)).closed_at
        assert closed is not None
        await connection.execute("UPDATE sales SET state = state, generation = generation + 1")
        with pytest.raises(asyncpg.CheckViolationError):
            await connection.execute("UPDATE sales SET closed_at = NULL WHERE sale_id = $1", sale_id)
    assert (await shop.sales.get(sale_id)).closed_at == closed


@pytest.mark.parametrize(
    ("closed_days", "closes_days", "published", "live"),
    [
        (None, None, True, True),
        (None, +1, True, True),
        (None, -2, True, True),
        (None, -4, True, False),
        (-2, None, True, True),
        (-4, None, True, False),
        (-4, +1, True, False),
        (-1, -4, True, False),
        (-4, None, False, True),
    ],
)
async def test_keys_of_sale_are_live_until_days_after_its_end(
    shop: CliServices, sale_id: str, closed_days: int | None, closes_days: int | None, published: bool, live: bool
) -> None:
    now = from_ms(shop.clock.now_ms())
    closed_at, closes_at = (None if days is None else now + timedelta(days=days) for days in (closed_days, closes_days))
    await make_sale(shop, sale_id, {"a": (5, 100, None)})
    sale = msgspec.structs.replace(await shop.sales.get(sale_id), closed_at=closed_at, closes_at=closes_at)
    if not published:
        sale = msgspec.structs.replace(sale, generation=sale.generation + 1)
    assert sale.has_live_keys(now) is live


async def test_state_change_repeated_changes_nothing(shop: CliServices, sale_id: str) -> None:
    await make_sale(shop, sale_id, {"a": (5, 100, None)})
    first = await shop.sales.pause(sale_id, "test")
    assert await shop.sales.pause(sale_id, "test") == first


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"currency": "XYZ"}, "not an ISO 4217"),
        ({"closes_at": from_ms(10**12)}, "must be after"),
    ],
)
async def test_sale_with_invalid_terms_is_refused(
    shop: CliServices, sale_id: str, changes: dict[str, object], reason: str
) -> None:
    with pytest.raises(Invalid, match=reason):
        await shop.sales.create(sale_input(shop, sale_id, **changes), [], "test")


async def test_items_without_product_in_currency_of_sale_are_refused(shop: CliServices, sale_id: str) -> None:
    await shop.catalog.put("pound", VariantInput("a thing", 100, "GBP"))
    await shop.catalog.put("yuan", VariantInput("a thing", 100, "CNY"))
    for items, reason in (
        ([("none", ItemInput(units=1))], "no such product: none"),
        ([("pound", ItemInput(units=1))], "not priced in CNY: pound"),
        ([("yuan", ItemInput(units=1)), ("yuan", ItemInput(units=2))], "occurs twice"),
    ):
        with pytest.raises(Invalid, match=reason):
            await shop.sales.create(sale_input(shop, sale_id), items, "test")
    with pytest.raises(NoSuchSale):
        await shop.sales.get(sale_id)


async def test_sale_with_used_id_is_refused(shop: CliServices, sale_id: str) -> None:
    await make_sale(shop, sale_id, {"a": (5, 100, None)})
    with pytest.raises(Conflict, match="already"):
        await shop.sales.create(sale_input(shop, sale_id), [], "test")


async def test_empty_or_past_sale_is_not_opened(shop: CliServices, sale_prefix: str) -> None:
    await shop.sales.create(sale_input(shop, f"{sale_prefix}-empty"), [], "test")
    with pytest.raises(InvalidSaleState, match="has no items"):
        await shop.sales.open(f"{sale_prefix}-empty", "test")
    now = from_ms(shop.clock.now_ms())
    past = {"opens_at": now - timedelta(hours=2), "closes_at": now - timedelta(hours=1)}
    await make_sale(shop, f"{sale_prefix}-past", {"a": (5, 100, None)}, **past, opened=False)  # type: ignore[arg-type]
    with pytest.raises(InvalidSaleState, match="past"):
        await shop.sales.open(f"{sale_prefix}-past", "test")


async def test_item_added_to_running_sale_has_no_stock(shop: CliServices, sale_id: str) -> None:
    keys = await make_sale(shop, sale_id, {"a": (5, 100, None)})
    await shop.catalog.put("new", VariantInput("new", 70, "CNY"))
    with pytest.raises(InvalidSaleState, match="0 units"):
        await shop.sales.put_items(sale_id, [("new", ItemInput(units=3))], "test")
    await shop.sales.put_items(sale_id, [("new", ItemInput())], "test")
    generation = (await shop.sales.get(sale_id)).generation
    order = reservation(shop.ids.new, sale_id, {"new": 1}, generation=generation)
    assert [answer.outcome for answer in await reserve(shop.redis, keys, order)] == [ReserveOutcome.SOLD_OUT]
    await shop.stock.change(sale_id, shop.ids.new(), StockChangeInput("new", 3, "arrived"), "test")
    assert [answer.outcome for answer in await reserve(shop.redis, keys, order)] == [ReserveOutcome.ACCEPTED]
    with pytest.raises(InvalidSaleState, match="change its terms"):
        await shop.sales.put_items(sale_id, [("new", ItemInput())], "test")
    assert (await shop.audit.audit_sale(sale_id)).clean


async def test_stock_change_repeated_is_applied_once(shop: CliServices, sale_id: str) -> None:
    keys = await make_sale(shop, sale_id, {"a": (5, 100, None)})
    change_id = shop.ids.new()
    change = StockChangeInput("a", 3, "found some")
    first = await shop.stock.change(sale_id, change_id, change, "ann")
    repeated = await shop.stock.change(sale_id, change_id, change, "ann")
    assert first == repeated
    assert (first.status, first.actor, first.reason) == ("applied", "ann", "found some")
    assert (await lua.cut(shop.redis, keys)).stock == {"a": 8}
    with pytest.raises(KeyReused, match="another change"):
        await shop.stock.change(sale_id, change_id, StockChangeInput("a", 4, "x"), "ann")
    with pytest.raises(NotEnoughFreeUnits, match="8 units of a are free, so 9 cannot"):
        await shop.stock.change(sale_id, shop.ids.new(), StockChangeInput("a", -9, "x"), "ann")
    with pytest.raises(Invalid):
        await shop.stock.change(sale_id, shop.ids.new(), StockChangeInput("a", 0, "x"), "ann")
    with pytest.raises(NoSuchSale):
        await shop.stock.change(sale_id, shop.ids.new(), StockChangeInput("zz", 1, "x"), "ann")
    assert [change.status for change in await shop.stock.list_changes(sale_id, 10)] == ["refused", "applied"]
    assert (await shop.audit.audit_sale(sale_id)).clean


async def test_stock_change_of_draft_is_refused(shop: CliServices, sale_id: str) -> None:
    await make_sale(shop, sale_id, {"a": (5, 100, None)}, opened=False)
    with pytest.raises(InvalidSaleState):
        await shop.stock.change(sale_id, shop.ids.new(), StockChangeInput("a", 1, "x"), "ann")


async def test_stock_change_of_unloaded_sale_waits(shop: CliServices, sale_id: str) -> None:
    keys = await make_sale(shop, sale_id, {"a": (5, 100, None)})
    await shop.redis.delete(keys.meta)
    change = await shop.stock.change(sale_id, shop.ids.new(), StockChangeInput("a", 3, "more"), "test")
    assert (change.status, change.last_error) == ("pending", "the sale is not loaded in Redis")
    await load_sale(shop.db, shop.redis, shop.clock, sale_id)
    async with shop.db.connection() as connection:
        await connection.execute("UPDATE jobs SET due_at = now() - interval '1 second'")
    assert await shop.stock.apply_due_changes() == 1
    assert (await lua.cut(shop.redis, keys)).stock == {"a": 8}


async def test_unpublished_change_is_synced_later(shop: CliServices, sale_id: str) -> None:
    """The process that opened or paused the sale died before it published the change."""
    keys = await make_sale(shop, sale_id, {"a": (5, 100, None)}, opened=False)
    async with shop.db.connection() as connection:
        await connection.execute("UPDATE sales SET state = 'open', epoch = 1 WHERE sale_id = $1", sale_id)
    assert [sale.sale_id for sale in await shop.sales.list_out_of_sync()] == [sale_id]
    assert await shop.sales.sync_to_redis(sale_id)
    assert await lua.read_loaded_epoch(shop.redis, keys) == 2
    async with shop.db.connection() as connection:
        await connection.execute(
            "UPDATE sales SET state = 'paused', generation = generation + 1 WHERE sale_id = $1", sale_id
        )
    assert await shop.sales.sync_to_redis(sale_id)
    [answer] = await reserve(shop.redis, keys, reservation(shop.ids.new, sale_id, {"a": 1}))
    assert answer.outcome is ReserveOutcome.PAUSED
    assert await shop.sales.list_out_of_sync() == []


async def test_wiped_sale_is_not_rebuilt_automatically(shop: CliServices, sale_id: str) -> None:
    keys = await make_sale(shop, sale_id, {"a": (5, 100, None)})
    await shop.redis.delete(keys.meta)
    sale = await shop.sales.pause(sale_id, "test")
    assert sale.published_generation < sale.generation
    assert await lua.read_loaded_epoch(shop.redis, keys) == 0


async def test_free_units_of_several_sales_leave_out_unknown_items(shop: CliServices, sale_prefix: str) -> None:
    first, second = f"{sale_prefix}-a", f"{sale_prefix}-b"
    keys = await make_sale(shop, first, dict.fromkeys("abc", (5, 100, 2)))
    await make_sale(shop, second, {"a": (7, 100, None)})
    await reserve(shop.redis, keys, reservation(shop.ids.new, first, {"b": 2}))
    items = [(first, "a"), (first, "b"), (second, "a"), (second, "none"), ("no-sale", "a")]
    assert await shop.sales.read_free_units(items) == {(first, "a"): 5, (first, "b"): 3, (second, "a"): 7}


async def test_snapshot_with_previous_one_has_changed_terms(shop: CliServices, sale_id: str) -> None:
    await make_sale(shop, sale_id, dict.fromkeys("abc", (5, 100, None)))
    first = await shop.sales.read_snapshot(await shop.sales.get(sale_id), None)
    assert first.items == dict.fromkeys("abc", (100, 0, 100, 0))
    await shop.sales.change_item(sale_id, "b", 70, 4, "test")
    second = await shop.sales.read_snapshot(await shop.sales.get(sale_id), first)
    assert second.items == {"a": (100, 0, 100, 0), "b": (70, 4, 100, 0), "c": (100, 0, 100, 0)}
    assert first.items["b"] == (100, 0, 100, 0)
