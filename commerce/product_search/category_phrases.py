"""Whole names of categories as terms: `lamps` is one, and only a part of `lamp shades`.

They count for the sequence alone. A word of a name is a term of its own, which decides what is found.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from commerce.product_search.query_terms import QueryWord
from commerce.text_search.terms import has_han, list_runs

_SIGN = "#"
"""Begins the terms; no term of a text begins so."""
_SEPARATORS = re.compile(r"[/&,，、与]")
_MAX_STEMS, _MAX_CHARACTERS, _MAX_CANDIDATES = 4, 10, 400


def list_name_phrases(name: str) -> Iterator[str]:
    """Yield the terms of the names in a category's name, which may be several: `Beds & Bed Frames`.

    A part that only describes the last one is none: `Chair & Sofa Cushions` are no chairs.
    """
    parts = [part.strip() for part in _SEPARATORS.split(name)]
    for part in parts:
        runs = list_runs(part)
        if runs and not _is_description(part, parts[-1]):
            yield _SIGN + " ".join(run for run, _ in runs)


def _is_description(part: str, last: str) -> bool:
    """Tell whether a part of a name only describes the last one.

    English has a singular before a plural there, Chinese a much shorter part.
    """
    if has_han(part):
        return len(part) + 1 < len(last)
    return last.endswith("s") and not part.endswith("s")


def list_phrase_candidates(text: str) -> list[str]:
    """Return the terms of all parts of a query that may be the name of a category, the longest first."""
    runs = list_runs(text)
    candidates: set[str] = set()
    for place, (run, is_han) in enumerate(runs):
        if is_han:
            ends = range(1, _MAX_CHARACTERS + 1)
            candidates |= {run[start : start + length] for length in ends for start in range(len(run) - length + 1)}
            continue
        for length in range(1, _MAX_STEMS + 1):
            stems = runs[place : place + length]
            if len(stems) == length and not any(other_is_han for _, other_is_han in stems):
                candidates.add(" ".join(stem for stem, _ in stems))
    ranked = sorted(candidates, key=lambda candidate: (-len(candidate), candidate))
    return [_SIGN + candidate for candidate in ranked[:_MAX_CANDIDATES]]


def choose_phrases(candidates: list[str], is_known: Callable[[str], bool]) -> list[QueryWord]:
    """Return the candidates that products have, without those within a longer one."""
    chosen: list[str] = []
    for candidate in candidates:
        if is_known(candidate) and not any(_is_within(candidate, longer) for longer in chosen):
            chosen.append(candidate)
    return [QueryWord(term) for term in chosen]


def _is_within(phrase: str, longer: str) -> bool:
    """Tell whether a term is a part of another: whole stems, or Chinese characters."""
    phrase, longer = phrase.removeprefix(_SIGN), longer.removeprefix(_SIGN)
    return phrase in longer if has_han(phrase) else f" {phrase} " in f" {longer} "
