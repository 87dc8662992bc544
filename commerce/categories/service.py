"""Changes of categories and attributes by staff, each with its reason on record."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

from commerce.categories import store
from commerce.categories.assignment import build_retired
from commerce.categories.category_pages import build_attributes, build_category
from commerce.categories.errors import (
    BadCategory,
    CategoryLoop,
    CategoryVersionConflict,
    NoSuchAttribute,
    NoSuchCategory,
    TooManyCategories,
)
from commerce.categories.model import (
    MAX_ATTRIBUTES,
    MAX_CATEGORIES,
    MAX_CHILDREN,
    MAX_DEPTH,
    MAX_INHERITED_ATTRIBUTES,
    Attribute,
    AttributeInput,
    AttributeSummary,
    Category,
    CategoryAction,
    CategoryChange,
    CategoryInput,
    CategoryMerge,
    CategoryMove,
    ChangeKind,
)
from commerce.categories.store import CategoryRow, ChangeRow
from commerce.kernel.clock import Clock, from_ms
from commerce.kernel.paging import Page, to_page
from commerce.kernel.postgres import Connection, Database

MoveProducts = Callable[[Connection, str, str], Awaitable[int]]
"""Puts the products of a category into another one on this connection; returns their number."""
_END = 2**63 - 1


async def move_no_products(connection: Connection, category_id: str, into: str) -> int:
    """Stand in for the catalog where categories have no products."""
    return 0


class Categories:
    """Categories and attributes over Postgres. `move_products` is called by a merge.

    Changes are made one after the other, so two of them cannot make a loop. One that changes nothing is not recorded.
    """

    def __init__(self, db: Database, clock: Clock, move_products: MoveProducts = move_no_products) -> None:
        self._db = db
        self._clock = clock
        self._move_products = move_products

    async def get(self, category_id: str) -> Category:
        """Read a category with its attributes. Raises `NoSuchCategory`."""
        async with self._db.snapshot() as connection:
            return await _get_category(connection, category_id)

    async def get_attribute(self, attribute_id: str) -> Attribute:
        """Read an attribute with its choices. Raises `NoSuchAttribute`."""
        async with self._db.snapshot() as connection:
            return await _get_attribute(connection, attribute_id)

    async def list_attributes(self, cursor: str | None, count: int) -> Page[AttributeSummary]:
        """List attributes by id."""
        async with self._db.snapshot() as connection:
            attributes = await store.list_attributes_after(connection, cursor or "", count + 1)
        return to_page(attributes, count, lambda attribute: attribute.attribute_id)

    async def list_changes(
        self, category_id: str | None, attribute_id: str | None, cursor: int | None, count: int
    ) -> Page[CategoryChange]:
        """List changes, newest first: all, or those of a category, or else those of an attribute."""
        async with self._db.connection() as connection:
            changes = await store.list_changes(connection, category_id, attribute_id, cursor or _END, count + 1)
        return to_page(changes, count, lambda change: str(change.change_no))

    async def put(self, category_id: str, category: CategoryInput, actor: str) -> Category:
        """Create a category, or change its names and rules.

        Raises `BadCategory` if it names unknown attributes or another parent than it has, `NoSuchCategory` or
        `CategoryRetired` of its parent, `CategoryVersionConflict`, or `TooManyCategories`.
        """
        async with self._change() as (connection, now):
            await _check_attributes(connection, category)
            row = (await store.list_categories(connection, [category_id])).get(category_id)
            if row is None:
                _check_version(None, category.version)
                await _create(connection, category_id, category, actor, now)
                change = ChangeRow("created", category_id, None, {"parent_id": category.parent_id})
            else:
                details = await _update(connection, row, category, actor, now)
                if not details:
                    return await _get_category(connection, category_id)
                change = ChangeRow("changed", category_id, None, details)
            await _check_inherited(connection, category_id)
            await store.insert_changes(connection, [change], now, actor, category.reason)
            return await _get_category(connection, category_id)

    async def move(self, category_id: str, move: CategoryMove, actor: str) -> Category:
        """Move a category with all that is below it, to the end of its new siblings.

        Raises `CategoryLoop` if the parent stands below it, and as `put` does.
        """
        async with self._change() as (connection, now):
            row = await _find(connection, category_id, move.version)
            if row.parent_id != move.parent_id:
                await _move(connection, row, move.parent_id, actor, now)
                details = {"parent_id": [row.parent_id, move.parent_id]}
                await _record(connection, "moved", category_id, details, now, actor, move.reason)
            return await _get_category(connection, category_id)

    async def merge(self, category_id: str, merge: CategoryMerge, actor: str) -> Category:
        """Merge a category into another one, which gets its products and children.

        Returns the merged one, which is retired. Those that were merged into it before name the other one as well. A
        repeat changes nothing. Raises `CategoryLoop` if the other is the same or stands below it, and as `put` does.
        """
        async with self._change() as (connection, now):
            row = await _find(connection, category_id, merge.version)
            if row.merged_into == merge.into:
                return await _get_category(connection, category_id)
            target = await _find_parent(connection, merge.into)
            if category_id in target.path:
                raise CategoryLoop(f"{merge.into!r} is {category_id!r} or stands below it; merge into another category")
            if row.merged_into is not None:
                raise build_retired(category_id, row.merged_into)
            await store.lock_for_merge(connection, category_id)
            children = await store.list_child_ids(connection, category_id)
            for child in (await store.list_categories(connection, children)).values():
                await _move(connection, child, merge.into, actor, now)
            products = await self._move_products(connection, category_id, merge.into)
            await store.redirect_merged(connection, category_id, merge.into)
            await store.set_lifecycle(connection, category_id, "retired", merge.into, actor, now)
            details = {"into": merge.into, "children": children, "products": products}
            await _record(connection, "merged", category_id, details, now, actor, merge.reason)
            return await _get_category(connection, category_id)

    async def retire(self, category_id: str, action: CategoryAction, actor: str) -> Category:
        """Retire a category: its products stay, and no product is put into it. A repeat changes nothing.

        Raises `BadCategory` while it has active children, `NoSuchCategory` or `CategoryVersionConflict`.
        """
        async with self._change() as (connection, now):
            row = await _find(connection, category_id, action.version)
            if row.status == "active":
                if (await store.measure_subtree(connection, category_id)).has_active_children:
                    raise BadCategory(f"{category_id!r} has children; move, merge or retire them first")
                await store.lock_for_merge(connection, category_id)
                await store.set_lifecycle(connection, category_id, "retired", None, actor, now)
                await _record(connection, "retired", category_id, {}, now, actor, action.reason)
            return await _get_category(connection, category_id)

    async def restore(self, category_id: str, action: CategoryAction, actor: str) -> Category:
        """Undo the retirement of a category.

        A merged one is restored without its former products and children. Raises `CategoryRetired` if its parent is
        retired, `NoSuchCategory` or `CategoryVersionConflict`.
        """
        async with self._change() as (connection, now):
            row = await _find(connection, category_id, action.version)
            if row.status == "retired":
                if row.parent_id is not None:
                    await _find_parent(connection, row.parent_id)
                await store.set_lifecycle(connection, category_id, "active", None, actor, now)
                details = {"merged_into": [row.merged_into, None]}
                await _record(connection, "restored", category_id, details, now, actor, action.reason)
            return await _get_category(connection, category_id)

    async def put_attribute(self, attribute_id: str, attribute: AttributeInput, actor: str) -> Attribute:
        """Create or change an attribute with its choices.

        Raises `BadCategory` if its kind would change, or a choice is another attribute's; `NoSuchAttribute` of
        `choices_of`, `CategoryVersionConflict`, or `TooManyCategories`.
        """
        async with self._change() as (connection, now):
            current = (await store.list_attributes(connection, [attribute_id])).get(attribute_id)
            _check_version(None if current is None else current.version, attribute.version)
            if current is None and await store.count_attributes(connection) >= MAX_ATTRIBUTES:
                raise TooManyCategories(f"there are {MAX_ATTRIBUTES} attributes; use one of them")
            if current is not None and current.kind != attribute.kind:
                raise BadCategory(
                    f"{attribute_id!r} is of the kind {current.kind!r}, and products may have values of it; "
                    "create another attribute"
                )
            await _check_choices(connection, attribute_id, attribute)
            details = _compare_attribute(current, attribute)
            if details:
                await store.put_attribute(connection, attribute_id, attribute, actor, now)
                kind: ChangeKind = "created" if current is None else "changed"
                change = ChangeRow(kind, None, attribute_id, details)
                await store.insert_changes(connection, [change], now, actor, attribute.reason)
            return await _get_attribute(connection, attribute_id)

    @asynccontextmanager
    async def _change(self) -> AsyncIterator[tuple[Connection, datetime]]:
        async with self._db.transaction() as connection:
            await store.lock_tree(connection)
            yield connection, from_ms(self._clock.now_ms())


async def _get_category(connection: Connection, category_id: str) -> Category:
    category = (await build_category(connection, [category_id])).get(category_id)
    if category is None:
        raise NoSuchCategory(f"there is no category {category_id!r}")
    return await build_attributes(connection, category)


async def _get_attribute(connection: Connection, attribute_id: str) -> Attribute:
    attribute = (await store.list_attributes(connection, [attribute_id])).get(attribute_id)
    if attribute is None:
        raise NoSuchAttribute(f"there is no attribute {attribute_id!r}")
    return attribute


async def _find(connection: Connection, category_id: str, version: int | None) -> CategoryRow:
    """Read the row of a category. Raises `NoSuchCategory` or `CategoryVersionConflict`."""
    row = (await store.list_categories(connection, [category_id])).get(category_id)
    if row is None:
        raise NoSuchCategory(f"there is no category {category_id!r}")
    _check_version(row.version, version)
    return row


async def _find_parent(connection: Connection, category_id: str) -> CategoryRow:
    """Read the row of a category that gets children. Raises `NoSuchCategory` or `CategoryRetired`."""
    row = await _find(connection, category_id, None)
    if row.status != "active":
        raise build_retired(category_id, row.merged_into)
    return row


def _check_version(current: int | None, expected: int | None) -> None:
    if expected is not None and current != expected:
        state = "it does not exist any more" if current is None else f"it has the version {current}"
        raise CategoryVersionConflict(f"{state}, not {expected}; read it again", version=current)


async def _find_place(connection: Connection, parent_id: str | None, levels: int) -> tuple[CategoryRow | None, int]:
    """Return the parent, None for roots, and the position of a further child with so many levels."""
    parent = None if parent_id is None else await _find_parent(connection, parent_id)
    if len(parent.path if parent else ()) + levels > MAX_DEPTH:
        raise TooManyCategories(f"the tree would be more than {MAX_DEPTH} levels deep; put it higher")
    children, position = await store.count_children(connection, parent_id)
    if children >= MAX_CHILDREN:
        raise TooManyCategories(f"the parent has {MAX_CHILDREN} children; put a category in between")
    return parent, position


async def _create(connection: Connection, category_id: str, category: CategoryInput, actor: str, now: datetime) -> None:
    if await store.count_categories(connection) >= MAX_CATEGORIES:
        raise TooManyCategories(f"there are {MAX_CATEGORIES} categories; use one of them")
    parent, position = await _find_place(connection, category.parent_id, 1)
    await store.insert_category(connection, category_id, parent, position, actor, now)
    await store.put_category_names(connection, category_id, category.names)
    await store.put_rules(connection, category_id, category.attributes)


async def _update(
    connection: Connection, row: CategoryRow, category: CategoryInput, actor: str, now: datetime
) -> dict[str, Any]:
    """Change names and rules of a category. Returns what changed, each with the state before and after."""
    category_id = row.category_id
    _check_version(row.version, category.version)
    if row.parent_id != category.parent_id:
        raise BadCategory(
            f"the parent of {category_id!r} is {row.parent_id or 'none'}; move it with its own operation",
            errors=[{"pointer": "/parent_id", "detail": "is not the present parent"}],
        )
    names = (await store.list_category_names(connection, [category_id])).get(category_id, {})
    rules = (await store.list_own_rules(connection, [category_id])).get(category_id, {})
    details = _compare(
        {"names": names, "attributes": rules}, {"names": category.names, "attributes": category.attributes}
    )
    if "names" in details:
        await store.put_category_names(connection, category_id, category.names)
    if "attributes" in details:
        await store.put_rules(connection, category_id, category.attributes)
    if details:
        await store.touch_category(connection, category_id, actor, now)
    return details


async def _move(connection: Connection, row: CategoryRow, parent_id: str | None, actor: str, now: datetime) -> None:
    levels = (await store.measure_subtree(connection, row.category_id)).levels
    if parent_id is not None and row.category_id in (await _find_parent(connection, parent_id)).path:
        raise CategoryLoop(f"{parent_id!r} is {row.category_id!r} or stands below it; choose another parent")
    parent, position = await _find_place(connection, parent_id, levels)
    await store.move_subtree(connection, row, parent, position, actor, now)
    await _check_inherited(connection, row.category_id)


async def _check_inherited(connection: Connection, category_id: str) -> None:
    if await store.count_inherited(connection, category_id) > MAX_INHERITED_ATTRIBUTES:
        raise TooManyCategories(
            f"{category_id!r} or a category below it would have more than {MAX_INHERITED_ATTRIBUTES} attributes with "
            "those that it inherits; name fewer"
        )


async def _check_attributes(connection: Connection, category: CategoryInput) -> None:
    existing = await store.list_attribute_rows(connection, category.attributes)
    if unknown := [attribute_id for attribute_id in category.attributes if attribute_id not in existing]:
        escaped = [attribute_id.replace("/", "~1") for attribute_id in unknown]
        raise BadCategory(
            f"there is no attribute {unknown[0]!r}; create it first",
            errors=[{"pointer": f"/attributes/{key}", "detail": "there is no such attribute"} for key in escaped],
        )


async def _check_choices(connection: Connection, attribute_id: str, attribute: AttributeInput) -> None:
    """Check that the choices are the attribute's own, or `choices_of` has choices."""
    owners = await store.find_choice_owners(connection, [choice.choice_id for choice in attribute.choices])
    taken = [
        {"pointer": f"/choices/{index}/choice_id", "detail": f"is a choice of {owners[choice.choice_id]!r}"}
        for index, choice in enumerate(attribute.choices)
        if owners.get(choice.choice_id, attribute_id) != attribute_id
    ]
    if taken:
        raise BadCategory("choices belong to another attribute; give them other ids", errors=taken)
    if attribute.choices_of is None:
        return
    owner = await _get_attribute(connection, attribute.choices_of)
    is_chain = owner.choices_of is not None or await store.is_used_for_choices(connection, attribute_id)
    if is_chain or owner.kind not in ("choice", "choices") or attribute.choices_of == attribute_id:
        raise BadCategory(
            f"{attribute.choices_of!r} has no choices of its own, or others have those of {attribute_id!r}; "
            "name the attribute that has the choices"
        )


def _compare_attribute(current: Attribute | None, attribute: AttributeInput) -> dict[str, Any]:
    after = {
        "unit": attribute.unit,
        "choices_of": attribute.choices_of,
        "names": attribute.names,
        "choices": {choice.choice_id: choice.names for choice in attribute.choices},
        "sequence": [choice.choice_id for choice in attribute.choices],
    }
    if current is None:
        return {"kind": attribute.kind}
    own = [] if current.choices_of else [choice for choice in current.choices if choice.status == "active"]
    before = {
        "unit": current.unit,
        "choices_of": current.choices_of,
        "names": current.names,
        "choices": {choice.choice_id: choice.names for choice in own},
        "sequence": [choice.choice_id for choice in own],
    }
    return _compare(before, after)


def _compare(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parts that differ with both states; of parts with keys only the keys that differ."""
    details = dict[str, Any]()
    for part, new in after.items():
        old = before[part]
        if old == new:
            continue
        if isinstance(new, dict):
            details[part] = {
                key: [old.get(key), new.get(key)] for key in {**old, **new} if old.get(key) != new.get(key)
            }
        else:
            details[part] = [old, new]
    return details


async def _record(
    connection: Connection,
    kind: ChangeKind,
    category_id: str,
    details: Mapping[str, Any],
    now: datetime,
    actor: str,
    reason: str,
) -> None:
    await store.insert_changes(connection, [ChangeRow(kind, category_id, None, details)], now, actor, reason)
