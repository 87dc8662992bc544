"""`floodgate room` and `floodgate draw` as staff have them, with the keeper as a worker."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path

import pytest

import lua
from commerce.kernel.clock import from_ms, to_ms
from config.settings import Settings
from lua import SaleKeys
from ops.services import CliServices
from tests.support.commands import make_command
from tests.support.gateway import run_workers
from tests.support.processes import Processes
from tests.support.sales import eventually, make_sale

Command = Callable[..., Awaitable[tuple[int, str]]]


@pytest.fixture
def floodgate(settings: Settings, tmp_path: Path) -> Command:
    """Run a command against this test's shop; returns its status and output."""
    run = make_command(Processes(settings, tmp_path).environment())

    async def run_on_one_line(*arguments: object) -> tuple[int, str]:
        status, output = await run(*arguments)
        return status, " ".join(output.split())

    return run_on_one_line


async def test_evening_with_a_room_is_drawn_served_and_checked(
    floodgate: Command, shop: CliServices, settings: Settings, sale_id: str, tmp_path: Path
) -> None:
    opens_at = from_ms(shop.clock.now_ms()) + timedelta(seconds=4)
    await make_sale(shop, sale_id, {"A1": (10, 100, None)}, opens_at=opens_at)
    keys, closes_at = SaleKeys(sale_id), opens_at - timedelta(seconds=1)
    status, text = await floodgate("room", "set", sale_id, "--list-closes-at", closes_at.isoformat())
    assert status == 0, text
    named = await floodgate("draw", "announce", sale_id)
    assert named[0] == 0
    assert f"{sale_id} draws by drand:52db9ba7" in named[1]
    at = closes_at + timedelta(seconds=2.5)
    named = await floodgate("draw", "announce", sale_id, "--source", "the lottery", "--at", at.isoformat())
    assert f"{sale_id} draws by the lottery, published at" in named[1]
    assert "delay:60 takes its place" in named[1]
    async with run_workers(settings, "room_keeper"):

        async def is_ready() -> bool:
            return (await lua.read_room(shop.redis, keys)).stage == "open"

        async def state() -> str:
            return (await shop.rooms.get(sale_id)).state

        async def served() -> int:
            return (await shop.rooms.get(sale_id)).served

        await eventually(is_ready)
        await lua.join_room(shop.redis, keys, [(bytes([number]) * 32, 0) for number in range(5)], 100, 0)

        async def is_drawing() -> bool:
            return await state() == "drawing"

        await eventually(is_drawing)
        wrong = await floodgate("draw", "run", sale_id, "--randomness", "1, 2, 3")
        assert (wrong[0], "with one space between" in wrong[1]) == (1, True), wrong

        async def is_public() -> bool:
            return shop.clock.now_ms() >= to_ms(at)

        await eventually(is_public)
        status, text = await floodgate("draw", "run", sale_id, "--randomness", "1 2 3")
        assert (status, f"the 5 places of {sale_id} are drawn by the lottery: 1 2 3" in text) == (0, True), text

        async def all_served() -> bool:
            return await served() == 5

        await eventually(all_served)
    file = tmp_path / "places.txt"
    assert (await floodgate("draw", "export", sale_id, file))[0] == 0
    status, text = await floodgate("draw", "verify", file)
    assert (status, f"the places of 5 tickets of {sale_id} follow" in text) == (0, True), text
    lines = file.read_text().splitlines()
    file.write_text("\n".join([lines[0], *lines[:0:-1]]) + "\n")
    status, text = await floodgate("draw", "verify", file)
    assert (status, "cannot confirm the draw" in text) == (1, True)
    status, text = await floodgate("room", "show", sale_id, "--json")
    assert (status, '"served": 5' in text, "salt" in text) == (0, True, False), text
    status, text = await floodgate("room", "set", sale_id, "--min-account-age-s", 60)
    assert (status, "its list is closed" in text) == (1, True), text


async def test_automatic_room_is_set_up_and_shown(floodgate: Command, shop: CliServices, sale_id: str) -> None:
    await make_sale(shop, sale_id, {"A1": (10, 100, None)})
    status, text = await floodgate("room", "set", sale_id, "--automatic", "--off")
    assert (status, "exclude each other" in text) == (2, True), text
    status, text = await floodgate("room", "set", sale_id, "--automatic", "--max-pace-per-s", 50)
    assert (status, text) == (0, f"the waiting room of {sale_id} is automatic; its state is standby")
    status, text = await floodgate("room", "show", sale_id, "--json")
    assert (status, '"state": "standby"' in text, '"max_pace_per_s": 50' in text) == (0, True, True), text
    status, text = await floodgate("room", "set", sale_id, "--on")
    assert (status, f"the waiting room of {sale_id} is on; its list closes at" in text) == (0, True), text
    status, text = await floodgate("room", "show", sale_id, "--json")
    assert '"state": "serving"' in text, "the sale is open: nothing is drawn"
