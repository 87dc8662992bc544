"""`floodgate vehicle` and `floodgate route` as staff have them."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from commerce.fleet.driver_links import check_link
from config.settings import Settings
from ops.services import CliServices
from tests.fleet.fleet_kit import ZONE, make_fleet_kit, point_near_depot
from tests.support.commands import make_command
from tests.support.processes import Processes

Command = Callable[..., Awaitable[tuple[int, str]]]


@pytest.fixture
def floodgate(settings: Settings, tmp_path: Path) -> Command:
    """Run a command against this test's shop; returns its status and output, without the lines of tables."""
    run = make_command(Processes(settings, tmp_path).environment())

    async def run_on_one_line(*arguments: object) -> tuple[int, str]:
        status, output = await run(*arguments)
        return status, " ".join(output.translate(dict.fromkeys(range(0x2500, 0x2580), " ")).split())

    return run_on_one_line


async def test_vehicle_commands_import_and_list(shop: CliServices, floodgate: Command, tmp_path: Path) -> None:
    await make_fleet_kit(shop)
    file = tmp_path / "fleet.csv"
    file.write_text(
        "vehicle_id,warehouse_id,capacity_g,shift_from,shift_to\nV3,hz,900000,07:00,15:30\nV4,moon,1,07:00,08:00\n"
    )
    status, output = await floodgate("vehicle", "import", file)
    assert status == 2
    assert "2 lines: 1 added, 0 changed, 0 unchanged, 1 refused" in output
    assert "line 3: there is no warehouse 'moon'" in output
    status, output = await floodgate("vehicle", "list")
    assert (status, "V3 hz 900 kg 07:00-15:30" in output) == (0, True)
    assert "V1 hz 500 kg 08:00-18:00 45 min, 12:00-14:00 yes" in output
    file.write_text("region,latitude,longitude\ncn/zhejiang,30,120\n")
    assert "1 added" in (await floodgate("vehicle", "import", file))[1]


async def test_route_commands_plan_show_and_draw(shop: CliServices, floodgate: Command, tmp_path: Path) -> None:
    kit = await make_fleet_kit(shop)
    kit.clock.at = datetime.now(UTC)
    day = (kit.clock.at.astimezone(ZONE) + timedelta(days=1)).date()
    located, unlocated = (
        await kit.add_delivery(point_near_depot(1, 1), ("09:00", "11:00")),
        await kit.add_delivery(None),
    )
    map_, picture, matrix = tmp_path / "day.geojson", tmp_path / "day.svg", tmp_path / "matrix.csv"
    matrix.write_text(f"from,to,distance_m,duration_s\nhz,{located},1234,300\n{located},hz,1000,250\n")
    plan = ("route", "plan", "--date", day, "--seconds", "0.1", "--seed", "7")
    status, output = await floodgate(*plan, "--matrix", matrix, "--geojson", map_, "--picture", picture)
    assert status == 2
    assert f"{unlocated} hz its region has no coordinates; import one of cn/zhejiang/hangzhou/xihu" in output
    assert "2.2 km" in output
    assert "09:00-11:00" in output
    assert str(located) in map_.read_text()
    assert len(json.loads(map_.read_text())["features"]) == 3
    assert picture.read_text().startswith("<?xml")
    status, output = await floodgate("route", "show", "--date", day)
    assert (status, str(located) in output, str(unlocated) in output) == (0, True, False)
    status, output = await floodgate("route", "links", "--date", day, "--base", "https://shop.example/")
    token = output.split()[1].removeprefix("https://shop.example/v1/driver-routes/").removesuffix("/page")
    [route] = await kit.fleet.list_routes(day)
    assert check_link(shop.settings.driver_link_key(), token, kit.clock.at) == route.route_id

    matrix.write_text(f"from,to,distance_m,duration_s\nhz,{located},far,300\n")
    for arguments, reason in (
        ((*plan, "--matrix", matrix), "line 2: distance_m is 'far'"),
        ((*plan, "--picture", tmp_path / "day.gif"), "a picture is .svg or .png, not .gif"),
        (("route", "show", "--date", day, "--geojson", tmp_path / "no" / "where"), "No such file or directory"),
        (("route", "plan", "--date", "2020-01-01"), "30 days ahead, not for 2020-01-01"),
    ):
        status, output = await floodgate(*arguments)
        assert (status, reason in output) == (1, True), output
