"""A batcher answers every caller, whatever happens to the call of its batch."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from commerce.kernel.batches import Batcher


async def double(items: Sequence[int]) -> list[int]:
    return [2 * item for item in items]


async def test_concurrent_items_leave_together_and_large_batches_are_split() -> None:
    sizes: list[int] = []

    async def count(items: Sequence[int]) -> list[int]:
        sizes.append(len(items))
        return await double(items)

    batcher = Batcher(count, max_items=3)
    assert await asyncio.gather(*map(batcher.add, range(5))) == [0, 2, 4, 6, 8]
    assert sizes == [3, 2]


async def test_callers_of_neighbouring_iterations_leave_together() -> None:
    sizes: list[int] = []

    async def count(items: Sequence[int]) -> list[int]:
        sizes.append(len(items))
        return await double(items)

    async def add_after(iterations: int) -> int:
        for _ in range(iterations):
            await asyncio.sleep(0)
        return await batcher.add(iterations)

    batcher = Batcher(count)
    assert await asyncio.gather(*map(add_after, range(10))) == [2 * item for item in range(10)]
    assert sizes == [10]


async def test_stream_of_callers_does_not_hold_up_the_first() -> None:
    batcher = Batcher(double)
    first, others = asyncio.create_task(batcher.add(0)), list[asyncio.Task[int]]()
    while not first.done() and len(others) < 400:
        others.append(asyncio.create_task(batcher.add(len(others))))
        await asyncio.sleep(0)
    assert len(others) < 40
    await asyncio.gather(*others)


async def test_failed_batch_fails_its_callers_and_no_other() -> None:
    async def fail_first(items: Sequence[int]) -> list[int]:
        if 0 in items:
            raise LookupError
        return await double(items)

    batcher = Batcher(fail_first, max_items=2)
    results = await asyncio.gather(*map(batcher.add, range(4)), return_exceptions=True)
    assert [type(result) for result in results] == [LookupError, LookupError, int, int]


async def test_missing_result_leaves_no_caller_waiting() -> None:
    async def forget(items: Sequence[int]) -> list[int]:
        return (await double(items))[1:]

    batcher = Batcher(forget)
    async with asyncio.timeout(20):
        results = await asyncio.gather(*map(batcher.add, range(2)), return_exceptions=True)
    assert [type(result) for result in results] == [ValueError, ValueError]


async def test_cancelled_caller_disturbs_no_other() -> None:
    batcher = Batcher(double)
    first, second = (asyncio.create_task(batcher.add(item)) for item in (1, 2))
    await asyncio.sleep(0)
    first.cancel()
    assert await second == 4
