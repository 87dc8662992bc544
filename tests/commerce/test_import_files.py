"""Files as people save them: every reader takes them alike and accounts for every line."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from commerce.catalog.model import VariantInput
from commerce.catalog.variant_csv import read_variants
from commerce.fleet.fleet_csv import read_places, read_travel_matrix, read_vehicles
from commerce.freight.errors import InvalidFreight
from commerce.freight.freight_csv import read_freight_templates
from commerce.kernel import text_files
from commerce.kernel.csv_rows import ImportReport, LineError, count_blank_lines, read_columns, read_lines
from commerce.kernel.errors import Invalid, NotReady, UnreadableCsv
from commerce.kernel.text_files import decode_table, decode_text, read_file
from commerce.rates.errors import InvalidRateTable
from commerce.rates.rate_csv import read_rate_table
from commerce.sales.item_csv import read_items
from commerce.warehouses.warehouse_csv import read_product_logistics, read_warehouses
from ops.services import CliServices

Rows = Iterable[tuple[int, object]]


class Reader(NamedTuple):
    """A reader of CSV lines, its header and its `number`-th valid line.

    Without `rows` it reads all lines or none.
    """

    rows: Callable[[Iterable[str]], Rows] | None
    header: str
    line: Callable[[int], str]

    def read(self, file: Path) -> list[object]:
        if self.rows is not None:
            return [row for _, row in self.rows(read_lines(file))]
        if "charged_by" in self.header:
            return list(_freight(file))
        return list(_rates(file) if "carrier" in self.header else _items(file))


def _rates(file: Path) -> Sequence[object]:
    try:
        return read_rate_table(read_lines(file))[1]
    except InvalidRateTable as error:
        return error.line_errors


def _freight(file: Path) -> Sequence[object]:
    try:
        content = read_freight_templates(read_lines(file))
    except InvalidFreight:  # it has no rows
        return []
    return [error.to_line_error() for error in content.errors] or [*content.templates.items()]


def _items(file: Path) -> Sequence[object]:
    try:
        return read_items(file, "CNY")
    except UnreadableCsv:
        raise
    except Invalid as error:
        numbers = [int(line.split()[1].rstrip(":")) for line in str(error).splitlines()[1:]]
        return [LineError(number, "") for number in numbers]


READERS = {
    "products": Reader(read_variants, "sku,name,price,currency", lambda n: f"S{n},灯笼 é{n},1.50,CNY"),
    "items": Reader(None, "sku,units", lambda n: f"S{n},{n + 1}"),
    "rates": Reader(
        None,
        "carrier,region,from_g,to_g,price,currency,days,cod",
        lambda n: f"sf,CN/浙江{n},0,1000,1.50,CNY,2,yes",
    ),
    "freight": Reader(
        None,
        "template,currency,charged_by,zone,country,province,above,up_to,fee",
        lambda n: f"t{n},CNY,weight,全国,CN,浙江{n},0,1000,1.50",
    ),
    "warehouses": Reader(
        read_warehouses,
        "id,name,phone,country,city,line,latitude,longitude",
        lambda n: f"w{n},仓库,0571-8888,CN,杭州,文一西路 969,30.2,120.1",
    ),
    "logistics": Reader(
        read_product_logistics,
        "sku,warehouse,shelf,weight_g,length_mm,width_mm,height_mm",
        lambda n: f"S{n},hz,架 1,1,1,1,1",
    ),
    "vehicles": Reader(
        lambda lines: read_vehicles(lines, {"hz"}),
        "vehicle_id,warehouse_id,capacity_g,shift_from,shift_to",
        lambda n: f"V{n},hz,1000,08:00,18:00",
    ),
    "places": Reader(read_places, "region,latitude,longitude", lambda n: f"cn/浙江{n},30,120"),
    "matrix": Reader(read_travel_matrix, "from,to,distance_m,duration_s", lambda n: f"hz,cn/浙江{n},5,6"),
}
each_reader = pytest.mark.parametrize("reader", READERS.values(), ids=READERS)


def _text(reader: Reader, count: int = 4) -> str:
    return "\n".join([reader.header, *map(reader.line, range(count))]) + "\n"


def _quoted(text: str) -> str:
    return "".join(",".join(f'"{field}"' for field in line.split(",")) + "\n" for line in text.splitlines())


SAVED = {
    "plain": str.encode,
    "with mark": lambda text: text.encode("utf-8-sig"),
    "with mark and quotes": lambda text: _quoted(text).encode("utf-8-sig"),
    "with two marks": lambda text: ("\ufeff" + text).encode("utf-8-sig"),
    "GB18030": lambda text: text.encode("gb18030"),
    "UTF-16": lambda text: text.encode("utf-16"),
    "UTF-16 big endian": lambda text: b"\xfe\xff" + text.encode("utf-16-be"),
    "CRLF": lambda text: text.replace("\n", "\r\n").encode(),
    "CR": lambda text: text.replace("\n", "\r").encode(),
    "empty columns": lambda text: text.replace("\n", ",,\n").encode(),
    "blank header columns": lambda text: text.replace("\n", ", ,\n", 1).encode(),
    "blank lines": lambda text: ("\n,,,\n" + text.replace("\n", '\n , \u3000,\n"",""\n')).encode(),
    "no last line end": lambda text: text.rstrip("\n").encode(),
    "upper-case header": lambda text: (text.split("\n", 1)[0].upper() + "\n" + text.split("\n", 1)[1]).encode(),
}


@each_reader
@pytest.mark.parametrize("save", SAVED.values(), ids=SAVED)
def test_file_of_any_program_is_read_as_the_plain_one(
    reader: Reader, save: Callable[[str], bytes], tmp_path: Path
) -> None:
    plain, saved = tmp_path / "plain.csv", tmp_path / "saved.csv"
    plain.write_text(_text(reader), encoding="utf-8")
    saved.write_bytes(save(_text(reader)))
    rows = list(reader.read(saved))
    assert len(rows) == 4
    assert not any(isinstance(row, LineError) for row in rows)
    assert rows == list(reader.read(plain))
    assert read_columns(read_lines(saved)) == reader.header.split(",")


@each_reader
@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (lambda text: text.encode("ascii", "ignore") + b"caf\xe9,\n" * 9, r"seems to be in latin-1 .*CSV UTF-8"),
        (lambda text: text.encode("utf-16-le"), "UTF-16 without its mark"),
        (lambda text: text.encode("utf-16")[:-1], "not UTF-16-LE text"),
        (lambda text: b"PK\x03\x04" + text.encode(), "packed or a workbook"),
        (lambda text: b"", "no header line"),
        (lambda text: b"\n\n,,\n", "no header line"),
        (lambda text: text.replace(",", ";").encode(), "separated by commas"),
    ],
)
def test_file_that_cannot_be_read_is_refused_once_with_a_remedy(
    reader: Reader, raw: Callable[[str], bytes], words: str, tmp_path: Path
) -> None:
    file = tmp_path / "file.csv"
    text = _text(reader).replace(reader.line(0), reader.line(0).replace("V0", "V0é").replace("S0,1", "S0é,1"))
    file.write_bytes(raw(text))
    with pytest.raises(UnreadableCsv, match=words):
        list(reader.read(file))


@each_reader
@pytest.mark.parametrize("damage", [b'"', b'"x', b"\xff", b"\0", b"," + b"x" * 10_001])
def test_damaged_line_spoils_no_other_line(reader: Reader, damage: bytes, tmp_path: Path) -> None:
    file = tmp_path / "file.csv"
    lines = [reader.header, *map(reader.line, range(40))]
    file.write_bytes("\n".join(lines).encode().replace(lines[20].encode(), damage + lines[20].encode()))
    rows = reader.read(file)
    errors = [row.line for row in rows if isinstance(row, LineError)]
    assert errors == [21]
    if reader.rows is not None:
        assert len(rows) == 40


@pytest.mark.parametrize("columns", ["", "sku,name,price\n", "sku,name,price,currency,,colour\n"])
def test_header_without_columns_names_them(columns: str, tmp_path: Path) -> None:
    file = tmp_path / "file.csv"
    file.write_text(columns)
    with pytest.raises(UnreadableCsv, match="needs the columns sku, name, price, currency"):
        list(READERS["products"].read(file))


FIELDS = st.one_of(
    st.sampled_from(["", " ", "A1", "灯", '"', "1.50", "CNY", "\0", "\u3000", "\u2028", "\x0b", "\ufeff", "08:00"]),
    st.text(max_size=6),
)
TABLES = st.lists(st.lists(FIELDS, max_size=6), max_size=12)


def _write(table: list[list[str]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(table)
    return text.getvalue()


@pytest.mark.parametrize(
    "reader",
    [reader for reader in READERS.values() if reader.rows],
    ids=[name for name, reader in READERS.items() if reader.rows],
)
@settings(max_examples=60, deadline=None)
@given(body=st.one_of(TABLES.map(_write), TABLES.map(lambda rows: "\n".join(",".join(row) for row in rows))))
def test_any_content_is_accounted_for_line_by_line(reader: Reader, body: str) -> None:
    assert reader.rows is not None
    lines = f"{reader.header}\n{body}".split("\n")
    numbers = [number for number, _ in reader.rows(lines)]
    assert numbers == sorted(set(numbers))
    assert 1 + len(numbers) + count_blank_lines(lines) == len(lines)


@settings(max_examples=300, deadline=None)
@given(raw=st.one_of(st.binary(max_size=200), st.text(max_size=100).map(lambda text: text.encode("utf-16"))))
def test_any_bytes_are_decoded_or_refused(raw: bytes) -> None:
    with suppress(Invalid):
        assert "\r" not in decode_table(raw)
    with suppress(Invalid):
        assert "\r" not in decode_text(raw)


def test_pipe_is_read_once_and_whole() -> None:
    reading, writing = os.pipe()
    content = b"sku,name,price,currency\n" + b"A1,Lantern,1,CNY\n" * 20_000

    def write() -> None:
        with os.fdopen(writing, "wb") as pipe:
            pipe.write(content)

    writer = Thread(target=write)
    writer.start()
    assert read_file(Path(f"/dev/fd/{reading}")) == content
    writer.join()
    os.close(reading)


def test_file_too_large_or_missing_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_files, "MAX_FILE_BYTES", 1 << 20)
    file = tmp_path / "file.csv"
    file.write_bytes(b"x" * (1 << 20))
    assert len(read_file(file)) == 1 << 20
    file.write_bytes(b"x" * ((1 << 20) + 1))
    with pytest.raises(Invalid, match="larger than 1 MiB; split it"):
        read_file(file)
    with pytest.raises(Invalid, match=r"cannot read .*none\.csv: No such file"):
        read_file(tmp_path / "none.csv")
    with pytest.raises(Invalid, match="Is a directory"):
        read_file(tmp_path)


async def test_unclosed_quote_in_a_long_file_refuses_one_line(shop: CliServices) -> None:
    lines = ["sku,name,price,currency", *(f"S{number},thing,1,GBP" for number in range(300))]
    lines[5] = 'S4,"thing,1,GBP'
    report = await shop.catalog.import_csv(lines)
    assert (report.added, report.blank, report.lines) == (299, 0, 300)
    assert [error.line for error in report.errors] == [6]


async def test_interrupted_import_says_how_many_lines_were_not_read(
    shop: CliServices, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_many = shop.catalog.put_many

    async def fail_late(variants: Sequence[tuple[str, VariantInput]], *names: str) -> ImportReport:
        if variants[0][0] != "S0":
            raise NotReady("the database is gone")
        return await put_many(variants, *names)

    monkeypatch.setattr(shop.catalog, "put_many", fail_late)
    lines = ["sku,name,price,currency", "", *(f"S{number},thing,1,GBP" for number in range(1_200)), "broken"]
    with pytest.raises(NotReady) as error:
        await shop.catalog.import_csv(lines)
    assert error.value.__notes__ == ["500 lines are imported or refused, 701 were not read: import the file again"]


async def test_import_of_wrong_header_gives_no_advice_to_import_it_again(shop: CliServices) -> None:
    with pytest.raises(UnreadableCsv) as error:
        await shop.catalog.import_csv(["sku,name", "A1,Mug", "A2,Mug"])
    assert not hasattr(error.value, "__notes__")
