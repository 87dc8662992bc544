"""Categories as they are read: for staff at once, and for customers from memory."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import msgspec

from commerce.categories import store
from commerce.categories.model import Attribute, AttributeKind, Category, CategoryAttribute, CategoryName, Lifecycle
from commerce.categories.model import InheritedRule as Rule
from commerce.categories.store import ChildRow, RuleRow
from commerce.kernel.languages import choose_language, choose_text
from commerce.kernel.postgres import Connection, Database

ROOTS = ""
"""key of the page that has the roots"""


class CategoryPage(NamedTuple):
    """A category with its children, as of a version of the tree. The page of the roots has no category.

    `names` has those of the children."""

    tree_version: int
    category: Category | None
    rules: list[RuleRow]
    children: list[ChildRow]
    names: dict[str, dict[str, str]]


class AttributePage(NamedTuple):
    """An attribute as of a version of the tree."""

    tree_version: int
    attribute: Attribute


class PublicCategory(msgspec.Struct, frozen=True, kw_only=True):
    """A category in a list, in the language of the reader."""

    category_id: str
    name: str
    has_children: bool


class PathCategory(msgspec.Struct, frozen=True, kw_only=True):
    """A category on the path from the root."""

    category_id: str
    name: str


class PublicChoice(msgspec.Struct, frozen=True, kw_only=True):
    """A value that an attribute allows."""

    choice_id: str
    name: str


class PublicAttribute(msgspec.Struct, frozen=True, kw_only=True):
    """An attribute that products of the category have. `defined_in` is the category whose rule counts."""

    attribute_id: str
    name: str
    description: str | None
    kind: AttributeKind
    unit: str | None
    rule: Rule
    defined_in: str
    choices: list[PublicChoice]


class PublicCategoryDetails(msgspec.Struct, frozen=True, kw_only=True):
    """A category in the language of the reader. `merged_into` has its products now."""

    category_id: str
    name: str
    language: str | None
    status: Lifecycle
    merged_into: str | None
    path: list[PathCategory]
    has_children: bool
    attributes: list[PublicAttribute]


class CategoryPages:
    """Reads pages of categories and attributes for a cache."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def refresh(self, previous: Mapping[str, CategoryPage | None]) -> dict[str, CategoryPage]:
        """Return the pages of these categories as they are now; unknown ones are left out.

        `previous` has what the caller read before, None if nothing. While the tree is unchanged that is returned.
        """
        async with self._db.snapshot() as connection:
            version = await store.read_tree_version(connection)
            pages = {key: page for key, page in previous.items() if page is not None and page.tree_version == version}
            if old := previous.keys() - pages.keys():
                pages |= await _read_pages(connection, old, version)
        return pages

    async def refresh_attributes(self, previous: Mapping[str, AttributePage | None]) -> dict[str, AttributePage]:
        """Return attributes as they are now, as `refresh` does."""
        async with self._db.snapshot() as connection:
            version = await store.read_tree_version(connection)
            pages = {key: page for key, page in previous.items() if page is not None and page.tree_version == version}
            if old := previous.keys() - pages.keys():
                attributes = await store.list_attributes(connection, old)
                pages |= {key: AttributePage(version, attribute) for key, attribute in attributes.items()}
        return pages


async def _read_pages(connection: Connection, category_ids: Collection[str], version: int) -> dict[str, CategoryPage]:
    categories = await build_category(connection, [key for key in category_ids if key != ROOTS])
    rules = await store.list_rules(connection, categories)
    keys = [*categories, *([ROOTS] if ROOTS in category_ids else [])]
    children = await store.list_children(connection, keys)
    names = await store.list_category_names(
        connection, {child.category_id for siblings in children.values() for child in siblings}
    )
    return {
        key: CategoryPage(
            version,
            categories.get(key),
            rules.get(key, []),
            children.get(key, []),
            {child.category_id: names.get(child.category_id, {}) for child in children.get(key, [])},
        )
        for key in keys
    }


async def build_category(connection: Connection, category_ids: Collection[str]) -> dict[str, Category]:
    """Read categories with their paths and own rules, and without `attributes`."""
    rows = await store.list_categories(connection, category_ids)
    names = await store.list_category_names(connection, {key for row in rows.values() for key in row.path})
    rules = await store.list_own_rules(connection, rows)
    return {
        key: Category(
            category_id=key,
            parent_id=row.parent_id,
            status=row.status,
            merged_into=row.merged_into,
            names=names.get(key, {}),
            path=[CategoryName(category_id=part, names=names.get(part, {})) for part in row.path],
            own_attributes=rules.get(key, {}),
            attributes=[],
            version=row.version,
            changed_at=row.changed_at,
            changed_by=row.changed_by,
        )
        for key, row in rows.items()
    }


async def build_attributes(connection: Connection, category: Category) -> Category:
    """Return a category with the attributes that come of its rules and those of its ancestors."""
    rules = (await store.list_rules(connection, [category.category_id]))[category.category_id]
    attributes = await store.list_attributes(connection, {rule.attribute_id for rule in rules})
    return msgspec.structs.replace(
        category, attributes=[_build_attribute(rule, attributes[rule.attribute_id]) for rule in rules]
    )


def _build_attribute(rule: RuleRow, attribute: Attribute) -> CategoryAttribute:
    return CategoryAttribute(
        attribute_id=attribute.attribute_id,
        kind=attribute.kind,
        unit=attribute.unit,
        rule=_inherited(rule),
        defined_in=rule.defined_in,
        names=attribute.names,
        descriptions=attribute.descriptions,
        choices=attribute.choices,
    )


def _inherited(rule: RuleRow) -> Rule:
    return "required" if rule.rule == "required" else "optional"


def localise_children(page: CategoryPage, children: Sequence[ChildRow], wanted: Sequence[str]) -> list[PublicCategory]:
    """Return children of a page in the language of a reader who wants these, the best first."""
    return [
        PublicCategory(
            category_id=child.category_id,
            name=choose_text(page.names[child.category_id], wanted, child.category_id),
            has_children=child.has_children,
        )
        for child in children
    ]


def localise_category(
    page: CategoryPage, attributes: Mapping[str, Attribute], wanted: Sequence[str]
) -> PublicCategoryDetails:
    """Return a category in the language of a reader. Attributes that `attributes` lacks are left out."""
    category = page.category
    assert category is not None
    return PublicCategoryDetails(
        category_id=category.category_id,
        name=choose_text(category.names, wanted, category.category_id),
        language=choose_language(category.names, wanted) if category.names else None,
        status=category.status,
        merged_into=category.merged_into,
        path=[
            PathCategory(category_id=part.category_id, name=choose_text(part.names, wanted, part.category_id))
            for part in category.path
        ],
        has_children=bool(page.children),
        attributes=[
            _localise_attribute(rule, attributes[rule.attribute_id], wanted)
            for rule in page.rules
            if rule.attribute_id in attributes
        ],
    )


def _localise_attribute(rule: RuleRow, attribute: Attribute, wanted: Sequence[str]) -> PublicAttribute:
    return PublicAttribute(
        attribute_id=attribute.attribute_id,
        name=choose_text(attribute.names, wanted, attribute.attribute_id),
        description=choose_text(attribute.descriptions, wanted, "") or None,
        kind=attribute.kind,
        unit=attribute.unit,
        rule=_inherited(rule),
        defined_in=rule.defined_in,
        choices=[
            PublicChoice(choice_id=choice.choice_id, name=choose_text(choice.names, wanted, choice.choice_id))
            for choice in attribute.choices
            if choice.status == "active"
        ],
    )
