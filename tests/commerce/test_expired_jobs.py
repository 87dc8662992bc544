"""Jobs that are too old for Redis: a load counts each once, applied before or not (P5)."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

import lua
from commerce.kernel.clock import to_ms
from commerce.kernel.jobs import RetryPolicy
from commerce.reservations.service import Reservations
from commerce.sales import loading
from commerce.sales.loading import load_sale
from commerce.sales.model import StockChangeInput
from config.settings import Settings
from lua import SaleKeys
from ops.services import CliServices
from tests.support.due_jobs import put_due
from tests.support.gateway import run_workers
from tests.support.sales import eventually, expire_all, make_sale, reservation, reserve

POLICY = RetryPolicy(initial_ms=1, max_s=1, lease_s=0, rows_per_claim=100)


@pytest.fixture
async def keys(shop: CliServices, sale_id: str) -> SaleKeys:
    return await make_sale(shop, sale_id, {"a": (10, 100, 5)})


@pytest.fixture
async def reservations(shop: CliServices) -> AsyncIterator[Reservations]:
    return Reservations(shop.db, shop.redis, shop.clock, POLICY)


async def is_drained(shop: CliServices, keys: SaleKeys) -> bool:
    return (await lua.read_backlog(shop.redis, keys)).orders == 0


async def age(shop: CliServices, keys: SaleKeys, table: str) -> None:
    """Simulate nine days: rows become older, and Redis forgets which changes it applied."""
    async with shop.db.connection() as connection:
        for row in await connection.fetch(f"SELECT created_at FROM {table}"):
            await shop.redis.delete(keys.changes(to_ms(row["created_at"]) // 86_400_000))
        await connection.execute(f"UPDATE {table} SET created_at = created_at - interval '9 days'")


async def statuses(shop: CliServices, table: str) -> list[str]:
    """Return the statuses of the rows in their sequence, `parked` if the job of one is."""
    column = {"releases": "release_id", "stock_changes": "change_id"}[table]
    async with shop.db.connection() as connection:
        rows = await connection.fetch(
            f"SELECT CASE WHEN parked THEN 'parked' ELSE status END FROM {table} LEFT JOIN jobs ON subject = {column} "
            f"ORDER BY {table}.created_at"
        )
    return [row[0] for row in rows]


async def stock_and_purchases(
    shop: CliServices, sale_id: str, keys: SaleKeys
) -> tuple[dict[str, int], dict[bytes, int]]:
    """Return free units and purchases in Redis, after a clean audit."""
    audit = await shop.audit.audit_sale(sale_id)
    assert audit.clean, audit.findings
    return (await lua.cut(shop.redis, keys)).stock, await lua.read_units_taken(shop.redis, keys)


async def place_expired_order(
    shop: CliServices, settings: Settings, sale_id: str, keys: SaleKeys, reservations: Reservations
) -> None:
    """Place an order of 2 units that stays, and one of 3 units of the same user that expires."""
    for units in (3, 2):
        await reserve(shop.redis, keys, reservation(shop.ids.new, sale_id, {"a": units}, limits={"a": 5}))
        async with run_workers(settings, "order_writer"):
            await eventually(lambda: is_drained(shop, keys))
        if units == 3:
            await expire_all(shop)
            assert await reservations.expire_unpaid_orders() == 1


@pytest.mark.parametrize("applied_before", [True, False])
@pytest.mark.parametrize("parked", [True, False])
async def test_load_with_expired_release_counts_it_once(
    shop: CliServices,
    settings: Settings,
    sale_id: str,
    keys: SaleKeys,
    reservations: Reservations,
    parked: bool,
    applied_before: bool,
) -> None:
    await place_expired_order(shop, settings, sale_id, keys, reservations)
    if applied_before:
        async with shop.db.connection() as connection:
            row = await connection.fetchrow("SELECT release_id, created_at FROM releases")
        assert row is not None
        release = lua.Release(row["release_id"], to_ms(row["created_at"]), "user", {"a": 3})
        await lua.release(shop.redis, keys, [release])
    await age(shop, keys, "releases")
    if parked:
        assert await reservations.apply_due_releases() == 1
        assert await statuses(shop, "releases") == ["parked"]
    report = await load_sale(shop.db, shop.redis, shop.clock, sale_id)
    assert report.resolved_jobs == 1
    assert await statuses(shop, "releases") == ["applied"]
    assert await stock_and_purchases(shop, sale_id, keys) == ({"a": 8}, {b"user\0a": 2})
    assert await reservations.apply_due_releases() == 0
    assert (await load_sale(shop.db, shop.redis, shop.clock, sale_id)).resolved_jobs == 0
    assert await stock_and_purchases(shop, sale_id, keys) == ({"a": 8}, {b"user\0a": 2})


@pytest.mark.parametrize("parked", [True, False])
async def test_load_with_expired_stock_changes_applies_or_refuses_each(
    shop: CliServices, sale_id: str, keys: SaleKeys, parked: bool
) -> None:
    """A change that removes more than the free units is refused, even if Redis applied it before."""
    await reserve(shop.redis, keys, reservation(shop.ids.new, sale_id, {"a": 5}, limits={"a": 5}))
    async with shop.db.connection() as connection:
        for second, delta in enumerate((-4, 3, -7, -2)):
            await connection.execute(
                "INSERT INTO stock_changes (change_id, sale_id, sku, delta, reason, actor, created_at) "
                "VALUES ($1, $2, 'a', $3, 'counted', 'test', now() + $4 * interval '1 s')",
                change_id := shop.ids.new(), sale_id, delta, second,
            )  # fmt: skip
            await put_due(connection, "stock_changes", "stock_change.apply", change_id)
    await age(shop, keys, "stock_changes")
    if parked:
        assert await shop.stock.apply_due_changes() == 4
        assert await statuses(shop, "stock_changes") == ["parked"] * 4
        assert "floodgate rebuild" in ((await shop.stock.list_changes(sale_id, 1))[0].last_error or "")
    report = await load_sale(shop.db, shop.redis, shop.clock, sale_id)
    assert report.resolved_jobs == 4
    assert await statuses(shop, "stock_changes") == ["applied", "applied", "refused", "applied"]
    assert (await stock_and_purchases(shop, sale_id, keys))[0] == {"a": 10 - 5 - 4 + 3 - 2}
    assert await shop.stock.apply_due_changes() == 0


async def test_load_with_recent_release_leaves_it_to_worker(
    shop: CliServices, settings: Settings, sale_id: str, keys: SaleKeys, reservations: Reservations
) -> None:
    await place_expired_order(shop, settings, sale_id, keys, reservations)
    async with shop.db.connection() as connection:
        await connection.execute("UPDATE releases SET created_at = created_at - interval '6 days'")
    assert (await load_sale(shop.db, shop.redis, shop.clock, sale_id)).resolved_jobs == 0
    assert await stock_and_purchases(shop, sale_id, keys) == ({"a": 5}, {b"user\0a": 5})
    assert await reservations.apply_due_releases() == 1
    assert await stock_and_purchases(shop, sale_id, keys) == ({"a": 8}, {b"user\0a": 2})


async def test_load_killed_before_its_end_counts_release_once(
    shop: CliServices,
    settings: Settings,
    sale_id: str,
    keys: SaleKeys,
    reservations: Reservations,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Redis has the units and the row is not marked. The next load counts from the rows: once."""
    await place_expired_order(shop, settings, sale_id, keys, reservations)
    await age(shop, keys, "releases")
    await shop.stock.change(sale_id, shop.ids.new(), StockChangeInput("a", 1, "more"), "test")
    with monkeypatch.context() as patch:
        patch.setattr(loading, "_end_load", _raise_error)
        with pytest.raises(SystemError):
            await load_sale(shop.db, shop.redis, shop.clock, sale_id)
    assert (await lua.cut(shop.redis, keys)).stock == {"a": 9}
    assert await reservations.apply_due_releases() == 1
    assert await statuses(shop, "releases") == ["parked"]
    assert await shop.sales.sync_to_redis(sale_id)
    assert await statuses(shop, "releases") == ["applied"]
    assert await stock_and_purchases(shop, sale_id, keys) == ({"a": 9}, {b"user\0a": 2})


async def _raise_error(*_: object) -> None:
    raise SystemError
