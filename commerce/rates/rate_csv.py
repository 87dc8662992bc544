"""Reads a rate table from CSV: the whole table, or all errors of all lines."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable
from itertools import islice, pairwise
from typing import NamedTuple, TypeVar

from commerce.kernel.countries import COUNTRIES
from commerce.kernel.csv_rows import CsvLineError, LineError, parse_unsigned, read_rows
from commerce.kernel.money import MoneyError, minor_digits, parse_money
from commerce.kernel.regions import parse_region
from commerce.kernel.types import CONTROL, is_filled
from commerce.rates.errors import InvalidRateTable
from commerce.rates.model import Rate

COLUMNS = ("carrier", "region", "from_g", "to_g", "price", "currency", "days", "cod")
MAX_LINES = 100_000
MAX_WEIGHT_G = 10_000_000
MAX_DAYS = 90
_CARRIER = re.compile(r"[a-z][a-z0-9_]{0,31}")
_CONTROL = re.compile(f"[{CONTROL}]")
_MAX_REGION_CHARS = 200
_FINEST_CURRENCY = "CLF"
"""No currency has more digits. A price is checked in it if its own currency is invalid."""
_YES_OR_NO = {"yes": True, "no": False, "true": True, "false": False, "1": True, "0": False}
Value = TypeVar("Value")


class _Line(NamedTuple):
    """A line as far as it could be read. Invalid fields are empty, and an invalid `to_g` is 0."""

    number: int
    currency: str
    rate: Rate


class _Step(NamedTuple):
    """A weight step with the number of its line."""

    from_g: int
    to_g: int
    number: int


def read_rate_table(lines: Iterable[str]) -> tuple[str, list[Rate]]:
    """Read the currency and the rates of a table.

    Columns: carrier, region, from_g, to_g, price (12.50), currency, days, cod (yes or no). Lines as for
    `commerce.kernel.csv_rows.read_rows`. Raises `UnreadableCsv` for a wrong header, and `InvalidRateTable` with all
    errors of all lines.
    """
    errors: defaultdict[int, list[str]] = defaultdict(list)
    numbered_rows = read_rows(
        lines, COLUMNS, (), lambda number, fields: _read_line(number, fields, errors[number].append)
    )
    rows = [row for _, row in islice(numbered_rows, MAX_LINES + 1)]
    if len(rows) > MAX_LINES:
        raise InvalidRateTable(f"more than {MAX_LINES} lines; join regions that cost the same")
    parsed = [row for row in rows if isinstance(row, _Line)]
    for row in rows:
        if isinstance(row, LineError):
            errors[row.line].append(row.reason)
    _check_currencies(parsed, errors)
    _check_steps(parsed, errors)
    line_errors = [LineError(number, "; ".join(reasons)) for number, reasons in sorted(errors.items()) if reasons]
    if line_errors:
        raise InvalidRateTable(f"{len(line_errors)} lines are wrong, so nothing was imported", line_errors)
    if not parsed:
        raise InvalidRateTable("there is no line after the header")
    return parsed[0].currency, [line.rate for line in parsed]


def _read_line(number: int, fields: dict[str, str], add_error: Callable[[str], None]) -> _Line:
    def parse(read: Callable[[], Value], default: Value) -> Value:
        try:
            return read()
        except (CsvLineError, MoneyError) as error:
            add_error(str(error))
            return default

    from_g = parse(lambda: parse_unsigned("from_g", fields["from_g"], MAX_WEIGHT_G), -1)
    to_g = parse(lambda: parse_unsigned("to_g", fields["to_g"], MAX_WEIGHT_G), -1)
    if 0 <= to_g <= from_g:
        add_error(f"to_g is {to_g}, which is not above from_g")
    currency = parse(lambda: _parse_currency(fields["currency"]), "")
    rate = Rate(
        carrier=parse(lambda: _parse_carrier(fields["carrier"]), ""),
        region=parse(lambda: _parse_region(fields["region"]), ""),
        from_g=from_g,
        to_g=to_g if 0 <= from_g < to_g else 0,
        price_minor=parse(lambda: parse_money(fields["price"], currency or _FINEST_CURRENCY), 0),
        days=parse(lambda: parse_unsigned("days", fields["days"], MAX_DAYS), 0),
        cod=parse(lambda: _parse_cod(fields["cod"]), False),
    )
    return _Line(number, currency, rate)


def _parse_carrier(text: str) -> str:
    name = text.strip()
    if not _CARRIER.fullmatch(name):
        raise CsvLineError(
            f"carrier is {name[:40]!r}, not up to 32 small letters, digits and underscores, a letter first"
        )
    return name


def _parse_region(text: str) -> str:
    path = parse_region(text)
    region = "/".join(path)
    if len(path) > 4 or path[0].upper() not in COUNTRIES or not all(map(is_filled, path)):
        raise CsvLineError(
            f"region is {text[:80]!r}, not a country code or country/province/city/district, as CN/Zhejiang"
        )
    if len(region) > _MAX_REGION_CHARS:
        raise CsvLineError(f"region is longer than {_MAX_REGION_CHARS} characters")
    if _CONTROL.search(region):
        raise CsvLineError("region has control characters")
    return region


def _parse_currency(text: str) -> str:
    minor_digits(text.strip())
    return text.strip()


def _parse_cod(text: str) -> bool:
    cod = _YES_OR_NO.get(text.strip().lower())
    if cod is None:
        raise CsvLineError(f"cod is {text[:40]!r}, not yes or no")
    return cod


def _check_currencies(lines: list[_Line], errors: dict[int, list[str]]) -> None:
    first = next((line for line in lines if line.currency), None)
    for line in lines:
        if first and line.currency and line.currency != first.currency:
            errors[line.number].append(
                f"currency is {line.currency} and on line {first.number} it is {first.currency}: a table has one"
            )


def _check_steps(lines: list[_Line], errors: dict[int, list[str]]) -> None:
    """Check that the steps of each carrier in each region begin at 0 and have no gaps or overlaps.

    Steps of a region with an invalid step are not checked: the invalid one may be the missing one.
    """
    regions: defaultdict[tuple[str, str], list[_Step]] = defaultdict(list)
    for number, _, rate in lines:
        if rate.carrier and rate.region:
            regions[rate.carrier, rate.region].append(_Step(rate.from_g, rate.to_g, number))
    for (carrier, region), steps in regions.items():
        if all(step.to_g for step in steps):
            ordered = sorted(steps, key=lambda step: (step.from_g, step.number))
            _check_region_steps(f"{carrier} in {region}", ordered, errors)


def _check_region_steps(name: str, steps: list[_Step], errors: dict[int, list[str]]) -> None:
    if steps[0].from_g:
        errors[steps[0].number].append(f"the first step of {name} begins at {steps[0].from_g} g, not at 0")
    last = steps[0]
    for before, step in pairwise(steps):
        if step.from_g == before.from_g:
            errors[step.number].append(f"the step of {name} from {step.from_g} g is on line {before.number} already")
        elif step.from_g < last.to_g:
            errors[step.number].append(f"the step overlaps line {last.number}, where {name} goes up to {last.to_g} g")
        elif step.from_g > last.to_g:
            errors[step.number].append(f"{name} has nothing from {last.to_g} g (line {last.number}) to {step.from_g}")
        last = max(last, step, key=lambda each: each.to_g)
