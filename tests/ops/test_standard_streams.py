"""Commands and processes run whatever their standard streams, words, user and locale are."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from typer.testing import CliRunner

from commerce.kernel.standard_streams import escape_unprintable
from config.settings import Settings
from ops.cli import app
from tests.support.processes import Processes, free_port
from tests.support.sales import eventually

BIN = Path(sys.executable).parent
KEYS = json.dumps([{"kid": "test", "secret": "only for tests, and long enough for HS256"}])
PROCESSES = {
    "gateway": ("-m", "gateway"),
    "worker": ("-m", "workers", "sale_sync", "observer"),
    "sandbox": ("-m", "ops.sandbox", "--data", "sandbox", "--keys", "sandbox/keys"),
}


async def run_shell(
    script: str, *arguments: str, home: Path, environment: dict[str, str] | None = None
) -> tuple[int, str, str]:
    """Run a script of bash in the folder `home`, with the commands of this environment in its path."""
    process = await asyncio.create_subprocess_exec(
        *("bash", "-c", script, "bash", *arguments),
        cwd=home,
        env=environment
        or {
            **os.environ,
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "FLOODGATE_AUTH__KEYS": KEYS,
            "PYTHONPATH": str(Path.cwd()),
        },
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode is not None
    return process.returncode, output.decode(), errors.decode()


@pytest.mark.parametrize(
    ("script", "status", "words"),
    [
        ("floodgate capacity <&- >&- 2>&-; s=$?; echo done; exit $s", 0, "done"),
        ("floodgate token user alice >token 2>&-; s=$?; cat token; exit $s", 0, "ey"),
        ("floodgate capacity | head -c 4 >/dev/null; exit ${PIPESTATUS[0]}", 0, ""),
        ("floodgate capacity >/dev/full", 1, "cannot write the output: No space left on device"),
        ("PYTHONIOENCODING=ascii floodgate capacity", 0, "orders/s"),
        ("LC_ALL=C PYTHONUTF8=0 PYTHONCOERCECLOCALE=0 floodgate reconcile --help", 0, "业务明细"),
        ("floodgate token user $'caf\\xe9'", 2, "error: caf\\udce9 is not UTF-8; type it again, or rename the file"),
        ("floodgate order cancel 01a22470-ed59-7416-844b-11937b157bee --reason r <&-", 1, "Aborted"),
        (
            "printf '\\xff\\n' | floodgate order cancel 01a22470-ed59-7416-844b-11937b157bee --reason r",
            1,
            "invalid input",
        ),
    ],
)
async def test_command_in_unusual_shell_ends_without_traceback(
    tmp_path: Path, script: str, status: int, words: str
) -> None:
    result, output, errors = await run_shell(script, home=tmp_path)
    assert "Traceback" not in errors
    assert "Exception" not in errors
    assert result == status, errors
    assert words in output + errors


ID = "01a22470-ed59-7416-844b-11937b157bee"
UNREADABLE = "/proc/self/mem"


@pytest.mark.parametrize(
    ("command", "status", "words"),
    [
        ("catalog import no.csv", 2, "'no.csv' does not exist"),
        ("catalog import .", 2, "'.' is a directory"),
        (f"catalog import {UNREADABLE}", 1, f"cannot read {UNREADABLE}: Input/output error"),
        (f"vehicle import {UNREADABLE}", 1, f"cannot read {UNREADABLE}: Input/output error"),
        (f"warehouse import {UNREADABLE}", 1, f"cannot read {UNREADABLE}: Input/output error"),
        (f"rates import {UNREADABLE}", 1, f"cannot read {UNREADABLE}: Input/output error"),
        (f"route plan --date 2026-11-11 --matrix {UNREADABLE}", 1, f"cannot read {UNREADABLE}: Input/output error"),
        ("catalog import /dev/null --report no/r.csv", 1, "cannot write no/r.csv: No such file or directory"),
        ("catalog import /dev/null --report .", 1, "cannot write .: Is a directory"),
        (f"shipment label {ID} --out no/l.pdf", 1, "cannot write no/l.pdf: No such file or directory"),
        (f"wave labels {ID} --out no/l.pdf", 1, "cannot write no/l.pdf: No such file or directory"),
        ("route show --date 2026-11-11 --geojson no/r", 1, "cannot write no/r: No such file or directory"),
        ("route plan --date 2026-11-11 --picture no/r.svg", 1, "cannot write no/r.svg: No such file or directory"),
        (f"shipment redirect {ID} --address no.json --reason r", 2, "no.json"),
        ("capacity --figures .", 1, "Is a directory"),
    ],
)
def test_command_with_wrong_file_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, status: int, words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, command.split())
    assert result.exit_code == status, result.output
    assert words in result.output
    assert "Postgres" not in result.output
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("FLOODGATE_CONFIG=no.toml floodgate settings", "no.toml"),
        ("FLOODGATE_LOG__FILE=/proc/no/log floodgate gateway", "cannot use /proc/no: No such file or directory"),
        ("FLOODGATE_LOG__FILE=/ python -m workers observer", "cannot use /: Is a directory"),
        ("python -m ops.sandbox --data /proc/no --port 0", "/proc/no"),
    ],
)
async def test_process_with_wrong_file_names_it(tmp_path: Path, script: str, words: str) -> None:
    result, output, errors = await run_shell(script, home=tmp_path)
    assert (result, output) == (1, ""), errors
    assert words in errors
    assert "Traceback" not in errors
    assert "Postgres" not in errors


NAMELESS = ("unshare", "--map-user=54321", "--map-group=54321", "env", "-u", "HOME", "-u", "USER", "-u", "LOGNAME")
"""runs a command as a user without a name and without a home, as containers do"""
needs_namespaces = pytest.mark.skipif(
    not shutil.which("unshare") or subprocess.run([*NAMELESS, "true"], check=False).returncode != 0,
    reason="needs user namespaces",
)


@needs_namespaces
@pytest.mark.parametrize(
    ("command", "status", "words"),
    [
        ("floodgate token user alice", 0, "ey"),
        ("python -c 'from ops.commands.console import get_actor; print(get_actor())'", 0, "cli uid 54321\n"),
        ("REDIS_URL=redis:// DATABASE_URL=postgresql://localhost/x floodgate migrate", 1, "DATABASE_URL names no user"),
    ],
)
async def test_user_without_name_and_home_is_known_by_number(
    tmp_path: Path, command: str, status: int, words: str
) -> None:
    result, output, errors = await run_shell(f"{' '.join(NAMELESS)} {command}", home=tmp_path)
    assert (result, "Traceback" in errors) == (status, False), errors
    assert words in output + errors


async def test_import_reads_a_pipe(settings: Settings, sale_prefix: str, tmp_path: Path) -> None:
    environment = {**os.environ, **Processes(settings, tmp_path).environment(), "PATH": f"{BIN}:{os.environ['PATH']}"}
    script = "printf 'sku,name,price,currency\\na,Mug,2.50,CNY\\n\\n' | floodgate catalog import /dev/stdin"
    result = await run_shell(script, home=tmp_path, environment=environment)
    assert result == (0, "1 lines: 1 added, 0 changed, 0 unchanged, 0 refused, 1 blank\n", "")


@pytest.mark.parametrize("name", PROCESSES)
async def test_process_with_closed_streams_runs_until_hang_up(
    settings: Settings, sale_prefix: str, tmp_path: Path, name: str
) -> None:
    """Started by cron or after a lost terminal: all streams closed, and no file readable for others."""
    port = free_port()
    arguments: Sequence[str] = PROCESSES[name]
    if name == "sandbox":
        arguments = (*arguments, "--port", str(port))
    processes = Processes(settings, tmp_path, port=port)
    environment = {
        **os.environ,
        **processes.environment(),
        "FLOODGATE_LOG__FILE": str(tmp_path / "log"),
        "PYTHONPATH": str(Path.cwd()),
    }
    script = 'umask 077; exec "$@" <&- >&- 2>&-'
    process = await asyncio.create_subprocess_exec(
        "bash", "-c", script, "bash", sys.executable, *arguments, cwd=tmp_path, env=environment
    )

    async def is_running() -> bool:
        if process.returncode is not None:
            return True
        if name == "worker":
            return (tmp_path / "log").exists() and '"started"' in (tmp_path / "log").read_text()
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            answer = await reader.read()
        except OSError:
            return False
        writer.close()
        return answer.startswith(b"HTTP/1.1 ")

    await eventually(is_running)
    process.send_signal(signal.SIGHUP)
    assert await asyncio.wait_for(process.wait(), 30) == 0


def test_escape_keeps_text_and_the_meaning_of_json() -> None:
    texts = ["a\tb\nc", "中秋节 🏮", "שלום", "عربي", "क्‍ष", "dent [/dent] :smile:"]
    assert [escape_unprintable(text) for text in texts] == texts
    hostile = "\x00\x1b[31m\x7f\x9b\u061c\u200b\u200e\u2028\u202e\u2066\ufeff\ud800"
    escaped = escape_unprintable(hostile)
    assert escaped.isascii()
    assert json.loads(f'"{escaped}"') == hostile
