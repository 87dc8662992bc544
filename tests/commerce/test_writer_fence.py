"""The lock that keeps a sale's epoch while a writer stores orders: it is a fair queue."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import pytest

from commerce.kernel.postgres import Connection
from commerce.sales import store
from commerce.sales.loading import load_sale
from commerce.sales.model import SaleState
from commerce.sales.writer_fence import split_lost_entries
from ops.services import CliServices
from tests.support.sales import eventually, make_sale

WRITERS, LONGEST_COMMIT_S, PATIENCE_S = 3, 0.2, 5


async def begin_load(connection: Connection, sale_id: str) -> None:
    assert await store.begin_load(connection, sale_id)


async def begin_adoption(connection: Connection, sale_id: str) -> None:
    await store.lock(connection, sale_id)
    await store.stop_writers(connection, sale_id)
    await store.begin_adoption(connection, sale_id)


async def open_first(connection: Connection, sale_id: str) -> None:
    await connection.execute(
        "UPDATE sales SET state = 'draft', epoch = 0, loaded_epoch = 0 WHERE sale_id = $1", sale_id
    )
    await store.set_state(connection, sale_id, SaleState.OPEN)


RAISE_EPOCH: dict[str, Callable[[Connection, str], Awaitable[None]]] = {
    "a load": begin_load,
    "an adoption": begin_adoption,
}
CHANGES: dict[str, Callable[[CliServices, str], Awaitable[object]]] = {
    "a pause": lambda shop, sale_id: shop.sales.pause(sale_id, "staff"),
    "a close": lambda shop, sale_id: shop.sales.close(sale_id, "staff"),
    "a first limit": lambda shop, sale_id: shop.sales.change_item(sale_id, "a", 100, 1, "staff"),
    "a load": lambda shop, sale_id: load_sale(shop.db, shop.redis, shop.clock, sale_id),
}


@asynccontextmanager
async def writers_in_a_row(shop: CliServices, sale_id: str) -> AsyncIterator[None]:
    """Run writers of which each commits only when the next has begun, if that comes soon."""
    begun, stop = asyncio.Condition(), asyncio.Event()
    count = 0

    async def wait_for_next(own: int) -> None:
        await begun.wait_for(lambda: count > own)

    async def write() -> None:
        nonlocal count
        while not stop.is_set():
            async with shop.db.transaction() as connection:
                await split_lost_entries(connection, shop.redis, sale_id, [])
                async with begun:
                    count += 1
                    begun.notify_all()
                    with suppress(TimeoutError):
                        await asyncio.wait_for(wait_for_next(count), LONGEST_COMMIT_S)

    async with asyncio.TaskGroup() as tasks:
        for _ in range(WRITERS):
            tasks.create_task(write())
        async with begun:
            await begun.wait_for(lambda: count > WRITERS)
        try:
            yield
        finally:
            stop.set()


@pytest.mark.parametrize("name", CHANGES)
async def test_change_of_sale_with_writers_in_a_row_is_done_in_time(shop: CliServices, sale_id: str, name: str) -> None:
    await make_sale(shop, sale_id, {"a": (3, 100, None)})
    async with writers_in_a_row(shop, sale_id), asyncio.timeout(PATIENCE_S):
        await CHANGES[name](shop, sale_id)


async def is_waiting_for_lock(shop: CliServices) -> bool:
    async with shop.db.connection() as connection:
        return bool(
            await connection.fetchval(
                "SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid)"
                " WHERE datname = current_database() AND NOT granted"
            )
        )


async def read_epoch(shop: CliServices, sale_id: str) -> int:
    async with shop.db.transaction() as connection:
        return await store.read_epoch(connection, sale_id)


@pytest.mark.parametrize("name", [*RAISE_EPOCH, "a first opening"])
async def test_writer_that_waits_for_raised_epoch_reads_that_one(shop: CliServices, sale_id: str, name: str) -> None:
    """An order that it holds would else be stored as if the stock were counted with it."""
    await make_sale(shop, sale_id, {"a": (3, 100, None)})
    async with shop.db.transaction() as connection:
        await {**RAISE_EPOCH, "a first opening": open_first}[name](connection, sale_id)
        raised = await connection.fetchval("SELECT epoch FROM sales WHERE sale_id = $1", sale_id)
        reading = asyncio.create_task(read_epoch(shop, sale_id))
        await eventually(lambda: is_waiting_for_lock(shop))
    assert await asyncio.wait_for(reading, PATIENCE_S) == raised


@pytest.mark.parametrize("name", RAISE_EPOCH)
async def test_epoch_is_raised_only_after_writer_that_began_before(shop: CliServices, sale_id: str, name: str) -> None:
    await make_sale(shop, sale_id, {"a": (3, 100, None)})

    async def raise_epoch() -> int:
        async with shop.db.transaction() as connection:
            await RAISE_EPOCH[name](connection, sale_id)
            return int(await connection.fetchval("SELECT initial_units FROM sale_items WHERE sale_id = $1", sale_id))

    async with shop.db.transaction() as connection:
        epoch = await store.read_epoch(connection, sale_id)
        raising = asyncio.create_task(raise_epoch())
        await eventually(lambda: is_waiting_for_lock(shop))
        await connection.execute("UPDATE sale_items SET initial_units = 77 WHERE sale_id = $1", sale_id)
    assert await asyncio.wait_for(raising, PATIENCE_S) == 77, "it sees what the writer committed"
    assert await read_epoch(shop, sale_id) == epoch + 1


async def test_load_that_waits_for_another_load_raises_epoch_again(shop: CliServices, sale_id: str) -> None:
    await make_sale(shop, sale_id, {"a": (3, 100, None)})

    async def load() -> None:
        async with shop.db.connection() as connection:
            await begin_load(connection, sale_id)

    async with shop.db.transaction() as connection:
        epoch = await store.read_epoch(connection, sale_id)
        await store.lock(connection, sale_id)
        loading = asyncio.create_task(load())
        await eventually(lambda: is_waiting_for_lock(shop))
        await begin_load(connection, sale_id)
    await asyncio.wait_for(loading, PATIENCE_S)
    assert await read_epoch(shop, sale_id) == epoch + 2


async def test_load_that_waits_for_change_of_its_row_raises_epoch_of_today(shop: CliServices, sale_id: str) -> None:
    await make_sale(shop, sale_id, {"a": (3, 100, None)})

    async def load() -> None:
        async with shop.db.connection() as connection:
            await begin_load(connection, sale_id)

    async with shop.db.transaction() as connection:
        await connection.execute("UPDATE sales SET epoch = 40 WHERE sale_id = $1", sale_id)
        loading = asyncio.create_task(load())
        await eventually(lambda: is_waiting_for_lock(shop))
    await asyncio.wait_for(loading, PATIENCE_S)
    assert await read_epoch(shop, sale_id) == 41
