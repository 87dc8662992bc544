"""A whole shop inside the test's own event loop: front door and workers, on a port that the system chose."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import aiohttp
from aiohttp import web
from multidict import CIMultiDictProxy

from commerce.kernel.clock import SystemClock
from commerce.kernel.tasks import cancel_and_wait
from config.settings import Settings
from gateway.app import ADMIN, PUBLIC, build_application, fast_path_factory
from gateway.auth import sign_token
from gateway.connections import ConnectionRegistry
from gateway.operations import Operation
from gateway.services import GatewayServices, open_gateway_services
from workers.registry import WORKERS
from workers.runtime import open_worker_services

_numbers = count()


def token(settings: Settings, user: str = "user", *, roles: Sequence[str] = (), ttl_s: int = 3_600) -> str:
    """A token of a shopper, or with roles of staff."""
    audience = "floodgate-admin" if roles else "floodgate"
    return sign_token(settings.auth, SystemClock(), user, audience, roles, ttl_s)


def bearer(settings: Settings, user: str = "user", **kwargs: Any) -> dict[str, str]:
    return {"Authorization": f"Bearer {token(settings, user, **kwargs)}"}


@dataclass
class GatewayResponse:
    """A response that was read to its end."""

    status: int
    headers: CIMultiDictProxy[str]
    body: Any
    text: str = field(repr=False)

    @property
    def code(self) -> str:
        return str(self.body["code"])


@dataclass
class TestGateway:
    """A running front door and a client for it."""

    __test__ = False  # pytest takes every class named Test… for a suite

    settings: Settings
    services: GatewayServices
    connections: ConnectionRegistry
    port: int
    client: aiohttp.ClientSession

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def call(
        self,
        method: str,
        path: str,
        *,
        user: str | None = "user",
        roles: Sequence[str] = (),
        headers: dict[str, str] | None = None,
        **kwargs: Any,
    ) -> GatewayResponse:
        """Send a request as a user (None: without a token) or as staff."""
        sent = bearer(self.settings, user, roles=roles) if user else {}
        async with self.client.request(
            method, self.base + path, headers={**sent, **(headers or {})}, **kwargs
        ) as answer:
            text = await answer.text()
            is_json = "json" in answer.headers.get("Content-Type", "")
            body = await answer.json(content_type=None) if is_json and text else None
            return GatewayResponse(answer.status, answer.headers, body, text)

    async def order(self, body: Any, *, user: str = "user", key: str | None = None, **kwargs: Any) -> GatewayResponse:
        """Place an order under a new key, or the given one."""
        headers = {"Idempotency-Key": key or f"key-{next(_numbers)}"}
        return await self.call("POST", "/v1/orders", user=user, headers=headers, json=body, **kwargs)


@asynccontextmanager
async def open_gateway(
    settings: Settings, parts: Sequence[Operation] = (*PUBLIC, *ADMIN), *, express: bool = True
) -> AsyncIterator[TestGateway]:
    """The gateway with all operations on one port, or some of them, with the express lane or without it."""
    async with AsyncExitStack() as stack:
        services = await stack.enter_async_context(open_gateway_services(settings))
        operations = {(o.method, o.path): o for o in parts}
        runner = web.AppRunner(build_application(services, list(operations.values())), access_log=None)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        loop = asyncio.get_running_loop()
        connections = ConnectionRegistry(settings.limits, services.clock)
        watching = asyncio.create_task(connections.enforce_timeouts_forever())
        stack.push_async_callback(cancel_and_wait, watching)
        factory = fast_path_factory(connections, services, runner) if express else connections.aiohttp_factory(runner)
        server = await loop.create_server(factory, "127.0.0.1", 0)
        stack.callback(server.close)
        client = await stack.enter_async_context(
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=30))
        )
        yield TestGateway(settings, services, connections, server.sockets[0].getsockname()[1], client)
        services.stopping.set()
        services.watcher.close()
        await connections.close_all(5)


@asynccontextmanager
async def run_workers(settings: Settings, *names: str) -> AsyncIterator[None]:
    """Workers in this event loop until the block ends."""
    async with open_worker_services(settings, "test") as shop:
        tasks = [asyncio.create_task(WORKERS[name](shop), name=name) for name in names]
        try:
            yield
        finally:
            shop.stop.set()
            await asyncio.gather(*tasks)
