"""Migration 0020 makes jobs of releases and stock changes that are not applied."""

from __future__ import annotations

from uuid import UUID

import asyncpg
import pytest

from commerce.kernel import migrations
from commerce.kernel.migrations import load_migrations, migrate
from tests.ops.test_migrations import empty_url

__all__ = ["empty_url"]

STATUSES = ("pending", "applied", "parked")


async def test_open_releases_and_stock_changes_become_jobs(empty_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    connection = await asyncpg.connect(empty_url)
    every = load_migrations()
    monkeypatch.setattr(migrations, "load_migrations", lambda: every[:19])
    await migrate(connection)
    await connection.execute(
        "INSERT INTO products (sku, name, price_minor, currency, created_at, updated_at) "
        "VALUES ('a', 'A', 1, 'CNY', now(), now());"
        "INSERT INTO sales (sale_id, title, currency, state, opens_at, pay_within_s, epoch, created_at) "
        "VALUES ('s', 'A sale', 'CNY', 'open', now(), 900, 1, now());"
        "INSERT INTO sale_items (sale_id, sku, price_minor, initial_units, changed_generation) "
        "VALUES ('s', 'a', 1, 9, 1)"
    )
    for number, status in enumerate(STATUSES):
        ends = "now(), 1, 1" if status == "applied" else "NULL, NULL, NULL"
        for row in (
            "releases (release_id, sale_id, user_id, units, reason, status, due_at, attempts, last_error, created_at, "
            "ended_at, epoch, seq) VALUES ($1, 's', 'u', '{\"a\": 1}', 'expired', $2, now(), 3, 'late', now()",
            "stock_changes (change_id, sale_id, sku, delta, reason, actor, status, due_at, attempts, last_error, "
            "created_at, ended_at, epoch, seq) VALUES ($1, 's', 'a', 1, 'more', 'x', $2, now(), 3, 'late', now()",
        ):
            await connection.execute(f"INSERT INTO {row}, {ends})", UUID(int=number), status)
    await connection.execute(
        "INSERT INTO stock_changes (change_id, sale_id, sku, delta, reason, actor, status, due_at, last_error, "
        "created_at, ended_at) VALUES ($1, 's', 'a', -9, 'fewer', 'x', 'refused', now(), 'too few', now(), now())",
        UUID(int=3),
    )
    monkeypatch.setattr(migrations, "load_migrations", lambda: every)
    await migrate(connection)

    rows = await connection.fetch("SELECT queue, subject, kind, attempts, parked, last_error FROM jobs ORDER BY 1, 2")
    expected = [(UUID(int=0), False), (UUID(int=2), True)]
    assert [tuple(row) for row in rows] == [
        *(("releases", id_, "release.apply", 3, parked, "late") for id_, parked in expected),
        *(("stock_changes", id_, "stock_change.apply", 3, parked, "late") for id_, parked in expected),
    ]
    for table, id_ in (("releases", "release_id"), ("stock_changes", "change_id")):
        rows = await connection.fetch(f"SELECT status, refused_reason FROM {table} ORDER BY {id_}")
        assert [tuple(row) for row in rows][:3] == [("pending", None), ("applied", None), ("pending", None)]
    rows = await connection.fetch("SELECT refused_reason FROM stock_changes WHERE status = 'refused'")
    assert [tuple(row) for row in rows] == [("too few",)]
    await connection.close()
