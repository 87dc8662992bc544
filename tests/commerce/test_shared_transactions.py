"""Items of concurrent callers share a transaction, and a defect of the set costs none of them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from commerce.kernel.postgres import Connection
from commerce.kernel.shared_transactions import SharedTransactions
from ops.services import CliServices


async def test_defect_of_a_set_is_logged_and_each_item_recorded_alone(
    shop: CliServices, caplog: pytest.LogCaptureFixture
) -> None:
    async def record(connection: Connection, items: Sequence[int], may_wait: bool) -> Sequence[int]:
        if len(items) > 1:
            raise ZeroDivisionError("only together")
        return [item * await connection.fetchval("SELECT 2") for item in items]

    transactions = SharedTransactions[int, int](shop.db, record)
    assert await asyncio.gather(*map(transactions.add, (1, 2, 3))) == [2, 4, 6]
    [logged] = [entry for entry in caplog.records if entry.message == "a shared transaction failed"]
    assert logged.exc_info is not None
    assert logged.exc_info[0] is ZeroDivisionError


async def test_item_that_fails_alone_raises_its_own_error(shop: CliServices) -> None:
    async def record(connection: Connection, items: Sequence[int], may_wait: bool) -> Sequence[int | Exception]:
        if 2 in items and len(items) > 1:
            raise ZeroDivisionError
        return [ValueError("two") if item == 2 else item for item in items]

    transactions = SharedTransactions[int, int](shop.db, record)
    results = await asyncio.gather(*map(transactions.add, (1, 2, 3)), return_exceptions=True)
    assert [results[0], results[2], str(results[1])] == [1, 3, "two"]
