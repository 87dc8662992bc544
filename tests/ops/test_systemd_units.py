"""The systemd units are valid and start what exists."""

from __future__ import annotations

import configparser
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from config.settings import LimitSettings
from tests.support.redis_page import PAGE
from workers.registry import NAMES

UNITS = sorted((Path(__file__).parents[2] / "config" / "systemd").glob("*.service"))
GATEWAY = "/opt/floodgate/bin/floodgate gateway"
FLOODGATE = Path(sys.executable).with_name("floodgate")


def test_units_exist_for_gateways_and_workers() -> None:
    assert [unit.name for unit in UNITS] == ["floodgate-gateway@.service", "floodgate-worker@.service"]


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_unit_restarts_stops_in_time_and_has_limits(unit: Path) -> None:
    parser = configparser.ConfigParser(interpolation=None, strict=True)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(unit)
    service = parser["Service"]
    assert service["Restart"] == "always"
    assert parser["Unit"]["StartLimitIntervalSec"] == "0"  # a database may be unavailable for hours
    assert int(service["TimeoutStopSec"]) > LimitSettings().graceful_stop_s + 5
    assert int(service["LimitNOFILE"]) > LimitSettings().connections + LimitSettings().admin_connections + 1_000
    assert {"RuntimeDirectory", "MemoryMax", "User", "EnvironmentFile"} <= set(service)


def test_workers_give_way_to_gateways_except_those_that_customers_wait_for() -> None:
    """Busy CPUs are shared by these weights; 100 is the default, which databases have."""
    gateway, worker = UNITS
    drop_ins_of_workers = {"order_writer": "cpu.conf", "product_index": "search_cpu.conf"}
    drop_ins = [
        worker.with_name(f"floodgate-worker@{name}.service.d") / file for name, file in drop_ins_of_workers.items()
    ]
    files = (gateway, worker, *drop_ins)
    weights = [re.findall(r"^CPUWeight=(\d+)$", file.read_text(), re.MULTILINE) for file in files]
    assert weights == [["100"], ["30"], ["100"], ["100"]]
    assert drop_ins_of_workers.keys() <= set(NAMES)


@pytest.mark.parametrize(("instance", "port"), [("1", 8_091), ("9", 8_099), ("10", 8_100), ("64", 8_154)])
def test_gateway_of_any_number_has_an_admin_port_of_its_own(instance: str, port: int) -> None:
    [unit] = [unit for unit in UNITS if "gateway" in unit.name]
    [command] = re.findall(r"^ExecStart=(.+)$", unit.read_text(), re.MULTILINE)
    command = command.replace("%i", instance).replace("$$", "$").replace(GATEWAY, "printenv FLOODGATE_HTTP__ADMIN_PORT")
    result = subprocess.run(shlex.split(command), capture_output=True, text=True, timeout=10, check=True)
    assert int(result.stdout) == port


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="needs systemd")
@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_systemd_accepts_unit(unit: Path, tmp_path: Path) -> None:
    copy = tmp_path / unit.name.replace("@.", "@order_writer.")
    copy.write_text(unit.read_text().replace("/opt/floodgate/bin/floodgate", str(FLOODGATE)))
    result = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(copy)], capture_output=True, text=True, timeout=60, check=False
    )
    about_unit = [line for line in result.stderr.splitlines() if "floodgate" in line]
    assert (result.returncode, about_unit) == (0, []), result.stderr


def test_page_enables_every_worker() -> None:
    match = re.search(r"^for worker in (.+); do$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert match
    assert set(match[1].split()) == set(NAMES)
