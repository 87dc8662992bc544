"""Measures how well an index finds products for judged queries, with ir-measures."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import msgspec

from commerce.catalog.model import ProductId
from commerce.kernel.errors import UnreadableCsv
from commerce.kernel.optional import require_extra
from commerce.product_search.model import MAX_TEXT_CHARS, SearchTerms
from commerce.product_search.product_index_port import ProductIndex
from commerce.text_search.model import LANGUAGES, Language

COLUMNS = ("query", "language", "products")
MAX_QUERIES, MAX_GRADE, RESULTS = 100_000, 3, 10


class JudgedQuery(NamedTuple):
    """A query with the grades of products; others have none. `kind` groups queries and may be empty."""

    text: str
    language: Language
    kind: str
    grades: dict[str, int]


class QueryResult(msgspec.Struct, frozen=True):
    """A query with the ids of the products that a search returned, and their grades.

    `best_grade` is the highest that a product has."""

    query: str
    language: Language
    kind: str
    returned: tuple[str, ...]
    returned_grades: tuple[int, ...]
    best_grade: int
    grades: dict[str, int]
    corrected_text: str | None

    @property
    def is_missed(self) -> bool:
        """Tell whether the first product is not one of the best."""
        return not self.returned_grades or self.returned_grades[0] < self.best_grade


class ProductSearchQuality(msgspec.Struct, frozen=True):
    """Measures over queries, each from 0 to 1.

    Recall is the share of the best products of a query, those with the highest grade that any has, that is among the
    first ten; of more than ten, ten count. `without_hit` is the share of queries for which nothing was found."""

    queries: int
    ndcg_at_10: float
    recall_at_10: float
    without_hit: float


def read_queries(lines: Iterable[str]) -> list[JudgedQuery]:
    """Read a CSV file with the columns query, language, products, and maybe kind.

    `products` are ids with grades from 1 to 3, such as `mug:3 cup:1`. Lines that begin with # are comments. Raises
    `UnreadableCsv` with the number of the line.
    """
    numbered = [(number, line) for number, line in enumerate(lines, 1) if not line.startswith("#")]
    reader = csv.DictReader((line for _, line in numbered), strict=True)
    queries: list[JudgedQuery] = []
    try:
        if not {*COLUMNS} <= {*(reader.fieldnames or ())}:
            raise UnreadableCsv(f"no line names the columns {', '.join(COLUMNS)}")
        for row in reader:
            text, language, products = ((row[column] or "").strip() for column in COLUMNS)
            grades = _read_grades(products)
            if not 1 <= len(text) <= MAX_TEXT_CHARS or language not in LANGUAGES or not grades:
                raise UnreadableCsv(
                    f"line {numbered[reader.line_num - 1][0]} needs a query of 1 to {MAX_TEXT_CHARS} characters, a "
                    f"language (zh or en) and products with grades from 1 to {MAX_GRADE}, such as mug:3 cup:1"
                )
            kind = (row.get("kind") or "").strip()
            queries.append(JudgedQuery(text, msgspec.convert(language, Language), kind, grades))
            if len(queries) > MAX_QUERIES:
                raise UnreadableCsv(f"it has more than {MAX_QUERIES} queries; split the file")
    except csv.Error as error:
        raise UnreadableCsv(f"line {numbered[reader.line_num - 1][0]}: {error}") from None
    if not queries:
        raise UnreadableCsv("it has no query")
    return queries


def _read_grades(text: str) -> dict[str, int] | None:
    """Read ids with grades. None if one is wrong or there is none."""
    grades: dict[str, int] = {}
    for part in text.split():
        product_id, _, grade = part.rpartition(":")
        try:
            msgspec.convert(product_id, ProductId)
        except msgspec.ValidationError:
            return None
        if not (grade.isascii() and grade.isdigit() and 1 <= int(grade) <= MAX_GRADE):
            return None
        grades[product_id] = int(grade)
    return grades or None


async def answer_queries(queries: Sequence[JudgedQuery], index: ProductIndex) -> list[QueryResult]:
    """Return for each query what a search finds, up to `RESULTS` products."""
    results = []
    for query in queries:
        page = await index.search(SearchTerms(text=query.text, limit=RESULTS))
        returned = tuple(hit.product_id for hit in page.hits)
        grades = tuple(query.grades.get(product_id, 0) for product_id in returned)
        best = max(query.grades.values())
        results.append(
            QueryResult(
                *(query.text, query.language, query.kind, returned, grades, best),
                query.grades,
                page.corrected_text,
            )
        )
    return results


def evaluate(results: Sequence[QueryResult]) -> ProductSearchQuality:
    """Measure results, of which there is at least one. Raises `NotReady` if ir-measures is not installed."""
    require_extra("evaluate the search", "evaluation", "ir_measures")
    import ir_measures  # noqa: PLC0415  # only this needs it, and it brings scipy

    wanted, returned = [], []
    for number, result in enumerate(results):
        key = str(number)
        wanted += [ir_measures.Qrel(key, product_id, grade) for product_id, grade in result.grades.items()]
        returned += [
            ir_measures.ScoredDoc(key, product_id, float(RESULTS - place))
            for place, product_id in enumerate(result.returned)
        ]
    ndcg = ir_measures.nDCG @ RESULTS
    values = ir_measures.calc_aggregate([ndcg], wanted, returned)
    recall = sum(map(_compute_recall, results)) / len(results)
    without_hit = sum(not result.returned for result in results) / len(results)
    return ProductSearchQuality(len(results), float(values[ndcg]), recall, without_hit)


def _compute_recall(result: QueryResult) -> float:
    """Return the share of the best products that was returned.

    With more of them than results no search could return all: the ideal one has a recall of 1."""
    best = sum(grade == result.best_grade for grade in result.grades.values())
    return result.returned_grades.count(result.best_grade) / min(best, RESULTS)
