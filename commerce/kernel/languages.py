"""Languages of texts: tags (BCP 47), and which of a text's languages a reader gets."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Annotated

import msgspec

LanguageTag = Annotated[
    str,
    msgspec.Meta(
        pattern=r"^[a-z]{2,3}(-[A-Za-z0-9]{2,8}){0,3}\Z",
        max_length=35,
        description="BCP 47, such as `en` or `zh-CN`",
        examples=["zh-CN"],
    ),
]
MAX_LANGUAGES = 20
_FALLBACK = "en"
_MAX_HEADER_CHARS, _MAX_RANGES = 1_000, 20
_RANGE = re.compile(r"\s*([A-Za-z]{1,8}(?:-[A-Za-z0-9]{1,8})*)\s*(?:;\s*q=([01](?:\.[0-9]{0,3})?))?\s*")


def choose_language(available: Collection[str], wanted: Sequence[str]) -> str:
    """Choose the language of a text for a reader.

    `available` must not be empty, `wanted` has the best first. For each wanted tag: itself, its shorter forms (RFC
    4647, 3.4), then any other form of its language. Otherwise English, otherwise the first one by name.
    """
    tags = {tag.lower(): tag for tag in available}
    for tag in (*wanted, _FALLBACK):
        parts = tag.lower().split("-")
        shorter = ("-".join(parts[:length]) for length in range(len(parts), 0, -1))
        other_forms = sorted(key for key in tags if key.split("-")[0] == parts[0])
        if (match := next((key for key in (*shorter, *other_forms) if key in tags), None)) is not None:
            return tags[match]
    return min(available)


def choose_text(texts: Mapping[str, str], wanted: Sequence[str], default: str) -> str:
    """Return the text in the language of `choose_language`, or the default if there is no text."""
    return texts[choose_language(texts, wanted)] if texts else default


def read_accept_language(header: str | None) -> list[str]:
    """Read the tags of an Accept-Language header (RFC 9110, 12.5.4), best first.

    What is no tag is left out."""
    weighted = list[tuple[float, str]]()
    for part in (header or "")[:_MAX_HEADER_CHARS].split(",")[:_MAX_RANGES]:
        match = _RANGE.fullmatch(part)
        if match is not None and (weight := float(match[2] or 1)) > 0:
            weighted.append((weight, match[1]))
    return list(dict.fromkeys(tag for _, tag in sorted(weighted, key=lambda pair: -pair[0])))
