"""Sample catalogs of other shop systems as products in JSON Lines, with categories and attributes.

Spree's `products.csv` with `product_translations.csv`, Saleor's `populatedb_data.json`, and the products of the baskets
of Online Retail. What the shop has no place for, such as prices in a second currency, is left out and counted.
"""

from __future__ import annotations

import csv
import gzip
import re
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec

from commerce.categories.model import AttributeInput, AttributeKind, CategoryInput, ChoiceInput
from commerce.categories.service import Categories
from commerce.kernel.money import parse_money
from loadtest.retail_dataset import CURRENCY, read_dataset

_REASON = "sample catalog"
_NOT_IN_AN_ID = re.compile(r"[^a-z0-9]+")
_NOT_IN_A_SKU = re.compile(r"[^A-Za-z0-9._-]+")
_CURRENCY = "USD"


@dataclass
class SampleCatalog:
    """Products as `commerce.product_imports` takes them. Categories have their parents before them.

    `left_out` counts what is not there, by what it is."""

    products: dict[str, dict[str, Any]] = field(default_factory=dict)
    categories: dict[str, tuple[str, str | None]] = field(default_factory=dict)
    """name and parent by id"""
    used: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    """attributes by category"""
    names: dict[str, str] = field(default_factory=dict)
    """of attributes"""
    choices: dict[str, dict[str, str]] = field(default_factory=lambda: defaultdict(dict))
    """names by choice, of attributes that have any; the others are texts"""
    left_out: Counter[str] = field(default_factory=Counter)

    def encode(self) -> bytes:
        """Return the products in JSON Lines."""
        return b"".join(msgspec.json.encode(product) + b"\n" for product in self.products.values())

    def add_choice(self, attribute: str, name: str) -> str:
        """Add a choice of an attribute, and return its id."""
        attribute_id = to_id(attribute)
        self.names[attribute_id] = attribute
        choice_id = f"{attribute_id}__{to_id(name)}"
        self.choices[attribute_id][choice_id] = name
        return choice_id

    async def store_categories(self, categories: Categories, actor: str) -> None:
        """Store the attributes and categories, before the products are imported."""
        for attribute_id, name in self.names.items():
            choices = [
                ChoiceInput(choice_id=choice_id, names={"en": text})
                for choice_id, text in self.choices.get(attribute_id, {}).items()
            ]
            kind: AttributeKind = "choice" if choices else "text"
            new = AttributeInput(kind=kind, names={"en": name}, choices=choices, reason=_REASON)
            await categories.put_attribute(attribute_id, new, actor)
        for category_id, (name, parent_id) in self.categories.items():
            rules = dict.fromkeys(sorted(self.used[category_id]), "optional")
            await categories.put(
                category_id,
                msgspec.convert(
                    {"parent_id": parent_id, "names": {"en": name}, "attributes": rules, "reason": _REASON},
                    CategoryInput,
                ),
                actor,
            )


def to_id(text: str) -> str:
    """Return an id made of a name."""
    return _NOT_IN_AN_ID.sub("-", text.lower()).strip("-")


def read_spree(folder: Path) -> SampleCatalog:
    """Read `products.csv`, a row per product and variant, and `product_translations.csv`."""
    catalog = SampleCatalog()
    with (folder / "products.csv").open(encoding="utf-8", newline="") as lines:
        for row in csv.DictReader(lines, strict=True):
            if row["currency"] != _CURRENCY:
                catalog.left_out[f"prices in {row['currency']}"] += 1
            elif row["slug"] not in catalog.products:
                _add_spree_product(catalog, row)
            else:
                _add_spree_variant(catalog, row)
    with (folder / "product_translations.csv").open(encoding="utf-8", newline="") as lines:
        for row in csv.DictReader(lines, strict=True):
            if row["slug"] in catalog.products:
                texts = catalog.products[row["slug"]]["texts"]
                texts[row["locale"]] = {"name": row["name"], "description": row["description"] or None}
            else:
                catalog.left_out["translations of other products"] += 1
    return catalog


def _add_spree_product(catalog: SampleCatalog, row: dict[str, str]) -> None:
    parent, category_id = None, ""
    for name in row["category1"].split(" -> "):
        category_id = to_id(f"{category_id} {name}")
        catalog.categories.setdefault(category_id, (name, parent))
        parent = category_id
    attributes = {}
    for column, value in row.items():
        if column.startswith("custom_field.") and value:
            name = column.rpartition(".")[2]
            attributes[to_id(name)] = value
            catalog.names[to_id(name)] = name.replace("_", " ").capitalize()
            catalog.used[category_id].add(to_id(name))
    catalog.products[row["slug"]] = {
        "product_id": row["slug"],
        "status": "draft",
        "category_id": category_id,
        "texts": {"en": {"name": row["name"], "description": row["description"] or None}},
        "attributes": attributes,
        "options": [],
        "variants": [],
    }
    if Decimal(row["price"] or 0):
        _add_spree_variant(catalog, row)


def _add_spree_variant(catalog: SampleCatalog, row: dict[str, str]) -> None:
    product = catalog.products[row["slug"]]
    values = {}
    if row["option1_name"]:
        values = {to_id(row["option1_name"]): catalog.add_choice(row["option1_name"], row["option1_value"])}
        product["options"] = list(values)
        catalog.used[product["category_id"]].update(values)
    product["status"] = "on_sale"
    product["variants"].append(
        {
            "sku": row["sku"],
            "name": " ".join(filter(None, (product["texts"]["en"]["name"], row["option1_value"]))),
            "price": parse_money(row["price"], row["currency"]),
            "currency": row["currency"],
            "option_values": values,
        }
    )


def read_saleor(file: Path) -> SampleCatalog:
    """Read the fixture of Saleor's demonstration: products, variants and attributes as rows of tables."""
    tables: dict[str, dict[int, dict[str, Any]]] = defaultdict(dict)
    for row in msgspec.json.decode(gzip.decompress(file.read_bytes())):
        tables[row["model"].rpartition(".")[2]][row["pk"]] = row["fields"]
    catalog = SampleCatalog()
    for row in tables["category"].values():
        parent = tables["category"][row["parent"]]["slug"] if row["parent"] else None
        catalog.categories[row["slug"]] = (row["name"], parent)
    for product_no, row in tables["product"].items():
        attributes = {
            name: value
            for assigned in tables["assignedproductattributevalue"].values()
            if assigned["product"] == product_no
            for name, value in [_read_saleor_value(catalog, tables, assigned["value"])]
        }
        category_id = tables["category"][row["category"]]["slug"]
        catalog.used[category_id].update(attributes)
        catalog.products[row["slug"]] = {
            "product_id": row["slug"],
            "category_id": category_id,
            "texts": {"en": {"name": row["name"], "description": row["description_plaintext"] or None}},
            "attributes": attributes,
            **_read_saleor_variants(catalog, tables, product_no, category_id),
        }
    return catalog


def _read_saleor_value(
    catalog: SampleCatalog, tables: dict[str, dict[int, dict[str, Any]]], value_no: int
) -> tuple[str, str]:
    value = tables["attributevalue"][value_no]
    attribute = tables["attribute"][value["attribute"]]["name"]
    return to_id(attribute), catalog.add_choice(attribute, value["name"])


def _read_saleor_variants(
    catalog: SampleCatalog, tables: dict[str, dict[int, dict[str, Any]]], product_no: int, category_id: str
) -> dict[str, Any]:
    """Return status, options and variants of a product.

    Variants that are alike get their name as an option."""
    rows = {number: row for number, row in tables["productvariant"].items() if row["product"] == product_no}
    values = {
        number: dict(
            _read_saleor_value(catalog, tables, assigned["value"])
            for assigned in tables["assignedvariantattributevalue"].values()
            if tables["assignedvariantattribute"][assigned["assignment"]]["variant"] == number
        )
        for number in rows
    }
    if len({tuple(sorted(chosen.items())) for chosen in values.values()}) < len(rows) or not all(
        chosen.keys() == next(iter(values.values())).keys() for chosen in values.values()
    ):
        values = {number: {"edition": catalog.add_choice("Edition", row["name"])} for number, row in rows.items()}
    prices = {
        row["variant"]: row["price_amount"]
        for row in tables["productvariantchannellisting"].values()
        if row["currency"] == _CURRENCY
    }
    variants = []
    for number, row in rows.items():
        if prices.get(number) is None or not Decimal(prices[number]):
            catalog.left_out["variants without a price"] += 1
            continue
        price = f"{Decimal(prices[number]).normalize():f}"
        variants.append(
            {
                "sku": _NOT_IN_A_SKU.sub("-", row["sku"] or row["name"]),
                "name": f"{tables['product'][product_no]['name']} {row['name']}",
                "price": parse_money(price, _CURRENCY),
                "currency": _CURRENCY,
                "option_values": values[number],
            }
        )
    options = list(next(iter(values.values()), {}))
    catalog.used[category_id].update(options)
    return {"status": "on_sale" if variants else "draft", "options": options, "variants": variants}


def read_retail(file: Path) -> SampleCatalog:
    """Read the products of the baskets of Online Retail, each with one variant at its most common price."""
    catalog = SampleCatalog()
    for sku, (name, price) in read_dataset(file).products.items():
        if price < 1:
            catalog.left_out["products at no price"] += 1
            continue
        catalog.products[sku] = {
            "product_id": sku,
            "status": "on_sale",
            "texts": {"en": {"name": name}},
            "variants": [{"sku": sku, "name": name, "price": price, "currency": CURRENCY}],
        }
    return catalog
