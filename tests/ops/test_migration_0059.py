"""The migration that moves weight and size to variants."""

from __future__ import annotations

import asyncpg
import pytest

from commerce.kernel import migrations
from commerce.kernel.migrations import load_migrations, migrate
from tests.ops.test_migrations import empty_url

__all__ = ["empty_url"]

_BEFORE = next(number for number, file in enumerate(load_migrations()) if file.name == "warehouse_stock")


async def test_weights_from_before_are_those_of_variants(empty_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    connection = await asyncpg.connect(empty_url)
    every = load_migrations()
    monkeypatch.setattr(migrations, "load_migrations", lambda: every[:_BEFORE])
    await migrate(connection)
    await connection.execute(
        "INSERT INTO products (product_id, status, created_at, updated_at) "
        "SELECT sku, 'on_sale', now(), now() FROM unnest(ARRAY['a', 'b']) AS sku;"
        "INSERT INTO variants (sku, product_id, name, price_minor, currency, created_at, updated_at) "
        "SELECT product_id, product_id, 'thing', 100, 'CNY', now(), now() FROM products;"
        "INSERT INTO warehouses VALUES ('hz', 'Hangzhou', '{}', 30, 120);"
        "INSERT INTO product_logistics VALUES ('a', 'hz', 'A-01', 500, 10, 20, 30);"
        "INSERT INTO sales (sale_id, title, currency, state, opens_at, pay_within_s, created_at) "
        "VALUES ('sale', 'A sale', 'CNY', 'draft', now(), 900, now());"
        "INSERT INTO sale_items (sale_id, sku, price_minor, initial_units, changed_generation) "
        "VALUES ('sale', 'a', 100, 5, 1), ('sale', 'b', 100, 5, 1)"
    )
    generation = await connection.fetchval("SELECT generation FROM sales")
    monkeypatch.setattr(migrations, "load_migrations", lambda: every)
    await migrate(connection)
    rows = await connection.fetch("SELECT sku, weight_g, length_mm, width_mm, height_mm FROM variants ORDER BY sku")
    assert [tuple(row) for row in rows] == [("a", 500, 10, 20, 30), ("b", None, None, None, None)]
    assert [tuple(row) for row in await connection.fetch("SELECT * FROM product_logistics")] == [("a", "hz", "A-01")]
    assert await connection.fetchval("SELECT count(*) FROM allotted_items") == 0, "sales go on as before"
    assert await connection.fetchval("SELECT generation FROM sales") == generation
    await connection.execute("UPDATE variants SET weight_g = 1, length_mm = 1, width_mm = 1, height_mm = 1")
    assert await connection.fetchval("SELECT generation FROM sales") == generation + 1
    with pytest.raises(asyncpg.CheckViolationError):
        await connection.execute("UPDATE variants SET weight_g = NULL")
    await connection.close()
