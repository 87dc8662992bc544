"""Imports of warehouses and product logistics: wrong lines are reported, repeats change nothing."""

from __future__ import annotations

import io

import pytest

from commerce.catalog.model import VariantInput
from commerce.kernel.address import Address
from commerce.kernel.csv_rows import ImportReport, LineError
from commerce.kernel.errors import UnreadableCsv
from commerce.warehouses import store
from commerce.warehouses.errors import NoProductLogistics
from commerce.warehouses.model import ProductLogistics, Warehouse
from commerce.warehouses.service import Warehouses
from commerce.warehouses.warehouse_csv import read_product_logistics, read_warehouses
from ops.services import CliServices

PLACES = "id,name,phone,country,province,city,district,line,postcode,latitude,longitude\n"
LOGISTICS_HEADER = "sku,warehouse,shelf,weight_g,length_mm,width_mm,height_mm\n"
HANGZHOU = "hz,Hangzhou 1,0571-8888,CN,Zhejiang,Hangzhou,Yuhang,Wenyi West Road 969,311100,30.279,120.026\n"


@pytest.fixture
async def warehouses(shop: CliServices) -> Warehouses:
    await shop.catalog.put_many([(sku, VariantInput(f"thing {sku}", 100, "CNY")) for sku in ("A1", "B2", "C3")])
    return Warehouses(shop.db)


async def import_text(warehouses: Warehouses, text: str) -> ImportReport:
    return await warehouses.import_csv(io.StringIO(text, newline=""))


async def test_import_warehouses_and_logistics_are_stored(shop: CliServices, warehouses: Warehouses) -> None:
    report = await import_text(warehouses, PLACES + HANGZHOU)
    assert (report.added, report.changed, report.unchanged, report.errors) == (1, 0, 0, [])
    report = await import_text(
        warehouses, LOGISTICS_HEADER + "A1,hz,A-01-3,300,200,100,50\nB2,hz,A-02,1000000,10000,1,1\n"
    )
    assert (report.added, report.errors) == (2, [])
    async with shop.db.connection() as connection:
        assert await store.product_logistics_of(connection, ["A1", "C3"]) == {
            "A1": ProductLogistics("A1", "hz", "A-01-3", 300, 200, 100, 50)
        }
        sender = Address(
            *("Hangzhou 1", "0571-8888", "CN", "Hangzhou", "Wenyi West Road 969", "Zhejiang", "Yuhang", "311100")
        )
        assert await store.warehouses_of(connection, ["hz", "sh"]) == {
            "hz": Warehouse("hz", "Hangzhou 1", sender, 30.279, 120.026)
        }
    [summary] = await warehouses.list_warehouses()
    assert (summary.warehouse.warehouse_id, summary.products) == ("hz", 2)
    assert (await warehouses.get_product_logistics("B2")).weight_g == 1_000_000
    with pytest.raises(NoProductLogistics, match="C3"):
        await warehouses.get_product_logistics("C3")


async def test_import_repeated_changes_only_differences(warehouses: Warehouses) -> None:
    places = PLACES + HANGZHOU + HANGZHOU.replace("hz", "h2")
    logistics = LOGISTICS_HEADER + "A1,hz,A-01,300,200,100,50\nB2,hz,A-02,10,20,30,40\n"
    for text in (places, logistics):
        assert (await import_text(warehouses, text)).added == 2
        again = await import_text(warehouses, text)
        assert (again.added, again.changed, again.unchanged) == (0, 0, 2)
    changed = await import_text(warehouses, places.replace("hz,Hangzhou 1,", "hz,Hangzhou 1a,"))
    assert (changed.added, changed.changed, changed.unchanged) == (0, 1, 1)
    changed = await import_text(warehouses, logistics.replace("A-02", "B-07") + "C3,h2,A-01,1,1,1,1\n")
    assert (changed.added, changed.changed, changed.unchanged) == (1, 1, 1)
    assert (await warehouses.get_product_logistics("B2")).shelf == "B-07"


@pytest.mark.parametrize(
    ("before", "after", "reason"),
    [
        ("hz,", "HZ,", "id is 'HZ'"),
        ("Hangzhou 1", " ", "name is '': it needs at least one letter or digit"),
        ("Zhejiang", "x" * 201, "province is not a text of up to 200"),
        ("Yuhang", "a\x07b", "district is not a text"),
        ("311100", "1" * 21, "postcode is not a text of up to 20"),
        ("0571-8888", "none", "phone is 'none'"),
        (",CN,", ",China,", "country is 'China': not the code of a country"),
        ("30.279", "90.1", "latitude is '90.1', not degrees from -90 to 90"),
        ("120.026", "-181", "longitude is '-181'"),
        ("120.026", "nan", "longitude is 'nan'"),
        ("120.026", "", "longitude is ''"),
        ("120.026", "1,2", "12 fields where the header has 11"),
        ("hz,", "ok,", "the warehouse ok is on line 2 already"),
    ],
)
def test_read_warehouses_wrong_line_is_reported(before: str, after: str, reason: str) -> None:
    lines = HANGZHOU.replace("hz,", "ok,") + HANGZHOU.replace(before, after, 1) + HANGZHOU.replace("hz,", "ok2,")
    rows = dict(read_warehouses(io.StringIO(PLACES + lines, newline="")))
    assert [type(row) for row in rows.values()] == [Warehouse, LineError, Warehouse]
    assert isinstance(error := rows[3], LineError)
    assert error.line == 3
    assert reason in error.reason


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("A 1,hz,S,1,1,1,1", "sku is 'A 1'"),
        ("A1,hz,S,1,1,1,1", "the SKU A1 is on line 2 already"),
        ("B2,,S,1,1,1,1", "warehouse is ''"),
        ("B2,hz,,1,1,1,1", "shelf is '': it needs at least one letter or digit"),
        ("B2,hz,S,0,1,1,1", "weight_g is 0, not a whole number from 1"),
        ("B2,hz,S,1000001,1,1,1", "weight_g is '1000001'"),
        ("B2,hz,S,1,-1,1,1", "length_mm is '-1'"),
        ("B2,hz,S,1,1,1.5,1", "width_mm is '1.5'"),
        ("B2,hz,S,1,1,1,10001", "height_mm is '10001'"),
        ("B2,hz,S,1,1,1", "6 fields where the header has 7"),
    ],
)
def test_read_product_logistics_wrong_line_is_reported(line: str, reason: str) -> None:
    rows = dict(
        read_product_logistics(io.StringIO(f"{LOGISTICS_HEADER}A1,hz,S,1,1,1,1\n{line}\nC3,hz,S,1,1,1,1\n", newline=""))
    )
    assert [type(row) for row in rows.values()] == [ProductLogistics, LineError, ProductLogistics]
    assert isinstance(error := rows[3], LineError)
    assert error.line == 3
    assert reason in error.reason


async def test_import_logistics_of_unknown_product_or_warehouse_is_reported(warehouses: Warehouses) -> None:
    await import_text(warehouses, PLACES + HANGZHOU)
    other_fields = "hz,S,1,1,1,1\n"
    report = await import_text(
        warehouses,
        f"{LOGISTICS_HEADER}Z9,{other_fields}A1,{other_fields}B2,sh,S,1,1,1,1\n,{other_fields}C3,{other_fields}",
    )
    assert report.added == 2
    assert [(error.line, error.reason.partition(";")[0]) for error in report.errors] == [
        (2, "no product has the SKU Z9"),
        (4, "there is no warehouse sh"),
        (5, "sku is '', not up to 64 letters, digits, dots, dashes and underscores that start with a letter or digit"),
    ]


async def test_import_with_wrong_header_is_refused(warehouses: Warehouses) -> None:
    for header, required in (("sku,shelf\n", "weight_g"), ("id,name\n", "latitude"), ("", "id")):
        with pytest.raises(UnreadableCsv, match=f"needs the columns.*{required}"):
            await import_text(warehouses, header)


async def test_import_of_many_lines_reports_line_numbers(shop: CliServices, warehouses: Warehouses) -> None:
    await import_text(warehouses, PLACES + HANGZHOU)
    await shop.catalog.put_many([(f"S{n}", VariantInput("thing", 1, "CNY")) for n in range(1200)])
    report = await import_text(
        warehouses, LOGISTICS_HEADER + "".join(f"S{n},hz,S,{n % 600},1,1,1\n" for n in range(1200))
    )
    assert (report.added, [error.line for error in report.errors]) == (1198, [2, 602])
