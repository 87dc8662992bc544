"""Rows of categories and attributes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import msgspec

from commerce.categories.model import (
    Attribute,
    AttributeChoice,
    AttributeInput,
    AttributeKind,
    AttributeRule,
    AttributeSummary,
    CategoryChange,
    ChangeKind,
    Lifecycle,
)
from commerce.kernel.postgres import Connection
from commerce.kernel.sql import load_queries


class CategoryRow(NamedTuple):
    """A row of a category."""

    category_id: str
    parent_id: str | None
    path: list[str]
    position: int
    status: Lifecycle
    merged_into: str | None
    version: int
    changed_at: datetime
    changed_by: str


class AttributeRow(NamedTuple):
    """A row of an attribute."""

    attribute_id: str
    kind: AttributeKind
    unit: str | None
    choices_of: str | None
    version: int
    changed_at: datetime
    changed_by: str


class RuleRow(NamedTuple):
    """The rule that counts for an attribute in a category, and the category that has it."""

    attribute_id: str
    rule: AttributeRule
    defined_in: str


class ChildRow(NamedTuple):
    """An active category below a parent."""

    position: int
    category_id: str
    has_children: bool


class ChangeRow(NamedTuple):
    """A change to record."""

    kind: ChangeKind
    category_id: str | None
    attribute_id: str | None
    details: Mapping[str, Any]


class SubtreeSize(NamedTuple):
    """The levels of a subtree with its root, and whether a child of the root is active."""

    levels: int
    has_active_children: bool


queries = load_queries(
    __package__,
    categories=CategoryRow._fields,
    attributes=AttributeRow._fields,
    category_changes=CategoryChange.__struct_fields__,
)
_ROWS_PER_STATEMENT = 2_000
_decode_names = msgspec.json.Decoder(dict[str, str]).decode


async def lock_tree(connection: Connection) -> None:
    """Keep others from changing categories and attributes until the transaction ends."""
    await connection.execute(queries.lock_tree)


async def read_tree_version(connection: Connection) -> int:
    """Read the number of the last change."""
    return int(await connection.fetchval(queries.read_tree_version))


async def insert_changes(
    connection: Connection, changes: Sequence[ChangeRow], now: datetime, actor: str, reason: str
) -> None:
    """Record changes, so that gateways read the tree again.

    Call inside a transaction that holds `lock_tree`."""
    await connection.execute(queries.count_change)
    for start in range(0, len(changes), _ROWS_PER_STATEMENT):
        part = changes[start : start + _ROWS_PER_STATEMENT]
        await connection.execute(
            queries.insert_changes,
            now,
            [change.kind for change in part],
            [change.category_id for change in part],
            [change.attribute_id for change in part],
            [msgspec.json.encode(change.details).decode() for change in part],
            actor,
            reason,
        )


async def list_changes(
    connection: Connection, category_id: str | None, attribute_id: str | None, before: int, count: int
) -> list[CategoryChange]:
    """List changes with numbers below `before`, newest first: all, or those of a category or an attribute."""
    if category_id is not None:
        rows = await connection.fetch(queries.list_changes_of_category, before, count, category_id)
    elif attribute_id is not None:
        rows = await connection.fetch(queries.list_changes_of_attribute, before, count, attribute_id)
    else:
        rows = await connection.fetch(queries.list_changes, before, count)
    return [CategoryChange(**{**row, "details": msgspec.json.decode(row["details"])}) for row in rows]


async def lock_category(connection: Connection, category_id: str) -> tuple[Lifecycle, str | None] | None:
    """Keep a category from being retired or merged until the transaction ends.

    Returns its status and `merged_into`."""
    row = await connection.fetchrow(queries.lock_category, category_id)
    return None if row is None else (row["status"], row["merged_into"])


async def lock_for_merge(connection: Connection, category_id: str) -> None:
    """Wait for transactions that hold `lock_category`, and keep others from it until this one ends."""
    await connection.execute(queries.lock_for_merge, category_id)


async def list_categories(connection: Connection, category_ids: Collection[str]) -> dict[str, CategoryRow]:
    rows = await connection.fetch(queries.list_categories, list(category_ids))
    return {row["category_id"]: CategoryRow(*row) for row in rows}


async def list_children(connection: Connection, parent_ids: Collection[str]) -> dict[str, list[ChildRow]]:
    """List the active children of each parent in their sequence; an empty id stands for the roots."""
    rows = await connection.fetch(queries.list_children, [parent for parent in parent_ids if parent])
    if "" in parent_ids:
        rows += await connection.fetch(queries.list_roots)
    children = defaultdict[str, list[ChildRow]](list)
    for row in rows:
        children[row["parent_id"]].append(ChildRow(row["position"], row["category_id"], row["has_children"]))
    return children


async def list_child_ids(connection: Connection, category_id: str) -> list[str]:
    return [row["category_id"] for row in await connection.fetch(queries.list_child_ids, category_id)]


async def list_category_names(connection: Connection, category_ids: Collection[str]) -> dict[str, dict[str, str]]:
    rows = await connection.fetch(queries.list_category_names, list(category_ids))
    return {row["id"]: _decode_names(row["names"]) for row in rows}


async def list_own_rules(connection: Connection, category_ids: Collection[str]) -> dict[str, dict[str, AttributeRule]]:
    rules = defaultdict[str, dict[str, AttributeRule]](dict)
    for row in await connection.fetch(queries.list_own_rules, list(category_ids)):
        rules[row["category_id"]][row["attribute_id"]] = row["rule"]
    return rules


async def list_rules(connection: Connection, category_ids: Collection[str]) -> dict[str, list[RuleRow]]:
    """List the attributes that each category has or inherits, by id; those that it excludes are left out."""
    rules: dict[str, list[RuleRow]] = {category_id: [] for category_id in category_ids}
    for category_id, *rule in await connection.fetch(queries.list_rules, list(category_ids)):
        row = RuleRow(*rule)
        if row.rule != "excluded":
            rules[category_id].append(row)
    return rules


async def list_attribute_rows(connection: Connection, attribute_ids: Collection[str]) -> dict[str, AttributeRow]:
    rows = await connection.fetch(queries.list_attributes, list(attribute_ids))
    return {row["attribute_id"]: AttributeRow(*row) for row in rows}


async def list_choice_ids(connection: Connection, attribute_ids: Collection[str]) -> dict[str, set[str]]:
    """List the choices of attributes that are not retired."""
    choices = defaultdict[str, set[str]](set)
    for row in await connection.fetch(queries.list_choice_ids, list(attribute_ids)):
        choices[row["attribute_id"]].add(row["choice_id"])
    return choices


async def list_attributes(connection: Connection, attribute_ids: Collection[str]) -> dict[str, Attribute]:
    """Read attributes with their names and choices."""
    rows = await list_attribute_rows(connection, attribute_ids)
    names, descriptions = await _list_attribute_names(connection, rows)
    owners = {row.choices_of or row.attribute_id for row in rows.values()}
    choices = defaultdict[str, list[AttributeChoice]](list)
    for row in await connection.fetch(queries.list_choices, list(owners)):
        choice = AttributeChoice(choice_id=row["choice_id"], status=row["status"], names=_decode_names(row["names"]))
        choices[row["attribute_id"]].append(choice)
    return {
        key: Attribute(
            **row._asdict(),
            names=names.get(key, {}),
            descriptions=descriptions.get(key, {}),
            choices=choices[row.choices_of or key],
        )
        for key, row in rows.items()
    }


async def list_attributes_after(connection: Connection, attribute_id: str, count: int) -> list[AttributeSummary]:
    rows = await connection.fetch(queries.list_attributes_after, attribute_id, count)
    names, _ = await _list_attribute_names(connection, [row["attribute_id"] for row in rows])
    return [AttributeSummary(**row, names=names.get(row["attribute_id"], {})) for row in rows]


async def _list_attribute_names(
    connection: Connection, attribute_ids: Iterable[str]
) -> tuple[dict[str, dict[str, str]], dict[str, dict[str, str]]]:
    """Return the names and the descriptions of attributes by language."""
    rows = await connection.fetch(queries.list_attribute_names, list(attribute_ids))
    return (
        {row["id"]: _decode_names(row["names"]) for row in rows},
        {row["id"]: _decode_names(row["descriptions"]) for row in rows},
    )


async def find_choice_owners(connection: Connection, choice_ids: Collection[str]) -> dict[str, str]:
    """Return the attributes of those of the choices that exist."""
    rows = await connection.fetch(queries.find_choice_owners, list(choice_ids))
    return {row["choice_id"]: row["attribute_id"] for row in rows}


async def is_used_for_choices(connection: Connection, attribute_id: str) -> bool:
    """Tell whether another attribute has the choices of this one."""
    return bool(await connection.fetchval(queries.is_used_for_choices, attribute_id))


async def count_categories(connection: Connection) -> int:
    return int(await connection.fetchval(queries.count_categories))


async def count_attributes(connection: Connection) -> int:
    return int(await connection.fetchval(queries.count_attributes))


async def count_children(connection: Connection, parent_id: str | None) -> tuple[int, int]:
    """Return the number of children, or of roots, and the position of a further one."""
    row = await connection.fetchrow(queries.count_children, parent_id)
    assert row is not None
    return row["children"], row["next_position"]


async def measure_subtree(connection: Connection, category_id: str) -> SubtreeSize:
    row = await connection.fetchrow(queries.measure_subtree, category_id)
    assert row is not None
    return SubtreeSize(*row)


async def count_inherited(connection: Connection, category_id: str) -> int:
    """Return the highest number of attributes that a category of the subtree has."""
    return int(await connection.fetchval(queries.count_inherited, category_id))


async def insert_category(
    connection: Connection, category_id: str, parent: CategoryRow | None, position: int, actor: str, now: datetime
) -> None:
    path = [*(parent.path if parent else ()), category_id]
    parent_id = parent.category_id if parent else None
    await connection.execute(queries.insert_category, category_id, parent_id, path, position, now, actor)


async def touch_category(connection: Connection, category_id: str, actor: str, now: datetime) -> None:
    """Record that names or rules of a category have changed."""
    await connection.execute(queries.touch_category, category_id, now, actor)


async def set_lifecycle(
    connection: Connection, category_id: str, status: Lifecycle, merged_into: str | None, actor: str, now: datetime
) -> None:
    await connection.execute(queries.set_lifecycle, category_id, status, merged_into, now, actor)


async def redirect_merged(connection: Connection, category_id: str, into: str) -> None:
    """Let those that were merged into a category name another one."""
    await connection.execute(queries.redirect_merged, category_id, into)


async def move_subtree(
    connection: Connection, category: CategoryRow, parent: CategoryRow | None, position: int, actor: str, now: datetime
) -> None:
    """Move a category with all that is below it. Call inside a transaction that holds `lock_tree`."""
    await connection.execute(
        queries.move_subtree,
        *(category.category_id, parent.category_id if parent else None, parent.path if parent else []),
        *(len(category.path), position, now, actor),
    )


async def put_category_names(connection: Connection, category_id: str, names: Mapping[str, str]) -> None:
    """Replace the names of a category."""
    await connection.execute(queries.delete_category_names, category_id, list(names))
    await connection.execute(queries.put_category_names, [category_id] * len(names), list(names), list(names.values()))


async def put_rules(connection: Connection, category_id: str, rules: Mapping[str, AttributeRule]) -> None:
    """Replace the rules of a category."""
    own = (await list_own_rules(connection, [category_id])).get(category_id, {})
    if old := [attribute_id for attribute_id in own if attribute_id not in rules]:
        await connection.execute(queries.delete_rules, [category_id] * len(old), old)
    if rules:
        await connection.execute(queries.put_rules, [category_id] * len(rules), list(rules), list(rules.values()))


async def put_attribute(
    connection: Connection, attribute_id: str, attribute: AttributeInput, actor: str, now: datetime
) -> None:
    """Insert or change an attribute with its names and choices. Choices that are left out are retired."""
    row = ([attribute_id], [attribute.kind], [attribute.unit], [attribute.choices_of])
    await connection.execute(queries.put_attributes, *row, now, actor)
    await connection.execute(queries.delete_attribute_names, attribute_id, list(attribute.names))
    count = len(attribute.names)
    names = ([attribute_id] * count, list(attribute.names), list(attribute.names.values()), [None] * count)
    await connection.execute(queries.put_attribute_names, *names)
    choices = [choice.choice_id for choice in attribute.choices]
    await connection.execute(queries.retire_choices, attribute_id, choices)
    if choices:
        count = len(choices)
        columns = (choices, [attribute_id] * count, list(range(count)), ["active"] * count)
        await connection.execute(queries.put_choices, *columns)
        rows = [(choice.choice_id, *name) for choice in attribute.choices for name in choice.names.items()]
        ids, languages, texts = (list(column) for column in zip(*rows, strict=True))
        await connection.execute(queries.delete_choice_names, attribute_id, ids, languages)
        await connection.execute(queries.put_choice_names, ids, languages, texts)
