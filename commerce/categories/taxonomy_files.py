"""Reads the files of a taxonomy in the format of Shopify's.

See https://github.com/Shopify/product-taxonomy. YAML has attributes and categories, text files have the names by
language; each file may be packed with gzip.
"""

from __future__ import annotations

import re
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, TypeVar

import msgspec

from commerce.categories.errors import BadTaxonomy
from commerce.categories.model import (
    MAX_CATEGORIES,
    MAX_CHILDREN,
    MAX_CHOICES,
    MAX_INHERITED_ATTRIBUTES,
    AttributeId,
    AttributeKind,
    CategoryId,
    ChoiceId,
    Lifecycle,
    Unit,
)
from commerce.categories.taxonomy import ENGLISH, Faults, FileLines
from commerce.kernel.errors import Invalid
from commerce.kernel.languages import LanguageTag
from commerce.kernel.optional import require_extra
from commerce.kernel.text_files import MAX_FILE_BYTES, decode_text, read_file
from commerce.kernel.types import Name, filled_or_empty_line

_MAX_ENTRIES, _MAX_NESTING = 100_000, 6
_NAME_LINE = re.compile(r"gid://[^/\s]+/Taxonomy(Category|Attribute|Value)/(\S+)\s+: (.+)")
Entry = TypeVar("Entry", bound=msgspec.Struct)


class AttributeEntry(msgspec.Struct, frozen=True, kw_only=True):
    """An attribute as YAML has it, with its own values or, in `values_from`, the attribute that has them."""

    friendly_id: AttributeId
    id: str | None = None
    handle: str | None = None
    name: Name | None = None
    description: Annotated[str, filled_or_empty_line(500)] = ""
    sorting: str | None = None
    values: Annotated[list[ChoiceId], msgspec.Meta(max_length=MAX_CHOICES)] = []
    values_from: AttributeId | None = None
    kind: AttributeKind | None = None
    unit: Unit | None = None


class CategoryEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A category as YAML has it."""

    id: CategoryId
    name: Name | None = None
    children: Annotated[list[CategoryId], msgspec.Meta(max_length=MAX_CHILDREN)] = []
    attributes: Annotated[list[AttributeId], msgspec.Meta(max_length=MAX_INHERITED_ATTRIBUTES)] = []
    required: Annotated[list[AttributeId], msgspec.Meta(max_length=MAX_INHERITED_ATTRIBUTES)] | None = None
    status: Lifecycle | None = None
    merged_into: CategoryId | None = None


class Located(NamedTuple):
    """An entry with its place."""

    file: str
    line: int
    entry: Any


class NameLine(NamedTuple):
    """A name of a category, an attribute or a value, as a line has it."""

    file: str
    line: int
    id: str
    text: str


class _Node(NamedTuple):
    """A value of YAML with its line. A mapping has keys and values in turn."""

    kind: Literal["scalar", "sequence", "mapping"]
    line: int
    items: list[_Node]
    text: str = ""


class TaxonomyFiles:
    """The files of a folder, with an account of their lines. Faults are noted, not raised."""

    def __init__(self, folder: Path) -> None:
        require_extra("read a taxonomy", "taxonomy", "yaml")
        self._folder = folder
        self.faults = Faults()
        self.lines = list[FileLines]()
        self.unknown_fields = Counter[str]()

    def read_attributes(self) -> list[Located]:
        """Read the attributes, those with own values first."""
        path = self._find("attributes.yml")
        if path is None:
            self.faults.add("attributes.yml", 0, "the file is missing")
            return []
        entries = list[Located]()
        with self._account(path) as account:
            root = account.compose()
            parts = {key.text: node for key, node in _members(root)}
            for part in ("base_attributes", "extended_attributes"):
                entries += account.convert(parts.pop(part, None), AttributeEntry)
            self.unknown_fields.update(parts.keys())
        return entries

    def read_categories(self) -> list[Located]:
        """Read the categories of all files, in the sequence of the files' names."""
        folder = self._folder / "categories"
        names = sorted({file.name.removesuffix(".gz") for file in folder.glob("*.yml*")} if folder.is_dir() else ())
        if not names:
            self.faults.add("categories", 0, "there is no folder with files NAME.yml or NAME.yml.gz")
        entries = list[Located]()
        for name in names:
            path = self._find(f"categories/{name}")
            if path is not None:
                with self._account(path) as account:
                    entries += account.convert(account.compose(), CategoryEntry)
        if len(entries) > MAX_CATEGORIES:
            self.faults.add("categories", 0, f"there are {len(entries)} categories, more than {MAX_CATEGORIES}")
        return entries

    def read_names(self, stem: str, kind: str) -> Iterator[tuple[str, list[NameLine]]]:
        """Read the names of one kind by language, English first."""
        pattern = re.compile(rf"{stem}\.(.+?)\.txt(\.gz)?")
        languages = {match[1] for file in self._folder.iterdir() if (match := pattern.fullmatch(file.name))}
        for language in sorted(languages, key=lambda language: (language != ENGLISH, language)):
            path = self._find(f"{stem}.{language}.txt")
            try:
                msgspec.convert(language, LanguageTag)
            except msgspec.ValidationError:
                self.faults.add(f"{stem}.{language}.txt", 0, f"{language!r} is not a language such as zh-CN")
                continue
            if path is not None:
                with self._account(path) as account:
                    yield language, account.read_names(kind)

    def _find(self, name: str) -> Path | None:
        """Return the file of this name, packed or not."""
        plain, packed = self._folder / name, self._folder / f"{name}.gz"
        if plain.exists() and packed.exists():
            self.faults.add(name, 0, "the file is there twice, plain and packed; remove one of them")
            return None
        return plain if plain.exists() else packed if packed.exists() else None

    def _account(self, path: Path) -> _Account:
        return _Account(self, path, str(path.relative_to(self._folder)))


class _Account:
    """A file that is being read; a fault that ends it is noted."""

    def __init__(self, files: TaxonomyFiles, path: Path, name: str) -> None:
        self._files = files
        self._path = path
        self._name = name
        self._text = ""
        self._entries = self._blank = 0

    def __enter__(self) -> _Account:
        try:
            self._text = decode_text(_unpack(self._path))
        except Invalid as error:
            self._files.faults.add(self._name, 0, str(error))
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> bool:
        lines = self._text.removesuffix("\n").count("\n") + 1 if self._text else 0
        self._files.lines.append(FileLines(self._name, lines, self._entries, self._blank))
        if isinstance(error, Invalid) and not isinstance(error, BadTaxonomy):
            self._files.faults.add(self._name, 0, str(error))
            return True
        return False

    def compose(self) -> _Node | None:
        """Parse YAML into nodes, which know their lines; all scalars are texts."""
        import yaml  # noqa: PLC0415  # an extra

        self._blank = sum(not line.strip() or line.lstrip().startswith(("#", "---")) for line in self._lines())
        try:
            return self._build(yaml.parse(self._text, Loader=getattr(yaml, "CBaseLoader", yaml.BaseLoader)))
        except yaml.MarkedYAMLError as error:
            line = error.problem_mark.line + 1 if error.problem_mark else 0
            self._files.faults.add(self._name, line, f"it is not YAML: {error.problem}")
        except yaml.YAMLError as error:
            self._files.faults.add(self._name, 0, f"it is not YAML: {str(error).splitlines()[0]}")
        return None

    def _build(self, events: Iterable[Any]) -> _Node | None:
        """Build nodes from events. PyYAML's own nodes are built by recursion, which deep nesting would break."""
        top = _Node("sequence", 1, [])
        nodes = [top]
        for event in events:
            line = event.start_mark.line + 1
            match type(event).__name__:
                case "ScalarEvent":
                    nodes[-1].items.append(_Node("scalar", line, [], event.value))
                case "SequenceStartEvent" | "MappingStartEvent" as name:
                    node = _Node("sequence" if name.startswith("S") else "mapping", line, [])
                    nodes[-1].items.append(node)
                    nodes.append(node)
                    if len(nodes) > _MAX_NESTING:
                        raise Invalid(f"line {line} is nested too deeply")
                case "SequenceEndEvent" | "MappingEndEvent":
                    nodes.pop()
                case "AliasEvent":
                    raise Invalid(f"line {line} has an alias; write its value")
        return top.items[0] if top.items else None

    def convert(self, node: _Node | None, kind: type[Entry]) -> list[Located]:
        """Convert a list of mappings into entries; a wrong one is noted with its line."""
        if node is None:
            return []
        if node.kind != "sequence" or len(node.items) > _MAX_ENTRIES:
            self._files.faults.add(self._name, node.line, f"not a list of {_MAX_ENTRIES} entries at most")
            return []
        entries = list[Located]()
        for item in node.items:
            try:
                fields = self._plain(item)
                entry = msgspec.convert(fields, kind)
                self._files.unknown_fields.update(fields.keys() - kind.__struct_fields__)
                entries.append(Located(self._name, item.line, entry))
            except msgspec.ValidationError as error:
                self._files.faults.add(self._name, item.line, str(error))
        self._entries += len(entries)
        return entries

    def read_names(self, kind: str) -> list[NameLine]:
        """Read lines `gid://…/TaxonomyKIND/ID : NAME`."""
        names = list[NameLine]()
        for number, line in enumerate(self._lines(), start=1):
            if not line.strip() or line.startswith("#"):
                self._blank += 1
            elif (match := _NAME_LINE.fullmatch(line)) and match[1] == kind:
                names.append(NameLine(self._name, number, match[2], match[3].strip()))
            else:
                self._files.faults.add(self._name, number, f"not `gid://…/Taxonomy{kind}/ID : NAME`: {line[:80]!r}")
        self._entries = len(names)
        return names

    def _lines(self) -> list[str]:
        return self._text.removesuffix("\n").split("\n") if self._text else []

    def _plain(self, node: _Node) -> Any:
        match node.kind:
            case "scalar":
                return node.text
            case "sequence":
                return [self._plain(item) for item in node.items]
        fields = dict[str, Any]()
        for key, value in _members(node):
            if key.text in fields:
                raise Invalid(f"line {key.line} has the field {key.text!r} a second time")
            fields[key.text] = self._plain(value)
        return fields


def _members(node: _Node | None) -> Iterable[tuple[_Node, _Node]]:
    """Return keys and values of a mapping; nothing for another node."""
    if node is None or node.kind != "mapping":
        return ()
    return zip(node.items[::2], node.items[1::2], strict=True)


def _unpack(path: Path) -> bytes:
    """Read a file, unpacked. Raises `Invalid` if it is too large or damaged."""
    content = read_file(path)
    if path.suffix != ".gz":
        return content
    try:
        unpacker = zlib.decompressobj(16 + zlib.MAX_WBITS)
        text = unpacker.decompress(content, MAX_FILE_BYTES + 1)
    except zlib.error as error:
        raise Invalid(f"it cannot be unpacked: {error}") from None
    if len(text) > MAX_FILE_BYTES:
        raise Invalid(f"it is larger than {MAX_FILE_BYTES >> 20} MiB when it is unpacked")
    if not unpacker.eof:
        raise Invalid("it ends too early: copy it again")
    return text
