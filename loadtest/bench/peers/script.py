"""What a peer needs to reserve one order with one call: the same script, the same keys, the same arguments."""

from __future__ import annotations

import json
import os
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import cast

from commerce.kernel.clock import DAY_MS
from loadtest.bench.environment import SALE_ID, BenchEnvironment
from lua import SaleKeys
from lua.script import Script

_VARIABLE = "BENCH_RESERVE"


@dataclass(frozen=True, slots=True)
class Reserve:
    """Arguments that are the same for all orders of a run."""

    redis: str
    """path of the socket"""
    sha: str
    keys: list[str]
    day: int
    generation: int

    def environment(self) -> dict[str, str]:
        """For a peer's process, whatever it is written in: one variable with JSON."""
        values = {name: getattr(self, name) for name in ("redis", "sha", "keys", "day", "generation")}
        return {_VARIABLE: json.dumps(values)}

    @classmethod
    def from_environment(cls) -> Reserve:
        return cls(**json.loads(os.environ[_VARIABLE]))


async def reserve_of(arena: BenchEnvironment) -> Reserve:
    """Have Redis know the script, and look up what it is called with."""
    script, keys, redis = Script("reserve"), SaleKeys(SALE_ID), arena.shop.redis
    await redis.script_load(script.source)
    day = arena.shop.clock.now_ms() // DAY_MS
    names = [keys.meta, keys.stock, keys.buyers, keys.accepted, keys.orders]
    names += [keys.keys(near) for near in range(day - 2, day + 2)]
    generation = int(await cast(Awaitable[bytes], redis.hget(keys.meta.decode(), "generation")))
    socket = arena.settings.redis().removeprefix("unix://").partition("?")[0]
    return Reserve(socket, script.sha, [name.decode() for name in names], day, generation)
