"""Rate tables: imported whole or not at all, with all errors named; the last one is current."""

from __future__ import annotations

import asyncio
import io

import pytest

from commerce.fulfilment.errors import NoCarrierChoice
from commerce.fulfilment.worklists import Worklists
from commerce.kernel.address import Address
from commerce.kernel.csv_rows import LineError
from commerce.kernel.errors import UnreadableCsv
from commerce.rates import rate_csv
from commerce.rates.errors import InvalidRateTable, NoRateTable
from commerce.rates.model import Rate
from commerce.rates.rate_csv import read_rate_table
from commerce.rates.service import Rates
from ops.services import CliServices

HEADER = "carrier,region,from_g,to_g,price,currency,days,cod\n"
GOOD = "sf,CN,0,1000,12.50,CNY,2,yes\nsf,CN,1000,5000,20,CNY,2,no\n"


def read(text: str) -> tuple[str, list[Rate]]:
    return read_rate_table(io.StringIO(HEADER + text, newline=""))


def read_errors(text: str) -> dict[int, str]:
    with pytest.raises(InvalidRateTable) as raised:
        read(text)
    return {error.line: error.reason for error in raised.value.line_errors}


def test_rate_table_regions_and_steps_in_any_order_are_read() -> None:
    currency, rates = read(
        "sf, CN / Zhejiang/HANGZHOU ,1000,2000,0,JPY,0,False\nsf,cn/zhejiang/hangzhou,0,1000,1200,JPY,90,TRUE\n"
    )
    assert currency == "JPY"
    assert rates == [
        Rate("sf", "cn/zhejiang/hangzhou", 1000, 2000, 0, 0, False),
        Rate("sf", "cn/zhejiang/hangzhou", 0, 1000, 1200, 90, True),
    ]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("SF,CN,0,1,1,CNY,2,yes", "carrier is 'SF'"),
        (",CN,0,1,1,CNY,2,yes", "carrier is ''"),
        ("sf,,0,1,1,CNY,2,yes", "region is ''"),
        ("sf,CHN,0,1,1,CNY,2,yes", "region is 'CHN'"),
        ("sf,Zhejiang/Hangzhou,0,1,1,CNY,2,yes", "region is 'Zhejiang/Hangzhou'"),
        ("sf,CN//Hangzhou,0,1,1,CNY,2,yes", "region is 'CN//Hangzhou'"),
        ("sf,CN/,0,1,1,CNY,2,yes", "region is 'CN/'"),
        ("sf,CN/a/b/c/d,0,1,1,CNY,2,yes", "region is 'CN/a/b/c/d'"),
        (f"sf,CN/{'x' * 200},0,1,1,CNY,2,yes", "longer than 200"),
        ("sf,CN/a\x07b,0,1,1,CNY,2,yes", "control characters"),
        ("sf,CN,-1,1,1,CNY,2,yes", "from_g is '-1'"),
        ("sf,CN,0,1.5,1,CNY,2,yes", "to_g is '1.5'"),
        ("sf,CN,0,10000001,1,CNY,2,yes", "not a whole number from 0 to 10000000"),
        ("sf,CN,0,0,1,CNY,2,yes", "to_g is 0, which is not above from_g"),
        ("sf,CN,0,1,-1,CNY,2,yes", "'-1' is not an amount"),
        ("sf,CN,0,1,1.005,CNY,2,yes", "more decimals than CNY"),
        ("sf,CN,0,1,1,XYZ,2,yes", "'XYZ' is not an ISO 4217 currency"),
        ("sf,CN,0,1,1,CNY,91,yes", "days is '91', not a whole number from 0 to 90"),
        ("sf,CN,0,1,1,CNY,2,maybe", "cod is 'maybe', not yes or no"),
        ("sf,CN,0,1,1,CNY,2", "7 fields where the header has 8"),
        ("sf,CN,5,9,1,CNY,2,yes", "the first step of sf in cn begins at 5 g, not at 0"),
    ],
)
def test_rate_table_with_one_wrong_line_names_it(line: str, reason: str) -> None:
    errors = read_errors(f"yto,CN,0,1,1,CNY,2,yes\n{line}\n")
    assert list(errors) == [3]
    assert reason in errors[3]


def test_rate_table_with_many_errors_names_all_of_them() -> None:
    assert read_errors(
        "SF,china,x,-5,cheap,euro,91,perhaps\n"
        "yto,CN,0,1000,1,CNY,2,yes\n"
        "yto,CN,2000,3000,1,CNY,2,yes\n"
        "yto,CN,2500,4000,1,USD,99,yes\n"
        "yto,cn ,0,500,1,CNY,2,yes\n"
    ) == {
        2: "from_g is 'x', not a whole number from 0 to 10000000; to_g is '-5', not a whole number from 0 to 10000000; "
        "'euro' is not an ISO 4217 currency; carrier is 'SF', not up to 32 small letters, digits and underscores, a "
        "letter first; region is 'china', not a country code or country/province/city/district, as CN/Zhejiang; "
        "'cheap' is not an amount like 2.55; days is '91', not a whole number from 0 to 90; "
        "cod is 'perhaps', not yes or no",
        4: "yto in cn has nothing from 1000 g (line 3) to 2000",
        5: "days is '99', not a whole number from 0 to 90; currency is USD and on line 3 it is CNY: a table has one; "
        "the step overlaps line 4, where yto in cn goes up to 3000 g",
        6: "the step of yto in cn from 0 g is on line 3 already",
    }


def test_rate_table_with_overlapping_step_is_refused() -> None:
    errors = read_errors("sf,CN,0,9,1,CNY,2,yes\nsf,CN,3,5,1,CNY,2,yes\nsf,CN,9,12,1,CNY,2,yes\n")
    assert errors == {3: "the step overlaps line 2, where sf in cn goes up to 9 g"}


def test_rate_table_region_written_in_two_ways_is_one_region() -> None:
    errors = read_errors("sf,CN/浙江省,0,9,1,CNY,2,yes\nsf,CN/浙江,0,9,1,CNY,2,yes\n")
    assert errors == {3: "the step of sf in cn/浙江 from 0 g is on line 2 already"}


def test_rate_table_with_invalid_step_reports_no_gap() -> None:
    assert list(read_errors("sf,CN,0,1000,1,CNY,2,yes\nsf,CN,1000,2k,1,CNY,2,yes\nsf,CN,2000,3000,1,CNY,2,yes\n")) == [
        3
    ]


def test_rate_table_empty_or_too_long_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UnreadableCsv, match="needs the columns"):
        read_rate_table(["carrier,region,price\n"])
    with pytest.raises(InvalidRateTable, match="no line after the header"):
        read("")
    monkeypatch.setattr(rate_csv, "MAX_LINES", 2)
    assert len(read(GOOD)[1]) == 2
    with pytest.raises(InvalidRateTable, match="more than 2 lines"):
        read(GOOD + "not,a,rate\n")


@pytest.fixture
def rates(shop: CliServices) -> Rates:
    return Rates(shop.db, shop.clock)


async def import_table(rates: Rates, text: str, source: str = "rates.csv") -> int:
    return (await rates.import_table(io.StringIO(HEADER + text, newline=""), source, "test")).table_id


async def test_rate_table_imported_last_is_current(shop: CliServices, rates: Rates) -> None:
    with pytest.raises(NoRateTable, match="floodgate rates import"):
        await rates.get_current()
    first = await import_table(rates, GOOD)
    index = await rates.get_current()
    assert (index.table.table_id, index.table.currency, index.table.rates) == (first, "CNY", 2)
    assert await rates.get_current() is index
    other_process = Rates(shop.db, shop.clock)
    second = await import_table(other_process, GOOD.replace("CNY", "GBP"), "x" * 300 + "late.csv")
    newer = await rates.get_current()
    assert (newer.table.table_id, newer.table.currency) == (second, "GBP")
    assert newer.table.source.endswith("late.csv")
    assert [table.table_id for table in await rates.list_tables()] == [second, first]
    with pytest.raises(InvalidRateTable):
        await import_table(rates, GOOD + "sf,CN,7000,9000,1,CNY,2,yes\n")
    assert await rates.get_current() is newer
    assert len(await rates.list_tables()) == 2


async def test_rate_table_read_concurrently_is_loaded_once_and_equals_import(rates: Rates) -> None:
    _, expected = read(GOOD + "yto,CN/Zhejiang,0,100,3,CNY,1,yes\n")
    await import_table(rates, GOOD + "yto,CN/Zhejiang,0,100,3,CNY,1,yes\n")
    indexes = await asyncio.gather(*(rates.get_current() for _ in range(20)))
    assert len({id(index) for index in indexes}) == 1
    assert [
        rate for name in indexes[0].carriers for steps in indexes[0].steps_of(name) for rate in steps.rates
    ] == expected
    serving = indexes[0].steps_by_carrier(Address("x", "12345", "CN", "Hangzhou", "x", "ZHEJIANG"))
    assert {name: steps.region for name, steps in serving.items()} == {"sf": "cn", "yto": "cn/zhejiang"}


async def test_rate_table_with_many_rates_is_loaded(rates: Rates) -> None:
    await import_table(
        rates, "".join(f"c{n % 5},CN/p{n // 50}/c{n // 5},0,30000,{n % 90}.50,CNY,{n % 9},yes\n" for n in range(20_000))
    )
    index = await rates.get_current()
    assert (index.table.rates, index.carriers) == (20_000, ["c0", "c1", "c2", "c3", "c4"])


async def test_explain_carrier_choice_of_unknown_shipment_is_refused(shop: CliServices) -> None:
    with pytest.raises(NoCarrierChoice):
        await Worklists(shop.db, shop.clock, shop.settings.shipping).explain_carrier_choice(shop.ids.new())


def test_invalid_rate_table_lists_line_errors() -> None:
    with pytest.raises(InvalidRateTable, match="1 lines are wrong, so nothing was imported") as raised:
        read("sf,CN,0,1000,1,CNY,2,\n")
    assert raised.value.line_errors == [LineError(2, "cod is '', not yes or no")]
