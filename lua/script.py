"""Loading and calling of one script. No other package knows that scripts have names and hashes."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from contextlib import suppress
from importlib import resources
from typing import Any, Protocol

from redis.exceptions import NoScriptError

Argument = bytes | str | int

_INCLUDE = re.compile(r"^-- include: (\w+)$", re.MULTILINE)


class Commands(Protocol):
    """A sender of commands: redis-py's client, or a multiplexer of our own."""

    async def execute_command(self, *command: Any) -> Any: ...


def assemble_script(name: str) -> str:
    """Read `NAME.lua` and replace each line `-- include: PIECE` by the text of `include/PIECE.lua`.

    Raises `FileNotFoundError` if a file is missing.
    """
    package = resources.files(__package__)

    def read_piece(line: re.Match[str]) -> str:
        return package.joinpath("include", f"{line[1]}.lua").read_text(encoding="utf-8").rstrip("\n")

    return _INCLUDE.sub(read_piece, package.joinpath(f"{name}.lua").read_text(encoding="utf-8"))


class Script:
    """A `.lua` file of this package with its included pieces.

    Redis keeps a script by the SHA-1 of its assembled text.
    """

    __slots__ = ("name", "sha", "source")

    def __init__(self, name: str) -> None:
        self.name = name
        self.source = assemble_script(name)
        self.sha = hashlib.sha1(self.source.encode(), usedforsecurity=False).hexdigest()

    async def call(self, client: Commands, keys: Sequence[bytes], arguments: Sequence[Argument]) -> Any:
        """Run the script and return its reply.

        A Redis that has lost the script gets its text. That is safe to send: the first call did nothing.
        """
        with suppress(NoScriptError):
            return await client.execute_command("EVALSHA", self.sha, len(keys), *keys, *arguments)
        return await client.execute_command("EVAL", self.source, len(keys), *keys, *arguments)
