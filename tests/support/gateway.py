"""A gateway and workers inside the test's event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Literal

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
from workers.registry import load_worker
from workers.runtime import open_worker_services

_numbers = count()


def token(settings: Settings, user: str = "user", *, roles: Sequence[str] = (), ttl_s: int = 3_600) -> str:
    """Sign a token of a customer, or of staff if there are roles."""
    audience: Literal["floodgate", "floodgate-admin"] = "floodgate-admin" if roles else "floodgate"
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
    """A running gateway and a client for it."""

    __test__ = False  # pytest would take a class named Test… for a suite

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
        """Send a request as a customer, as staff if there are roles, or without a token if `user` is None."""
        sent = bearer(self.settings, user, roles=roles) if user else {}
        async with self.client.request(
            method, self.base + path, headers={**sent, **(headers or {})}, **kwargs
        ) as answer:
            text = await answer.text()
            is_json = "json" in answer.headers.get("Content-Type", "")
            body = await answer.json(content_type=None) if is_json and text else None
            return GatewayResponse(answer.status, answer.headers, body, text)

    async def order(self, body: Any, *, user: str = "user", key: str | None = None, **kwargs: Any) -> GatewayResponse:
        """Place an order, by default under a new key."""
        headers = {"Idempotency-Key": key or f"key-{next(_numbers)}"}
        return await self.call("POST", "/v1/orders", user=user, headers=headers, json=body, **kwargs)


@asynccontextmanager
async def open_gateway(
    settings: Settings, operations: Sequence[Operation] = (*PUBLIC, *ADMIN), *, fast_path: bool = True
) -> AsyncIterator[TestGateway]:
    """Open a gateway on a free port, by default with all operations, public and admin."""
    async with AsyncExitStack() as stack:
        services = await stack.enter_async_context(open_gateway_services(settings))
        unique = {(operation.method, operation.path): operation for operation in operations}
        runner = web.AppRunner(build_application(services, list(unique.values())), access_log=None)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        loop = asyncio.get_running_loop()
        connections = ConnectionRegistry(settings.limits, services.clock, services.client_addresses)
        timeout_task = asyncio.create_task(connections.enforce_timeouts_forever())
        stack.push_async_callback(cancel_and_wait, timeout_task)
        factory = fast_path_factory(connections, services, runner) if fast_path else connections.aiohttp_factory(runner)
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
async def run_workers(settings: Settings, *names: str, instance: str = "test") -> AsyncIterator[None]:
    """Run workers in this event loop until the block ends."""
    async with open_worker_services(settings, instance) as shop:
        tasks = [asyncio.create_task(load_worker(name)(shop), name=name) for name in names]
        try:
            yield
        finally:
            shop.stop.set()
            await asyncio.gather(*tasks)
