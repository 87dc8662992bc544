"""The plan of an imported variant, or its faults. It reads nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

from commerce.catalog.gtin import check_gtin
from commerce.catalog.model import Sku, Variant
from commerce.categories.attribute_values import AttributeDefinition
from commerce.kernel.money import MAX_MINOR, MoneyError, check_price, minor_digits, parse_money
from commerce.kernel.spreadsheets import explain_lost_zeros, explain_scientific
from commerce.kernel.types import Name, explain_mismatch
from commerce.product_imports.attribute_cells import read_cell
from commerce.product_imports.model import Cell, Fault, ImportedVariant

_GTIN_DIGITS = (8, 12, 13, 14)


class VariantFacts(NamedTuple):
    """Products by the SKUs of their variants, and SKUs by their barcodes with 14 digits."""

    owners: Mapping[str, str]
    barcodes: Mapping[str, str]


class PlannedVariant(NamedTuple):
    """A variant as it will be."""

    name: str
    price: int
    currency: str
    option_values: dict[str, Any]
    barcode: str | None

    def describe(self) -> dict[str, Any]:
        """Return what it has besides its price."""
        return {"name": self.name, "option_values": self.option_values, "barcode": self.barcode}


def plan_variant(
    read: ImportedVariant,
    product_id: str,
    siblings: Mapping[str, Variant],
    currency: str | None,
    options: list[str],
    definitions: Mapping[str, AttributeDefinition],
    facts: VariantFacts,
) -> tuple[PlannedVariant | None, list[Fault]]:
    """Compare a variant of a file with the one that there is.

    `siblings` are the present variants of the product, `currency` is theirs."""
    planner = _VariantPlanner(read, siblings, facts)
    planner.check_sku(product_id)
    name = planner.plan_name()
    price, currency = planner.plan_price(currency)
    barcode = planner.plan_barcode()
    option_values = planner.plan_options(options, definitions)
    if planner.faults or name is None or price is None or currency is None:
        return None, planner.faults
    return PlannedVariant(name, price, currency, option_values, barcode), []


class _VariantPlanner:
    """Plans one variant, and collects its faults."""

    def __init__(self, read: ImportedVariant, siblings: Mapping[str, Variant], facts: VariantFacts) -> None:
        self._read = read
        self._siblings = siblings
        self._kept = siblings.get(read.sku)
        self._facts = facts
        self.faults: list[Fault] = []

    def _fault(self, column: str, reason: str) -> None:
        self.faults.append(Fault(self._read.line, column, reason))

    def check_sku(self, product_id: str) -> None:
        sku = self._read.sku
        owner = self._facts.owners.get(sku)
        if reason := explain_scientific(sku):
            self._fault("sku", reason)
        elif owner not in (None, product_id):
            self._fault("sku", f"{sku} is a variant of {owner}; move it with `floodgate catalog variant put` first")
        elif owner is None and (reason := explain_lost_zeros(sku, self._facts.owners)):
            self._fault("sku", reason)
        else:
            self._convert("sku", Sku, sku)

    def _convert(self, column: str, kind: Any, value: Any) -> Any:
        try:
            return msgspec.convert(value, kind)
        except msgspec.ValidationError as error:
            self._fault(column, explain_mismatch(error))
            return None

    def plan_name(self) -> str | None:
        kept = None if self._kept is None else self._kept.name
        name = self._read.values.get("name", kept)
        if name is None:
            self._fault("variant_name", "a new variant needs a name")
        return name if name == kept else self._convert("variant_name", Name, name)

    def plan_price(self, of_product: str | None) -> tuple[int | None, str | None]:
        """Return price and currency."""
        values, kept = self._read.values, self._kept
        currency = values.get("currency") or (kept.currency if kept is not None else of_product)
        if currency is None:
            self._fault("currency", "it is missing, such as CNY")
            return None, None
        try:
            minor_digits(currency)
        except MoneyError as error:
            self._fault("currency", str(error))
            return None, None
        price = values.get("price")
        if price is None:
            if kept is None or kept.currency != currency:
                self._fault("price", f"it is missing: a price in {currency}")
                return None, None
            return kept.price, currency
        try:
            price = parse_money(price, currency) if isinstance(price, str) else price
            if kept is None or (price, currency) != (kept.price, kept.currency):
                check_price(price)
            if price > MAX_MINOR:
                self._fault("price", f"it is more than {MAX_MINOR} minor units")
        except MoneyError as error:
            self._fault("price", str(error))
            return None, None
        return price, currency

    def plan_barcode(self) -> str | None:
        kept = None if self._kept is None else self._kept.barcode
        barcode: str | None = self._read.values.get("barcode", kept)
        if barcode is None or barcode == kept:
            return barcode
        if reason := explain_scientific(barcode) or _explain_short(barcode):
            self._fault("barcode", reason)
            return None
        try:
            check_gtin(barcode)
        except ValueError as error:
            self._fault("barcode", str(error))
            return None
        owner = self._facts.barcodes.get(barcode.rjust(14, "0"))
        if owner not in (None, self._read.sku) and owner not in self._siblings:  # those may swap theirs
            self._fault("barcode", f"{owner} has the barcode {barcode}: each variant has its own")
        return barcode

    def plan_options(self, options: list[str], definitions: Mapping[str, AttributeDefinition]) -> dict[str, Any]:
        """Return the values of the options. A text is read by the attribute's kind."""
        kept = {} if self._kept is None else self._kept.option_values
        values = {name: value for name, value in kept.items() if name in options}
        for name, value in (self._read.values.get("option_values") or {}).items():
            values.pop(name, None)
            if value is None:
                continue
            values[name] = value
            if isinstance(value, Cell):
                values[name], reason = read_cell(value, definitions.get(name), kept.get(name))
                if reason:
                    self._fault(f"option:{name}", reason)
        return values


def _explain_short(barcode: str) -> str:
    """Return the reason if a barcode is right once its leading zeros are back; else an empty text."""
    if not (barcode.isascii() and barcode.isdigit()) or len(barcode) in _GTIN_DIGITS:
        return ""
    for digits in _GTIN_DIGITS:
        if digits > len(barcode):
            padded = barcode.rjust(digits, "0")
            try:
                check_gtin(padded)
            except ValueError:
                continue
            return f"leading zeros are lost: {barcode} is {padded}; format the column as text and enter it again"
    return ""
