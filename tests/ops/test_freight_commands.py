"""`floodgate freight` as staff have it."""

from __future__ import annotations

import asyncio
import csv
import json
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from config.settings import Settings
from ops.cli import app
from ops.services import CliServices
from tests.freight.test_freight_csv import GOOD, HEADER
from tests.support.processes import Processes
from tests.support.sales import make_sale

Command = Callable[..., Awaitable[tuple[int, str]]]


@pytest.fixture
def floodgate(settings: Settings, tmp_path: Path) -> Command:
    """Run a command against this test's shop; returns its status and output, without the lines of tables."""
    environment = Processes(settings, tmp_path).environment()

    async def run(*arguments: object) -> tuple[int, str]:
        texts = ["freight", *(str(argument) for argument in arguments)]
        result = await asyncio.to_thread(CliRunner().invoke, app, texts, env=environment)
        return result.exit_code, " ".join(result.output.translate(dict.fromkeys(range(0x2500, 0x2580), " ")).split())

    return run


def write_file(folder: Path, text: str) -> Path:
    file = folder / "freight.csv"
    file.write_text(HEADER + text, encoding="utf-8")
    return file


async def test_freight_file_is_checked_imported_exported_and_imported_again(floodgate: Command, tmp_path: Path) -> None:
    assert (await floodgate("list"))[1].startswith("there is no freight template")
    file = write_file(tmp_path, GOOD)
    assert await floodgate("import", file, "--check") == (0, "heavy would be added: version 1")
    assert (await floodgate("list"))[1].startswith("there is no freight template")
    assert await floodgate("import", file) == (0, "heavy added: version 1")
    assert await floodgate("import", file) == (0, "heavy unchanged: version 1")
    exported = tmp_path / "exported.csv"
    assert await floodgate("export", exported) == (0, f"1 templates are in {exported}")
    assert await floodgate("import", exported, "--check") == (0, "heavy would be unchanged: version 1")
    status, output = await floodgate("show", "heavy")
    assert status == 0
    assert "charged by weight; cash on delivery 7.00 CNY" in output
    assert "above 1000 g: 3.00 CNY more for each 500 g" in output
    assert "heavy 1 weight 2 7.00 CNY 0" in (await floodgate("list"))[1]
    status, output = await floodgate("show", "heavy", "--json")
    assert json.loads(output)["terms"]["zones"][0]["free_from_minor"] == 9900
    assert json.loads((await floodgate("list", "--json"))[1])[0]["name"] == "heavy"
    assert (await floodgate("show", "light"))[0] == 1
    assert (await floodgate("export", exported, "light"))[0] == 1


async def test_freight_file_with_faults_is_reported_whole_and_not_imported(floodgate: Command, tmp_path: Path) -> None:
    file = write_file(tmp_path, GOOD + "light,CNY,weight,,z,,ZZ,,,0,,,x\nlight,CNY,weight,,y,,CN,\u3000,,5,,,1\n")
    report = tmp_path / "report.csv"
    status, output = await floodgate("import", file, "--report", report)
    assert status == 1
    assert "line 6: fee: 'x' is not an amount" in output
    assert "2 faults in its rows, so nothing is imported" in output
    with report.open(encoding="utf-8", newline="") as opened:
        rows = list(csv.reader(opened))
    assert [row[0] for row in rows] == ["line", "6", "7"]
    assert (await floodgate("list"))[1].startswith("there is no freight template")
    status, output = await floodgate("import", file, "--check", "--json")
    assert status == 1
    assert '"column": "fee"' in output


async def test_freight_of_a_sale_is_assigned_and_tried(
    floodgate: Command, shop: CliServices, sale_id: str, tmp_path: Path
) -> None:
    await make_sale(shop, sale_id, {"a": (5, 100, None)})
    await floodgate("import", write_file(tmp_path, GOOD))
    assert await floodgate("assign", sale_id, "heavy") == (0, f"freight of {sale_id}: by heavy")
    assert (await shop.sales.get(sale_id)).freight_template == "heavy"
    changed = write_file(tmp_path, GOOD.replace("8.00", "9.00"))
    assert await floodgate("import", changed, "--check") == (0, "heavy would be changed: version 2, for 1 sales")
    assert (await shop.sale_freight.templates.get("heavy")).version == 1
    assert await floodgate("import", changed) == (0, "heavy changed: version 2, for 1 sales")
    status, output = await floodgate("try", "heavy", "--to", "cn/浙江/杭州", "--weight", "1.2kg")
    assert (status, output) == (
        0,
        "12.00 CNY: zone east, above 1000 g: 3.00 CNY more for each 500 g "
        "cash on delivery: 7.00 CNY more, once per order",
    )
    status, output = await floodgate("try", "heavy", "--to", "CN//上海市", "--amount", "99.00", "--json")
    assert json.loads(output)["charge"] == {"fee_minor": 0, "zone": "east", "quantity": 0, "step": None}
    assert await floodgate("assign", sale_id, "--none") == (0, f"freight of {sale_id}: none")


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("assign", "s"), "name a template, or give --none"),
        (("assign", "s", "heavy", "--none"), "name a template, or give --none"),
        (("try", "heavy", "--to", "ZZ"), "--to ZZ: give country/province/city"),
        (("try", "heavy", "--to", "CN/a/b/c"), "give country/province/city"),
        (("try", "heavy", "--to", "CN", "--weight", "much"), "give a weight such as"),
        (("try", "heavy", "--to", "CN"), "there is no freight template 'heavy'"),
    ],
)
async def test_freight_argument_that_makes_no_sense_is_refused(
    floodgate: Command, arguments: tuple[str, ...], reason: str
) -> None:
    status, output = await floodgate(*arguments)
    assert (status, reason in output) == (1, True)
