"""`floodgate rates` and `floodgate warehouse` as staff have them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from uuid import UUID
from zoneinfo import ZoneInfo

import msgspec
import pytest
from typer.testing import CliRunner

from commerce.catalog.model import VariantInput
from commerce.fulfilment.worklists import Worklists
from commerce.kernel.address import Address
from commerce.kernel.clock import from_ms
from commerce.rates.carrier_choice import choose_carrier
from commerce.rates.model import CarrierChoice
from commerce.rates.service import Rates
from config.settings import Settings
from ops.cli import app
from ops.services import CliServices
from tests.support.processes import Processes
from tests.support.sales import ADDRESS

HEADER = "carrier,region,from_g,to_g,price,currency,days,cod\n"
RATES = """sf,CN,0,20000,18.00,CNY,2,yes
yto,CN,0,20000,12.00,CNY,3,yes
yto,CN/Zhejiang/Hangzhou,0,1000,8.00,CNY,1,no
"""
Command = Callable[..., Awaitable[tuple[int, str]]]


@pytest.fixture
def floodgate(settings: Settings, tmp_path: Path) -> Command:
    """Run a command against this test's shop; returns its status and output, without the lines of tables."""
    environment = Processes(settings, tmp_path).environment()

    async def run(*arguments: object) -> tuple[int, str]:
        texts = [str(argument) for argument in arguments]
        result = await asyncio.to_thread(CliRunner().invoke, app, texts, env=environment)
        return result.exit_code, " ".join(result.output.translate(dict.fromkeys(range(0x2500, 0x2580), " ")).split())

    return run


def write_file(folder: Path, text: str) -> Path:
    file = folder / "rates.csv"
    file.write_text(text)
    return file


async def store_shipment(shop: CliServices, shipment_id: UUID, choice: CarrierChoice | list[CarrierChoice]) -> None:
    """Insert a shipment with this choice of a carrier and without an order."""
    async with shop.db.transaction() as connection:
        await connection.execute("SET LOCAL session_replication_role = replica")
        await connection.execute(
            "INSERT INTO shipments (shipment_id, order_id, address_no, parcel_no, warehouse_id, address, weight_g, "
            "length_mm, width_mm, height_mm, value_minor, currency, carrier_choice, promised_on, planned_at) "
            "VALUES ($1, $1, 0, 1, 'hz', '{}', 1, 1, 1, 1, 1, 'CNY', $2, '2026-11-20', now())",
            shipment_id,
            msgspec.json.encode(choice).decode(),
        )


async def test_rates_commands_import_show_and_choose(floodgate: Command, tmp_path: Path) -> None:
    assert (await floodgate("rates", "tables"))[1].startswith("there is no rate table")
    status, output = await floodgate("rates", "show")
    assert (status, "floodgate rates import" in output) == (1, True)
    file = write_file(tmp_path, HEADER + RATES)
    assert await floodgate("rates", "import", file) == (0, "table 1 is in force: 3 rates in CNY")
    status, output = await floodgate("rates", "tables")
    assert "rates.csv 3 CNY" in output
    status, output = await floodgate("rates", "show")
    assert "sf 1 1 yto 2 2" in output
    status, output = await floodgate("rates", "show", "--carrier", "yto")
    assert "cn 0 20000 12.00 CNY 3 yes cn/zhejiang/hangzhou 0 1000 8.00 CNY 1 no" in output
    assert "there is no carrier dhl" in (await floodgate("rates", "show", "--carrier", "dhl"))[1]
    choose = "rates", "choose", "--to", "CN/Zhejiang/Hangzhou", "--hand-over", "2026-11-17", "--by", "2026-11-20"
    status, output = await floodgate(*choose, "--weight", "800g")
    assert status == 0, output
    assert "yto for 8.00 CNY, arrives on 2026-11-18" in output
    assert "sf not chosen cn 18.00 CNY 2 2026-11-19 dearer than yto" in output
    status, output = await floodgate(*choose, "--weight", "0.8kg", "--cod")
    assert "sf for 18.00 CNY" in output
    assert "yto excluded cn/zhejiang/hangzhou 8.00 CNY 1 2026-11-18 no cash on delivery there" in output
    status, output = await floodgate(*choose, "--weight", "30kg")
    assert "by table 1: no carrier takes it" in output
    status, output = await floodgate(*choose[:-1], "2026-11-17", "--weight", "1kg")
    assert "arrives on 2026-11-18, after the promised 2026-11-17" in output
    for invalid in (("--weight", "much"), ("--weight", "0g"), ("--weight", "1kg", "--to", "a/b/c/d/e")):
        status, output = await floodgate(*choose, *invalid)
        assert (status, f"error: {invalid[-2]} {invalid[-1]}: give" in output) == (1, True)


async def test_rates_choose_without_day_uses_delivery_promise(
    floodgate: Command, shop: CliServices, settings: Settings, tmp_path: Path
) -> None:
    await floodgate("rates", "import", write_file(tmp_path, HEADER + "sf,CN,0,20000,18.00,CNY,5,yes\n"))
    before = from_ms(shop.clock.now_ms()).astimezone(ZoneInfo(settings.shipping.timezone)).date()
    status, output = await floodgate("rates", "choose", "--to", "cn", "--weight", "1kg")
    after = from_ms(shop.clock.now_ms()).astimezone(ZoneInfo(settings.shipping.timezone)).date()
    assert status == 0, output
    assert any(f"cheapest that arrives by {day + timedelta(days=5)}" in output for day in (before, after))


async def test_rates_import_of_invalid_table_reports_lines(floodgate: Command, tmp_path: Path) -> None:
    wrong_lines = "".join(f"c{n},CN,5,9,1,CNY,1,yes\n" for n in range(60))
    file = write_file(tmp_path, HEADER + RATES + wrong_lines)
    report = tmp_path / "report.csv"
    status, output = await floodgate("rates", "import", file, "--report", report)
    assert status == 1
    assert "line 5: the first step of c0 in cn begins at 5 g, not at 0" in output
    assert "and 10 more" in output
    assert "error: 60 lines are wrong, so nothing was imported" in output
    assert len(report.read_text().splitlines()) == 61
    assert (await floodgate("rates", "show"))[0] == 1


async def test_rates_explain_shows_stored_reasons(floodgate: Command, shop: CliServices, tmp_path: Path) -> None:
    await floodgate("rates", "import", write_file(tmp_path, HEADER + RATES))
    index = await Rates(shop.db, shop.clock).get_current()
    today = from_ms(shop.clock.now_ms()).date()
    choice = choose_carrier(
        index,
        Address(**ADDRESS),
        500,
        cod=False,
        dispatch_on=today,
        promised_on=today,
        excluded={"yto": "it refused this shipment"},
    )
    shipment_id, other = shop.ids.new(), shop.ids.new()
    await store_shipment(shop, shipment_id, choice)
    await store_shipment(shop, other, [])
    assert await Worklists(shop.db, shop.clock, shop.settings.shipping).explain_carrier_choice(shipment_id) == choice
    status, output = await floodgate("rates", "explain", shipment_id)
    assert (status, "sf for 18.00 CNY" in output, "it refused this shipment" in output) == (0, True, True)
    for shipment_without_choice in (other, shop.ids.new()):
        status, output = await floodgate("rates", "explain", shipment_without_choice)
        assert (status, "no carrier was chosen for it yet" in output) == (1, True)


async def test_warehouse_commands_import_and_show(floodgate: Command, shop: CliServices, tmp_path: Path) -> None:
    assert (await floodgate("warehouse", "show"))[1].startswith("there is no warehouse")
    places = "id,name,phone,country,province,city,line,latitude,longitude\n"
    hangzhou = "hz,Hangzhou 1,0571-8888,CN,Zhejiang,Hangzhou,Wenyi West Road 969,30.279,120.026\n"
    status, output = await floodgate("warehouse", "import", write_file(tmp_path, places + hangzhou))
    assert (status, output) == (0, "1 lines: 1 added, 0 changed, 0 unchanged, 0 refused")
    await shop.catalog.put("A1", VariantInput("thing", 100, "CNY"))
    logistics = (
        "sku,warehouse,shelf,weight_g,length_mm,width_mm,height_mm\nA1,hz,A-01,300,200,100,50\nA2,hz,A-01,1,1,1,1\n"
    )
    status, output = await floodgate("warehouse", "import", write_file(tmp_path, logistics))
    assert (status, "1 added" in output, "line 3: no product has the SKU A2" in output) == (2, True, True)
    status, output = await floodgate("warehouse", "show")
    assert "Wenyi West Road 969, Hangzhou, Zhejiang, CN 30.279, 120.026 1" in output
    assert "A1 hz A-01 300 g 200 x 100 x 50 mm" in (await floodgate("warehouse", "product", "A1"))[1]
    assert (await floodgate("warehouse", "product", "A2"))[0] == 1
