"""Arguments by which a peer reserves one order with one call of the gateway's own script."""

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
class ReserveCall:
    """Arguments of `reserve.lua` that are the same for all orders of a run."""

    redis: str
    """path of the socket"""
    sha: str
    keys: list[str]
    day: int
    generation: int

    def to_variables(self) -> dict[str, str]:
        """Return the environment variable of a peer's process, with JSON for any language."""
        values = {name: getattr(self, name) for name in ("redis", "sha", "keys", "day", "generation")}
        return {_VARIABLE: json.dumps(values)}

    @classmethod
    def from_environment(cls) -> ReserveCall:
        """Read the arguments from the environment variable."""
        return cls(**json.loads(os.environ[_VARIABLE]))


async def prepare_reserve(environment: BenchEnvironment, redis_socket: str | None = None) -> ReserveCall:
    """Load the script into Redis and return its arguments.

    `redis_socket` replaces the socket of Redis.
    """
    script, keys, redis = Script("reserve"), SaleKeys(SALE_ID), environment.shop.redis
    await redis.script_load(script.source)
    day = environment.shop.clock.now_ms() // DAY_MS
    generation = int(await cast(Awaitable[bytes], redis.hget(keys.meta.decode(), "generation")))
    socket = redis_socket or environment.settings.redis().removeprefix("unix://").partition("?")[0]
    return ReserveCall(socket, script.sha, [key.decode() for key in keys.reserve_keys(day)], day, generation)
