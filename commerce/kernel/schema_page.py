"""The database schema as a Markdown page, read from the catalog of a migrated database."""

from __future__ import annotations

from typing import Any

from commerce.kernel.postgres import Connection
from commerce.kernel.sql import load_queries

_queries = load_queries("commerce.kernel")
_HEAD = """# Database schema

`floodgate migrate --print-schema` prints this page from the catalog of the database; a test compares the two. Files in
`migrations/` are applied in order and never edited, so the first ones use names that migration 0008 has changed. Where
a row is *the job*, a worker claims it when it is due: see [architecture](architecture.md).
"""


async def schema_page(connection: Connection) -> str:
    """Return the page: purpose, columns, constraints, indexes and triggers of each table, and views."""
    return "\n".join(
        [_HEAD, *[await _table(connection, row) for row in await connection.fetch(_queries.schema_tables)]]
    )


async def _table(connection: Connection, table: Any) -> str:
    lines = [
        f"## {table['name']}",
        "",
        f"{table['comment']}.",
        "",
        "| column | type | rules | meaning |",
        "|---|---|---|---|",
    ]
    for column in await connection.fetch(_queries.schema_columns, table["table_id"]):
        required = "not null" if column["not_null"] else ""
        kind = "generated" if column["is_generated"] else "default"
        default = f"{kind} `{column['default_value'].strip()}`" if column["default_value"] else ""
        rule = ", ".join(part for part in (required, default) if part)
        lines.append(f"| `{column['name']}` | {column['type']} | {rule} | {column['comment']} |")
    rules = [row["definition"] for row in await connection.fetch(_queries.schema_constraints, table["table_id"])]
    rules += [row["definition"] for row in await connection.fetch(_queries.schema_indexes, table["name"])]
    rules += [row["definition"] for row in await connection.fetch(_queries.schema_triggers, table["table_id"])]
    return "\n".join([*lines, "", *(f"- `{rule}`" for rule in rules), *([""] if rules else [])])
