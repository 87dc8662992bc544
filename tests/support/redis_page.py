"""A Redis that runs with the lines for redis.conf and its users in docs/operations.md."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import quote

from redis.asyncio import Redis

from ops.local.embedded_servers import prepare_redis_server
from ops.local.subprocesses import ProcessSpec

PAGE = Path(__file__).parents[2] / "docs" / "operations.md"
_PASSWORDS_BY_USER = {"floodgate": "floodgate-password", "admin": "admin-password"}
_USERS = {"PASSWORD": "floodgate", "ADMIN_PASSWORD": "admin"}
_BLOCK = re.compile(r"^```\w*\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def list_blocks(heading: str) -> list[str]:
    """Return the code blocks of a section of the operations page, by its heading of any level."""
    text = PAGE.read_text(encoding="utf-8")
    section = re.split(rf"^#+ {re.escape(heading)}$", text, flags=re.MULTILINE)[1]
    return _BLOCK.findall(re.split(r"^#{1,3} ", section, flags=re.MULTILINE)[0])


def read_users() -> str:
    """Return the page's file of Redis users, with passwords in place of the placeholders."""
    block = next(block for block in list_blocks("Redis") if block.startswith("user "))
    return re.sub(r">(\w+)", lambda match: f">{_PASSWORDS_BY_USER[_USERS[match[1]]]}", block)


def read_redis_options() -> list[str]:
    """Return the page's lines for redis.conf as options of redis-server."""
    block = next(block for block in list_blocks("Redis") if block.startswith("appendonly"))
    pairs = [line.split(" ", 1) for line in block.splitlines()]
    return [word for name, value in pairs for word in (f"--{name}", value.strip('"'))]


@dataclass(frozen=True)
class PageRedis:
    """The server to start and its socket."""

    spec: ProcessSpec
    socket: Path

    def url(self, user: str) -> str:
        return f"unix://{user}:{_PASSWORDS_BY_USER[user]}@{quote(str(self.socket))}"

    def login(self, user: str) -> list[str]:
        """Return the options with which redis-cli connects as the user."""
        return ["-s", str(self.socket), "--user", user, "--pass", _PASSWORDS_BY_USER[user]]


def prepare_page_redis(data_dir: Path, binary: Path | None = None) -> PageRedis:
    """Prepare a server as the page describes it, by default with the Redis of this machine."""
    base = prepare_redis_server(data_dir).spec
    home = data_dir / "redis"
    users = home / "users.acl"
    users.write_text(read_users())
    files = ["--port", "0", "--unixsocket", str(home / "redis.sock"), "--dir", str(home), "--aclfile", str(users)]
    redis = PageRedis(base, home / "redis.sock")

    async def check_ready() -> None:
        client = Redis.from_url(redis.url("admin"))
        try:
            await client.ping()
        finally:
            await client.aclose()

    argv = [str(binary or base.argv[0]), *files, *read_redis_options()]
    return replace(redis, spec=replace(base, argv=argv, check_ready=check_ready))
