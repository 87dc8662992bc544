"""docs/schema.md says what the database holds."""

from __future__ import annotations

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
