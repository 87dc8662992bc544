"""Records of CSV files: any content is accounted for line by line, and an open quote swallows nothing."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from commerce.catalog.variant_csv import read_variants
from commerce.kernel.csv_records import CsvRecord, CsvRecordReader
from commerce.kernel.csv_rows import LineError, read_lines
from commerce.kernel.errors import Invalid, UnreadableCsv
from commerce.kernel.spreadsheets import explain_lost_zeros, explain_scientific
from commerce.kernel.text_encodings import open_lines

FIELDS = st.one_of(st.sampled_from(["", '"', "a\nb", 'say "x"', ",", "灯", " "]), st.text(max_size=6))
TABLES = st.lists(st.lists(FIELDS, min_size=3, max_size=3), max_size=10)
RAGGED = st.lists(st.text(alphabet='ab",灯', max_size=12), max_size=12)


def read_all(text: str, width: int | None = None) -> list[CsvRecord]:
    lines = text.split("\n")
    reader, records = CsvRecordReader(enumerate(lines, start=1)), list[CsvRecord]()
    while (record := reader.read(width)) is not None:
        records.append(record)
    return records


@settings(max_examples=200, deadline=None)
@given(lines=RAGGED)
def test_any_lines_are_accounted_for_in_their_sequence(lines: list[str]) -> None:
    records, line = read_all("\n".join(lines), 3), 1
    for record in records:
        assert record.line == line
        line += record.line_count
    assert line == max(1, len(lines)) + 1


@settings(max_examples=200, deadline=None)
@given(table=TABLES)
def test_written_table_is_read_as_it_was(table: list[list[str]]) -> None:
    table = [[text.replace("\r", "").replace("\0", "") for text in row] for row in table]
    written = io.StringIO()
    csv.writer(written, lineterminator="\n").writerows(table)
    records = read_all(written.getvalue().removesuffix("\n"), 3)
    filled = [row for row in table if any(field.strip("\ufeff \t\u3000") for field in row)]
    assert [record.fields for record in records if record.fields or record.reason] == filled


def test_every_line_with_an_open_quote_costs_itself_alone() -> None:
    lines = [f'{number},"open,x' if number % 2 else f"{number},right,x" for number in range(3_000)]
    records = read_all("\n".join(lines), 3)
    assert [int(record.fields[0]) for record in records if record.fields] == list(range(0, 3_000, 2))


@pytest.mark.parametrize(
    ("text", "reason"),
    [("1.23E+05", "digits are lost"), ("1E+12", "digits are lost"), ("1E5", ""), ("12345", ""), ("E+5", "")],
)
def test_number_of_a_spreadsheet_is_recognised(text: str, reason: str) -> None:
    assert reason in explain_scientific(text)
    assert bool(reason) == bool(explain_scientific(text))


def test_lost_zeros_are_recognised_by_present_values() -> None:
    assert "there is 00123, and no 123" in explain_lost_zeros("123", ["00123", "9"])
    assert explain_lost_zeros("0123", ["00123"]) == explain_lost_zeros("A1", ["0A1"]) == ""


def test_list_of_variants_names_values_broken_by_spreadsheets(tmp_path: Path) -> None:
    file = tmp_path / "variants.csv"
    file.write_text("sku,name,price,currency\n1.23E+05,Lamp,1,CNY\nlamp,灯,1.23E+05,CNY\n", encoding="gb18030")
    reasons = [row.reason for _, row in read_variants(read_lines(file)) if isinstance(row, LineError)]
    assert [("1.23E+05 is what a spreadsheet makes" in reason) for reason in reasons] == [True, True]
    file.write_text("sku,name,price,currency,price\n")
    with pytest.raises(UnreadableCsv, match="which names price twice"):
        list(read_variants(read_lines(file)))


@pytest.mark.parametrize(
    ("raw", "lines"),
    [
        ("a\r\nb\r\n".encode("utf-8-sig"), ["a", "b"]),
        ("灯,名称\n商品".encode("gb18030"), ["灯,名称", "商品"]),
        ("灯\r\nb".encode("utf-16"), ["灯", "b"]),
        (b"a\rb", ["a", "b"]),
        (b"x" * 50 + b"\nb\n", ["x" * 11, "b"]),
        (b"", []),
    ],
)
def test_lines_of_any_program_are_read(raw: bytes, lines: list[str]) -> None:
    assert list(open_lines(io.BytesIO(raw), 10)) == lines


@pytest.mark.parametrize(
    ("raw", "name"),
    [("crème\nthé\ncafé\n".encode("latin-1"), "latin-1"), ("產品\n名稱\n價格表\n".encode("big5"), "another encoding")],
)
def test_other_encoding_is_refused_by_its_name(raw: bytes, name: str) -> None:
    with pytest.raises(Invalid, match=name):
        list(open_lines(io.BytesIO(raw), 100))
