"""Products and judged queries of the files beside this module, and the rule that judges.

`python -m tests.product_search.judged_catalog` writes the grades into the files of queries.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

from commerce.catalog.model import ProductText
from commerce.kernel.clock import from_ms
from loadtest.generated_products import GeneratedProduct, GeneratedVariant
from loadtest.product_loading import load_products
from ops.services import CliServices

FOLDER = Path(__file__).parent
QUERY_FILES = ("queries_dev.csv", "queries_held_out.csv")
_NUMBER = re.compile(r"[0-9]+(\.[0-9]+)?")
_LANGUAGES = {"zh-CN": "zh", "en": "en"}
_BEGINNING = datetime(2026, 11, 1, tzinfo=UTC)
_HEAD = """# Queries of customers over judged_products.csv, invented before any search was tried.
#
# `wanted` says what is meant: a category, or some with / between them, or * for any, and conditions on what the product
# has; id=x means that its id begins with x. A product of another category has no grade. One that meets all has
# grade 3; if there are two or more and it misses one, grade 2; otherwise grade 1, but none with the category *.
# `products` follows from that: python -m tests.product_search.judged_catalog
"""


class JudgedRow(NamedTuple):
    """A line of a file of queries."""

    query: str
    language: str
    kind: str
    wanted: str
    products: str


class JudgedProduct(NamedTuple):
    """A product with what conditions of queries compare, each a set of texts."""

    product: GeneratedProduct
    facts: dict[str, set[str]]


def _read(name: str) -> list[dict[str, str]]:
    lines = (FOLDER / name).read_text(encoding="utf-8").splitlines()
    return [*csv.DictReader(line for line in lines if not line.startswith("#"))]


@cache
def _taxonomy() -> list[dict[str, str]]:
    return _read("judged_taxonomy.csv")


@cache
def list_judged_products() -> list[JudgedProduct]:
    """List the products, one for each colour of a line."""
    names = {row["id"]: row for row in _taxonomy()}
    kinds = {row["id"]: row["kind"] for row in _taxonomy() if row["kind"] != "category"}
    judged_products = []
    for row in _read("judged_products.csv"):
        for color in row["colors"].split() or [None]:
            product_id = f"{row['id']}-{color}" if color else row["id"]
            facts = dict(fact.split("=", 1) for fact in row["facts"].split())
            attributes: dict[str, Any] = {name: _convert(kinds[name], value) for name, value in facts.items()}
            if color:
                attributes["color"] = [color]
            sizes = row["sizes"].split()
            texts = {
                tag: ProductText(
                    name=row[column].replace("{color}", names[color][column] if color else ""),
                    description=row[f"{column}_description"],
                    search_words=row["search_words"].split(" ") if row["search_words"] else [],
                )
                for tag, column in _LANGUAGES.items()
            }
            variants = [
                GeneratedVariant(
                    f"{product_id}-{size or 'one'}",
                    " ".join(filter(None, (texts["zh-CN"].name, size))),
                    int(row["price"]) * 100,
                    {"size": size} if size else {},
                )
                for size in sizes or [None]
            ]
            options = ["size"] if sizes else []
            all_facts = {name: {value} for name, value in facts.items()}
            all_facts |= {
                "id": {product_id},
                "category": {row["category"]},
                "brand": {row["brand"]},
                "size": {*sizes},
            }
            all_facts["color"] = {color} if color else set()
            generated = GeneratedProduct(
                product_id, row["category"], row["brand"], attributes, options, texts, variants
            )
            judged_products.append(JudgedProduct(generated, all_facts))
    return judged_products


def _convert(kind: str, value: str) -> Any:
    if kind == "boolean":
        return value == "true"
    if kind == "number":
        assert _NUMBER.fullmatch(value), value
        return float(value)
    return [value] if kind == "choices" else value


def judge(wanted: str) -> str:
    """Return the graded products of a query, best first, as the files have them."""
    categories, *conditions = wanted.split()
    pairs = [condition.split("=", 1) for condition in conditions]
    grades = {}
    for judged in list_judged_products():
        if categories != "*" and not judged.facts["category"] & {*categories.split("/")}:
            continue
        missed = sum(not _meets(judged.facts, name, value) for name, value in pairs)
        if not missed:
            grades[judged.product.product_id] = 3
        elif categories != "*":
            grades[judged.product.product_id] = 2 if missed == 1 and len(pairs) > 1 else 1
    ranked = sorted(grades.items(), key=lambda item: (-item[1], item[0]))
    assert ranked[0][1] == 3, wanted
    return " ".join(f"{product_id}:{grade}" for product_id, grade in ranked)


def _meets(facts: Mapping[str, set[str]], name: str, value: str) -> bool:
    if name == "id":
        return any(own.startswith(part) for own, part in product(facts["id"], value.split("/")))
    return value in facts.get(name, ())


def read_rows(name: str) -> Iterator[JudgedRow]:
    """Yield the lines of a file of queries."""
    for row in _read(name):
        yield JudgedRow(*(row[field] for field in JudgedRow._fields))


async def add_judged_products(shop: CliServices) -> int:
    """Insert the categories, attributes and products, all on sale, and return the number of products."""
    parents = {row["id"]: row["parent"] for row in _taxonomy() if row["kind"] == "category"}
    categories, attributes, choices, names = [], [], [], []
    for position, row in enumerate(_taxonomy()):
        key, kind = row["id"], row["kind"]
        texts = [(key, tag, row[column]) for tag, column in _LANGUAGES.items()]
        if kind == "category":
            path = [parents[key], key] if parents[key] else [key]
            categories.append((key, parents[key] or None, path, position, "active", 1, _BEGINNING, _BEGINNING, "test"))
            names.append(("category_names", "category_id", texts))
        elif kind == "value":
            choices.append((key, row["parent"], position, "active"))
            names.append(("choice_names", "choice_id", texts))
        else:
            unit = row["parent"] or None
            attributes.append((key, kind, unit, 1, _BEGINNING, _BEGINNING, "test"))
            names.append(("attribute_names", "attribute_id", texts))
    rules = [(key, row[0], "optional") for row in attributes for key in parents if not parents[key]]
    changed = ("version", "created_at", "changed_at", "changed_by")
    tables: list[tuple[str, tuple[str, ...], list[Any]]] = [
        ("categories", ("category_id", "parent_id", "path", "position", "status", *changed), categories),
        ("attributes", ("attribute_id", "kind", "unit", *changed), attributes),
        ("choices", ("choice_id", "attribute_id", "position", "status"), choices),
        ("category_attributes", ("category_id", "attribute_id", "rule"), rules),
        *((table, (key, "language", "name"), texts) for table, key, texts in names),
    ]
    async with shop.db.transaction() as connection:
        for table, columns, records in tables:
            await connection.copy_records_to_table(table, records=records, columns=columns)
        await connection.execute("UPDATE category_tree SET version = version + 1")
    products = [judged.product for judged in list_judged_products()]
    await load_products(shop.db, products, from_ms(shop.clock.now_ms()), lambda count: None)
    return len(products)


def _main() -> None:
    for name in QUERY_FILES:
        rows = [row._replace(products=judge(row.wanted)) for row in read_rows(name)]
        with (FOLDER / name).open("w", encoding="utf-8", newline="") as file:
            file.write(_HEAD)
            csv.writer(file, lineterminator="\n").writerows([JudgedRow._fields, *rows])


if __name__ == "__main__":
    _main()
