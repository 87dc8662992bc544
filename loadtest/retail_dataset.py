"""Reads baskets in the format of the UCI data set *Online Retail* (D. Chen, 2015, DOI 10.24432/C5BW33).

Columns: InvoiceNo, StockCode, Description, Quantity, InvoiceDate, UnitPrice, CustomerID, Country. One invoice is one
basket. What is no order is left out with its reason: returns (`C` invoices), corrections of stock (a quantity below
one, a price of nothing), invoices that are nothing but fees.
"""

from __future__ import annotations

import csv
import gzip
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from commerce.kernel.errors import Invalid
from commerce.kernel.money import MoneyError, parse_money

CURRENCY = "GBP"
_COLUMNS = ("InvoiceNo", "StockCode", "Description", "Quantity", "InvoiceDate", "UnitPrice", "CustomerID", "Country")
_GOODS = re.compile(r"\d{5}[A-Za-z]{0,2}|[A-Z]{3,}\d+\w*|DCGS\w+|gift_\w+", re.IGNORECASE)
_NOT_IN_A_SKU = re.compile(r"[^A-Za-z0-9._-]+")


@dataclass(frozen=True, slots=True)
class BasketLine:
    """One line; the price is in pennies. `fee` is postage and the like: charged, but no goods."""

    sku: str
    name: str
    quantity: int
    price: int
    fee: bool


@dataclass(frozen=True, slots=True)
class Basket:
    """One invoice that is an order."""

    invoice: str
    user_id: str
    country: str
    lines: tuple[BasketLine, ...]

    @property
    def total(self) -> int:
        return sum(line.quantity * line.price for line in self.lines)


@dataclass(frozen=True, slots=True)
class SkippedInvoice:
    """An invoice, or a line of one, that is not sent, and why."""

    invoice: str
    reason: str


@dataclass(frozen=True, slots=True)
class RetailDataset:
    """A whole file. `products` has (name, price in pennies) by SKU."""

    baskets: list[Basket]
    left_out: list[SkippedInvoice]
    products: dict[str, tuple[str, int]]
    units: dict[str, int]


def read_baskets(file: Path) -> RetailDataset:
    """Read a CSV file, gzipped or not. Raises `Invalid` if it is not of this format."""
    invoices: dict[str, list[dict[str, str]]] = defaultdict(list)
    for row in _rows(file):
        invoices[row["InvoiceNo"]].append(row)
    skus = _skus(row for rows in invoices.values() for row in rows)
    left_out: list[SkippedInvoice] = []
    baskets: list[Basket] = []
    for invoice, rows in invoices.items():
        lines = []
        for row in rows:
            made = _line(row, skus)
            if isinstance(made, str):
                if not _why_not(invoice, rows):
                    left_out.append(SkippedInvoice(invoice, f"line {row['StockCode']}: {made}"))
            else:
                lines.append(made)
        reason = _why_not(invoice, rows) or (None if lines else "no line of it can be sold")
        if reason is None and all(line.fee for line in lines):
            reason = "nothing but fees, no goods"
        if reason:
            left_out.append(SkippedInvoice(invoice, reason))
        else:
            customer = rows[0]["CustomerID"].strip()
            user = f"customer-{customer}" if customer else f"guest-{invoice}"
            baskets.append(Basket(invoice, user, rows[0]["Country"], tuple(lines)))
    products: dict[str, tuple[str, int]] = {}
    units: Counter[str] = Counter()
    for basket in baskets:
        for line in basket.lines:
            name = products.get(line.sku, ("", 0))[0] or line.name
            products[line.sku] = (name, line.price)
            units[line.sku] += line.quantity
    return RetailDataset(baskets, left_out, products, dict(units))


def _rows(file: Path) -> Iterator[dict[str, str]]:
    opened = gzip.open if file.suffix == ".gz" else open
    try:
        with opened(file, "rt", encoding="utf-8", newline="") as lines:
            reader = csv.DictReader(lines)
            if tuple(reader.fieldnames or ()) != _COLUMNS:
                raise Invalid(f"{file} does not have the columns {', '.join(_COLUMNS)}")
            for row in reader:
                if None in row or None in row.values():
                    raise Invalid(f"{file}, line {reader.line_num}: not {len(_COLUMNS)} fields")
                yield row
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise Invalid(f"{file} cannot be read: {error}") from None


def _price(row: dict[str, str]) -> int | str:
    try:
        return parse_money(row["UnitPrice"], CURRENCY)
    except MoneyError as error:
        return str(error)


def _skus(rows: Iterator[dict[str, str]]) -> dict[tuple[str, str], str]:
    """(stock code, price) → SKU. One code was sold at several prices; a sale has one price a SKU, so each other price
    than the most common gets a SKU of its own, with the pennies behind it."""
    prices: dict[str, Counter[str]] = defaultdict(Counter)
    for row in rows:
        prices[row["StockCode"]][row["UnitPrice"]] += 1
    skus = {}
    for code, seen in prices.items():
        base = _NOT_IN_A_SKU.sub("-", code).strip("-._") or "code"
        usual = seen.most_common(1)[0][0]
        for price in seen:
            pennies = _price({"UnitPrice": price})
            skus[code, price] = base if price == usual else f"{base}.at{pennies}"
    return skus


def _line(row: dict[str, str], skus: dict[tuple[str, str], str]) -> BasketLine | str:
    """The line, or why it cannot be sold."""
    price = _price(row)
    if isinstance(price, str):
        return price
    if not re.fullmatch(r"-?\d{1,9}", row["Quantity"]):
        return f"the quantity is {row['Quantity']!r}"
    quantity = int(row["Quantity"])
    if quantity < 1:
        return f"the quantity is {quantity}"
    if price == 0:
        return "the price is 0"
    code = row["StockCode"]
    name = " ".join(row["Description"].split()) or f"(no description) {code}"
    return BasketLine(skus[code, row["UnitPrice"]], name[:200], quantity, price, not _GOODS.fullmatch(code))


def _why_not(invoice: str, rows: list[dict[str, str]]) -> str | None:
    """Why a whole invoice is no order."""
    if invoice.startswith("C"):
        return "goods that came back, no order"
    if all(row["Quantity"].startswith("-") for row in rows):
        return "goods written off, no order"
    if all(_price(row) == 0 for row in rows):
        return "a correction of stock at no price, no order"
    return None
