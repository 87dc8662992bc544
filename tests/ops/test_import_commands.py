"""Import commands: files from pipes, reports of refused lines, and text that only looks filled."""

from __future__ import annotations

import asyncio
import csv
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from threading import Thread

import pytest
from typer.testing import CliRunner

from config.settings import Settings
from ops.cli import app
from ops.services import CliServices
from tests.support.processes import Processes

Command = Callable[..., Awaitable[tuple[int, str]]]
WAREHOUSE = (
    "id,name,phone,country,city,line,latitude,longitude\nhz,Hangzhou 1,0571-8888,CN,Hangzhou,Road 9,30.2,120.1\n"
)
FILES = {
    "catalog import": "sku,name,price,currency\nA1,Mug,2.55,GBP\n",
    "warehouse import": WAREHOUSE,
    "vehicle import": "region,latitude,longitude\ncn/zhejiang,30,120\n",
    "rates import": "carrier,region,from_g,to_g,price,currency,days,cod\nsf,CN,0,20000,18.00,CNY,2,yes\n",
}
each_import = pytest.mark.parametrize("command", FILES)


@pytest.fixture
def floodgate(settings: Settings, tmp_path: Path) -> Command:
    """Run a command against this test's shop; returns its status and output."""
    environment = Processes(settings, tmp_path).environment()

    async def run(*arguments: object) -> tuple[int, str]:
        texts = [str(argument) for argument in arguments]
        result = await asyncio.to_thread(CliRunner().invoke, app, texts, env=environment)
        return result.exit_code, result.output

    return run


async def count_imported(shop: CliServices) -> int:
    tables = ("products", "warehouses", "places", "rate_tables")
    async with shop.db.connection() as connection:
        return sum([await connection.fetchval(f"SELECT count(*) FROM {table}") for table in tables])


@each_import
async def test_import_from_pipe_reads_all_lines(floodgate: Command, shop: CliServices, command: str) -> None:
    reading, writing = os.pipe()

    def write() -> None:
        with os.fdopen(writing, "w") as pipe:
            pipe.write(FILES[command] + "\n" * 100_000)

    writer = Thread(target=write)
    writer.start()
    status, output = await floodgate(*command.split(), f"/dev/fd/{reading}")
    writer.join()
    os.close(reading)
    assert (status, await count_imported(shop)) == (0, 1), output


@each_import
async def test_import_with_unwritable_report_changes_nothing(
    floodgate: Command, shop: CliServices, command: str, tmp_path: Path
) -> None:
    file = tmp_path / "file.csv"
    file.write_text(FILES[command])
    for report in (tmp_path, tmp_path / "none" / "report.csv", file / "report.csv"):
        status, output = await floodgate(*command.split(), file, "--report", report)
        assert (status, "cannot write" in output) == (1, True), output
    assert await count_imported(shop) == 0


@each_import
async def test_import_with_its_own_file_as_report_keeps_the_file(
    floodgate: Command, shop: CliServices, command: str, tmp_path: Path
) -> None:
    file, link, hard_link = tmp_path / "file.csv", tmp_path / "link.csv", tmp_path / "hard.csv"
    file.write_text(FILES[command])
    link.symlink_to(file)
    hard_link.hardlink_to(file)
    for report in (file, link, hard_link, tmp_path / ".." / tmp_path.name / "file.csv"):
        for arguments in ((file, "--report", report), ("--report", report, file)):
            status, output = await floodgate(*command.split(), *arguments)
            assert (status, "name another file" in output) == (1, True), output
    assert file.read_text() == FILES[command]
    assert await count_imported(shop) == 0


async def test_routes_written_over_another_file_of_the_command_are_refused(floodgate: Command, tmp_path: Path) -> None:
    file = tmp_path / "file.svg"
    file.write_text("from,to,distance_m,duration_s\n")
    for first, second in (("--matrix", "--geojson"), ("--picture", "--matrix"), ("--geojson", "--picture")):
        status, output = await floodgate("route", "plan", "--date", "2026-11-11", first, file, second, file)
        assert (status, "name another file" in output) == (1, True), output


async def test_report_check_keeps_links_and_existing_files(floodgate: Command, tmp_path: Path) -> None:
    file, kept, link, loop = (tmp_path / name for name in ("file.csv", "kept.csv", "link.csv", "loop.csv"))
    file.write_text("no header")
    kept.write_text("kept")
    link.symlink_to(tmp_path / "not yet.csv")
    loop.symlink_to(loop)
    for report in (kept, link, loop, tmp_path / "new.csv"):
        status, output = await floodgate("catalog", "import", file, "--report", report)
        assert (status, "cannot write" in output) == (1, report == loop), output
    assert kept.read_text() == "kept"
    assert link.is_symlink()
    assert sorted(path.name for path in tmp_path.glob("*.csv")) == ["file.csv", "kept.csv", "link.csv", "loop.csv"]


@each_import
async def test_import_report_lists_every_refused_line_as_csv(floodgate: Command, command: str, tmp_path: Path) -> None:
    file, report = tmp_path / "file.csv", tmp_path / "report.csv"
    header, line, _ = FILES[command].split("\n")
    cells = ['"a ""quoted"" one"', *["x"] * line.count(",")]
    lines = [header, line, ",".join(cells), *(["\u200b"] * 60), '"', f"{line}\udcff"]
    file.write_text("\n".join(lines), errors="surrogateescape")
    status, output = await floodgate(*command.split(), file, "--report", report)
    assert status in (1, 2), output
    with report.open(encoding="utf-8", newline="") as source:
        rows = list(csv.reader(source, strict=True))
    assert rows[0] == ["line", "reason"]
    assert {int(number) for number, _ in rows[1:]} >= set(range(3, 65))
    assert "--report FILE lists all" in output


async def test_commands_refuse_text_without_letters(floodgate: Command, shop: CliServices, tmp_path: Path) -> None:
    items = tmp_path / "items.csv"
    items.write_text("sku,units\nA1,1\n")
    blank, order = "\u200b\u3000", "0199f0a2-7c3e-7b11-9c41-6f0d2b7e5a90"
    sale = ("sale", "create", "tea", "--items", items, "--currency", "CNY")
    for arguments in (
        (*sale, "--title", blank),
        ("sale", "change-stock", "tea", "A1", "1", "--reason", blank),
        ("order", "cancel", order, "--yes", "--reason", blank),
        ("payment", "refund", order, "--key", "k", "--reason", blank),
    ):
        status, output = await floodgate(*arguments)
        assert status in (1, 2), output
        assert "letter or digit" in " ".join(output.replace("│", " ").split()), output
    status, output = await floodgate("store-credit", "grant", "user", "2.55", "ZZZ", "--key", "k")
    assert (status, "not an ISO 4217 currency" in output) == (1, True), output
    status, output = await floodgate(*sale[:-1], "ZZZ", "--title", "Tea")
    assert (status, "not an ISO 4217 currency" in output) == (1, True), output
