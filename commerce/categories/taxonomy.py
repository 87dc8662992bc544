"""A taxonomy as files have it: attributes with choices, and a tree of categories."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from commerce.categories.errors import BadTaxonomy
from commerce.categories.model import AttributeKind, Lifecycle

ENGLISH = "en"
_MAX_FAULTS = 100


class TaxonomyAttribute(NamedTuple):
    """An attribute of a taxonomy with the ids of its own choices in their sequence.

    `kind` is None where the files name none: a new one is `choices` then, and one that exists stays as it is."""

    attribute_id: str
    kind: AttributeKind | None
    unit: str | None
    choices_of: str | None
    names: dict[str, str]
    descriptions: dict[str, str]
    choices: list[str]


class TaxonomyCategory(NamedTuple):
    """A category of a taxonomy. `attributes` are all that it has, with those of its ancestors.

    `required` and `status` are None where the files do not say."""

    category_id: str
    parent_id: str | None
    position: int
    names: dict[str, str]
    attributes: list[str]
    required: frozenset[str] | None
    status: Lifecycle | None
    merged_into: str | None


class FileLines(msgspec.Struct, frozen=True):
    """An account of a file's lines: `entries` were read from it, `blank` lines have nothing or a comment."""

    file: str
    lines: int
    entries: int
    blank: int


class Taxonomy(NamedTuple):
    """The content of the files. Categories are in an order in which parents come before their children."""

    attributes: dict[str, TaxonomyAttribute]
    choice_names: dict[str, dict[str, str]]
    categories: dict[str, TaxonomyCategory]
    files: list[FileLines]
    unknown_fields: dict[str, int]
    """occurrences of fields of the files that have no meaning here"""


class Counts(msgspec.Struct):
    """An account of entries; `absent` are in the shop and not in the files, and stay as they are."""

    added: int = 0
    changed: int = 0
    unchanged: int = 0
    absent: int = 0


class TaxonomyReport(msgspec.Struct, frozen=True, kw_only=True):
    """The account of an import, or with `is_check` of one that would follow.

    `names` counts them by language."""

    is_check: bool
    files: list[FileLines]
    unknown_fields: Mapping[str, int]
    names: Mapping[str, int]
    attributes: Counts
    choices: Counts
    categories: Counts

    @property
    def has_changes(self) -> bool:
        return any(counts.added or counts.changed for counts in (self.attributes, self.choices, self.categories))


class Faults:
    """Faults of files, each with its line."""

    def __init__(self) -> None:
        self._faults = list[dict[str, str]]()
        self._count = 0

    def add(self, file: str, line: int, reason: str) -> None:
        """Note a fault; line 0 stands for the whole file."""
        self._count += 1
        if len(self._faults) < _MAX_FAULTS:
            self._faults.append({"pointer": f"{file}:{line}" if line else file, "detail": reason})

    def check(self) -> None:
        """Raise `BadTaxonomy` if there is a fault."""
        if self._faults:
            first = self._faults[0]
            raise BadTaxonomy(
                f"{first['pointer']}: {first['detail']}; {self._count} faults, nothing was imported",
                errors=self._faults,
            )
