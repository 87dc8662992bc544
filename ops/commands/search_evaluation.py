"""`floodgate catalog evaluate`: how well the search finds products for judged queries."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from commerce.kernel.csv_rows import read_lines
from commerce.kernel.errors import Invalid
from commerce.product_search.judged_queries import (
    JudgedQuery,
    ProductSearchQuality,
    QueryResult,
    answer_queries,
    evaluate,
    read_queries,
)
from commerce.product_search.postgres_index import PostgresProductIndex
from ops.commands.console import JsonOption, exit_on_error, print_detail, print_json, print_table, run
from ops.commands.safe_console import Table
from ops.services import open_cli_services

_TIMEOUT_MS = 10_000


class EvaluatedQueries(msgspec.Struct, frozen=True):
    """The measures of a file, of all queries, by language and by kind.

    `missed` has the queries whose first product is not one of the best."""

    file: str
    total: ProductSearchQuality
    languages: dict[str, ProductSearchQuality]
    kinds: dict[str, ProductSearchQuality]
    missed: list[QueryResult]


def evaluate_files(
    files: Annotated[list[Path], typer.Argument(exists=True, dir_okay=False, metavar="FILE.csv...")],
    min_ndcg: Annotated[float, typer.Option(min=0, max=1, help="end with status 1 if a file is below this")] = 0,
    json: JsonOption = False,
) -> None:
    """Measure how well the search finds the right products for queries, among all that are on sale.

    The CSV files have the columns query, language (zh or en), products (ids with grades from 1 to 3, such as
    `mug:3 cup:1`), and maybe kind, which groups queries. nDCG compares the first ten with the best ten there could be;
    recall is the share of the products with a query's highest grade that is among the first ten, of ten at most.
    """

    async def work() -> list[list[QueryResult]]:
        queries = [_read(file) for file in files]
        async with open_cli_services() as shop:
            index = PostgresProductIndex(shop.db, _TIMEOUT_MS)
            return [await answer_queries(of_file, index) for of_file in queries]

    results = run(work())
    with exit_on_error():
        evaluated = [_evaluate(file.name, of_file) for file, of_file in zip(files, results, strict=True)]
    if json:
        print_json(evaluated)
    else:
        _print(evaluated)
    if low := [file for file in evaluated if file.total.ndcg_at_10 < min_ndcg]:
        print_detail(f"nDCG@10 of {low[0].file} is {low[0].total.ndcg_at_10:.3f}, below {min_ndcg:g}")
        raise typer.Exit(1)


def _read(file: Path) -> list[JudgedQuery]:
    try:
        return read_queries(read_lines(file))
    except Invalid as error:
        error.add_note(f"file {file}")
        raise


def _evaluate(file: str, results: Sequence[QueryResult]) -> EvaluatedQueries:
    languages = sorted({result.language for result in results})
    kinds = sorted({result.kind for result in results if result.kind})
    return EvaluatedQueries(
        file,
        evaluate(results),
        {name: evaluate([result for result in results if result.language == name]) for name in languages},
        {name: evaluate([result for result in results if result.kind == name]) for name in kinds},
        [result for result in results if result.is_missed],
    )


def _print(evaluated: Sequence[EvaluatedQueries]) -> None:
    table = Table("file", "queries", "number", "nDCG@10", "recall@10", "nothing found")
    for file in evaluated:
        for name, measures in (*file.languages.items(), *file.kinds.items(), ("all", file.total)):
            values = measures.ndcg_at_10, measures.recall_at_10, measures.without_hit
            table.add_row(file.file, name, str(measures.queries), *(f"{value:.3f}" for value in values))
    print_table(table)
    for file in evaluated:
        for result in file.missed:
            first = result.returned[0] if result.returned else "nothing"
            sought = f" (sought: {result.corrected_text})" if result.corrected_text else ""
            print_detail(f"  {result.query}{sought}: the first is {first}")
