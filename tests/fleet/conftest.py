"""One database for all tests of the fleet: making one for each would take longer than the tests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from uuid import uuid4

import asyncpg
import pytest

from tests.support.servers import Servers

_FILLED = ("route_stops", "routes", "vehicles", "places", "shipments", "warehouses", "fulfilments", "orders")


@pytest.fixture(scope="package")
def fleet_database(servers: Servers) -> Iterator[str]:
    name = f"test_{uuid4().hex}"

    async def admin(query: str) -> None:
        connection = await asyncpg.connect(servers.database_url.format("postgres"))
        await connection.execute(query)
        await connection.close()

    asyncio.run(admin(servers.copy_template(name)))
    yield servers.database_url.format(name)
    asyncio.run(admin(f"DROP DATABASE {name} WITH (FORCE)"))


@pytest.fixture
async def database_url(fleet_database: str) -> AsyncIterator[str]:
    yield fleet_database
    connection = await asyncpg.connect(fleet_database)
    await connection.execute(";".join(f"DELETE FROM {table}" for table in _FILLED))
    await connection.close()
