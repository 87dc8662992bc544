"""Keeps the waiting rooms: closes lists, draws places, lets people in, ends rooms. Several may run."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from commerce.kernel.failures import Failures
from commerce.kernel.http_client import open_transport
from commerce.waiting_rooms.drand import DrandRelays
from commerce.waiting_rooms.keeper import RoomKeeper
from commerce.waiting_rooms.model import Room
from commerce.waiting_rooms.service import WaitingRooms
from config.waiting_rooms import WaitingRoomSettings
from workers.loop import run_steps
from workers.runtime import WorkerServices

_logger = logging.getLogger(__name__)
_POLL_INTERVAL_S = 0.5
_MAX_RUNNING_STEPS = 8
_MAX_RELAY_CONNECTIONS = 20


async def room_keeper(services: WorkerServices) -> None:
    """Take a step of every room twice a second; one that takes long, as a draw does, holds up no other."""
    async with _open_relays(services.settings.rooms) as relays:
        await _keep_rooms(services, relays)


@asynccontextmanager
async def _open_relays(settings: WaitingRoomSettings) -> AsyncIterator[DrandRelays | None]:
    """Open the relays of drand that the settings name. Raises `NotReady` without the extra `drand`."""
    if not settings.drand_relays:
        yield None
        return
    async with open_transport(
        timeout_s=settings.drand_timeout_s,
        connections=_MAX_RELAY_CONNECTIONS,
        max_response_bytes=settings.drand_response_bytes,
    ) as transport:
        yield DrandRelays(transport, settings.drand_relays)


async def _keep_rooms(services: WorkerServices, relays: DrandRelays | None) -> None:
    rooms = WaitingRooms(services.db, services.sales, services.clock)
    keeper = RoomKeeper(services.db, services.redis, services.clock, services.settings.rooms, relays)
    running: dict[str, asyncio.Task[None]] = {}
    slots = asyncio.Semaphore(_MAX_RUNNING_STEPS)

    async def keep(room: Room) -> None:
        async with slots:
            await keeper.step(room)

    async def step() -> int:
        failures = Failures("keep a waiting room", _logger)
        shown = await rooms.list_shown()
        if any(room.mode == "automatic" for room in shown):
            with failures.catch(subject="refused orders"):
                await keeper.poll_refusals()
        for room in shown:
            if room.sale_id not in running:
                running[room.sale_id] = asyncio.create_task(keep(room))
        if running:
            await asyncio.wait(running.values(), timeout=_POLL_INTERVAL_S)
        for sale_id in [sale_id for sale_id, task in running.items() if task.done()]:
            with failures.catch(sale_id=sale_id):
                running.pop(sale_id).result()
        failures.raise_any()
        return 0

    try:
        await run_steps("room_keeper", step, services.stop, _POLL_INTERVAL_S)
        await asyncio.gather(*running.values(), return_exceptions=True)
    finally:
        for task in running.values():
            task.cancel()
        keeper.close()
