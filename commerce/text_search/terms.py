"""TextTerms of texts: words of Chinese and stems of English, single Chinese characters, and synonyms."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterator
from functools import lru_cache
from importlib import resources
from threading import Lock
from typing import Any

from commerce.kernel.optional import require_extra
from commerce.text_search.model import Language, TextTerms

_HAN = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_SYMBOLS = "\u2600-\u27bf\U0001f000-\U0001faff"
_RUN = re.compile(rf"(?P<han>[{_HAN}]+)|(?P<symbol>[{_SYMBOLS}])|[^\W_{_HAN}]+(?:'[^\W_{_HAN}]+)?")
_HAS_HAN = re.compile(f"[{_HAN}]")
_STEMMER_LOCK = Lock()
_MAX_WORD_CHARS = 40
"""The rest of a longer one is cut off."""


@lru_cache(maxsize=1)
def _load_libraries() -> tuple[Any, Any, Any]:
    """Load the segmenter of Chinese, the stemmer of English, and the converter to simplified characters."""
    require_extra("search texts", "knowledge", "rjieba", "snowballstemmer", "opencc")
    import opencc  # noqa: PLC0415  # only processes that search need these
    import rjieba  # noqa: PLC0415
    import snowballstemmer  # noqa: PLC0415

    return rjieba.Jieba(), snowballstemmer.stemmer("english"), opencc.OpenCC("t2s")


def normalise(text: str) -> str:
    """Return a text as it is compared: NFKC, without case, with simplified Chinese characters."""
    text = unicodedata.normalize("NFKC", text).casefold().replace("\u2019", "'")
    return str(_load_libraries()[2].convert(text)) if _HAS_HAN.search(text) else text


def detect_language(text: str) -> Language:
    """Return the language of a query: Chinese if it has a Chinese character."""
    return "zh" if _HAS_HAN.search(text) else "en"


@lru_cache(maxsize=50_000)
def stem(word: str) -> str:
    """Return the stem of an English word; numbers and words of other languages stay as they are."""
    word = word.removesuffix("'s").replace("'", "")[:_MAX_WORD_CHARS]
    if not word.isascii():
        return word
    with _STEMMER_LOCK:  # it has state, and texts are indexed in threads
        return str(_load_libraries()[1].stemWord(word))


def split(text: str) -> TextTerms:
    """Return the terms of a text.

    Each synonym adds the term of its group, which no text contains otherwise.
    """
    text = normalise(text)
    words: list[str] = []
    pairs: list[str] = []
    characters: list[str] = []
    stems: list[str] = []
    for match in _RUN.finditer(text):
        run = match[0]
        if match["han"]:
            words += [word for word in _load_libraries()[0].cut_for_search(run) if len(word) > 1]
            pairs += [run[start : start + 2] for start in range(len(run) - 1)]
            characters += run
            stems.append("|")
        elif match["symbol"]:
            characters.append(run)
        else:
            stems.append(stem(run))
            words.append(stems[-1])
    synonyms = _load_synonyms()
    words += synonyms.find_groups(text, f" {' '.join(stems)} ")
    return TextTerms(words, pairs, characters)


def list_runs(text: str) -> list[tuple[str, bool]]:
    """Return the stems and the uncut Chinese runs of a text in their sequence.

    Each comes with whether it is Chinese.
    """
    matches = (match for match in _RUN.finditer(normalise(text)) if not match["symbol"])
    return [(match[0], True) if match["han"] else (stem(match[0]), False) for match in matches]


def list_spellings(text: str) -> list[tuple[str, str]]:
    """Return the words of a text that are not Chinese, normalised, each with its stem before it."""
    runs = (match[0] for match in _RUN.finditer(normalise(text)) if not match["han"] and not match["symbol"])
    return [(stem(run), run) for run in runs]


def has_han(text: str) -> bool:
    """Tell whether a text has a Chinese character."""
    return _HAS_HAN.search(text) is not None


def drop_stop_terms(terms: TextTerms) -> TextTerms:
    """Return the terms of a query that say what it is about; all of them if none does."""
    stop_words, stop_characters = _load_stop_words()
    words = [word for word in terms.words if word not in stop_words]
    characters = [character for character in terms.characters if character not in stop_characters]
    pairs = [pair for pair in terms.pairs if pair not in stop_words and not stop_characters.issuperset(pair)]
    return TextTerms(words, pairs, characters) if words or pairs or characters else terms


class _Synonyms:
    """Groups of words and phrases that mean the same, in both languages. A phrase may be in several."""

    def __init__(self, lines: list[str]) -> None:
        self._groups: defaultdict[str, list[str]] = defaultdict(list)
        han: list[str] = []
        others: list[str] = []
        for number, line in enumerate(lines):
            for entry in line.split(","):
                phrase = normalise(entry.strip())
                is_han = _HAS_HAN.search(phrase) is not None
                phrase = phrase if is_han else " ".join(stem(match[0]) for match in _RUN.finditer(phrase))
                self._groups[phrase].append(f"={number}")
                (han if is_han else others).append(phrase)
        self._han, self._others = _any_of(han), _any_of([f" {phrase}(?= )" for phrase in others])

    def find_groups(self, text: str, stems: str) -> Iterator[str]:
        """Yield the term of each synonym in a normalised text and in its stems between blanks."""
        for match in self._han.finditer(text):
            yield from self._groups[match[0]]
        for match in self._others.finditer(stems):
            yield from self._groups[match[0].strip()]


def _any_of(phrases: list[str]) -> re.Pattern[str]:
    return re.compile("|".join(sorted(phrases, key=len, reverse=True)) or r"(?!)")


@lru_cache(maxsize=1)
def _load_synonyms() -> _Synonyms:
    return _Synonyms(_read_lines("synonyms.txt"))


@lru_cache(maxsize=1)
def _load_stop_words() -> tuple[frozenset[str], frozenset[str]]:
    words = [word for line in _read_lines("stop_words.txt") for word in line.split()]
    return frozenset(stem(word) for word in words), frozenset(word for word in words if len(word) == 1)


def _read_lines(name: str) -> list[str]:
    """Read a list beside this module, without comments and blank lines."""
    text = resources.files(__package__).joinpath(name).read_text(encoding="utf-8")
    return [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
