"""Products of the sample catalogs of Spree and Saleor, if a folder with them is at hand.

`FLOODGATE_TEST_CATALOGS` names a folder with `spree/products.csv` of https://github.com/spree/spree and
`saleor/populatedb_data.json.gz` of https://github.com/saleor/saleor, both BSD-3-Clause.
"""

from __future__ import annotations

import csv
import gzip
import json
import re
from collections import defaultdict
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from typing import Any

from commerce.catalog.model import ProductText
from commerce.kernel.clock import from_ms
from loadtest.generated_products import GeneratedProduct, GeneratedVariant
from loadtest.product_loading import load_products
from ops.services import CliServices

_NO_ID = re.compile(r"[^a-z0-9]+")


async def add_sample_products(shop: CliServices, folder: Path) -> int:
    """Insert the products of both catalogs with their categories, and return their number."""
    products = [*_read_spree(folder / "spree" / "products.csv")]
    products += _read_saleor(folder / "saleor" / "populatedb_data.json.gz")
    now = from_ms(shop.clock.now_ms())
    names = {_to_id(category): category for category, _ in products}
    records = [(key, None, [key], place, "active", 1, now, now, "test") for place, key in enumerate(names)]
    columns = ("category_id", "parent_id", "path", "position", "status", "version", "created_at", "changed_at")
    async with shop.db.transaction() as connection:
        await connection.copy_records_to_table("categories", records=records, columns=(*columns, "changed_by"))
        await connection.copy_records_to_table(
            "category_names", records=[(key, "en", name) for key, name in names.items()]
        )
    await load_products(shop.db, [product for _, product in products], now, lambda count: None)
    return len(products)


def _read_spree(file: Path) -> Iterator[tuple[str, GeneratedProduct]]:
    """Yield products with their categories; lines without a name are variants of the one before."""
    lines: defaultdict[str, list[dict[str, str]]] = defaultdict(list)
    with file.open(encoding="utf-8", newline="") as rows:
        for row in csv.DictReader(rows):
            lines[row["slug"]].append(row)
    for slug, (first, *others) in lines.items():
        variants = [
            (f"{slug}-{place}", row["price"], f"{row['option1_value']} {row['option2_value']}".strip())
            for place, row in enumerate(others)
        ]
        tags = [tag.strip() for tag in first["tags"].split(",") if tag.strip()]
        category = first["category1"].replace("->", "-")
        yield (
            category,
            _make(
                *(slug, category, first["name"], first["description"], tags),
                variants or [(slug, first["price"], "")],
            ),
        )


def _read_saleor(file: Path) -> Iterator[tuple[str, GeneratedProduct]]:
    rows: defaultdict[str, dict[int, dict[str, Any]]] = defaultdict(dict)
    for row in json.loads(gzip.decompress(file.read_bytes())):
        rows[row["model"]][row["pk"]] = row["fields"]
    variants: defaultdict[int, list[tuple[str, str, str]]] = defaultdict(list)
    for key, variant in rows["product.productvariant"].items():
        variants[variant["product"]].append((f"saleor-{key}", "10", variant["name"]))
    for key, fields in rows["product.product"].items():
        category = rows["product.category"][fields["category"]]["name"]
        description = unescape(fields["description_plaintext"])
        yield category, _make(fields["slug"], category, fields["name"], description, [], variants[key])


def _make(
    slug: str, category: str, name: str, description: str, tags: list[str], variants: list[tuple[str, str, str]]
) -> GeneratedProduct:
    text = ProductText(name=name, description=description.strip()[:5000] or None, search_words=tags)
    options = ["option"] if len(variants) > 1 else []
    generated = [
        GeneratedVariant(sku, f"{name} {label}".strip(), round(float(price) * 100), {"option": sku} if options else {})
        for sku, price, label in variants
    ]
    return GeneratedProduct(slug, _to_id(category), None, {}, options, {"en": text}, generated)


def _to_id(category: str) -> str:
    return _NO_ID.sub("-", category.lower()).strip("-")
