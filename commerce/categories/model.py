"""Categories of products, their attributes, and the choices of attributes."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec

from commerce.kernel.languages import MAX_LANGUAGES, LanguageTag
from commerce.kernel.types import Name, Reason, filled_line

MAX_DEPTH = 20
MAX_CATEGORIES, MAX_CHILDREN = 50_000, 500
MAX_ATTRIBUTES, MAX_CHOICES = 20_000, 1_000
MAX_OWN_ATTRIBUTES = 100
"""rules of one category; it inherits others"""
MAX_INHERITED_ATTRIBUTES = 200
"""attributes of one category with those that it inherits"""
PATH_SEPARATOR = " > "
"""stands between the names of a path in files"""

CategoryId = Annotated[
    str,
    msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9-]{0,63}\Z", description="the category's id", examples=["lb-1"]),
]
AttributeId = Annotated[
    str,
    msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9_/+#.-]{0,99}\Z", description="the attribute's id", examples=["color"]),
]
ChoiceId = Annotated[
    str,
    msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9_/+#.-]{0,149}\Z", description="the choice's id", examples=["color__red"]),
]
AttributeKind = Literal["choice", "choices", "text", "number", "boolean", "date"]
AttributeRule = Literal["required", "optional", "excluded"]
InheritedRule = Literal["required", "optional"]
Lifecycle = Literal["active", "retired"]
ChangeKind = Literal["imported", "created", "changed", "moved", "merged", "retired", "restored"]
Names = Annotated[
    dict[LanguageTag, Name],
    msgspec.Meta(min_length=1, max_length=MAX_LANGUAGES, description="names by language"),
]
Unit = Annotated[str, filled_line(20)]
Version = Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)]


class CategoryInput(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A category as staff enter it. `attributes` has its own rules; those of its ancestors come on top.

    `parent_id` is null for a root. `version` is that of the category that was edited; null does not compare it."""

    parent_id: CategoryId | None
    names: Names
    attributes: Annotated[
        dict[AttributeId, AttributeRule], msgspec.Meta(max_length=MAX_OWN_ATTRIBUTES, description="rules by attribute")
    ] = {}
    version: Version | None = None
    reason: Reason

    def __post_init__(self) -> None:
        if any(PATH_SEPARATOR in name for name in self.names.values()):
            raise ValueError(f"names: a name has {PATH_SEPARATOR!r}, which stands between the names of a path")


class CategoryMove(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The new parent of a category; null makes it a root."""

    parent_id: CategoryId | None
    version: Version | None = None
    reason: Reason


class CategoryMerge(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The category that gets the products and children of another one."""

    into: CategoryId
    version: Version | None = None
    reason: Reason


class CategoryAction(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The reason for retiring or restoring a category."""

    version: Version | None = None
    reason: Reason


class ChoiceInput(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A value that an attribute allows."""

    choice_id: ChoiceId
    names: Names


class AttributeInput(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """An attribute as staff enter it. The kind of one that exists cannot be changed.

    `choices` has all its choices in their sequence: one that is left out is retired. `choices_of` names an attribute
    whose choices it has instead."""

    kind: AttributeKind
    unit: Unit | None = None
    names: Names
    choices: Annotated[list[ChoiceInput], msgspec.Meta(max_length=MAX_CHOICES)] = []
    choices_of: AttributeId | None = None
    version: Version | None = None
    reason: Reason

    def __post_init__(self) -> None:
        if self.unit is not None and self.kind != "number":
            raise ValueError("unit: only numbers have one")
        if self.kind not in ("choice", "choices"):
            if self.choices or self.choices_of is not None:
                raise ValueError("choices: only the kinds `choice` and `choices` have them")
        elif bool(self.choices) == (self.choices_of is not None):
            raise ValueError("choices: name its choices, or with `choices_of` the attribute that has them")
        if len({choice.choice_id for choice in self.choices}) < len(self.choices):
            raise ValueError("choices: a choice is named twice")


class AttributeChoice(msgspec.Struct, frozen=True, kw_only=True):
    """A choice with all its names. Products keep a retired one."""

    choice_id: ChoiceId
    status: Lifecycle
    names: dict[str, str]


class Attribute(msgspec.Struct, frozen=True, kw_only=True):
    """An attribute with all its names and choices, also retired ones."""

    attribute_id: AttributeId
    kind: AttributeKind
    unit: str | None
    choices_of: AttributeId | None
    names: dict[str, str]
    descriptions: dict[str, str]
    choices: list[AttributeChoice]
    version: int
    changed_at: datetime
    changed_by: str


class AttributeSummary(msgspec.Struct, frozen=True, kw_only=True):
    """An attribute in a list."""

    attribute_id: AttributeId
    kind: AttributeKind
    unit: str | None
    choices_of: AttributeId | None
    names: dict[str, str]
    choice_count: int
    version: int


class CategoryAttribute(msgspec.Struct, frozen=True, kw_only=True):
    """An attribute that products of a category have, with the category whose rule counts and all names."""

    attribute_id: AttributeId
    kind: AttributeKind
    unit: str | None
    rule: InheritedRule
    defined_in: CategoryId
    names: dict[str, str]
    descriptions: dict[str, str]
    choices: list[AttributeChoice]


class CategoryName(msgspec.Struct, frozen=True, kw_only=True):
    """A category with all its names."""

    category_id: CategoryId
    names: dict[str, str]


class Category(msgspec.Struct, frozen=True, kw_only=True):
    """A category as staff see it.

    `path` begins at the root and ends with it; `own_attributes` are its own rules, `attributes` what comes of them and
    those of its ancestors. `merged_into` has its products now."""

    category_id: CategoryId
    parent_id: CategoryId | None
    status: Lifecycle
    merged_into: CategoryId | None
    names: dict[str, str]
    path: list[CategoryName]
    own_attributes: dict[str, AttributeRule]
    attributes: list[CategoryAttribute]
    version: int
    changed_at: datetime
    changed_by: str


class CategoryChange(msgspec.Struct, frozen=True, kw_only=True):
    """A change of a category or of an attribute; an import has neither."""

    change_no: int
    at: datetime
    kind: ChangeKind
    category_id: CategoryId | None
    attribute_id: AttributeId | None
    details: dict[str, Any]
    actor: str
    reason: str
