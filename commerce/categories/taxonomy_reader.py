"""Joins the files of a taxonomy: categories to a tree, names to ids, values to their names."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping
from difflib import SequenceMatcher
from pathlib import Path

import msgspec

from commerce.categories.errors import BadTaxonomy
from commerce.categories.model import MAX_ATTRIBUTES, MAX_DEPTH, PATH_SEPARATOR
from commerce.categories.taxonomy import ENGLISH, Faults, Taxonomy, TaxonomyAttribute, TaxonomyCategory
from commerce.categories.taxonomy_files import AttributeEntry, CategoryEntry, Located, NameLine, TaxonomyFiles
from commerce.kernel.types import Name, explain_mismatch

_VALUE = re.compile(r"(.+) \[(.+)\]")
_MIN_SIMILARITY = 0.7


def read_taxonomy(folder: Path) -> Taxonomy:
    """Read the files of a folder. Raises `BadTaxonomy` with file, line and reason of each fault."""
    if not folder.is_dir():
        raise BadTaxonomy(f"{folder} is no folder", errors=[])
    files = TaxonomyFiles(folder)
    reader = _Reader(files.faults)
    reader.add_attributes(files.read_attributes())
    reader.add_categories(files.read_categories())
    files.faults.check()  # names cannot be joined to what could not be read
    for language, lines in files.read_names("attributes", "Attribute"):
        reader.name_attributes(language, lines)
    for language, lines in files.read_names("attribute_values", "Value"):
        reader.name_choices(language, lines)
    for language, lines in files.read_names("categories", "Category"):
        reader.name_categories(language, lines)
    reader.check_names()
    files.faults.check()
    return Taxonomy(reader.attributes, reader.choice_names, reader.categories, files.lines, dict(files.unknown_fields))


class _Reader:
    def __init__(self, faults: Faults) -> None:
        self._faults = faults
        self.attributes: dict[str, TaxonomyAttribute] = {}
        self.choice_names: dict[str, dict[str, str]] = {}
        self.categories: dict[str, TaxonomyCategory] = {}
        self._places: dict[str, Located] = {}
        """entries by id; ids of attributes have a slash in front"""
        self._attribute_of: dict[str, str] = {}
        """ids of attributes by the ids of names"""
        self._choice_of: dict[str, str] = {}
        """ids of choices by the ids of names"""

    # Attributes.

    def add_attributes(self, entries: list[Located]) -> None:
        """Add attributes; ids, choices and references must fit."""
        for place in entries:
            entry: AttributeEntry = place.entry
            key = entry.friendly_id
            if key in self.attributes:
                self._fault(place, f"the attribute {key!r} is there a second time")
            for choice_id in entry.values:
                if choice_id in self.choice_names:
                    self._fault(place, f"the value {choice_id!r} is there a second time")
                self.choice_names[choice_id] = {}
            self._places[f"/{key}"] = place
            self._attribute_of[key] = key
            if entry.id is not None:
                self._attribute_of.setdefault(entry.id, key)
            names = {} if entry.name is None else {ENGLISH: entry.name}
            descriptions = {ENGLISH: entry.description} if entry.description else {}
            self.attributes[key] = TaxonomyAttribute(
                key, entry.kind, entry.unit, entry.values_from, names, descriptions, list(entry.values)
            )
        for key, attribute in self.attributes.items():
            self._check_attribute(self._places[f"/{key}"], attribute)
        if len(self.attributes) > MAX_ATTRIBUTES:
            self._faults.add("attributes.yml", 0, f"there are more than {MAX_ATTRIBUTES} attributes")

    def _check_attribute(self, place: Located, attribute: TaxonomyAttribute) -> None:
        key = attribute.attribute_id
        if attribute.kind in (None, "choice", "choices"):
            if attribute.unit is not None:
                self._fault(place, f"the attribute {key!r} has a unit and is no number")
            if (attribute.choices_of is None) != bool(attribute.choices):
                self._fault(place, f"the attribute {key!r} needs either `values` or `values_from`")
        elif attribute.choices or attribute.choices_of:
            self._fault(place, f"the attribute {key!r} has values, and its kind has none")
        if attribute.choices_of is not None:
            owner = self.attributes.get(attribute.choices_of)
            if owner is None or not owner.choices:
                self._fault(place, f"the attribute {attribute.choices_of!r} in `values_from` has no values of its own")

    # Categories.

    def add_categories(self, entries: list[Located]) -> None:
        """Add categories as a tree; each must have its place in it."""
        places = dict[str, Located]()
        for place in entries:
            if place.entry.id in places:
                self._fault(place, f"the category {place.entry.id!r} is there a second time")
            places[place.entry.id] = place
        parents = dict[str, str]()
        for place in places.values():
            for child in place.entry.children:
                if child not in places:
                    self._fault(place, f"the child {child!r} of {place.entry.id!r} is in no file")
                elif child in parents:
                    self._fault(place, f"the category {child!r} is a child of {parents[child]!r}, too")
                parents[child] = place.entry.id
        roots = [key for key in places if key not in parents]
        self._add_below(places, None, roots, 1)
        for key, place in places.items():
            if key not in self.categories:
                self._fault(place, f"the category {key!r} stands in a loop or below one")
        self._places |= places

    def _add_below(self, places: Mapping[str, Located], parent_id: str | None, keys: Iterable[str], depth: int) -> None:
        for position, key in enumerate(keys):
            if (place := places.get(key)) is None or key in self.categories:
                continue
            entry: CategoryEntry = place.entry
            if depth > MAX_DEPTH:
                self._fault(place, f"the category {key!r} is more than {MAX_DEPTH} levels deep")
                return
            for attribute_id in {*entry.attributes, *(entry.required or ())}:
                if attribute_id not in self.attributes:
                    self._fault(place, f"the attribute {attribute_id!r} of {key!r} is not in attributes.yml")
            if entry.merged_into is not None and (entry.merged_into not in places or entry.merged_into == key):
                self._fault(place, f"the category {entry.merged_into!r} in `merged_into` is no other one of the files")
            if entry.merged_into is not None and entry.status != "retired":
                self._fault(place, f"the category {key!r} has `merged_into` and is not retired")
            names = {} if entry.name is None else {ENGLISH: entry.name}
            required = None if entry.required is None else frozenset(entry.required)
            self.categories[key] = TaxonomyCategory(
                *(key, parent_id, position, names, list(dict.fromkeys(entry.attributes)), required),
                *(entry.status, entry.merged_into),
            )
            self._add_below(places, key, entry.children, depth + 1)

    # Names.

    def name_attributes(self, language: str, lines: list[NameLine]) -> None:
        """Give attributes their names in a language."""
        for line in lines:
            if (key := self._attribute_of.get(line.id)) is None:
                self._fault(line, f"there is no attribute {line.id!r}")
            else:
                self._set_name(self.attributes[key].names, language, line, line.text)

    def name_categories(self, language: str, lines: list[NameLine]) -> None:
        """Give categories their names in a language; a line has the names of the whole path."""
        paths = dict[str, list[str]]()
        for line in lines:
            category = self.categories.get(line.id)
            if category is None:
                self._fault(line, f"there is no category {line.id!r}")
                continue
            if line.id in paths:
                self._fault(line, f"the category {line.id!r} is there a second time")
            paths[line.id] = path = line.text.split(PATH_SEPARATOR)
            self._set_name(category.names, language, line, path[-1])
        for line in lines:
            category, path = self.categories.get(line.id), paths.get(line.id, [])
            if category is None:
                continue
            expected = paths.get(category.parent_id or "", None if category.parent_id else [])
            if expected is not None and path[:-1] != expected:
                self._fault(line, f"the path does not begin with that of the parent {category.parent_id!r}")

    def name_choices(self, language: str, lines: list[NameLine]) -> None:
        """Give choices their names in a language.

        The English names come first: they join the ids of lines to those of choices."""
        if language == ENGLISH:
            self._join_choices(lines)
        for line in lines:
            key = line.id if line.id in self.choice_names else self._choice_of.get(line.id)
            match = _VALUE.fullmatch(line.text)
            if match is None:
                self._fault(line, "the name does not end with the attribute in brackets")
            elif key is not None:
                self._set_name(self.choice_names[key], language, line, match[1])
            elif language != ENGLISH:  # the fault of an English one is noted
                self._fault(line, f"no value has the number {line.id!r} in attribute_values.{ENGLISH}.txt")

    def _join_choices(self, lines: list[NameLine]) -> None:
        by_attribute = defaultdict[str, list[tuple[NameLine, str]]](list)
        for line in lines:
            if line.id not in self.choice_names and (match := _VALUE.fullmatch(line.text)):
                by_attribute[match[2]].append((line, match[1]))
        owners = {
            attribute.names.get(ENGLISH): attribute for attribute in self.attributes.values() if attribute.choices
        }
        for name, named in by_attribute.items():
            attribute = owners.get(name)
            if attribute is None:
                for line, _ in named:
                    self._fault(line, f"there is no attribute {name!r} with values")
                continue
            self._join_attribute(attribute, named)

    def _join_attribute(self, attribute: TaxonomyAttribute, named: list[tuple[NameLine, str]]) -> None:
        """Join the names of an attribute's values to their ids, first those that are written alike."""
        ids = {choice_id.partition("__")[2] or choice_id: choice_id for choice_id in attribute.choices}
        left = list[tuple[NameLine, str]]()
        for line, text in named:
            written = _write_as_id(text)
            choice_id = ids.pop(written, None)
            if choice_id is None:
                left.append((line, written))
            else:
                self._choice_of[line.id] = choice_id
        for line, written in left:
            nearest = max(ids, key=lambda key: SequenceMatcher(None, key, written).ratio(), default=None)
            if nearest is None or SequenceMatcher(None, nearest, written).ratio() < _MIN_SIMILARITY:
                self._fault(line, f"the attribute {attribute.attribute_id!r} has no such value")
            else:
                self._choice_of[line.id] = ids.pop(nearest)

    def check_names(self) -> None:
        """Note what has no name in any language."""
        for key, attribute in self.attributes.items():
            place = self._places[f"/{key}"]
            if not attribute.names:
                self._fault(place, f"the attribute {key!r} has no name")
            for choice_id in attribute.choices:
                if not self.choice_names[choice_id]:
                    self._fault(place, f"the value {choice_id!r} has no name")
        for key, category in self.categories.items():
            if not category.names:
                self._fault(self._places[key], f"the category {key!r} has no name")
            elif any(PATH_SEPARATOR in name for name in category.names.values()):
                self._fault(self._places[key], f"a name of {key!r} has {PATH_SEPARATOR!r}")

    def _set_name(self, names: dict[str, str], language: str, line: NameLine, text: str) -> None:
        try:
            names[language] = msgspec.convert(text, Name)
        except msgspec.ValidationError as error:
            self._fault(line, f"the name {text[:40]!r}: {explain_mismatch(error)}")

    def _fault(self, place: Located | NameLine, reason: str) -> None:
        self._faults.add(place.file, place.line, reason)


def _write_as_id(name: str) -> str:
    """Write the English name of a value as the taxonomy writes it in ids."""
    letters = unicodedata.normalize("NFKD", name).lower()
    letters = re.sub(r"(?<=\w)\.(?=\w)", "_", letters)
    letters = re.sub(r"[^a-z0-9#+/_\s-]", "", letters)
    return re.sub(r"[\s_-]+", "_", letters)
