"""Migration 0058 makes a product with one variant of each SKU, and changes nothing that orders read."""

from __future__ import annotations

import asyncpg
import pytest

from commerce.kernel import migrations
from commerce.kernel.migrations import load_migrations, migrate
from tests.ops.test_migrations import empty_url

__all__ = ["empty_url"]
_ITEMS = "SELECT sku, name, variants.price_minor, sale_items.price_minor FROM sale_items JOIN {} USING (sku) ORDER BY 1"


async def test_each_sku_becomes_a_product_with_one_variant(empty_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    connection = await asyncpg.connect(empty_url)
    every = load_migrations()
    monkeypatch.setattr(migrations, "load_migrations", lambda: every[:57])
    await migrate(connection)
    await connection.execute(
        "INSERT INTO products SELECT 'S' || n, CASE WHEN n % 2 = 0 THEN 'Thing ' ELSE '红灯笼 ' END || n, 100 + n, "
        "'CNY', '2026-01-01', '2026-02-01' FROM generate_series(1, 2000) AS n;"
        "INSERT INTO sales (sale_id, title, currency, state, opens_at, pay_within_s, epoch, created_at) "
        "VALUES ('s', 'A sale', 'CNY', 'open', now(), 900, 1, now());"
        "INSERT INTO sale_items (sale_id, sku, price_minor, initial_units, changed_generation) "
        "VALUES ('s', 'S1', 90, 9, 1), ('s', 'coupon:X', 0, 9, 1)"
    )
    before = await connection.fetch(_ITEMS.format("products AS variants"))
    generation = await connection.fetchval("SELECT generation FROM sales")
    monkeypatch.setattr(migrations, "load_migrations", lambda: every)
    await migrate(connection)

    assert await connection.fetch(_ITEMS.format("variants")) == before
    assert await connection.fetchval("SELECT generation FROM sales") == generation, "gateways read nothing again"
    counts = await connection.fetchrow(
        "SELECT (SELECT count(*) FROM products WHERE status = 'on_sale' AND version = 1) AS products, "
        "(SELECT count(*) FROM variants WHERE product_id = sku AND option_values = '{}') AS variants, "
        "(SELECT count(*) FROM product_texts JOIN variants USING (product_id, name)) AS texts, "
        "(SELECT count(*) FROM product_changes) AS changes, "
        "(SELECT count(*) FROM price_changes JOIN variants USING (sku, price_minor, currency)) AS prices"
    )
    assert set(counts.values()) == {2000}
    rows = await connection.fetch("SELECT language, count(*) FROM product_texts GROUP BY 1 ORDER BY 1")
    assert [tuple(row) for row in rows] == [("en", 1000), ("zh", 1000)]
    with pytest.raises(asyncpg.ForeignKeyViolationError):
        await connection.execute("DELETE FROM variants WHERE sku = 'S1'")
    await connection.execute("UPDATE variants SET price_minor = 1 WHERE sku = 'S1'")
    assert await connection.fetchval("SELECT generation FROM sales") == generation + 1, (
        "the trigger is the variants' now"
    )
    names = await connection.fetch(
        "SELECT conname FROM pg_constraint WHERE conrelid = 'variants'::regclass AND conname LIKE 'products%'"
    )
    assert names == []
    await connection.close()
