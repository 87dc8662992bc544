"""Collects items of concurrent callers, so that one statement or transaction serves all of them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

_IDLE_ITERATIONS, _MAX_ITERATIONS = 3, 16
Item = TypeVar("Item")
Result = TypeVar("Result")


class Batcher(Generic[Item, Result]):
    """Calls `do` with the items of concurrent callers.

    Those that come while a call is in flight leave together, and those of neighbouring iterations of the event loop: a
    request that has arrived takes one or two to get here. `do` returns a result for each item, in their sequence. At
    most `max_items` are in one call.

    Calls run in the context of a first caller, so all callers must take connections of the same share."""

    def __init__(self, do: Callable[[Sequence[Item]], Awaitable[Sequence[Result]]], max_items: int = 500) -> None:
        self._do = do
        self._max_items = max_items
        self._waiting: list[tuple[Item, asyncio.Future[Result]]] = []
        self._task: asyncio.Task[None] | None = None

    async def add(self, item: Item) -> Result:
        """Return the result of an item. Raises what the call for its batch raises."""
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._work())
        return await future

    async def _wait_for_more(self) -> None:
        """Wait for the iterations of the event loop that still bring callers, up to `_MAX_ITERATIONS`."""
        count, idle = len(self._waiting), 0
        for _ in range(_MAX_ITERATIONS):
            if idle == _IDLE_ITERATIONS or count >= self._max_items:
                break
            await asyncio.sleep(0)
            idle = 0 if len(self._waiting) > count else idle + 1
            count = len(self._waiting)

    async def _work(self) -> None:
        while self._waiting:
            await self._wait_for_more()
            batch, self._waiting = self._waiting[: self._max_items], self._waiting[self._max_items :]
            try:
                results = list(zip(batch, await self._do([item for item, _ in batch]), strict=True))
            except Exception as error:  # noqa: BLE001  # each caller gets it
                for _, future in batch:
                    if not future.done():
                        future.set_exception(error)
                continue
            for (_, future), result in results:
                if not future.done():
                    future.set_result(result)
