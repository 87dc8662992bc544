"""The `floodgate` command as an operator has it: what it says when something is in the way."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from config.settings import Settings
from tests.support.processes import Processes

FLOODGATE = Path(sys.executable).with_name("floodgate")
Command = Callable[..., Awaitable[tuple[int, str]]]


@pytest.fixture
def floodgate(settings: Settings, sale_prefix: str, tmp_path: Path) -> Command:
    """Runs a command in this test's shop; gives its status and all that it prints."""
    environment = {**os.environ, **Processes(settings, tmp_path).environment()}

    async def run(*arguments: str, **more: str) -> tuple[int, str]:
        process = await asyncio.create_subprocess_exec(
            str(FLOODGATE),
            *arguments,
            env={**environment, **more},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        said, _ = await asyncio.wait_for(process.communicate(), 60)
        assert process.returncode is not None
        return process.returncode, said.decode()

    return run


@pytest.mark.parametrize(
    ("command", "setting"),
    [
        ("gateway", "FLOODGATE_HTTP__PORT"),
        ("gateway", "FLOODGATE_HTTP__ADMIN_PORT"),
        ("worker observer", "FLOODGATE_OBSERVER__WORKER_METRICS_PORT"),
    ],
)
async def test_a_port_that_is_taken(floodgate: Command, command: str, setting: str) -> None:
    with socket.socket() as other:
        other.bind(("0.0.0.0", 0))
        other.listen()
        port = str(other.getsockname()[1])
        status, said = await floodgate(*command.split(), **{setting: port})
    assert status == 1
    assert "database" not in said
    assert f":{port} cannot be listened on (Address already in use)" in said
    assert f"set {setting}" in said
