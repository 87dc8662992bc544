"""Texts that can be found, and what a search finds."""

from __future__ import annotations

from typing import Annotated, Literal, NamedTuple

from commerce.kernel.types import query_text

Language = Literal["zh", "en"]
LANGUAGES: tuple[Language, ...] = ("zh", "en")
MAX_QUERY_CHARS = 500
QUERY_INVALID = f"not 1 to {MAX_QUERY_CHARS} characters of which one can be seen; search for a few words"
SearchQuery = Annotated[str, query_text(MAX_QUERY_CHARS)]


class IndexedText(NamedTuple):
    """The parts of a text, of which title and search words count more than the body."""

    title: str
    search_words: str
    body: str


class TextTerms(NamedTuple):
    """The terms of a text in its order, with their repeats.

    Pairs and characters are those of Chinese: they are alike where words are cut in another way or mistyped."""

    words: list[str]
    pairs: list[str]
    characters: list[str]


class Hit(NamedTuple):
    """A text by its key, with a score that compares only within one search."""

    key: str
    score: float
