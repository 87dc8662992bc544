"""Keeps the waiting rooms: closes lists, draws places, lets people in, ends rooms. Several may run."""

from __future__ import annotations

import logging

from commerce.kernel.failures import Failures
from commerce.waiting_rooms.keeper import RoomKeeper
from commerce.waiting_rooms.service import WaitingRooms
from workers.loop import run_steps
from workers.runtime import WorkerServices

_logger = logging.getLogger(__name__)
_POLL_INTERVAL_S = 0.5


async def room_keeper(services: WorkerServices) -> None:
    """Take a step of every room twice a second."""
    rooms = WaitingRooms(services.db, services.sales, services.clock)
    keeper = RoomKeeper(services.db, services.redis, services.clock)

    async def step() -> int:
        failures = Failures("keep a waiting room", _logger)
        for room in await rooms.list_shown():
            with failures.catch(sale_id=room.sale_id):
                await keeper.step(room)
        failures.raise_any()
        return 0

    try:
        await run_steps("room_keeper", step, services.stop, _POLL_INTERVAL_S)
    finally:
        keeper.close()
