"""Shares of connections: each keeps its own, waiting shares take turns, and no connection is lost."""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress

import pytest

from commerce.kernel.connection_shares import ConnectionShares, use_share
from commerce.kernel.errors import Overloaded

KEPT = {"customers": 2, "staff": 1, "webhooks": 1}


class Crowd:
    """Tasks that want a connection of a share and hold it until `end`."""

    def __init__(self, shares: ConnectionShares, name: str, size: int, timeout_s: float = 10) -> None:
        self.served = 0
        self._shares = shares
        self._ends = asyncio.Semaphore(0)
        with use_share(name):
            self.tasks = [asyncio.create_task(self._hold(timeout_s)) for _ in range(size)]

    async def _hold(self, timeout_s: float) -> None:
        async with self._shares.hold(timeout_s):
            self.served += 1
            await self._ends.acquire()

    def end(self, count: int = 1) -> None:
        for _ in range(count):
            self._ends.release()

    async def stop(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.wait(self.tasks)


async def pause() -> None:
    """Let all tasks go on until each waits for something."""
    for _ in range(20):
        await asyncio.sleep(0)


@pytest.mark.parametrize("crowded", KEPT)
async def test_crowd_of_a_share_leaves_the_others_theirs(crowded: str) -> None:
    shares = ConnectionShares(KEPT, 6, "customers")
    crowd = Crowd(shares, crowded, 100)
    await pause()
    assert crowd.served == KEPT[crowded] + 2
    others = [Crowd(shares, name, KEPT[name]) for name in KEPT if name != crowded]
    await pause()
    assert [other.served for other in others] == [kept for name, kept in KEPT.items() if name != crowded]
    assert sum(shares.in_use.values()) == 6
    for group in (crowd, *others):
        await group.stop()
    assert not any(shares.in_use.values())


async def test_waiting_shares_take_turns_whatever_their_crowds() -> None:
    shares = ConnectionShares(KEPT, 5, "customers")
    large, small = Crowd(shares, "customers", 500), Crowd(shares, "webhooks", 2)
    await pause()
    assert (large.served, small.served) == (3, 1)
    large.end(2)
    await pause()
    assert (large.served, small.served) == (4, 2)
    small.end(2)
    await pause()
    assert large.served == 5
    await large.stop()
    await small.stop()
    assert not any(shares.in_use.values())


async def test_use_without_a_connection_in_time_is_refused_and_observed() -> None:
    waits: list[tuple[str, bool]] = []
    shares = ConnectionShares(
        {"a": 1, "b": 1}, 2, "a", lambda share, seconds, is_granted: waits.append((share, is_granted))
    )
    crowd = Crowd(shares, "b", 1)
    await pause()
    with use_share("b"), pytest.raises(Overloaded, match="none became free in time"):
        async with shares.hold(0.02):
            pytest.fail("there is no connection")
    async with shares.hold(0.02):  # of the default share
        assert shares.in_use == {"a": 1, "b": 1}
    assert waits == [("b", True), ("b", False), ("a", True)]
    await crowd.stop()


async def test_connection_granted_to_a_task_that_gives_up_goes_to_the_next() -> None:
    shares = ConnectionShares({"a": 1}, 1, "a")
    first, second, third = (Crowd(shares, "a", 1) for _ in range(3))
    await pause()
    first.end()
    while not first.tasks[0].done():  # noqa: ASYNC110  # the same iteration grants it to the second
        await asyncio.sleep(0)
    second.tasks[0].cancel()
    await pause()
    assert (second.served, third.served) == (0, 1)
    await third.stop()
    assert shares.in_use == {"a": 0}


@pytest.mark.parametrize("seed", range(5))
async def test_no_connection_is_lost_or_given_twice(seed: int) -> None:
    """Tasks of all shares come, wait, time out and are cancelled at random."""
    chance = random.Random(seed)
    shares = ConnectionShares(KEPT, 5, "customers")
    max_in_use = 0

    async def use(timeout_s: float, work_s: float) -> None:
        nonlocal max_in_use
        with suppress(Overloaded):
            async with shares.hold(timeout_s):
                max_in_use = max(max_in_use, sum(shares.in_use.values()))
                await asyncio.sleep(work_s)

    tasks = []
    for _ in range(400):
        with use_share(chance.choice(list(KEPT))):
            tasks.append(asyncio.create_task(use(chance.random() * 0.01, chance.random() * 0.005)))
        if chance.random() < 0.3:
            chance.choice(tasks).cancel()
        await asyncio.sleep(chance.random() * 0.001)
    await asyncio.wait(tasks)
    assert max_in_use == 5
    assert not any(shares.in_use.values())
    async with asyncio.timeout(1):
        everybody = [Crowd(shares, name, kept) for name, kept in KEPT.items()]
        await pause()
    assert [crowd.served for crowd in everybody] == list(KEPT.values())
    for crowd in everybody:
        await crowd.stop()


@pytest.mark.parametrize(("kept", "total"), [({"a": 1, "b": 0}, 4), ({"a": 2, "b": 2}, 3)])
def test_share_without_a_connection_is_refused(kept: dict[str, int], total: int) -> None:
    with pytest.raises(ValueError, match="each share needs one"):
        ConnectionShares(kept, total, "a")
