"""Connections that another task holds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from commerce.kernel.connection_shares import use_share
from commerce.kernel.postgres import Database
from commerce.kernel.tasks import cancel_and_wait


@asynccontextmanager
async def held_connection(db: Database, share: str = "") -> AsyncIterator[None]:
    """Hold a connection, of a share if it is named, in a task of its own until the block ends."""
    held = asyncio.Event()

    async def hold() -> None:
        async with db.connection():
            held.set()
            await asyncio.Event().wait()

    with use_share(share):
        task = asyncio.create_task(hold())
    await held.wait()
    yield
    await cancel_and_wait(task)
