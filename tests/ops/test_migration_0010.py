"""Migration 0010 moves times of sales that no process can read to the bounds, and logs it."""

from __future__ import annotations

from itertools import product

import asyncpg
import pytest

from commerce.kernel import migrations
from commerce.kernel.migrations import load_migrations, migrate
from commerce.sales import store
from commerce.sales.loading import terms_of
from tests.ops.test_migrations import empty_url

__all__ = ["empty_url"]

FIRST, SECOND = "2000-01-01T00:00:00+00:00", "2000-01-01T00:00:01+00:00"
LAST_BUT_ONE, LAST = "2999-12-31T23:59:58+00:00", "2999-12-31T23:59:59+00:00"
USUAL = "2026-11-11T00:00:00+00:00"

CASES: dict[str, tuple[str, str | None, str, str | None]] = {
    "usual": (USUAL, "2026-11-12T00:00:00+00:00", USUAL, "2026-11-12T00:00:00+00:00"),
    "never-closes": (USUAL, None, USUAL, None),
    "always-open": ("-infinity", None, FIRST, None),
    "opened-in-year-1": ("0001-06-01T00:00:00Z", USUAL, FIRST, USUAL),
    "closes-at-infinity": (USUAL, "infinity", USUAL, LAST),
    "closes-in-year-9999": (USUAL, "9999-12-31T23:59:59Z", USUAL, LAST),
    "both-in-the-past": ("-infinity", "1999-12-31T23:59:59Z", FIRST, SECOND),
    "both-in-the-future": ("3000-01-01T00:00:00Z", "infinity", LAST_BUT_ONE, LAST),
    "opens-never": ("infinity", None, LAST_BUT_ONE, None),
}


async def test_times_out_of_bounds_are_moved_to_the_bounds(empty_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    connection = await asyncpg.connect(empty_url)
    every = load_migrations()
    monkeypatch.setattr(
        migrations, "load_migrations", lambda: [migration for migration in every if migration.number < 10]
    )
    await migrate(connection)
    for sale_id, (opens_at, closes_at, _, _) in CASES.items():
        await connection.execute(
            "INSERT INTO sales (sale_id, title, currency, state, opens_at, closes_at, pay_within_s, epoch, created_at, "
            "generation, published_generation) VALUES ($1, 'A sale', 'CNY', 'open', $2::text::timestamptz, "
            "$3::text::timestamptz, 900, 1, now(), 7, 7)",
            sale_id,
            opens_at,
            closes_at,
        )
    monkeypatch.setattr(migrations, "load_migrations", lambda: every)
    await migrate(connection)

    sales = {sale.sale_id: sale for sale in await store.list_after(connection, "", 100, drafts=True)}
    assert {
        sale_id: (sale.opens_at.isoformat(), sale.closes_at and sale.closes_at.isoformat())
        for sale_id, sale in sales.items()
    } == {sale_id: (opens_at, closes_at) for sale_id, (_, _, opens_at, closes_at) in CASES.items()}
    repaired = CASES.keys() - {"usual", "never-closes"}
    assert {sale_id for sale_id, sale in sales.items() if sale.generation == 8} == repaired
    assert {sale.sale_id for sale in await store.list_out_of_sync(connection)} >= repaired
    rows = await connection.fetch("SELECT sale_id FROM sale_log WHERE actor = 'migration 0010' AND action = 'times'")
    assert {row["sale_id"] for row in rows} == repaired
    for sale in sales.values():
        assert terms_of(sale).opens_ms > 0
    await connection.close()


async def test_time_out_of_bounds_is_refused_by_database(database_url: str) -> None:
    connection = await asyncpg.connect(database_url)
    values = ("-infinity", "infinity", "1999-12-31T23:59:59Z", "3000-01-01T00:00:00Z")
    for column, value in product(("opens_at", "closes_at"), values):
        times = {"opens_at": USUAL, "closes_at": None} | {column: value}
        with pytest.raises(asyncpg.CheckViolationError):
            await connection.execute(
                "INSERT INTO sales (sale_id, title, currency, state, opens_at, closes_at, pay_within_s, created_at) "
                "VALUES ('a', 'A sale', 'CNY', 'draft', $1::text::timestamptz, $2::text::timestamptz, 900, now())",
                times["opens_at"],
                times["closes_at"],
            )
    await connection.close()
