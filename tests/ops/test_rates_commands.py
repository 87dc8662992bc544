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

from commerce.catalog.model import ProductInput
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
    """Runs a command in this test's shop; gives its status and all that it prints, without the lines of tables."""
    environment = Processes(settings, tmp_path).environment()

    async def run(*arguments: object) -> tuple[int, str]:
        given = [str(argument) for argument in arguments]
        done = await asyncio.to_thread(CliRunner().invoke, app, given, env=environment)
        return done.exit_code, " ".join(done.output.translate(dict.fromkeys(range(0x2500, 0x2580), " ")).split())

    return run


def write_file(folder: Path, text: str) -> Path:
    file = folder / "given.csv"
    file.write_text(text)
    return file


async def stored_choice(shop: CliServices, shipment_id: UUID, choice: CarrierChoice | list[CarrierChoice]) -> None:
    """A parcel with what was chosen for it; whose order it is does not matter here."""
    async with shop.db.transaction() as connection:
        await connection.execute("SET LOCAL session_replication_role = replica")
        await connection.execute(
            "INSERT INTO shipments (shipment_id, order_id, address_no, parcel_no, warehouse_id, address, weight_g, "
            "length_mm, width_mm, height_mm, value_minor, currency, choice, promised_on, planned_at, due_at) "
            "VALUES ($1, $1, 0, 1, 'hz', '{}', 1, 1, 1, 1, 1, 'CNY', $2, '2026-11-20', now(), now())",
            shipment_id,
            msgspec.json.encode(choice).decode(),
        )


async def test_rates_are_imported_shown_and_tried(floodgate: Command, tmp_path: Path) -> None:
    assert (await floodgate("rates", "tables"))[1].startswith("there is no rate table")
    status, said = await floodgate("rates", "show")
    assert (status, "floodgate rates import" in said) == (1, True)
    file = write_file(tmp_path, HEADER + RATES)
    assert await floodgate("rates", "import", file) == (0, "table 1 is in force: 3 rates in CNY")
    status, said = await floodgate("rates", "tables")
    assert "given.csv 3 CNY" in said
    status, said = await floodgate("rates", "show")
    assert "sf 1 1 yto 2 2" in said
    status, said = await floodgate("rates", "show", "--carrier", "yto")
    assert "cn 0 20000 12.00 CNY 3 yes cn/zhejiang/hangzhou 0 1000 8.00 CNY 1 no" in said
    assert "there is no carrier dhl" in (await floodgate("rates", "show", "--carrier", "dhl"))[1]
    given = "rates", "choose", "--to", "CN/Zhejiang/Hangzhou", "--hand-over", "2026-11-17", "--by", "2026-11-20"
    status, said = await floodgate(*given, "--weight", "800g")
    assert status == 0, said
    assert "yto for 8.00 CNY, arrives on 2026-11-18" in said
    assert "sf passed over cn 18.00 CNY 2 2026-11-19 dearer than yto" in said
    status, said = await floodgate(*given, "--weight", "0.8kg", "--cod")
    assert "sf for 18.00 CNY" in said
    assert "yto left out cn/zhejiang/hangzhou 8.00 CNY 1 2026-11-18 no cash on delivery there" in said
    status, said = await floodgate(*given, "--weight", "30kg")
    assert "by table 1: no carrier takes it" in said
    status, said = await floodgate(*given[:-1], "2026-11-17", "--weight", "1kg")
    assert "arrives on 2026-11-18, after the promised 2026-11-17" in said
    for wrong in (("--weight", "much"), ("--weight", "0g"), ("--weight", "1kg", "--to", "a/b/c/d/e")):
        status, said = await floodgate(*given, *wrong)
        assert (status, f"error: {wrong[-2]} {wrong[-1]}: give" in said) == (1, True)


async def test_a_parcel_is_promised_as_an_order_of_today(
    floodgate: Command, shop: CliServices, settings: Settings, tmp_path: Path
) -> None:
    await floodgate("rates", "import", write_file(tmp_path, HEADER + "sf,CN,0,20000,18.00,CNY,5,yes\n"))
    before = from_ms(shop.clock.now_ms()).astimezone(ZoneInfo(settings.shipping.timezone)).date()
    status, said = await floodgate("rates", "choose", "--to", "cn", "--weight", "1kg")
    after = from_ms(shop.clock.now_ms()).astimezone(ZoneInfo(settings.shipping.timezone)).date()
    assert status == 0, said
    assert any(f"cheapest that arrives by {day + timedelta(days=5)}" in said for day in (before, after))


async def test_a_faulty_table_is_told_line_by_line(floodgate: Command, tmp_path: Path) -> None:
    rest = "".join(f"c{n},CN,5,9,1,CNY,1,yes\n" for n in range(60))
    file = write_file(tmp_path, HEADER + RATES + rest)
    report = tmp_path / "report.csv"
    status, said = await floodgate("rates", "import", file, "--report", report)
    assert status == 1
    assert "line 5: the first step of c0 in cn begins at 5 g, not at 0" in said
    assert "and 10 more" in said
    assert "error: 60 lines are wrong, so nothing was imported" in said
    assert len(report.read_text().splitlines()) == 61
    assert (await floodgate("rates", "show"))[0] == 1


async def test_a_choice_is_explained(floodgate: Command, shop: CliServices, tmp_path: Path) -> None:
    await floodgate("rates", "import", write_file(tmp_path, HEADER + RATES))
    book = await Rates(shop.db, shop.clock).get_current()
    today = from_ms(shop.clock.now_ms()).date()
    choice = choose_carrier(
        book,
        Address(**ADDRESS),
        500,
        cod=False,
        dispatch_on=today,
        promised_on=today,
        excluded={"yto": "it refused this shipment"},
    )
    shipment_id, other = shop.ids.new(), shop.ids.new()
    await stored_choice(shop, shipment_id, choice)
    await stored_choice(shop, other, [])
    assert await Worklists(shop.db, shop.clock, shop.settings.shipping).explain_carrier_choice(shipment_id) == choice
    status, said = await floodgate("rates", "explain", shipment_id)
    assert (status, "sf for 18.00 CNY" in said, "it refused this shipment" in said) == (0, True, True)
    for unknown in (other, shop.ids.new()):
        status, said = await floodgate("rates", "explain", unknown)
        assert (status, "no carrier was chosen for it yet" in said) == (1, True)


async def test_warehouses_and_goods(floodgate: Command, shop: CliServices, tmp_path: Path) -> None:
    assert (await floodgate("warehouse", "show"))[1].startswith("there is no warehouse")
    places = "id,name,phone,country,province,city,line,latitude,longitude\n"
    place = "hz,Hangzhou 1,0571-8888,CN,Zhejiang,Hangzhou,Wenyi West Road 969,30.279,120.026\n"
    status, said = await floodgate("warehouse", "import", write_file(tmp_path, places + place))
    assert (status, said) == (0, "1 lines: 1 added, 0 changed, 0 unchanged, 0 refused")
    await shop.catalog.put("A1", ProductInput("thing", 100, "CNY"))
    goods = "sku,warehouse,shelf,weight_g,length_mm,width_mm,height_mm\nA1,hz,A-01,300,200,100,50\nA2,hz,A-01,1,1,1,1\n"
    status, said = await floodgate("warehouse", "import", write_file(tmp_path, goods))
    assert (status, "1 added" in said, "line 3: no product has the SKU A2" in said) == (2, True, True)
    status, said = await floodgate("warehouse", "show")
    assert "Wenyi West Road 969, Hangzhou, Zhejiang, CN 30.279, 120.026 1" in said
    assert "A1 hz A-01 300 g 200 x 100 x 50 mm" in (await floodgate("warehouse", "product", "A1"))[1]
    assert (await floodgate("warehouse", "product", "A2"))[0] == 1
