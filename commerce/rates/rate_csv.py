"""Reads a rate table from CSV: all of it, or every fault of every line."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable
from itertools import islice, pairwise
from typing import NamedTuple, TypeVar

from commerce.kernel.csv_rows import CsvLineError, LineError, parse_unsigned, read_rows
from commerce.kernel.money import MoneyError, minor_digits, parse_money
from commerce.rates.errors import InvalidRateTable
from commerce.rates.model import Rate, as_path

COLUMNS = ("carrier", "region", "from_g", "to_g", "price", "currency", "days", "cod")
MAX_LINES = 100_000
MAX_WEIGHT_G = 10_000_000
MAX_DAYS = 90
_CARRIER = re.compile(r"[a-z][a-z0-9_]{0,31}")
_COUNTRY = re.compile(r"[a-z]{2}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_MAX_REGION = 200
_FINEST = "CLF"
"""No currency has more digits; a price is checked as one in it where its own is unknown."""
_YES_OR_NO = {"yes": True, "no": False, "true": True, "false": False, "1": True, "0": False}
Value = TypeVar("Value")


class _Line(NamedTuple):
    """A line as far as it could be read: what could not is empty, and 0 where a step ends."""

    number: int
    currency: str
    rate: Rate


class _Step(NamedTuple):
    from_g: int
    to_g: int
    number: int


def read_table(lines: Iterable[str]) -> tuple[str, list[Rate]]:
    """The currency and the steps of a table with the columns carrier, region, from_g, to_g, price (12.50), currency,
    days, cod (yes or no).

    Lines as for `commerce.kernel.csv_rows.read_rows`. Raises `UnreadableCsv` for a wrong header and `FaultyTable`
    with all that is wrong.
    """
    faults: defaultdict[int, list[str]] = defaultdict(list)
    read = read_rows(lines, COLUMNS, (), lambda number, fields: _read(number, fields, faults[number].append))
    found = list(islice(read, MAX_LINES + 1))
    if len(found) > MAX_LINES:
        raise InvalidRateTable(f"more than {MAX_LINES} lines: join regions that cost the same")
    rows = [row for _, row in found if isinstance(row, _Line)]
    for line in (row for _, row in found if isinstance(row, LineError)):
        faults[line.line].append(line.reason)
    _check_currencies(rows, faults)
    _check_steps(rows, faults)
    refused = [LineError(number, "; ".join(reasons)) for number, reasons in sorted(faults.items()) if reasons]
    if refused:
        raise InvalidRateTable(f"{len(refused)} lines are wrong, so nothing was imported", refused)
    if not rows:
        raise InvalidRateTable("there is no line after the header")
    return rows[0].currency, [row.rate for row in rows]


def _read(number: int, fields: dict[str, str], fault: Callable[[str], None]) -> _Line:
    def take(read: Callable[[], Value], otherwise: Value) -> Value:
        try:
            return read()
        except (CsvLineError, MoneyError) as error:
            fault(str(error))
            return otherwise

    from_g = take(lambda: parse_unsigned("from_g", fields["from_g"], MAX_WEIGHT_G), -1)
    to_g = take(lambda: parse_unsigned("to_g", fields["to_g"], MAX_WEIGHT_G), -1)
    if 0 <= to_g <= from_g:
        fault(f"to_g is {to_g}, which is not above from_g")
    currency = take(lambda: _currency(fields["currency"]), "")
    rate = Rate(
        take(lambda: _carrier(fields["carrier"]), ""),
        take(lambda: _region(fields["region"]), ""),
        from_g,
        to_g if 0 <= from_g < to_g else 0,
        take(lambda: parse_money(fields["price"], currency or _FINEST), 0),
        take(lambda: parse_unsigned("days", fields["days"], MAX_DAYS), 0),
        take(lambda: _cod(fields["cod"]), False),
    )
    return _Line(number, currency, rate)


def _carrier(text: str) -> str:
    name = text.strip()
    if not _CARRIER.fullmatch(name):
        raise CsvLineError(
            f"carrier is {name[:40]!r}, not up to 32 small letters, digits and underscores, a letter first"
        )
    return name


def _region(text: str) -> str:
    given = text.split("/")
    path = as_path(given)
    region = "/".join(path)
    if not 1 <= len(path) == len(given) <= 4 or not _COUNTRY.fullmatch(path[0]):
        raise CsvLineError(
            f"region is {text[:80]!r}, not a country code or country/province/city/district, as CN/Zhejiang"
        )
    if len(region) > _MAX_REGION:
        raise CsvLineError(f"region is longer than {_MAX_REGION} characters")
    if _CONTROL.search(region):
        raise CsvLineError("region has control characters")
    return region


def _currency(text: str) -> str:
    minor_digits(text.strip())
    return text.strip()


def _cod(text: str) -> bool:
    found = _YES_OR_NO.get(text.strip().lower())
    if found is None:
        raise CsvLineError(f"cod is {text[:40]!r}, not yes or no")
    return found


def _check_currencies(rows: list[_Line], faults: dict[int, list[str]]) -> None:
    first = next((row for row in rows if row.currency), None)
    for row in rows:
        if first and row.currency and row.currency != first.currency:
            faults[row.number].append(
                f"currency is {row.currency} and on line {first.number} it is {first.currency}: a table has one"
            )


def _check_steps(rows: list[_Line], faults: dict[int, list[str]]) -> None:
    """The steps of a carrier in a region begin at 0 and join. Where one of them cannot be read, nothing is said of
    the others: it may be what they lack."""
    regions: defaultdict[tuple[str, str], list[_Step]] = defaultdict(list)
    for number, _, rate in rows:
        if rate.carrier and rate.region:
            regions[rate.carrier, rate.region].append(_Step(rate.from_g, rate.to_g, number))
    for (carrier, region), steps in regions.items():
        if all(step.to_g for step in steps):
            _check_joins(f"{carrier} in {region}", sorted(steps, key=lambda step: (step.from_g, step.number)), faults)


def _check_joins(where: str, steps: list[_Step], faults: dict[int, list[str]]) -> None:
    if steps[0].from_g:
        faults[steps[0].number].append(f"the first step of {where} begins at {steps[0].from_g} g, not at 0")
    last = steps[0]
    for before, step in pairwise(steps):
        if step.from_g == before.from_g:
            faults[step.number].append(f"the step of {where} from {step.from_g} g was given on line {before.number}")
        elif step.from_g < last.to_g:
            faults[step.number].append(f"the step overlaps line {last.number}, where {where} goes up to {last.to_g} g")
        elif step.from_g > last.to_g:
            faults[step.number].append(f"{where} has nothing from {last.to_g} g (line {last.number}) to {step.from_g}")
        last = max(last, step, key=lambda one: one.to_g)
