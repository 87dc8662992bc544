"""Floodgate's gateway and what it is compared with, each as its users would run it, with one process that answers."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path

from loadtest.bench.comparison import BenchedServer
from loadtest.bench.environment import BenchEnvironment, free_port
from loadtest.bench.machine import children
from loadtest.bench.peers.script import reserve_of

FLOODGATE, HELLO, HELLO_TO_ORDER = "floodgate", "aiohttp hello", "aiohttp hello to an order"
NGINX, FASTAPI, FASTIFY = "nginx + Lua", "FastAPI", "Fastify"
_HERE = Path(__file__).parent
_MODULES = Path("/usr/lib/nginx/modules")


class Peers:
    """Starts them in an arena, to be stopped by the stack. What is not installed goes into `left_out`."""

    def __init__(self, arena: BenchEnvironment, stack: AsyncExitStack) -> None:
        self._arena = arena
        self._stack = stack
        self.left_out: dict[str, str] = {}

    async def start_all(self, *, slow: bool = True) -> list[BenchedServer]:
        """Whoever can take part; without the slow ones, only those that thresholds are set on."""
        environment = (await reserve_of(self._arena)).environment()
        found = [*await self.hellos(), await self.floodgate(), await self._nginx(environment)]
        if slow:
            found += [await self._fastapi(environment), await self._fastify(environment)]
        return [peer for peer in found if peer is not None]

    async def hellos(self) -> list[BenchedServer]:
        """Bare aiohttp, which says hello to a plain GET, and to the very requests that orders come in."""
        port = free_port()
        running = await self._arena.run("hello", "loadtest.bench.peers.hello", str(port), port=port)
        self._stack.push_async_callback(running.stop)
        server, url = {"server": [running.pid]}, f"http://127.0.0.1:{port}"
        return [
            BenchedServer(HELLO, f"{url}/", server),
            BenchedServer(HELLO_TO_ORDER, f"{url}/v1/orders", server, "tokens", sells=False),
        ]

    async def floodgate(self) -> BenchedServer:
        """One gateway process with everything on."""
        port = free_port()
        ports = {"FLOODGATE_HTTP__PORT": str(port), "FLOODGATE_HTTP__ADMIN_PORT": str(free_port())}
        running = await self._arena.run("gateway", "gateway", port=port, env=ports)
        self._stack.push_async_callback(running.stop)
        return self._takes_orders(FLOODGATE, port, [running.pid], "tokens")

    async def _fastapi(self, environment: Mapping[str, str]) -> BenchedServer:
        port = free_port()
        running = await self._arena.run(
            "fastapi", "loadtest.bench.peers.fastapi_app", str(port), port=port, env=environment
        )
        self._stack.push_async_callback(running.stop)
        return self._takes_orders(FASTAPI, port, [running.pid])

    async def _fastify(self, environment: Mapping[str, str]) -> BenchedServer | None:
        folder = _HERE / "fastify"
        if shutil.which("node") is None or not (folder / "node_modules").is_dir():
            self.left_out[FASTIFY] = f"needs node, and `npm ci` in {folder.relative_to(Path.cwd())}"
            return None
        port = free_port()
        environment = {**environment, "NODE_ENV": "production"}
        running = await self._arena.start(
            "fastify", "node", str(folder / "server.js"), str(port), port=port, env=environment
        )
        self._stack.push_async_callback(running.stop)
        return self._takes_orders(FASTIFY, port, [running.pid])

    async def _nginx(self, environment: Mapping[str, str]) -> BenchedServer | None:
        program = shutil.which("nginx") or "/usr/sbin/nginx"
        if not Path(program).exists() or not (_MODULES / "ngx_http_lua_module.so").exists():
            self.left_out[NGINX] = "needs Debian's nginx, libnginx-mod-http-lua and lua-cjson"
            return None
        port, home = free_port(), self._arena.home
        text = (_HERE / "nginx" / "nginx.conf").read_text(encoding="utf-8")
        values = {"MODULES": _MODULES, "HOME": home, "PEER": _HERE / "nginx", "PORT": port}
        for name, value in values.items():
            text = text.replace(f"@{name}@", str(value))
        if os.geteuid() == 0:
            text = f"user root;\n{text}"  # as the owner of Redis's socket
        file = home / "nginx.conf"
        file.write_text(text, encoding="utf-8")
        running = await self._arena.start("nginx", program, "-c", str(file), port=port, env=environment)
        self._stack.push_async_callback(running.stop)
        return self._takes_orders(NGINX, port, children(running.pid))

    def _takes_orders(self, name: str, port: int, pids: list[int], users: str = "names") -> BenchedServer:
        processes = {"server": pids, "redis": [self._arena.redis.pid]}
        return BenchedServer(name, f"http://127.0.0.1:{port}/v1/orders", processes, users)
