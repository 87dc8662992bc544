"""Floodgate's gateway and what it is compared with, each as its users would run it, with one process a server."""

from __future__ import annotations

from contextlib import AsyncExitStack

from loadtest.bench.arena import Arena, free_port
from loadtest.bench.contest import Contestant


async def start_all(arena: Arena, stack: AsyncExitStack, left_out: dict[str, str]) -> list[Contestant]:
    """Start all of them, to be stopped by the stack. Those whose programs are not installed go into `left_out`."""
    return [await _hello(arena, stack), await _floodgate(arena, stack)]


async def _hello(arena: Arena, stack: AsyncExitStack) -> Contestant:
    port = free_port()
    running = await arena.run("hello", "loadtest.bench.peers.hello", str(port), port=port)
    stack.push_async_callback(running.stop)
    return Contestant("aiohttp hello", f"http://127.0.0.1:{port}/", {"server": [running.pid]})


async def _floodgate(arena: Arena, stack: AsyncExitStack) -> Contestant:
    port = free_port()
    ports = {"FLOODGATE_HTTP__PORT": str(port), "FLOODGATE_HTTP__ADMIN_PORT": str(free_port())}
    running = await arena.run("gateway", "gateway", port=port, env=ports)
    stack.push_async_callback(running.stop)
    processes = {"gateway": [running.pid], "redis": [arena.redis.pid]}
    return Contestant("floodgate", f"http://127.0.0.1:{port}/v1/orders", processes, "tokens")
