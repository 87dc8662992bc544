"""Places survive `kill -9` of Redis and of a gateway while people join."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import aiohttp

from config.settings import Settings
from ops.services import open_cli_services
from tests.support.gateway import bearer
from tests.support.processes import run_processes
from tests.support.redis_pair import open_redis_pair
from tests.support.rooms import open_serving_room

PEOPLE = 300


async def test_killed_redis_and_gateway_lose_no_place(
    make_settings: Callable[..., Settings], sale_id: str, tmp_path: Path
) -> None:
    async with open_redis_pair() as pair:
        settings = make_settings(redis_url=pair.master.url)
        async with open_cli_services(settings) as shop, run_processes(settings, tmp_path) as processes:
            await open_serving_room(shop, sale_id, 20)
            gateway = await processes.gateway()
            users, numbers = [f"late-{number}" for number in range(PEOPLE)], {}
            async with aiohttp.ClientSession() as client:

                async def join(user: str) -> int:
                    """Join until there is an answer, as apps do."""
                    while True:
                        try:
                            async with client.post(
                                f"{processes.base}/v1/sales/{sale_id}/room", headers=bearer(settings, user)
                            ) as answer:
                                if answer.status == 200:
                                    return int((await answer.json())["number"])
                        except aiohttp.ClientError:
                            pass
                        await asyncio.sleep(0.05)

                async def join_once(user: str) -> None:
                    numbers[user] = await join(user)

                async with asyncio.timeout(60), asyncio.TaskGroup() as group:
                    for user in users:
                        group.create_task(join_once(user))
                    while len(numbers) < PEOPLE // 10:  # noqa: ASYNC110  # people join meanwhile
                        await asyncio.sleep(0.001)
                    answered = dict(numbers)
                    await pair.master.restart()
                    await gateway.kill()
                    await processes.gateway()
                again = dict(zip(users, await asyncio.gather(*map(join, users)), strict=True))
    assert len(answered) < PEOPLE, "all had joined before the crash"
    assert again == numbers
    assert answered.items() <= again.items()
    assert sorted(again.values()) == list(range(21, 21 + PEOPLE))
