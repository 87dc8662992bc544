"""Damaged files: every line is read, refused with a reason or blank."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from commerce.kernel.csv_rows import count_blank_lines, read_lines
from commerce.kernel.errors import Invalid
from commerce.payments.providers.alipay import wire
from commerce.payments.providers.wechatpay import statement
from tests.commerce.test_import_files import READERS, Reader
from tests.support.generated_input import UNEXPECTED, damage_bytes, input_count, input_random

MERCHANT = "1900000001"
PAYMENT = "0192f7c5000070008000000000000001"
ALIPAY_HEADINGS = (wire.TRADE_NO, wire.OUT_TRADE_NO, wire.KIND, wire.AMOUNT, wire.REQUEST_NO)
ALIPAY_LINES = [
    "#支付宝业务明细查询",
    ",".join(ALIPAY_HEADINGS),
    f"2026111122001,{PAYMENT},{wire.PAYMENT},19.99,",
    f"2026111122002,{PAYMENT},{wire.REFUND},-2.55,{PAYMENT}",
    f"#{wire.END}",
]
WECHATPAY_LINES = [
    ",".join(statement._REQUIRED),
    ",".join("`" + value for value in (MERCHANT, "4200", PAYMENT, "SUCCESS", "CNY", "0", "", "", "5.10", "0.00")),
    ",".join(
        "`" + value for value in (MERCHANT, "4200", PAYMENT, "REFUND", "CNY", "50", PAYMENT, "SUCCESS", "5.10", "2")
    ),
    statement.SUMMARY,
]


def _damage(random: Random, lines: list[str]) -> bytes:
    """Replace fields by unexpected values, and damage the bytes at times."""
    fields = [line.split(",") for line in lines]
    for _ in range(random.choice((0, 1, 1, 2))):
        line = random.choice(fields)
        value = random.choice(UNEXPECTED)
        line[random.randrange(len(line))] = random.choice(("", '"', "'", " ")) + str(value)[:12_000]
    if random.random() < 0.1:
        fields.append(random.choice(fields))
    text = random.choice(("\n", "\n", "\r\n", "\r")).join(",".join(line) for line in fields)
    content = text.encode(random.choice(("utf-8", "utf-8", "utf-8-sig", "utf-16", "gb18030")), "replace")
    return damage_bytes(random, content) if random.random() < 0.4 else content


@pytest.mark.timeout(3_600)
@pytest.mark.parametrize("name", READERS)
def test_every_line_of_damaged_file_is_accounted_for(name: str, tmp_path: Path) -> None:
    random, reader, file = input_random(f"files {name}"), READERS[name], tmp_path / "file.csv"
    read = refused = 0
    for _ in range(input_count(100)):
        file.write_bytes(_damage(random, [reader.header, *(reader.line(number) for number in range(3))]))
        try:
            rows = _read(reader, file)
        except Invalid:
            refused += 1
            continue
        lines = read_lines(file)
        if rows is not None:
            assert len(rows) + count_blank_lines(lines) + 1 == len(lines), file.read_bytes()
        read += 1
    assert read
    assert refused


def _read(reader: Reader, file: Path) -> list[object] | None:
    """Return a row or an error for each line; None from a reader that reads all lines or none."""
    rows = reader.read(file)
    return rows if reader.rows is not None else None


@pytest.mark.timeout(3_600)
@pytest.mark.parametrize("name", ["alipay", "wechatpay"])
def test_damaged_statement_is_read_line_by_line(name: str) -> None:
    random = input_random(f"statements {name}")
    results = {"read": 0, "refused": 0}
    for _ in range(input_count(200)):
        text = _damage(random, ALIPAY_LINES if name == "alipay" else WECHATPAY_LINES).decode("utf-8", "replace")
        lines = list(wire.read_statement(text)) if name == "alipay" else statement.read_statement(text, MERCHANT)
        for line in lines:
            results["refused" if isinstance(line, str) else "read"] += 1
    assert all(results.values()), results
