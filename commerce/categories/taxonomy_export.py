"""Writes a taxonomy to files, which an import reads without a change."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from commerce.categories.model import PATH_SEPARATOR, AttributeRule
from commerce.categories.store import AttributeRow, CategoryRow
from commerce.categories.taxonomy import ENGLISH
from commerce.categories.taxonomy_store import TaxonomyRows
from commerce.kernel.errors import Invalid
from commerce.kernel.languages import choose_text

_GID = "gid://floodgate/Taxonomy"


def write_files(folder: Path, rows: TaxonomyRows) -> dict[str, int]:
    """Write the files to an empty folder, which is made. Returns the lines of each file.

    Raises `Invalid` if the folder has files already or cannot be written."""
    lines = {name: list(text) for name, text in _build_files(rows)}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise Invalid(f"cannot export to {folder}: it is not empty; name a new folder")
        (folder / "categories").mkdir()
        for name, texts in lines.items():
            (folder / name).write_text("".join(f"{text}\n" for text in texts), encoding="utf-8", newline="\n")
    except OSError as error:
        raise Invalid(f"cannot export to {folder}: {error.strerror}; name another folder") from None
    return {name: len(texts) for name, texts in lines.items()}


def _build_files(rows: TaxonomyRows) -> Iterator[tuple[str, Iterable[str]]]:
    choices = defaultdict[str, list[str]](list)
    for choice in rows.choices.values():
        if choice.status == "active":
            choices[choice.attribute_id].append(choice.choice_id)
    yield "attributes.yml", _build_attributes(rows, choices)
    children = _list_children(rows)
    for number, root in enumerate(children[None], start=1):  # files are read in the sequence of their names
        yield f"categories/{number:05}_{root.category_id}.yml", _build_categories(rows, children, root)
    names = rows.attribute_names
    yield from _build_names("attributes", names, lambda key, language: names[key][language])
    values = {key: rows.choice_names.get(key, {}) for ids in choices.values() for key in ids}
    yield from _build_names("attribute_values", values, partial(_name_choice, rows))
    yield from _build_names("categories", rows.category_names, partial(_name_path, rows))


def _list_children(rows: TaxonomyRows) -> dict[str | None, list[CategoryRow]]:
    """Return the children of each category in their sequence; those of None are the roots."""
    children = defaultdict[str | None, list[CategoryRow]](list)
    for row in sorted(rows.categories.values(), key=lambda row: (row.position, row.category_id)):
        children[row.parent_id].append(row)
    return children


def _build_attributes(rows: TaxonomyRows, choices: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """Yield attributes.yml; what has values of another attribute comes last."""
    for title, is_extended in (("base_attributes", False), ("extended_attributes", True)):
        part = [row for row in rows.attributes.values() if (row.choices_of is not None) is is_extended]
        yield f"{title}:" if part else f"{title}: []"
        for row in sorted(part):
            yield from _build_attribute(rows, row, choices.get(row.attribute_id, ()))


def _build_attribute(rows: TaxonomyRows, row: AttributeRow, choices: Sequence[str]) -> Iterator[str]:
    key = row.attribute_id
    yield f"- friendly_id: {_quote(key)}"
    if (name := rows.attribute_names.get(key, {}).get(ENGLISH)) is not None:
        yield f"  name: {_quote(name)}"
    if (description := rows.descriptions.get(key, {}).get(ENGLISH)) is not None:
        yield f"  description: {_quote(description)}"
    yield f"  kind: {row.kind}"
    if row.unit is not None:
        yield f"  unit: {_quote(row.unit)}"
    if row.choices_of is not None:
        yield f"  values_from: {_quote(row.choices_of)}"
    yield from _build_list("values", choices)


def _build_categories(
    rows: TaxonomyRows, children: Mapping[str | None, Sequence[CategoryRow]], root: CategoryRow
) -> Iterator[str]:
    """Yield a root and all that is below it."""
    waiting: list[tuple[CategoryRow, dict[str, AttributeRule]]] = [(root, {})]
    while waiting:
        row, inherited = waiting.pop()
        rules = {**inherited, **rows.rules.get(row.category_id, {})}
        rules = {attribute_id: rule for attribute_id, rule in sorted(rules.items()) if rule != "excluded"}
        below = children.get(row.category_id, ())
        yield f"- id: {_quote(row.category_id)}"
        if (name := rows.category_names.get(row.category_id, {}).get(ENGLISH)) is not None:
            yield f"  name: {_quote(name)}"
        yield from _build_list("children", [child.category_id for child in below])
        yield from _build_list("attributes", list(rules))
        yield from _build_list("required", [key for key, rule in rules.items() if rule == "required"])
        yield f"  status: {row.status}"
        if row.merged_into is not None:
            yield f"  merged_into: {_quote(row.merged_into)}"
        waiting += [(child, rules) for child in reversed(below)]


def _build_list(name: str, items: Sequence[str]) -> Iterator[str]:
    yield f"  {name}:" if items else f"  {name}: []"
    yield from (f"  - {_quote(item)}" for item in items)


def _build_names(
    stem: str, names: Mapping[str, Mapping[str, str]], build: Callable[[str, str], str]
) -> Iterator[tuple[str, Iterable[str]]]:
    """Yield a file for each language with a line for each entry that has a name in it."""
    kind = {"attributes": "Attribute", "attribute_values": "Value", "categories": "Category"}[stem]
    languages = sorted({language for texts in names.values() for language in texts})
    for language in languages:
        keys = sorted(key for key, texts in names.items() if language in texts)
        yield f"{stem}.{language}.txt", [f"{_GID}{kind}/{key} : {build(key, language)}" for key in keys]


def _name_choice(rows: TaxonomyRows, key: str, language: str) -> str:
    owner = rows.choices[key].attribute_id
    return f"{rows.choice_names[key][language]} [{choose_text(rows.attribute_names.get(owner, {}), [language], owner)}]"


def _name_path(rows: TaxonomyRows, key: str, language: str) -> str:
    path = [rows.category_names.get(part, {}) for part in rows.categories[key].path]
    return PATH_SEPARATOR.join(choose_text(names, [language], "?") for names in path)


def _quote(text: str) -> str:
    """Write a text as a double-quoted scalar of YAML, of which JSON's are a part."""
    return json.dumps(text, ensure_ascii=False)
