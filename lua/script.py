"""Loading and calling one script. Only this package knows that scripts have names and hashes."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from importlib import resources
from typing import Any, Protocol

from redis.exceptions import NoScriptError

Argument = bytes | str | int


class Commands(Protocol):
    """What sends commands: redis-py's client, or a link of our own."""

    async def execute_command(self, *command: Any) -> Any: ...


class Script:
    """A `.lua` file of this package. Redis keeps it by its SHA-1; one that has forgotten it is sent it again."""

    __slots__ = ("name", "sha", "source")

    def __init__(self, name: str) -> None:
        self.name = name
        self.source = resources.files(__package__).joinpath(f"{name}.lua").read_text(encoding="utf-8")
        self.sha = hashlib.sha1(self.source.encode(), usedforsecurity=False).hexdigest()

    async def call(self, client: Commands, keys: Sequence[bytes], arguments: Sequence[Argument]) -> Any:
        """Run it. A script that Redis does not know did nothing, so sending it again is safe."""
        try:
            return await client.execute_command("EVALSHA", self.sha, len(keys), *keys, *arguments)
        except NoScriptError:
            return await client.execute_command("EVAL", self.source, len(keys), *keys, *arguments)
