"""A database of a shop that has sold for 400 days, filled by SQL."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path

from commerce.kernel.postgres import Connection

_FOLDER = Path(__file__).parent
_FILES = (
    "grown_shop.sql",
    "grown_returns.sql",
    "grown_articles.sql",
    "grown_contacts.sql",
    "grown_conversations.sql",
    "grown_deadlines.sql",
    "grown_jobs.sql",
    "grown_sales.sql",
    "grown_stock.sql",
    "grown_pictures.sql",
    "grown_search.sql",
    "grown_quality.sql",
    "grown_imports.sql",
)
"""in the sequence in which they run"""
_LIST_INDEXES = """
SELECT indexrelid::regclass::text AS name, pg_get_indexdef(indexrelid) AS definition
FROM pg_index JOIN pg_class ON pg_class.oid = indrelid
WHERE relnamespace = 'public'::regnamespace
  AND NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = indexrelid)
"""


async def fill(connection: Connection, orders: int) -> None:
    """Fill a migrated, empty database with orders and what belongs to them.

    Needs a superuser: triggers and foreign keys are off meanwhile, and indexes that no constraint needs are built at
    the end, which takes a fraction of the time. All tables have statistics afterwards.
    """
    now = datetime.now(UTC).replace(microsecond=0)
    text = "".join((_FOLDER / name).read_text(encoding="utf-8") for name in _FILES)
    text = text.format(orders=orders, now=now.isoformat())
    await connection.execute(
        "SET session_replication_role = replica; SET synchronous_commit = off; SET work_mem = '256MB';"
        "SET max_parallel_workers_per_gather = 0; SET jit = off"
    )
    indexes = await connection.fetch(_LIST_INDEXES)
    await connection.execute(f"DROP INDEX {', '.join(row['name'] for row in indexes)}")
    for statement in re.split(r";\n", text):
        if sql := re.sub(r"^--.*$", "", statement, flags=re.MULTILINE).strip():
            await connection.execute(sql)
    await connection.execute("DROP SCHEMA fill CASCADE")
    await connection.execute("SET max_parallel_maintenance_workers = 2; SET maintenance_work_mem = '256MB'")
    for row in indexes:
        await connection.execute(row["definition"])
    await connection.execute("RESET session_replication_role; RESET work_mem; RESET max_parallel_workers_per_gather")
    await connection.execute("VACUUM (ANALYZE)")
