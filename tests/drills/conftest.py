"""Fixtures of the drills."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Generator
from pathlib import Path
from random import Random

import pytest

from tests.drills.local_stack import LocalStack

NO_LIMIT_PER_USER = {
    "FLOODGATE_LIMITS__ORDERS_PER_USER_PER_S": "100000",
    "FLOODGATE_LIMITS__ORDERS_PER_USER_BURST": "100000",
}
"""Settings without a rate limit, which would keep orders of one user from racing."""
_failed = pytest.StashKey[bool]()
_LOG_CHARS = 2_000


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Record for the fixture `stack` that the test failed."""
    report = yield
    item.stash[_failed] = item.stash.get(_failed, False) or report.failed
    return report


@pytest.fixture
def rng() -> Random:
    """Random numbers for intended orders and times of kills. FLOODGATE_DRILL_SEED sets another seed."""
    return Random(os.environ.get("FLOODGATE_DRILL_SEED", "midnight"))


@pytest.fixture
async def stack(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> AsyncIterator[LocalStack]:
    """A running shop without sales.

    The data directory has a short path, which the user of Postgres may traverse. An indirect parameter replaces the
    default settings of drills. After a failure the logs are printed.
    """
    if sys.platform != "linux":
        pytest.skip("needs /proc to find processes")
    home = Path(tempfile.mkdtemp(prefix="fg-drill-"))
    home.chmod(0o755)
    monkeypatch.setenv("FLOODGATE_DATA_DIR", str(home))
    for name in ("REDIS_URL", "DATABASE_URL"):
        monkeypatch.delenv(name, raising=False)
    local_stack = LocalStack(home, env=getattr(request, "param", NO_LIMIT_PER_USER))
    try:
        await local_stack.start()
        yield local_stack
    finally:
        try:
            await local_stack.stop()
        finally:
            if request.node.stash.get(_failed, False):
                for log in (*sorted(home.glob("up.*")), *sorted((home / "logs").glob("*.*"))):
                    print(f"--- {log.name}", log.read_text(errors="replace")[-_LOG_CHARS:], sep="\n", file=sys.stderr)
            shutil.rmtree(home, ignore_errors=True)
