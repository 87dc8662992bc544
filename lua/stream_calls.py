"""Calls on the streams of orders that a server has executed, for benchmarks."""

from __future__ import annotations

from typing import NamedTuple

from redis.asyncio import Redis


class StreamCalls(NamedTuple):
    """Calls since a server's start: added batches of orders, reads and acknowledgements of writers.

    `storing_us` is the time in microseconds that Redis took to execute the latter two.
    """

    batches: int
    reads: int
    acknowledgements: int
    storing_us: int


async def read_stream_calls(client: Redis) -> StreamCalls:
    """Return what a server has executed, of all its sales."""
    statistics = await client.info("commandstats")

    def read(command: str, number: str) -> int:
        return int(statistics.get(f"cmdstat_{command}", {}).get(number, 0))

    # An acknowledgement is one call of the last three: those of scripts are counted like any other.
    storing = ("xreadgroup", "hdel", "xack", "xdel")
    return StreamCalls(
        read("xadd", "calls"),
        read("xreadgroup", "calls"),
        read("xack", "calls"),
        sum(read(command, "usec") for command in storing),
    )
