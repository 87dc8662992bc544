"""Whole tables of categories and attributes, read and written in batches."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from commerce.categories.model import AttributeRule, Lifecycle
from commerce.categories.store import AttributeRow, CategoryRow, queries
from commerce.kernel.postgres import Connection

_ROWS_PER_STATEMENT = 2_000


class ChoiceRow(NamedTuple):
    """A row of a choice."""

    choice_id: str
    attribute_id: str
    position: int
    status: Lifecycle


class TaxonomyRows(NamedTuple):
    """All categories and attributes of the shop. Choices are in their sequence."""

    categories: dict[str, CategoryRow]
    category_names: dict[str, dict[str, str]]
    attributes: dict[str, AttributeRow]
    attribute_names: dict[str, dict[str, str]]
    descriptions: dict[str, dict[str, str]]
    choices: dict[str, ChoiceRow]
    choice_names: dict[str, dict[str, str]]
    rules: dict[str, dict[str, AttributeRule]]


class TaxonomyWrites(NamedTuple):
    """Rows to write. `categories` have parents first; paths are joined by blanks."""

    attributes: list[tuple[str, str, str | None, str | None]]
    attribute_names: list[tuple[str, str, str, str | None]]
    choices: list[tuple[str, str, int, str]]
    choice_names: list[tuple[str, str, str]]
    categories: list[tuple[str, str | None, str, int, str]]
    merged: list[tuple[str, str]]
    category_names: list[tuple[str, str, str]]
    old_rules: list[tuple[str, str]]
    rules: list[tuple[str, str, str]]


async def read_all(connection: Connection) -> TaxonomyRows:
    """Read all categories and attributes."""
    rules = defaultdict[str, dict[str, AttributeRule]](dict)
    for row in await connection.fetch(queries.all_rules):
        rules[row["category_id"]][row["attribute_id"]] = row["rule"]
    names, descriptions = defaultdict[str, dict[str, str]](dict), defaultdict[str, dict[str, str]](dict)
    for row in await connection.fetch(queries.all_attribute_names):
        names[row["id"]][row["language"]] = row["name"]
        if row["description"] is not None:
            descriptions[row["id"]][row["language"]] = row["description"]
    return TaxonomyRows(
        {row["category_id"]: CategoryRow(*row) for row in await connection.fetch(queries.all_categories)},
        await _read_names(connection, queries.all_category_names),
        {row["attribute_id"]: AttributeRow(*row) for row in await connection.fetch(queries.all_attributes)},
        names,
        descriptions,
        {row["choice_id"]: ChoiceRow(*row) for row in await connection.fetch(queries.all_choices)},
        await _read_names(connection, queries.all_choice_names),
        rules,
    )


async def write_all(connection: Connection, writes: TaxonomyWrites, actor: str, now: datetime) -> None:
    """Write rows. Call inside a transaction that holds `lock_tree`."""
    for statement, rows, *more in (
        (queries.put_attributes, sorted(writes.attributes, key=lambda row: row[3] is not None), now, actor),
        (queries.put_attribute_names, writes.attribute_names),
        (queries.put_choices, writes.choices),
        (queries.put_choice_names, writes.choice_names),
        (queries.put_categories, writes.categories, now, actor),
        (queries.put_merged, writes.merged),
        (queries.put_category_names, writes.category_names),
        (queries.delete_rules, writes.old_rules),
        (queries.put_rules, writes.rules),
    ):
        for columns in _batches(rows):
            await connection.execute(statement, *columns, *more)


def _batches(rows: Sequence[tuple[Any, ...]]) -> Iterator[list[list[Any]]]:
    """Yield the columns of some rows after the other."""
    for start in range(0, len(rows), _ROWS_PER_STATEMENT):
        yield [list(column) for column in zip(*rows[start : start + _ROWS_PER_STATEMENT], strict=True)]


async def _read_names(connection: Connection, statement: str) -> dict[str, dict[str, str]]:
    names = defaultdict[str, dict[str, str]](dict)
    for row in await connection.fetch(statement):
        names[row["id"]][row["language"]] = row["name"]
    return names
