"""The rows that an import of a taxonomy changes. It reads nothing."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from commerce.categories.model import (
    MAX_ATTRIBUTES,
    MAX_CATEGORIES,
    MAX_DEPTH,
    MAX_INHERITED_ATTRIBUTES,
    AttributeRule,
    ChangeKind,
)
from commerce.categories.store import ChangeRow
from commerce.categories.taxonomy import Counts, Faults, Taxonomy, TaxonomyAttribute, TaxonomyCategory
from commerce.categories.taxonomy_store import TaxonomyRows, TaxonomyWrites


class TaxonomyChanges(NamedTuple):
    """Rows and records of an import, and its account."""

    writes: TaxonomyWrites
    changes: list[ChangeRow]
    attributes: Counts
    choices: Counts
    categories: Counts


def compare_taxonomy(taxonomy: Taxonomy, rows: TaxonomyRows) -> TaxonomyChanges:
    """Compare files with the shop. Raises `BadTaxonomy` if both do not fit together.

    What the files do not name stays: other entries, names in other languages, whether an attribute is required.
    """
    faults = Faults()
    comparison = _Comparison(taxonomy, rows, faults)
    for attribute in taxonomy.attributes.values():
        comparison.compare_attribute(attribute)
    comparison.compare_tree()
    faults.check()
    return comparison.result


class _Comparison:
    def __init__(self, taxonomy: Taxonomy, rows: TaxonomyRows, faults: Faults) -> None:
        self._taxonomy = taxonomy
        self._rows = rows
        self._faults = faults
        self._paths: dict[str, list[str]] = {}
        self._positions: dict[str, int] = {}
        self._effective: dict[str, dict[str, AttributeRule]] = {}
        """rules that count after the import, by category"""
        absent = (
            Counts(absent=len(rows.attributes.keys() - taxonomy.attributes.keys())),
            Counts(absent=len(rows.choices.keys() - taxonomy.choice_names.keys())),
            Counts(absent=len(rows.categories.keys() - taxonomy.categories.keys())),
        )
        self.result = TaxonomyChanges(TaxonomyWrites([], [], [], [], [], [], [], [], []), [], *absent)
        if len(taxonomy.categories) + absent[2].absent > MAX_CATEGORIES:
            faults.add("categories", 0, f"there would be more than {MAX_CATEGORIES} categories")
        if len(taxonomy.attributes) + absent[0].absent > MAX_ATTRIBUTES:
            faults.add("attributes.yml", 0, f"there would be more than {MAX_ATTRIBUTES} attributes")

    def compare_attribute(self, attribute: TaxonomyAttribute) -> None:
        """Compare an attribute with its names and choices."""
        key, writes = attribute.attribute_id, self.result.writes
        row = self._rows.attributes.get(key)
        if row is not None and attribute.kind not in (None, row.kind):
            self._faults.add(
                "attributes.yml", 0, f"{key!r} is of the kind {attribute.kind!r}, in the shop {row.kind!r}"
            )
        details = dict[str, Any]()
        if row is None or (row.unit, row.choices_of) != (attribute.unit, attribute.choices_of):
            details["unit"] = attribute.unit
        names, descriptions = self._rows.attribute_names.get(key, {}), self._rows.descriptions.get(key, {})
        changed = {**_differences(names, attribute.names), **_differences(descriptions, attribute.descriptions)}
        for language in changed:
            name = attribute.names.get(language) or names.get(language) or key
            writes.attribute_names.append((key, language, name, attribute.descriptions.get(language)))
        if changed:
            details["names"] = sorted(changed)
        if choices := self._compare_choices(attribute):
            details["choices"] = choices
        if details:
            writes.attributes.append((key, attribute.kind or "choices", attribute.unit, attribute.choices_of))
        self._count(self.result.attributes, row is not None, details, attribute_id=key)

    def _compare_choices(self, attribute: TaxonomyAttribute) -> int:
        """Compare the choices of an attribute. Returns how many change."""
        count, writes, counts = 0, self.result.writes, self.result.choices
        rows = [(choice_id, self._rows.choices.get(choice_id)) for choice_id in attribute.choices]
        positions = _place_in_sequence([(choice_id, None if row is None else row.position) for choice_id, row in rows])
        for (choice_id, row), position in zip(rows, positions, strict=True):
            if row is not None and row.attribute_id != attribute.attribute_id:
                self._faults.add("attributes.yml", 0, f"{choice_id!r} is a choice of {row.attribute_id!r} in the shop")
            texts = _differences(self._rows.choice_names.get(choice_id, {}), self._taxonomy.choice_names[choice_id])
            writes.choice_names.extend((choice_id, language, text) for language, text in texts.items())
            is_same = row is not None and row.position == position
            if not is_same:
                status = "active" if row is None else row.status
                writes.choices.append((choice_id, attribute.attribute_id, position, status))
            if row is None:
                counts.added += 1
            elif texts or not is_same:
                counts.changed += 1
            else:
                counts.unchanged += 1
                continue
            count += 1
        return count

    def compare_tree(self) -> None:
        """Compare the categories, parents first; those below that the files do not name follow."""
        self._place_siblings()
        for category in self._taxonomy.categories.values():
            self._compare_category(category)
        others = [row for key, row in self._rows.categories.items() if key not in self._taxonomy.categories]
        for row in sorted(others, key=lambda row: len(row.path)):
            key = row.category_id
            path = self._set_path(row.parent_id, key)
            own = self._rows.rules.get(key, {})
            self._effective[key] = {**self._effective.get(row.parent_id or "", {}), **own}
            if path != row.path:
                self.result.writes.categories.append((key, row.parent_id, " ".join(path), row.position, row.status))
            self._check_limits(key)

    def _place_siblings(self) -> None:
        """Find the positions of the categories, which stay as they are where their sequence is right."""
        siblings = defaultdict[str | None, list[TaxonomyCategory]](list)
        for category in sorted(self._taxonomy.categories.values(), key=lambda category: category.position):
            siblings[category.parent_id].append(category)
        for parent_id, children in siblings.items():
            rows = [self._rows.categories.get(child.category_id) for child in children]
            current = [row.position if row is not None and row.parent_id == parent_id else None for row in rows]
            keys = [child.category_id for child in children]
            positions = _place_in_sequence(list(zip(keys, current, strict=True)))
            self._positions.update(zip(keys, positions, strict=True))

    def _compare_category(self, category: TaxonomyCategory) -> None:
        key, writes = category.category_id, self.result.writes
        row = self._rows.categories.get(key)
        path, position = self._set_path(category.parent_id, key), self._positions[key]
        status = category.status or (row.status if row else "active")
        details = dict[str, Any]()
        if row is None:
            details["parent_id"] = category.parent_id
        elif row.parent_id != category.parent_id:
            details["parent_id"] = [row.parent_id, category.parent_id]
        if row is not None and (row.position, row.status) != (position, status):
            details |= {"position": [row.position, position], "status": [row.status, status]}
        names = _differences(self._rows.category_names.get(key, {}), category.names)
        if names:
            details["names"] = names
        if rules := self._compare_rules(category):
            details["attributes"] = rules
        if category.merged_into is not None and (row is None or row.merged_into != category.merged_into):
            details["merged_into"] = category.merged_into
            writes.merged.append((key, category.merged_into))
        if details or (row is not None and row.path != path):
            writes.categories.append((key, category.parent_id, " ".join(path), position, status))
        writes.category_names.extend((key, language, text) for language, text in names.items())
        self._count(self.result.categories, row is not None, details, category_id=key)
        self._check_limits(key)

    def _compare_rules(self, category: TaxonomyCategory) -> dict[str, AttributeRule | None]:
        """Compare the rules of a category. Returns those that change, None for one that goes."""
        key, writes = category.category_id, self.result.writes
        inherited = {
            attribute_id: rule
            for attribute_id, rule in self._effective.get(category.parent_id or "", {}).items()
            if rule != "excluded"
        }
        own, listed = self._rows.rules.get(key, {}), set(category.attributes)
        after, changed = dict(own), dict[str, AttributeRule | None]()
        for attribute_id in sorted(listed | inherited.keys() | own.keys()):
            if attribute_id not in self._taxonomy.attributes:
                continue  # the shop's own
            before = own.get(attribute_id)
            wanted: AttributeRule = "excluded"
            if attribute_id in listed:
                wanted = inherited.get(attribute_id, "optional") if before in (None, "excluded") else before
                if category.required is not None:
                    wanted = "required" if attribute_id in category.required else "optional"
            if before == wanted:
                continue
            if wanted == inherited.get(attribute_id, "excluded"):
                if before is not None:
                    del after[attribute_id]
                    changed[attribute_id] = None
                    writes.old_rules.append((key, attribute_id))
            else:
                after[attribute_id] = changed[attribute_id] = wanted
                writes.rules.append((key, attribute_id, wanted))
        self._effective[key] = {**inherited, **after}
        return changed

    def _set_path(self, parent_id: str | None, key: str) -> list[str]:
        """Return the path of a category after the import. Parents come first, and files have no loops."""
        self._paths[key] = path = [*(self._paths[parent_id] if parent_id else ()), key]
        return path

    def _check_limits(self, key: str) -> None:
        if len(self._paths[key]) > MAX_DEPTH:
            self._faults.add("categories", 0, f"{key!r} would be more than {MAX_DEPTH} levels deep")
        if sum(rule != "excluded" for rule in self._effective[key].values()) > MAX_INHERITED_ATTRIBUTES:
            self._faults.add("categories", 0, f"{key!r} would have more than {MAX_INHERITED_ATTRIBUTES} attributes")

    def _count(self, counts: Counts, exists: bool, details: Mapping[str, Any], **key: str) -> None:
        """Count an entry, and record its change."""
        if exists and not details:
            counts.unchanged += 1
            return
        kind: ChangeKind = "changed" if exists else "created"
        counts.added += not exists
        counts.changed += exists
        self.result.changes.append(
            ChangeRow(kind, key.get("category_id"), key.get("attribute_id"), {"is_import": True, **details})
        )


def _place_in_sequence(entries: Sequence[tuple[str, int | None]]) -> list[int]:
    """Return positions in the sequence of the entries, which have an id and perhaps a position.

    A position stays if it comes after those before it; of equal ones the ids decide."""
    positions, last, last_key = list[int](), -1, ""
    for key, current in entries:
        last = current if current is not None and (current, key) > (last, last_key) else last + 1
        last_key = key
        positions.append(last)
    return positions


def _differences(before: Mapping[str, str], after: Mapping[str, str]) -> dict[str, str]:
    """Return the texts of `after` that `before` does not have."""
    return {language: text for language, text in after.items() if before.get(language) != text}
