"""Baskets in the format of the UCI data set *Online Retail* (D. Chen, 2015, DOI 10.24432/C5BW33).

Columns: InvoiceNo, StockCode, Description, Quantity, InvoiceDate, UnitPrice, CustomerID, Country. One invoice is one
basket. The lines of `C` invoices are returns. Invoices that are neither are skipped with the reason: stock corrections
(a quantity below one, a price of 0), and invoices with fees only.
"""

from __future__ import annotations

import csv
import gzip
import re
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from commerce.kernel.errors import Invalid
from commerce.kernel.money import MoneyError, parse_money

CURRENCY = "GBP"
_COLUMNS = ("InvoiceNo", "StockCode", "Description", "Quantity", "InvoiceDate", "UnitPrice", "CustomerID", "Country")
_PRODUCT_CODE = re.compile(r"\d{5}[A-Za-z]{0,2}|[A-Z]{3,}\d+\w*|DCGS\w+|gift_\w+", re.IGNORECASE)
_QUANTITY = re.compile(r"-?\d{1,9}")
_NOT_IN_A_SKU = re.compile(r"[^A-Za-z0-9._-]+")
_MAX_NAME_LENGTH = 200


@dataclass(frozen=True, slots=True)
class BasketLine:
    """One line; the price is in pennies. `is_fee` marks postage and the like: charged, but no product."""

    sku: str
    name: str
    quantity: int
    price: int
    is_fee: bool


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
class ReturnLine:
    """One line of an invoice that returns something. Quantity and price are positive.

    `number` counts the lines of its invoice from 1. `user_id` is None if the file names no customer. `problem` says why
    the line can be no return of a product. `baskets_before` counts the baskets that precede it in the file.
    """

    invoice: str
    number: int
    user_id: str | None
    code: str
    sku: str
    quantity: int
    price: int
    problem: str | None
    baskets_before: int

    @property
    def total(self) -> int:
        return self.quantity * self.price


@dataclass(frozen=True, slots=True)
class SkippedInvoice:
    """An invoice, or a line of one, that is not sent, with the reason."""

    invoice: str
    reason: str


@dataclass(frozen=True, slots=True)
class RetailDataset:
    """A whole file.

    `products` maps SKU to name and price in pennies, `units` maps it to units, and `codes` to its stock code."""

    baskets: list[Basket]
    returns: list[ReturnLine]
    skipped: list[SkippedInvoice]
    products: dict[str, tuple[str, int]]
    units: dict[str, int]
    codes: dict[str, str]


def read_dataset(file: Path) -> RetailDataset:
    """Read a CSV file, gzipped or not. Raises `Invalid` if it is not of this format."""
    invoices: dict[str, list[dict[str, str]]] = defaultdict(list)
    for row in _read_rows(file):
        invoices[row["InvoiceNo"]].append(row)
    skus = _assign_skus(row for rows in invoices.values() for row in rows)
    skipped: list[SkippedInvoice] = []
    baskets: list[Basket] = []
    returns: list[ReturnLine] = []
    for invoice, rows in invoices.items():
        if invoice.startswith("C"):
            returns += (_parse_return(number, row, skus, len(baskets)) for number, row in enumerate(rows, 1))
            continue
        basket = _parse_invoice(invoice, rows, skus, skipped)
        if basket is not None:
            baskets.append(basket)
    products: dict[str, tuple[str, int]] = {}
    units: Counter[str] = Counter()
    for basket in baskets:
        for line in basket.lines:
            name = products.get(line.sku, ("", 0))[0] or line.name
            products[line.sku] = (name, line.price)
            units[line.sku] += line.quantity
    codes = {sku: code for (code, _), sku in skus.items()}
    return RetailDataset(baskets, returns, skipped, products, dict(units), codes)


def _read_rows(file: Path) -> Iterator[dict[str, str]]:
    open_text = gzip.open if file.suffix == ".gz" else open
    try:
        with open_text(file, "rt", encoding="utf-8", newline="") as lines:
            reader = csv.DictReader(lines, strict=True)
            if tuple(reader.fieldnames or ()) != _COLUMNS:
                raise Invalid(f"cannot read {file}: it does not have the columns {', '.join(_COLUMNS)}")
            for row in reader:
                if None in row or None in row.values():
                    raise Invalid(f"cannot read {file}: line {reader.line_num} does not have {len(_COLUMNS)} fields")
                yield row
    except (OSError, EOFError, zlib.error, UnicodeDecodeError, csv.Error) as error:
        raise Invalid(f"cannot read {file}: {error}") from None


def _assign_skus(rows: Iterator[dict[str, str]]) -> dict[tuple[str, str], str]:
    """Map stock code and price to a SKU.

    The data set sells one code at several prices, a sale has one price per SKU. The most common price keeps the code,
    every other price gets a SKU of its own with the pennies as suffix.
    """
    prices_by_code: dict[str, Counter[str]] = defaultdict(Counter)
    for row in rows:
        prices_by_code[row["StockCode"]][row["UnitPrice"]] += 1
    skus = {}
    for code, prices in prices_by_code.items():
        base = _NOT_IN_A_SKU.sub("-", code).strip("-._") or "code"
        usual_price = prices.most_common(1)[0][0]
        for price in prices:
            skus[code, price] = base if price == usual_price else f"{base}.at{_parse_price(price)}"
    return skus


def _parse_invoice(
    invoice: str, rows: Sequence[dict[str, str]], skus: dict[tuple[str, str], str], skipped: list[SkippedInvoice]
) -> Basket | None:
    """Return an invoice as a basket, or None if it is no order. Appends what is skipped to `skipped`."""
    reason = _skip_reason(rows)
    lines = []
    for row in rows:
        line = _parse_line(row, skus)
        if isinstance(line, BasketLine):
            lines.append(line)
        elif reason is None:
            skipped.append(SkippedInvoice(invoice, f"line {row['StockCode']}: {line}"))
    if reason is None and not lines:
        reason = "no line of it can be sold"
    if reason is None and all(line.is_fee for line in lines):
        reason = "fees only, no products"
    if reason is not None:
        skipped.append(SkippedInvoice(invoice, reason))
        return None
    user_id = _user_id(rows[0]) or f"guest-{invoice}"
    return Basket(invoice, user_id, rows[0]["Country"], tuple(lines))


def _user_id(row: dict[str, str]) -> str | None:
    customer = row["CustomerID"].strip()
    return f"customer-{customer}" if customer else None


def _parse_return(
    number: int, row: dict[str, str], skus: dict[tuple[str, str], str], baskets_before: int
) -> ReturnLine:
    """Return a line of a `C` invoice, with the reason if it is no return of a product."""
    code, price, problem = row["StockCode"], _parse_price(row["UnitPrice"]), None
    quantity = int(row["Quantity"]) if _QUANTITY.fullmatch(row["Quantity"]) else 0
    if quantity >= 0:
        problem = f"the quantity is {row['Quantity']!r}, not below 0"
    elif isinstance(price, str):
        problem = price
    elif not _PRODUCT_CODE.fullmatch(code):
        problem = "a fee or a discount, no product"
    return ReturnLine(
        row["InvoiceNo"],
        number,
        _user_id(row),
        code,
        skus[code, row["UnitPrice"]],
        -quantity if quantity < 0 else 0,
        price if isinstance(price, int) else 0,
        problem,
        baskets_before,
    )


def _parse_line(row: dict[str, str], skus: dict[tuple[str, str], str]) -> BasketLine | str:
    """Return the line, or the reason why it cannot be sold."""
    price = _parse_price(row["UnitPrice"])
    if isinstance(price, str):
        return price
    if not _QUANTITY.fullmatch(row["Quantity"]):
        return f"the quantity is {row['Quantity']!r}"
    quantity = int(row["Quantity"])
    if quantity < 1:
        return f"the quantity is {quantity}"
    if price == 0:
        return "the price is 0"
    code = row["StockCode"]
    name = " ".join(row["Description"].split()) or f"(no description) {code}"
    sku = skus[code, row["UnitPrice"]]
    return BasketLine(sku, name[:_MAX_NAME_LENGTH], quantity, price, not _PRODUCT_CODE.fullmatch(code))


def _parse_price(text: str) -> int | str:
    """Return the price in pennies, or the reason why it is none."""
    try:
        return parse_money(text, CURRENCY)
    except MoneyError as error:
        return str(error)


def _skip_reason(rows: Sequence[dict[str, str]]) -> str | None:
    """Return the reason why a whole invoice is no order, or None."""
    if all(row["Quantity"].startswith("-") for row in rows):
        return "a write-off of stock, no order"
    if all(_parse_price(row["UnitPrice"]) == 0 for row in rows):
        return "a stock correction at no price, no order"
    return None
