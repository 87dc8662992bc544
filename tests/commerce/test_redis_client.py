"""The pool of a Redis client: commands beyond the number of connections wait."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from commerce.kernel.redis_client import REDIS_UNAVAILABLE, open_redis
from tests.support.servers import Servers


async def test_command_without_free_connection_waits(servers: Servers) -> None:
    async with open_redis(servers.redis_url, timeout_ms=5_000, connections=2, name="test") as client:
        answers = await asyncio.gather(*(client.ping() for _ in range(50)))
        assert answers == [True] * 50
        names = [connection["name"] for connection in await client.client_list()]
        assert names.count("floodgate-test") == 2


async def test_command_without_free_connection_times_out(servers: Servers) -> None:
    async with open_redis(servers.redis_url, timeout_ms=300, connections=1, name="test") as client:
        pool: Any = client.connection_pool  # redis-py does not type it
        connection = await pool.get_connection()
        with pytest.raises(REDIS_UNAVAILABLE):
            await client.ping()
        await pool.release(connection)
        assert await client.ping()
