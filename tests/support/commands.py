"""Commands of `floodgate` inside the test's process.

A process of its own takes longer to start than most commands run.
`tests/ops/test_standard_streams.py` and `tests/ops/test_printed_texts.py` test what a process of its own adds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Protocol

from typer.testing import CliRunner

from ops.cli import app


class Command(Protocol):
    """Runs a command, with more variables of the environment, and returns its status and output."""

    async def __call__(self, *arguments: object, **variables: str) -> tuple[int, str]: ...


def make_command(environment: Mapping[str, str]) -> Command:
    """Return a function that runs commands with these variables.

    An unexpected error of a command is raised, not printed.
    """

    async def run(*arguments: object, **variables: str) -> tuple[int, str]:
        words, env = [str(argument) for argument in arguments], {**environment, **variables}
        result = await asyncio.to_thread(CliRunner().invoke, app, words, env=env)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result.exit_code, result.output

    return run
