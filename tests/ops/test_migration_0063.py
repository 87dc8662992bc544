"""The migration that begins to grade products."""

from __future__ import annotations

import asyncpg
import pytest

from commerce.kernel import migrations
from commerce.kernel.migrations import load_migrations, migrate
from tests.ops.test_migrations import empty_url

__all__ = ["empty_url"]

_BEFORE = next(number for number, file in enumerate(load_migrations()) if file.name == "product_quality")


async def test_products_from_before_are_to_be_graded(empty_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    connection = await asyncpg.connect(empty_url)
    every = load_migrations()
    monkeypatch.setattr(migrations, "load_migrations", lambda: every[:_BEFORE])
    await migrate(connection)
    await connection.execute(
        "INSERT INTO products (product_id, status, created_at, updated_at) VALUES"
        " ('a', 'on_sale', now(), now()), ('b', 'draft', now(), now()), ('c', 'retired', now(), now())"
    )
    monkeypatch.setattr(migrations, "load_migrations", lambda: every)
    await migrate(connection)
    rows = await connection.fetch("SELECT product_id, category_id FROM products_to_grade ORDER BY note_no")
    assert [tuple(row) for row in rows] == [("a", None), ("b", None)]
    with pytest.raises(asyncpg.CheckViolationError):
        await connection.execute("INSERT INTO products_to_grade (product_id, category_id) VALUES ('a', 'b')")
    await connection.close()
