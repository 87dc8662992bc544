"""The statements of screening read by index: tables of ten million rows make no step slower."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

from commerce.screening.store import queries
from ops.services import CliServices

_AT = datetime(2026, 11, 11, tzinfo=UTC)
_ID = UUID(int=0)
STATEMENTS: dict[str, tuple[Any, ...]] = {
    "take_sightings": (2_000,),
    "count_sightings": (),
    "insert_marks": (["a"], ["device"], [b"m" * 16], ["u"], 20),
    "insert_form_addresses": (["a"], [b"m" * 16], [b"m" * 16], ["u"]),
    "delete_form_addresses": (["a"], [b"m" * 16], ["00"]),
    "delete_old_sightings": (_AT, 2_000),
    "lock_sales": (["a"],),
    "list_groups": (["a"], ["form"], [b"m" * 16]),
    "next_to_rescore": (),
    "list_members": ("a", "device", b"m" * 16, "", 2_000),
    "list_crowds": ("a", ["u"]),
    "list_measured": ("a", ["u"]),
    "set_scores": ("a", ["u"], [1], ["[]"], _AT, 1),
    "list_suspects": ("a", 0, "", 30, True, 5_000),
    "list_users": ("a", 1, 101, "", None, None, _AT, 100),
    "get_user": ("a", "u"),
    "list_decisions": ("a", "u", 100),
    "list_order_phones": (_ID, _ID, 2_000),
    "list_old_users": (_AT, 2_000),
    "delete_marks": (["a"], ["u"]),
    "remove_members": (["a"], ["device"], [b"m" * 16], [1]),
    "delete_users": (["a"], ["u"]),
}


@pytest.mark.parametrize("name", STATEMENTS)
async def test_statement_reads_by_index(shop: CliServices, name: str) -> None:
    async with shop.db.transaction() as connection:
        await connection.execute("SET LOCAL enable_seqscan = off")  # of small tables the planner reads all
        rows = await connection.fetch(f"EXPLAIN {getattr(queries, name)}", *STATEMENTS[name])
    plan = "\n".join(row[0] for row in rows)
    for table in ("orders", "screening_", "screened_users"):
        assert f"Seq Scan on {table}" not in plan, plan
    assert "Index" in plan
