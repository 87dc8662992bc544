"""The categories of products, for the catalog: their lock, and what their attributes must be."""

from __future__ import annotations

from collections.abc import Collection

from commerce.categories import store
from commerce.categories.attribute_values import AttributeDefinition
from commerce.categories.errors import CategoryRetired, NoSuchCategory
from commerce.kernel.postgres import Connection


async def lock_category(connection: Connection, category_id: str) -> None:
    """Keep a category active until the transaction ends, so that a product may be put into it.

    Call before the product's row is locked: a merge locks in this sequence, too. Raises `NoSuchCategory`, or
    `CategoryRetired`, which says where its products went.
    """
    state = await store.lock_category(connection, category_id)
    if state is None:
        raise NoSuchCategory(f"there is no category {category_id!r}")
    status, merged_into = state
    if status != "active":
        raise build_retired(category_id, merged_into)


def build_retired(category_id: str, merged_into: str | None) -> CategoryRetired:
    """Build the refusal of a retired category."""
    remedy = f"it was merged into {merged_into!r}; use that one" if merged_into else "use another one, or restore it"
    return CategoryRetired(f"the category {category_id!r} is retired; {remedy}", merged_into=merged_into)


async def read_definitions(
    connection: Connection, category_ids: Collection[str]
) -> dict[str, dict[str, AttributeDefinition]]:
    """Read for each category what `validate_attributes` needs. An unknown one has no attributes."""
    rules = await store.list_rules(connection, category_ids)
    ids = {rule.attribute_id for rows in rules.values() for rule in rows}
    attributes = await store.list_attribute_rows(connection, ids)
    owners = {
        row.attribute_id: row.choices_of or row.attribute_id
        for row in attributes.values()
        if row.kind in ("choice", "choices")
    }
    choices = await store.list_choice_ids(connection, set(owners.values()))
    chosen = {key: frozenset(choices[owner]) for key, owner in owners.items()}
    return {
        category_id: {
            rule.attribute_id: AttributeDefinition(
                attributes[rule.attribute_id].kind,
                attributes[rule.attribute_id].unit,
                "required" if rule.rule == "required" else "optional",
                chosen.get(rule.attribute_id, frozenset()),
            )
            for rule in rows
        }
        for category_id, rows in rules.items()
    }
