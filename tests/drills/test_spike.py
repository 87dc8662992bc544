"""The locust scenario `midnight_spike` with two thousand customers, against `floodgate up`."""

from __future__ import annotations

import asyncio
import re
import sys
from contextlib import suppress
from pathlib import Path

import orjson
import pytest

from ops.services import open_cli_services
from tests.drills.final_checks import run_audit
from tests.drills.local_stack import LocalStack
from tests.support.sales import eventually, make_sale

pytestmark = [pytest.mark.drill, pytest.mark.timeout(240)]
ROOT = Path(__file__).parents[2]
USERS, UNITS, LIMIT = 2_000, 3_000, 2
_END_S = 150


@pytest.mark.parametrize("stack", [{}], indirect=True, ids=["default limits"])
async def test_midnight_spike_sells_all_units_without_failure(stack: LocalStack) -> None:
    """3,000 units, at most two per user, with the production rate limit."""
    async with open_cli_services(stack.settings()) as shop:
        await make_sale(shop, "spike", {"phone": (UNITS, 399_900, LIMIT)})
    await eventually(lambda: stack.shows_sale("spike"))
    stats = stack.home / "spike.json"
    loop = asyncio.get_running_loop()
    started = loop.time()
    process = await asyncio.create_subprocess_exec(
        str(Path(sys.executable).with_name("locust")),
        *("-f", "loadtest/scenarios/midnight_spike.py", "--host", f"http://127.0.0.1:{stack.port}", "--headless"),
        *("--only-summary", "--sale", "spike", "--sku", "phone", "-u", str(USERS), "-r", "500"),
        *("--json-file", str(stats.with_suffix(""))),
        cwd=ROOT,
        env=stack.env,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        stdout, _ = await asyncio.wait_for(process.communicate(), _END_S)  # it ends when the last customer has left
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
    output, seconds = stdout.decode(), loop.time() - started
    assert process.returncode == 0, output[-6_000:]
    assert "broken promise" not in output
    assert re.search(rf"units promised in all: {UNITS} ", output), output[-6_000:]
    entries = orjson.loads(stats.read_bytes())
    assert sum(entry["num_failures"] for entry in entries) == 0
    await eventually(lambda: _are_stored(stack), 60)
    audit = await run_audit(stack, "spike")
    assert (audit.orders, audit.total.available) == (UNITS, 0)
    counted = {f"{entry['method']} {entry['name']}": entry["num_requests"] for entry in entries}
    answers = ", ".join(f"{count} {name}" for name, count in sorted(counted.items()))
    print(
        f"\nMidnight: {USERS} customers, {UNITS} units, locust done in {seconds:.1f} s: {sum(counted.values())} "
        f"answers ({answers}); {audit.orders} orders, difference {audit.differences}"
    )


async def _are_stored(stack: LocalStack) -> bool:
    async with open_cli_services(stack.settings()) as shop, shop.db.connection() as connection:
        return bool(await connection.fetchval("SELECT count(*) FROM orders") == UNITS)
