"""Judged queries over generated products: the rules of their files become the grades of products.

`python -m tests.product_search.generated_queries TAXONOMY FOLDER` writes both files as `floodgate catalog evaluate`
reads them, for a shop with the products of `floodgate generate-products TAXONOMY --count 20000 --seed 1`.
"""

from __future__ import annotations

import csv
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from commerce.categories.taxonomy import Taxonomy
from commerce.categories.taxonomy_reader import read_taxonomy
from loadtest.generated_products import GeneratedProduct, ProductGenerator

GENERATED_COUNT, GENERATED_SEED = 20_000, 1
GENERATED_FILES = ("queries_generated_dev.csv", "queries_generated_held_out.csv")
EXACT, CLOSE = 2, 1
_FOLDER = Path(__file__).parent


class GeneratedRow(NamedTuple):
    """A line of a file of queries."""

    query: str
    language: str
    kind: str
    wanted: str
    close: str


class GeneratedCatalog:
    """The generated products with what the rules of queries compare."""

    def __init__(self, taxonomy: Taxonomy, count: int = GENERATED_COUNT) -> None:
        self.products = list(ProductGenerator(taxonomy, GENERATED_SEED).generate(count))
        self._taxonomy = taxonomy
        self._facts = {product.product_id: _list_facts(product) for product in self.products}
        self._ids_by_category: defaultdict[str, list[str]] = defaultdict(list)
        for product in self.products:
            category_id: str | None = product.category_id
            while category_id is not None:
                self._ids_by_category[category_id].append(product.product_id)
                category_id = taxonomy.categories[category_id].parent_id

    def judge(self, row: GeneratedRow) -> dict[str, int]:
        """Return the grades of products by id, best first, as the head of the files says."""
        categories, *conditions = row.wanted.split()
        pairs = [condition.split("=", 1) for condition in conditions]
        wanted = set(self._list_ids(categories))
        grades = {}
        for product_id in {*self._list_ids(row.close), *wanted}:
            missed = sum(not {*value.split("/")} & self._facts[product_id][name] for name, value in pairs)
            if missed <= (product_id in wanted):
                grades[product_id] = EXACT if product_id in wanted and not missed else CLOSE
        return dict(sorted(grades.items(), key=lambda item: (-item[1], item[0])))

    def _list_ids(self, categories: str) -> Iterator[str]:
        for category_id in filter(None, categories.split("/")):
            assert category_id in self._taxonomy.categories, category_id
            yield from self._ids_by_category[category_id]


def _list_facts(product: GeneratedProduct) -> Mapping[str, set[str]]:
    """Return the brand, and the values of all attributes and variants without the names of the attributes."""
    values = set()
    for source in (product.attributes, *(variant.option_values for variant in product.variants)):
        for value in source.values():
            values.update(part.rpartition("__")[2] for part in (value if isinstance(value, list) else [value]))
    return {"brand": {product.brand or ""}, "value": values}


def read_generated_rows(name: str) -> list[GeneratedRow]:
    """Read a file of queries."""
    lines = (_FOLDER / name).read_text(encoding="utf-8").splitlines()
    reader = csv.DictReader(line for line in lines if not line.startswith("#"))
    return [GeneratedRow(*(row[field] for field in GeneratedRow._fields)) for row in reader]


def write_judged_file(catalog: GeneratedCatalog, name: str, folder: Path) -> Path:
    """Write a file of queries with graded products in place of the rules, and return its path."""
    file = folder / name
    with file.open("w", encoding="utf-8", newline="") as lines:
        writer = csv.writer(lines, lineterminator="\n")
        writer.writerow(["query", "language", "kind", "products"])
        for row in read_generated_rows(name):
            grades = catalog.judge(row)
            products = " ".join(f"{product_id}:{grade}" for product_id, grade in grades.items())
            writer.writerow([row.query, row.language, row.kind, products])
    return file


if __name__ == "__main__":
    _catalog = GeneratedCatalog(read_taxonomy(Path(sys.argv[1])))
    for _name in GENERATED_FILES:
        write_judged_file(_catalog, _name, Path(sys.argv[2]))
