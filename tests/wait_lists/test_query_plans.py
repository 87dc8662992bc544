"""Statements of wait-lists that run all the time read by index, however many sales have been."""

from __future__ import annotations

from typing import Any

import pytest

from commerce.kernel.sql import Queries
from commerce.sales.store import queries as sales_queries
from commerce.wait_lists.store import queries
from ops.services import CliServices

STATEMENTS: list[tuple[Queries, str, tuple[Any, ...], str]] = [
    (queries, "list_wait_lists", (None, None, 100), "wait_list_skus_awaited"),
    (queries, "count_awaited_skus", ("a",), "wait_list_skus_awaited"),
    (sales_queries, "read_last_change_seq", ("a", 1), "wait_list_entries_changes"),
]


@pytest.mark.parametrize(("package", "name", "values", "index"), STATEMENTS, ids=[name for _, name, _, _ in STATEMENTS])
async def test_statement_reads_by_index(
    shop: CliServices, package: Queries, name: str, values: tuple[Any, ...], index: str
) -> None:
    async with shop.db.transaction() as connection:
        await connection.execute("SET LOCAL enable_seqscan = off")  # of small tables the planner reads all
        rows = await connection.fetch(f"EXPLAIN {getattr(package, name)}", *values)
    plan = "\n".join(row[0] for row in rows)
    assert index in plan, plan
