"""Running sums of the ledger equal the whole, whatever the order in which postings are committed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from commerce.kernel.clock import from_ms
from commerce.kernel.postgres import Connection
from commerce.ledger import store as ledger
from commerce.ledger.model import NewPosting
from commerce.payments import ledger_sums, store
from commerce.payments.ledger_sums import LedgerSums
from ops.services import CliServices


@pytest.fixture
async def connections(shop: CliServices) -> AsyncIterator[list[Connection]]:
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(shop.db.connection()) for _ in range(2)]


async def post(connection: Connection, posting: str, amount: int) -> None:
    entries = {"orders": -amount, "cash": amount}
    await ledger.insert_postings(connection, [NewPosting(posting, None, "CNY", entries)], from_ms(0))


async def unbalance(connection: Connection, posting: str, amount: int) -> None:
    """Post a single entry, which the triggers would refuse."""
    async with connection.transaction():
        await connection.execute("SET LOCAL session_replication_role = replica")
        await post(connection, posting, amount)
        await connection.execute("DELETE FROM ledger WHERE posting = $1 AND account = 'orders'", posting)


async def test_entry_committed_after_later_ones_is_summed(shop: CliServices, connections: list[Connection]) -> None:
    slow, fast = connections
    sums = LedgerSums(shop.db)
    assert await sums.read() == {}
    async with slow.transaction():
        await slow.execute("SET LOCAL session_replication_role = replica")
        await post(slow, "slow", 5)
        await slow.execute("DELETE FROM ledger WHERE posting = 'slow' AND account = 'orders'")
        for number in range(3):
            await post(fast, f"fast {number}", 7)
            assert await sums.read() == {"CNY": 0}
    assert await sums.read() == {"CNY": 5}
    await unbalance(fast, "lost", 2)
    for _ in range(3):
        assert await sums.read() == {"CNY": 7}


async def test_sums_read_complete_entries_once_and_in_parts(
    shop: CliServices, connections: list[Connection], monkeypatch: pytest.MonkeyPatch
) -> None:
    connection, _ = connections
    monkeypatch.setattr(ledger_sums, "_ENTRIES_PER_STATEMENT", 3)
    read: list[tuple[int, int]] = []
    sum_entries = store.sum_entries

    async def record(connection: Connection, after: int, up_to: int) -> dict[str, int]:
        read.append((after, up_to))
        return await sum_entries(connection, after, up_to)

    monkeypatch.setattr(store, "sum_entries", record)
    for number in range(4):
        await post(connection, f"posting {number}", 1)
    sums = LedgerSums(shop.db)
    assert await sums.read() == {"CNY": 0}
    assert read == [(0, 3), (3, 6), (6, 8), (8, 2**63 - 1)]
    read.clear()
    assert await sums.read() == {"CNY": 0}
    assert read == [(8, 2**63 - 1)]


async def test_sums_of_a_restored_ledger_begin_again(shop: CliServices, connections: list[Connection]) -> None:
    connection, _ = connections
    await unbalance(connection, "one", 3)
    await unbalance(connection, "two", 4)
    sums = LedgerSums(shop.db)
    assert await sums.read() == {"CNY": 7}
    async with connection.transaction():
        await connection.execute("SET LOCAL session_replication_role = replica")
        await connection.execute("DELETE FROM ledger WHERE posting = 'two'")
    assert await sums.read() == {"CNY": 3}
