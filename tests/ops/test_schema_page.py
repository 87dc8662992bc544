"""docs/schema.md says what the database holds."""

from __future__ import annotations

import re
from pathlib import Path

import asyncpg

from commerce.kernel.schema_page import schema_page

PAGE = Path(__file__).parents[2] / "docs" / "schema.md"


async def test_schema_page_of_migrated_database_is_the_committed_one(database_url: str) -> None:
    connection = await asyncpg.connect(database_url)
    try:
        page = await schema_page(connection)
    finally:
        await connection.close()
    assert PAGE.read_text(encoding="utf-8") == page, "run: floodgate migrate --print-schema > docs/schema.md"


async def test_every_table_of_migrated_database_has_a_comment(database_url: str) -> None:
    connection = await asyncpg.connect(database_url)
    try:
        rows = await connection.fetch(
            "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' "
            "AND obj_description(oid) IS NULL"
        )
    finally:
        await connection.close()
    assert [row["relname"] for row in rows] == []


CLOCK_READERS = {
    "schema_migrations.applied_at",  # only shown
    "events_to_count.noted_at",  # only how far the figures are behind, in seconds
    "visits_to_count.noted_at",
    "products_to_index.noted_at",  # only how far the index of products is behind
    "sale_closed_at",  # compared with moments that are days away
    "products_to_grade.noted_at",  # compared by the same clock only
}


async def test_times_of_rows_are_those_of_the_processes(database_url: str) -> None:
    """No default and no trigger reads the server's clock.

    A job that it makes due would be due by another clock than the one by which it is claimed.
    """
    connection = await asyncpg.connect(database_url)
    try:
        rows = await connection.fetch(
            "SELECT adrelid::regclass || '.' || attname AS name, pg_get_expr(adbin, adrelid) AS code FROM pg_attrdef "
            "JOIN pg_attribute ON attrelid = adrelid AND attnum = adnum "
            "UNION SELECT proname, prosrc FROM pg_proc WHERE pronamespace = 'public'::regnamespace"
        )
    finally:
        await connection.close()
    clock = re.compile(r"now\(|_timestamp\(|timeofday\(|current_(date|time)|localtime", re.IGNORECASE)
    assert {row["name"] for row in rows if clock.search(row["code"])} <= CLOCK_READERS
