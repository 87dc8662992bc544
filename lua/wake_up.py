"""Wake-ups over two channels: a lost message costs its receiver one poll, and nothing else."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection
from uuid import UUID

from redis.asyncio import Redis

from lua.keys import CHANGED_ORDERS, DUE_JOBS

_ID_BYTES = 16


async def publish_due(client: Redis, queues: Collection[str]) -> None:
    """Wake the workers of queues that have jobs that are due now."""
    await client.publish(DUE_JOBS, " ".join(queues))


async def publish_changed(client: Redis, order_ids: Collection[UUID]) -> None:
    """Wake those who wait for a change of these orders."""
    await client.publish(CHANGED_ORDERS, b"".join(order_id.bytes for order_id in order_ids))


async def listen_due(client: Redis, idle_s: float) -> AsyncIterator[frozenset[str]]:
    """Yield the names of queues that have due jobs, as they come.

    Yields an empty set at first and after every `idle_s` seconds without any. Raises redis's errors when the connection
    is lost."""
    async for data in _listen(client, DUE_JOBS, idle_s):
        yield frozenset(data.decode(errors="replace").split())


async def listen_changed(client: Redis, idle_s: float) -> AsyncIterator[list[UUID]]:
    """Yield the ids of orders that have changed, as `listen_due` yields queues."""
    async for data in _listen(client, CHANGED_ORDERS, idle_s):
        size = len(data) - len(data) % _ID_BYTES
        yield [UUID(bytes=data[at : at + _ID_BYTES]) for at in range(0, size, _ID_BYTES)]


async def _listen(client: Redis, channel: bytes, idle_s: float) -> AsyncIterator[bytes]:
    async with client.pubsub(ignore_subscribe_messages=True) as pubsub:
        await pubsub.subscribe(channel)
        yield b""
        while True:
            message = await pubsub.get_message(timeout=idle_s)
            yield message["data"] if message else b""
