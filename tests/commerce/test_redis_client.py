"""A client's pool: more commands at once than connections is no failure of Redis."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from commerce.kernel.redis_client import REDIS_UNAVAILABLE, open_redis
from tests.support.servers import Servers


async def test_a_command_waits_for_a_free_connection(servers: Servers) -> None:
    async with open_redis(servers.redis_url, timeout_ms=5_000, connections=2, name="test") as client:
        answers = await asyncio.gather(*(client.ping() for _ in range(50)))
        assert answers == [True] * 50
        ours = [one for one in await client.client_list() if one["name"] == "floodgate-test"]
        assert len(ours) == 2


async def test_the_wait_has_an_end(servers: Servers) -> None:
    async with open_redis(servers.redis_url, timeout_ms=300, connections=1, name="test") as client:
        pool: Any = client.connection_pool  # redis-py does not type it
        held = await pool.get_connection()
        with pytest.raises(REDIS_UNAVAILABLE):
            await client.ping()
        await pool.release(held)
        assert await client.ping()
