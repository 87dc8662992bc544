"""The tour of the documentation is correct: its commands run in order and print what the page shows."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ops.test_up import FLOODGATE, ROOT, UpProcess, home

__all__ = ["home"]
_BLOCK = re.compile(r"^```(sh)?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_END = "--- end of a block ---"


def _blocks(page: str) -> Iterator[tuple[str, str]]:
    """Yield each block of commands with the block of text after it, which is its output."""
    blocks = _BLOCK.findall(page)
    for number, (kind, text) in enumerate(blocks):
        if kind == "sh":
            after = blocks[number + 1] if number + 1 < len(blocks) else ("sh", "")
            yield text, "" if after[0] else after[1]


def _fits(expected: str, line: str) -> bool:
    return re.fullmatch(re.escape(expected).replace("…", ".+"), line) is not None


def test_tour_commands_are_valid_bash() -> None:
    """Quick; the drill runs them."""
    blocks = list(_blocks((ROOT / "docs" / "tour.md").read_text(encoding="utf-8")))
    assert len(blocks) > 5
    script = "".join(commands for commands, _ in blocks)
    done = subprocess.run(["bash", "-n"], input=script, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.drill
@pytest.mark.timeout(500)
@pytest.mark.skipif(sys.platform != "linux" or not shutil.which("curl"), reason="needs /proc and curl")
async def test_tour_commands_print_the_output_of_the_page(home: Path) -> None:
    blocks = list(_blocks((ROOT / "docs" / "tour.md").read_text(encoding="utf-8")))
    script = "".join(f"{commands}\necho '{_END}'\n" for commands, _ in blocks)
    up = UpProcess(home)
    try:
        await up.start()
        env = up.env | {
            "BASE": f"http://127.0.0.1:{up.port}",
            "ADMIN": f"http://127.0.0.1:{up.admin_port}",
            "SANDBOX": f"http://127.0.0.1:{up.sandbox_port}",
            "PATH": f"{FLOODGATE.parent}:{os.environ['PATH']}",
            "TMPDIR": str(home),
        }
        process = await asyncio.create_subprocess_exec(
            *("bash", "-eu", "-o", "pipefail", "-c", script),
            env=env,
            cwd=ROOT,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        async with asyncio.timeout(400):
            assert process.stdout is not None
            assert process.stderr is not None
            stdout, stderr = await asyncio.gather(process.stdout.read(), process.stderr.read())
        await process.wait()
        output = stdout.decode()
        errors = [line for line in stderr.decode().splitlines() if not line.startswith("signed with the key ")]
        assert (process.returncode, errors) == (0, []), output
        for (commands, text), printed in zip(blocks, output.split(f"{_END}\n"), strict=False):
            lines, expected = printed.splitlines(), text.splitlines()
            fits = len(lines) == len(expected) and all(map(_fits, expected, lines))
            assert fits, f"{commands}\nprinted:\n{printed}\nthe page shows:\n{text}"
        assert "the data is kept" in await up.stop()
    finally:
        for pid in up.processes():
            os.kill(pid, signal.SIGKILL)
