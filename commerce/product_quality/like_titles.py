"""Names that may be those of the same product: equal but for spelling, or almost equal.

Pairs of like names are found by MinHash (Broder 1997) with bands, as in Leskovec, Rajaraman and Ullman, Mining of
Massive Datasets, 3.4: names of which four in five trigrams agree share a band with a probability of 98 %. A shared band
only makes two products candidates; `are_like` decides. Names that differ in a number are never alike, so the numbers go
into the bands: 128 GB and 256 GB are two products.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from zlib import crc32

_BANDS, _ROWS = 8, 4
_MIN_SIMILARITY = 0.8
_MAX_TITLES = 4
_PRIME, _MASK = 2**61 - 1, 2**32 - 1
_WORD = re.compile(r"[0-9]+|[^\W\d_]+")
_NUMBER = re.compile(r"[0-9]+")


def _make_multipliers() -> list[tuple[int, int]]:
    """Return the hash functions, which never change: bands of different days are compared."""
    state, numbers = 0x9E3779B97F4A7C15, []
    for _ in range(2 * _BANDS * _ROWS):
        state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
        numbers.append(1 + (state >> 3) % (_PRIME - 1))
    return list(zip(numbers[::2], numbers[1::2], strict=True))


_MULTIPLIERS = _make_multipliers()


def fold_title(title: str) -> str:
    """Return the words and numbers of a name in lower case, without accents, with single blanks.

    Forms of characters that only look different are one: full width, ligatures, composed accents."""
    text = unicodedata.normalize("NFKD", title).casefold()
    text = "".join(letter for letter in text if not unicodedata.combining(letter))
    return " ".join(_WORD.findall(unicodedata.normalize("NFKC", text)))


def compute_bands(titles: Iterable[str]) -> list[int]:
    """Return the bands of the names of a product, as 32-bit numbers, sorted."""
    bands = set[int]()
    for title in list(dict.fromkeys(filter(None, map(fold_title, titles))))[:_MAX_TITLES]:
        hashes = [crc32(part.encode()) for part in _split(title)]
        numbers = repr(_numbers(title))
        rows = [min((a * value + b) % _PRIME & _MASK for value in hashes) for a, b in _MULTIPLIERS]
        for band in range(_BANDS):
            key = f"{band} {numbers} {rows[band * _ROWS : (band + 1) * _ROWS]}"
            bands.add(crc32(key.encode()) - 2**31)
    return sorted(bands)


def are_like(title: str, other: str) -> bool:
    """Tell if two names may be those of one product.

    Their numbers agree, and so do their words in any sequence, or four in five of their trigrams."""
    title, other = fold_title(title), fold_title(other)
    if not title or not other or _numbers(title) != _numbers(other):
        return False
    if sorted(title.split()) == sorted(other.split()):
        return True
    parts, other_parts = _split(title), _split(other)
    return len(parts & other_parts) >= _MIN_SIMILARITY * len(parts | other_parts)


def _numbers(folded: str) -> list[str]:
    return sorted(_NUMBER.findall(folded))


def _split(folded: str) -> set[str]:
    """Return the trigrams of each word with blanks around it, as pg_trgm does.

    So the sequence of words does not matter. A word of ideographs has no blanks, and fewer signs, of which two say as
    much."""
    parts = set[str]()
    for word in folded.split():
        if any("\u2e80" <= letter <= "\u9fff" for letter in word):
            parts |= {word[at : at + 2] for at in range(max(1, len(word) - 1))}
        else:
            padded = f"  {word} "
            parts |= {padded[at : at + 3] for at in range(len(padded) - 2)}
    return parts
