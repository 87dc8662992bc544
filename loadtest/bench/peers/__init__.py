"""Floodgate's gateway and its peers, each configured as in production, with one process that answers."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path

from loadtest.bench.comparison import BenchedServer
from loadtest.bench.environment import BenchEnvironment, find_free_port
from loadtest.bench.machine import list_children
from loadtest.bench.peers.script import prepare_reserve

FLOODGATE, HELLO, HELLO_TO_ORDER = "floodgate", "aiohttp hello", "aiohttp hello to an order"
NGINX, FASTAPI, FASTIFY = "nginx + Lua", "FastAPI", "Fastify"
_HERE = Path(__file__).parent
_MODULES = Path("/usr/lib/nginx/modules")


class Peers:
    """Starts the servers; the stack stops them.

    `left_out` has the reasons for those that are not installed.
    """

    def __init__(self, environment: BenchEnvironment, stack: AsyncExitStack) -> None:
        self._environment = environment
        self._stack = stack
        self.skipped: dict[str, str] = {}

    async def start_all(self, *, slow: bool = True) -> list[BenchedServer]:
        """Start all installed servers; without the slow ones, only those that have thresholds."""
        return [*await self.start_hellos(), await self.start_floodgate(), *await self.start_rivals(slow=slow)]

    async def start_rivals(self, *, slow: bool = True, redis_socket: str | None = None) -> list[BenchedServer]:
        """Start those that take orders. `redis_socket` is that of Redis unless they get to it in another way."""
        variables = (await prepare_reserve(self._environment, redis_socket)).to_variables()
        servers = [await self._start_nginx(variables)]
        if slow:
            servers += [await self._start_fastapi(variables), await self._start_fastify(variables)]
        return [server for server in servers if server is not None]

    async def start_hellos(self) -> list[BenchedServer]:
        """Start bare aiohttp, which answers hello to a plain GET and to the requests of orders."""
        port = find_free_port()
        running = await self._environment.run_module("hello", "loadtest.bench.peers.hello", str(port), port=port)
        self._stack.push_async_callback(running.stop)
        processes, url = {"server": [running.pid]}, f"http://127.0.0.1:{port}"
        return [
            BenchedServer(HELLO, f"{url}/", processes),
            BenchedServer(HELLO_TO_ORDER, f"{url}/v1/orders", processes, "tokens", sells=False),
        ]

    async def start_floodgate(self, settings: Mapping[str, str] | None = None) -> BenchedServer:
        """Start one gateway process with everything enabled.

        `settings` are further variables of its environment.
        """
        port = find_free_port()
        variables = {"FLOODGATE_HTTP__PORT": str(port), "FLOODGATE_HTTP__ADMIN_PORT": str(find_free_port())}
        running = await self._environment.run_module(
            "gateway", "gateway", port=port, env={**variables, **(settings or {})}
        )
        self._stack.push_async_callback(running.stop)
        return self._order_server(FLOODGATE, port, [running.pid], "tokens")

    async def _start_fastapi(self, variables: Mapping[str, str]) -> BenchedServer:
        port = find_free_port()
        running = await self._environment.run_module(
            "fastapi", "loadtest.bench.peers.fastapi_app", str(port), port=port, env=variables
        )
        self._stack.push_async_callback(running.stop)
        return self._order_server(FASTAPI, port, [running.pid])

    async def _start_fastify(self, variables: Mapping[str, str]) -> BenchedServer | None:
        folder = _HERE / "fastify"
        if shutil.which("node") is None or not (folder / "node_modules").is_dir():
            self.skipped[FASTIFY] = f"needs node, and `npm ci` in {folder.relative_to(Path.cwd())}"
            return None
        port = find_free_port()
        variables = {**variables, "NODE_ENV": "production"}
        running = await self._environment.run_program(
            "fastify", "node", str(folder / "server.js"), str(port), port=port, env=variables
        )
        self._stack.push_async_callback(running.stop)
        return self._order_server(FASTIFY, port, [running.pid])

    async def _start_nginx(self, variables: Mapping[str, str]) -> BenchedServer | None:
        program = shutil.which("nginx") or "/usr/sbin/nginx"
        if not Path(program).exists() or not (_MODULES / "ngx_http_lua_module.so").exists():
            self.skipped[NGINX] = "needs Debian's nginx, libnginx-mod-http-lua and lua-cjson"
            return None
        port, home = find_free_port(), self._environment.home
        text = (_HERE / "nginx" / "nginx.conf").read_text(encoding="utf-8")
        placeholders = {"MODULES": _MODULES, "HOME": home, "PEER": _HERE / "nginx", "PORT": port}
        for name, value in placeholders.items():
            text = text.replace(f"@{name}@", str(value))
        if os.geteuid() == 0:
            text = f"user root;\n{text}"  # the owner of Redis's socket
        file = home / "nginx.conf"
        file.write_text(text, encoding="utf-8")
        running = await self._environment.run_program("nginx", program, "-c", str(file), port=port, env=variables)
        self._stack.push_async_callback(running.stop)
        return self._order_server(NGINX, port, list_children(running.pid))

    def _order_server(self, name: str, port: int, pids: list[int], users: str = "names") -> BenchedServer:
        processes = {"server": pids, "redis": [self._environment.redis_pid]}
        return BenchedServer(name, f"http://127.0.0.1:{port}/v1/orders", processes, users)
