"""Shares of a pool's connections: a crowd in one use of the pool never keeps the other uses out.

Each share keeps some connections for itself, also while it does not need them. The rest serves whoever asks: waiting
shares take turns, so a crowd counts as one, however large.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from time import perf_counter

from commerce.kernel.errors import Overloaded

_current: ContextVar[str | None] = ContextVar("connection_share", default=None)
ObserveWait = Callable[[str, float, bool], None]
"""called with the share, the wait in seconds, and False if no connection became free in time"""


@contextmanager
def use_share(name: str) -> Iterator[None]:
    """Take the connections of this block, and of the tasks that it starts, from a share."""
    token = _current.set(name)
    try:
        yield
    finally:
        _current.reset(token)


class ConnectionShares:
    """Rights to the connections of a pool.

    `total` is the size of the pool, `kept` maps each share to the connections it keeps. Code that names none of these
    shares uses `default`. Raises `ValueError` if a share keeps none, or all keep more than there are.
    """

    def __init__(
        self, kept: Mapping[str, int], total: int, default: str, observe_wait: ObserveWait | None = None
    ) -> None:
        if min(kept.values()) < 1 or sum(kept.values()) > total:
            raise ValueError(f"cannot share {total} connections as {dict(kept)}: each share needs one of its own")
        self.total = total
        self.in_use = dict.fromkeys(kept, 0)
        self._kept = dict(kept)
        self._common = total - sum(kept.values())
        self._default = default
        self._observe_wait = observe_wait
        self._waiting: dict[str, dict[asyncio.Future[None], None]] = {share: {} for share in kept}
        self._turns = deque(kept)

    @asynccontextmanager
    async def hold(self, timeout_s: float) -> AsyncIterator[None]:
        """Hold the right to one connection. Raises `Overloaded` if there is none in time.

        Hold one at a time: if all of a share are held by tasks that want a second, these wait for each other.
        """
        current = _current.get()
        share = self._default if current is None or current not in self._kept else current
        await self._take(share, timeout_s)
        try:
            yield
        finally:
            self._give_back(share)

    async def _take(self, share: str, timeout_s: float) -> None:
        started, is_granted = perf_counter(), True
        if self._waiting[share] or not self._may_take(share):
            is_granted = await self._wait(share, timeout_s)
        else:
            self.in_use[share] += 1
        if self._observe_wait is not None:
            self._observe_wait(share, perf_counter() - started, is_granted)
        if not is_granted:
            raise Overloaded("cannot get a database connection: none became free in time; repeat the request")

    async def _wait(self, share: str, timeout_s: float) -> bool:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[share][turn] = None
        try:
            async with asyncio.timeout(timeout_s):
                await turn
        except BaseException as error:
            self._waiting[share].pop(turn, None)
            if turn.done() and not turn.cancelled():  # it came at the same moment
                self._give_back(share)
            if isinstance(error, TimeoutError):
                return False
            raise
        return True

    def _may_take(self, share: str) -> bool:
        if self.in_use[share] < self._kept[share]:
            return True
        return sum(max(0, self.in_use[name] - kept) for name, kept in self._kept.items()) < self._common

    def _give_back(self, share: str) -> None:
        """Free a connection, which one waiter can use at most: of the share whose last turn is longest ago."""
        self.in_use[share] -= 1
        for name in list(self._turns):
            waiting = self._waiting[name]
            while waiting and self._may_take(name):
                turn = next(iter(waiting))
                del waiting[turn]
                if not turn.done():  # done: it was cancelled just now
                    self._turns.remove(name)
                    self._turns.append(name)
                    self.in_use[name] += 1
                    turn.set_result(None)
                    return


def undivided(connections: int) -> ConnectionShares:
    """Return shares of a pool with one kind of use."""
    return ConnectionShares({"all": connections}, connections, "all")
