"""Reads freight templates from CSV, each fault with row and column, and writes them."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import islice
from typing import TypeVar

import msgspec

from commerce.freight.errors import InvalidFreight
from commerce.freight.model import (
    UNIT_NAMES,
    FreightName,
    FreightRegion,
    FreightStep,
    FreightTemplate,
    FreightTerms,
    FreightZone,
    Measure,
    ZoneName,
)
from commerce.freight.template_checks import find_errors
from commerce.kernel.csv_rows import CsvLineError, LineError, parse_unsigned, read_rows
from commerce.kernel.money import MAX_MINOR, MoneyError, minor_digits, parse_money
from commerce.kernel.types import CONTROL

COLUMNS = ("template", "currency", "charged_by", "zone", "country", "above", "up_to", "fee")
OPTIONAL = ("cod_fee", "free_from", "province", "city", "per")
EXPORT_COLUMNS = (
    *("template", "currency", "charged_by", "cod_fee", "zone", "free_from"),
    *("country", "province", "city", "above", "up_to", "per", "fee"),
)
MAX_ROWS = 10_000
_MAX_CHARS = 200
_CONTROL = re.compile(f"[{CONTROL}]")
_FINEST_CURRENCY = "CLF"
"""No currency has more digits. An amount is checked in it if its own currency is invalid."""
Value = TypeVar("Value")


class FreightRowError(msgspec.Struct, frozen=True):
    """A fault of a file with its line (the header is line 1) and column.

    The column is empty for a fault of the whole line.
    """

    line: int
    column: str
    reason: str

    def to_line_error(self) -> LineError:
        return LineError(self.line, f"{self.column}: {self.reason}" if self.column else self.reason)


class FreightFile(msgspec.Struct, frozen=True):
    """The templates of a file by name. They can be used only if there are no errors."""

    templates: dict[str, FreightTerms]
    errors: list[FreightRowError]
    rows: int


@dataclass(slots=True)
class _Zone:
    """A zone with the lines of its parts; `is_broken` if a row of it could not be read."""

    name: str
    line: int
    regions: list[tuple[int, FreightRegion]] = field(default_factory=list)
    steps: list[tuple[int, FreightStep]] = field(default_factory=list)
    free_from: tuple[int, int] | None = None
    is_broken: bool = False


@dataclass(slots=True)
class _Template:
    """A template with the line that it begins on; `cod_fee` has its line too."""

    name: str
    line: int
    currency: str | None
    charged_by: Measure | None
    cod_fee: tuple[int, int] | None = None
    zones: dict[str, _Zone] = field(default_factory=dict)


def read_freight_templates(lines: Iterable[str]) -> FreightFile:
    """Read a file of templates: each row adds a region, a step, or both, to a zone of a template.

    Columns: template, currency, charged_by (weight, pieces, amount), zone, country, above, up_to, fee. Optional:
    cod_fee, free_from, province, city, per. Fees are decimal (12.50), and so are above, up_to and per where the
    template is charged by amount; else they are whole g or pieces. cod_fee of a template and free_from of a zone may be
    on any of their rows. Lines as for `commerce.kernel.csv_rows.read_rows`. Raises `UnreadableCsv` for a wrong header,
    and `InvalidFreight` if there are more than `MAX_ROWS` rows or none.
    """
    reader = _Reader()
    rows = list(islice(read_rows(lines, COLUMNS, OPTIONAL, lambda line, fields: (line, fields)), MAX_ROWS + 1))
    if len(rows) > MAX_ROWS:
        raise InvalidFreight(f"more than {MAX_ROWS} rows; import the templates in several files")
    if not rows:
        raise InvalidFreight("there is no row after the header")
    for _, row in rows:
        if isinstance(row, LineError):
            reader.errors.append(FreightRowError(row.line, "", row.reason))
        else:
            reader.read(*row)
    templates = {template.name: _to_terms(template) for template in reader.templates.values()}
    for template in reader.templates.values():
        reader.errors += _find_row_errors(template, templates[template.name])
    return FreightFile(templates, sorted(reader.errors, key=lambda error: error.line), len(rows))


class _Reader:
    """Collects rows into templates, and their faults."""

    def __init__(self) -> None:
        self.templates: dict[str, _Template] = {}
        self.errors: list[FreightRowError] = []

    def read(self, line: int, fields: dict[str, str]) -> None:
        """Add a row to its zone. A row with a fault adds what could be read, and breaks its zone."""
        before = len(self.errors)
        cells = _Cells(line, fields, self.errors)
        name = cells.parse("template", _parse_name)
        currency = cells.parse("currency", _parse_currency)
        charged_by = cells.parse("charged_by", _parse_measure)
        zone_name = cells.parse("zone", _parse_zone_name)
        money = currency or _FINEST_CURRENCY
        cod_fee, free_from = cells.parse_amount("cod_fee", money), cells.parse_amount("free_from", money)
        region = cells.parse_region()
        step = cells.parse_step(money, charged_by)
        if region is None and step is None and len(self.errors) == before:
            cells.add_error("fee", "the row has neither a region (country) nor a step (above, fee)")
        if name is None or zone_name is None:
            return
        template = self.templates.setdefault(name, _Template(name, line, currency, charged_by))
        zone = template.zones.setdefault(zone_name, _Zone(zone_name, line))
        template.currency = cells.check_same("currency", template.currency, currency, template.line)
        template.charged_by = cells.check_same("charged_by", template.charged_by, charged_by, template.line)
        template.cod_fee = cells.check_same_amount("cod_fee", template.cod_fee, cod_fee)
        zone.free_from = cells.check_same_amount("free_from", zone.free_from, free_from)
        if region is not None:
            zone.regions.append((line, region))
        if step is not None:
            zone.steps.append((line, step))
        zone.is_broken |= len(self.errors) > before


class _Cells:
    """The cells of a row, whose faults are added to a list."""

    def __init__(self, line: int, fields: dict[str, str], errors: list[FreightRowError]) -> None:
        self._line = line
        self._fields = fields
        self._errors = errors

    def add_error(self, column: str, reason: str) -> None:
        self._errors.append(FreightRowError(self._line, column, reason))

    def parse(self, column: str, read: Callable[[str], Value]) -> Value | None:
        try:
            return read(self._fields.get(column, "").strip())
        except (CsvLineError, MoneyError) as error:
            self.add_error(column, str(error))
            return None

    def parse_optional(self, column: str, read: Callable[[str], Value]) -> Value | None:
        return self.parse(column, read) if self._fields.get(column, "").strip() else None

    def parse_amount(self, column: str, currency: str) -> int | None:
        return self.parse_optional(column, lambda text: parse_money(text, currency))

    def parse_region(self) -> FreightRegion | None:
        """Return the region of the row, None if it has none or one that cannot be read."""
        country, province, city = (self.parse(column, self._read_place) for column in ("country", "province", "city"))
        for column in ("country", "province", "city"):
            cell = self._fields.get(column, "")
            if cell.strip(" \t") and not cell.strip():  # as an ideographic space
                self.add_error(column, f"{cell[:40]!r} is not empty and shows nothing; leave it empty")
        if country is None or province is None or city is None:
            return None
        if not country and (province or city):
            self.add_error("country", "it is empty, and the row has a province or a city")
        return FreightRegion(country.upper(), province, city) if country else None

    def parse_step(self, currency: str, charged_by: Measure | None) -> FreightStep | None:
        """Return the step of the row, None if it has none or one that cannot be read."""
        columns = ("above", "up_to", "per", "fee")
        if not any(self._fields.get(column, "").strip() for column in columns):
            return None

        def read_quantity(column: str) -> Callable[[str], int]:
            if charged_by == "amount":
                return lambda text: parse_money(text, currency)
            return lambda text: parse_unsigned(column, text, MAX_MINOR)

        above = self.parse("above", read_quantity("above"))
        up_to, per = (self.parse_optional(column, read_quantity(column)) for column in ("up_to", "per"))
        fee = self.parse("fee", lambda text: parse_money(text, currency))
        return None if above is None or fee is None else FreightStep(above, fee, up_to, per)

    def check_same(self, column: str, value: Value | None, other: Value | None, line: int) -> Value | None:
        """Return the value of a template, which all its rows have; None is one that could not be read."""
        if value is not None and other is not None and value != other:
            self.add_error(column, f"it is {other}, and {value} on line {line}: a template has one")
        return other if value is None else value

    def check_same_amount(
        self, column: str, value: tuple[int, int] | None, other: int | None
    ) -> tuple[int, int] | None:
        """Return an amount with the line that it was first on; other rows leave it empty or repeat it."""
        if value is not None and other is not None and other != value[1]:
            self.add_error(column, f"it is another one than on line {value[0]}; leave it empty or repeat it")
        return value or (None if other is None else (self._line, other))

    @staticmethod
    def _read_place(text: str) -> str:
        if len(text) > _MAX_CHARS or _CONTROL.search(text):
            raise CsvLineError(f"it is not a text of up to {_MAX_CHARS} characters without control characters")
        return text


def _parse_name(text: str) -> str:
    try:
        return msgspec.convert(text, FreightName)
    except msgspec.ValidationError:
        raise CsvLineError(f"{text[:40]!r} is not up to 64 small letters, digits and dashes, no dash first") from None


def _parse_zone_name(text: str) -> str:
    try:
        return msgspec.convert(text, ZoneName)
    except msgspec.ValidationError:
        raise CsvLineError(f"{text[:40]!r} is not one line of up to 100 characters with a letter or digit") from None


def _parse_currency(text: str) -> str:
    minor_digits(text)
    return text


def _parse_measure(text: str) -> Measure:
    for measure in UNIT_NAMES:
        if text == measure:
            return measure
    raise CsvLineError(f"{text[:40]!r} is not weight, pieces or amount")


def _to_terms(template: _Template) -> FreightTerms:
    return FreightTerms(
        currency=template.currency or _FINEST_CURRENCY,
        charged_by=template.charged_by or "weight",
        cod_fee_minor=template.cod_fee[1] if template.cod_fee else 0,
        zones=tuple(
            FreightZone(
                zone.name,
                tuple(region for _, region in zone.regions),
                tuple(step for _, step in zone.steps),
                zone.free_from[1] if zone.free_from else None,
            )
            for zone in template.zones.values()
        ),
    )


def _find_row_errors(template: _Template, terms: FreightTerms) -> list[FreightRowError]:
    """Return the faults of a template with the cells that have them.

    Faults in a zone with a broken row are left out: the row that could not be read may be what is missing.
    """
    zones = list(template.zones.values())
    errors = []
    for error in find_errors(terms):
        part, *rest = error.pointer.removeprefix("/").split("/")
        if part == "zones" and rest:
            zone = zones[int(rest[0])]
            if not zone.is_broken:
                errors.append(FreightRowError(*_locate(zone, rest[1:]), error.detail))
        elif part == "zones":
            errors.append(FreightRowError(template.line, "zone", error.detail))
        elif part == "cod_fee_minor" and template.cod_fee:
            errors.append(FreightRowError(template.cod_fee[0], "cod_fee", error.detail))
        # Currency and measure are read by row, and their faults are known by now.
    return errors


def _locate(zone: _Zone, path: Sequence[str]) -> tuple[int, str]:
    """Return line and column of a part of a zone."""
    match path:
        case ["regions", number, *rest]:
            return zone.regions[int(number)][0], rest[0] if rest else "country"
        case ["steps", number, column]:
            return zone.steps[int(number)][0], "fee" if column == "fee_minor" else column
        case ["free_from_minor"] if zone.free_from:
            return zone.free_from[0], "free_from"
        case [part]:
            return zone.line, {"regions": "country", "steps": "fee"}.get(part, "zone")
    raise AssertionError(path)


def format_freight_templates(templates: Iterable[FreightTemplate]) -> str:
    """Return the CSV file of templates; `read_freight_templates` reads the same terms from it."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(EXPORT_COLUMNS)
    for template in templates:
        terms = template.terms
        digits = minor_digits(terms.currency)

        def to_money(amount: int | None, digits: int = digits) -> str:
            return "" if amount is None else f"{Decimal(amount).scaleb(-digits):.{digits}f}"

        def to_quantity(quantity: int | None, terms: FreightTerms = terms) -> str:
            if terms.charged_by == "amount":
                return to_money(quantity)
            return "" if quantity is None else str(quantity)

        head = (template.name, terms.currency, terms.charged_by, to_money(terms.cod_fee_minor))
        for zone in terms.zones:
            zone_head = (*head, zone.name, to_money(zone.free_from_minor))
            for region in zone.regions:
                writer.writerow((*zone_head, region.country, region.province, region.city, "", "", "", ""))
            for step in zone.steps:
                quantities = map(to_quantity, (step.above, step.up_to, step.per))
                writer.writerow((*zone_head, "", "", "", *quantities, to_money(step.fee_minor)))
    return text.getvalue()
