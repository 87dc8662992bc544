"""Words of what a customer types, as terms that products must have."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import combinations
from typing import NamedTuple

from commerce.text_search.terms import detect_language, drop_stop_terms, split

_MAX_UNITS = 40
MAX_CHOSEN = 8
"""Most words of which some may be missing."""


class QueryWord(NamedTuple):
    """A word of a query. A product has it with `term`, or with all `parts`: pairs of a Chinese word.

    Words of Chinese are cut in another way beside other words, and pairs are not."""

    term: str
    parts: tuple[str, ...] = ()

    @property
    def terms(self) -> tuple[str, ...]:
        """All terms of the index that it may stand for."""
        return (self.term, *self.parts)

    @property
    def characters(self) -> tuple[str, ...]:
        """The characters of a Chinese word; none of another."""
        return tuple(self.term) if len(self.term) > 1 and detect_language(self.term) == "zh" else ()


def split_query(text: str) -> list[QueryWord]:
    """Return the words of a query, each once, without stop words if there are others.

    A Chinese character that is in no word is one."""
    terms = drop_stop_terms(split(text))
    words = [word for word in dict.fromkeys(terms.words) if not word.startswith("=")]
    han = [word for word in words if detect_language(word) == "zh"]
    longest = [word for word in han if not any(word != other and word in other for other in han)]
    covered = set("".join(longest))
    result = [
        QueryWord(word, _list_parts(word)) if word in longest else QueryWord(word)
        for word in words
        if word in longest or word not in han
    ]
    result += [QueryWord(character) for character in dict.fromkeys(terms.characters) if character not in covered]
    return result[:_MAX_UNITS]


def _list_parts(word: str) -> tuple[str, ...]:
    return tuple(word[start : start + 2] for start in range(len(word) - 1)) if len(word) > 2 else ()


def require_all(words: list[QueryWord]) -> str:
    """Return the query of Postgres that products with all these words fit."""
    return " & ".join(_format(word) for word in words)


def loosen(words: list[QueryWord], is_known: Callable[[QueryWord], bool]) -> list[QueryWord]:
    """Return the known words, and the characters of unknown Chinese ones, each once.

    Chinese puts the kind of a product last: a shop without gaming chairs (电竞椅) has chairs (椅)."""
    loosened: dict[QueryWord, None] = {}
    for word in words:
        parts = [word] if is_known(word) else [*map(QueryWord, word.characters)]
        loosened.update(dict.fromkeys(part for part in parts if is_known(part)))
    return [*loosened]


def list_reduced(words: list[QueryWord]) -> Iterator[str]:
    """Yield queries that demand all words, then ever fewer, down to half of them.

    `words` has the rarest first."""
    chosen = words[:MAX_CHOSEN]
    for count in range(len(chosen), (len(chosen) - 1) // 2, -1):
        yield " | ".join(f"({require_all(list(part))})" for part in combinations(chosen, count))


def _format(word: QueryWord) -> str:
    if not word.parts:
        return quote(word.term)
    return f"({quote(word.term)} | {' & '.join(map(quote, word.parts))})"


def quote(term: str) -> str:
    """Quote a term for the types tsquery and tsvector of Postgres."""
    return "'" + term.replace("\\", "\\\\").replace("'", "''") + "'"
