"""Words that differ from a mistyped English one by one letter, or by two that changed places."""

from __future__ import annotations

from collections import defaultdict

_MIN_CHARS = 4


class NearWords:
    """Known words by what is left of them without one letter."""

    def __init__(self) -> None:
        self._words: defaultdict[str, set[str]] = defaultdict(set)

    def add(self, word: str) -> None:
        """Add a word of the texts; short ones and those of other letters are not corrected."""
        if is_corrected(word):
            for rest in list_rests(word):
                self._words[rest].add(word)

    def find(self, word: str) -> list[str]:
        """Return the known words that a word may stand for, sorted."""
        if not is_corrected(word):
            return []
        words = {near for rest in list_rests(word) for near in self._words.get(rest, ()) if is_near(word, near)}
        return sorted(words)


def is_corrected(word: str) -> bool:
    """Tell whether mistakes in a word are forgiven."""
    return len(word) >= _MIN_CHARS and word.isascii() and word.isalpha()


def list_rests(word: str) -> set[str]:
    """Return a word, and what is left of it without one letter."""
    return {word, *(word[:index] + word[index + 1 :] for index in range(len(word)))}


def is_near(word: str, other: str) -> bool:
    """Tell whether two words with a rest in common are one mistake apart."""
    if len(word) != len(other):
        return True  # the longer one without a letter is the shorter one: the other pairs differ by two in length
    places = [index for index in range(len(word)) if word[index] != other[index]]
    return len(places) < 2 or (
        len(places) == 2
        and places[1] == places[0] + 1
        and word[places[0]] == other[places[1]]
        and word[places[1]] == other[places[0]]
    )
