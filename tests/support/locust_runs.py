"""Runs of locust in processes of their own, since it patches the process that imports it."""

from __future__ import annotations

import asyncio
import csv
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import orjson

from tests.conftest import SECRET

ROOT = Path(__file__).parents[2]
_TIMEOUT_S = 60


@dataclass
class LocustResult:
    """Result of a run of locust. `requests` and `failures` are counts by method and name."""

    status: int
    output: str
    requests: dict[str, int]
    failures: dict[str, int]


async def run_locust(
    scenario: str, base: str, home: Path, env: dict[str, str], *options: str, users: int, run_name: str = "stats"
) -> LocustResult:
    """Run a scenario without a browser."""
    file = f"loadtest/scenarios/{scenario}.py"
    stats_file = home / f"{run_name}.json"
    status, output = await run_command(
        [
            *(str(Path(sys.executable).parent / "locust"), "-f", file, "--host", base, "--headless", "--only-summary"),
            *("-u", str(users), "-r", "100", "--json-file", str(stats_file.with_suffix("")), *options),
        ],
        env,
    )
    stats = orjson.loads(stats_file.read_bytes()) if stats_file.exists() else []
    return LocustResult(
        status,
        output,
        {f"{entry['method']} {entry['name']}": entry["num_requests"] for entry in stats},
        {f"{entry['method']} {entry['name']}": entry["num_failures"] for entry in stats},
    )


async def run_command(command: Sequence[str], env: dict[str, str]) -> tuple[int, str]:
    """Run a command in the repository. Returns its status and what it printed on both streams."""
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=ROOT,
        env={**os.environ, **env},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        output, _ = await asyncio.wait_for(process.communicate(), _TIMEOUT_S)
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
    assert process.returncode is not None
    return process.returncode, output.decode()


def key_environment(home: Path, secret: str = SECRET) -> dict[str, str]:
    """Return the variables of a locust that signs with the tests' key."""
    keys = orjson.dumps([{"kid": "test", "secret": secret}]).decode()
    return {"FLOODGATE_AUTH__KEYS": keys, "FLOODGATE_DATA_DIR": str(home)}


def check_clean(result: LocustResult) -> None:
    """Check that a run found neither a failure nor a broken promise."""
    assert result.status == 0, result.output
    assert sum(result.failures.values()) == 0, result.output
    assert "broken promise" not in result.output


def read_csv(file: Path) -> list[dict[str, str]]:
    """Read a file of `--csv`."""
    with file.open(newline="") as lines:
        return list(csv.DictReader(lines))
