"""Finds texts by words and characters: an index in memory, scored as BM25F.

A term of a text has the weight of its occurrences in title, search words and body; each part counts by its length. The
lengths are compared with fixed ones, not with the mean of all texts, so a text's weights stay as others come and go.
"""

from __future__ import annotations

from array import array
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from heapq import nlargest
from math import log

from commerce.text_search.model import Hit, IndexedText
from commerce.text_search.spelling import NearWords
from commerce.text_search.terms import drop_stop_terms, split

_PART_WEIGHTS = (3.0, 3.0, 1.0)
_PART_TERMS = (8, 12, 200)
"""Usual lengths of title, search words and body."""
_LENGTH_SHARE = 0.6
_SATURATION = 5.0
_CHARACTER_WEIGHT, _PAIR_WEIGHT = 1.0, 0.5
_SYNONYM_WEIGHT = 3.0
_NEAR_WEIGHT = 0.7
_MIN_SHARE = 0.03
"""of the score that a text with all terms of the query would have; what has less is no hit"""
_MIN_DEAD = 1_000


class TextIndex:
    """The texts of one language by key. Not for several threads at once."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self._keys: list[str | None] = []
        self._postings: dict[str, tuple[array[int], array[float]]] = {}
        self._near_words = NearWords()

    def __len__(self) -> int:
        return len(self._numbers)

    def put(self, key: str, weights: Mapping[str, float]) -> None:
        """Add a text with the weights of its terms, in the place of the one that has the key."""
        self.remove(key)
        number = self._numbers[key] = len(self._keys)
        self._keys.append(key)
        for term, weight in weights.items():
            posting = self._postings.get(term)
            if posting is None:
                posting = self._postings[term] = array("I"), array("f")
                self._near_words.add(term)
            posting[0].append(number)
            posting[1].append(weight)

    def remove(self, key: str) -> None:
        """Remove a text, if it is there."""
        number = self._numbers.pop(key, None)
        if number is not None:
            self._keys[number] = None
            if len(self._keys) - len(self._numbers) > max(_MIN_DEAD, len(self._numbers)):
                self._compact()

    def search(
        self,
        query: str,
        count: int,
        *,
        accepts: Callable[[str], bool] = lambda key: True,
        factor: Callable[[str], float] = lambda key: 1.0,
    ) -> list[Hit]:
        """Return the best texts for a query of at most `MAX_QUERY_CHARS`, best first.

        `accepts` leaves texts out, `factor` is applied to the score of a text. A query without letters, digits,
        characters or symbols finds nothing.
        """
        scores: defaultdict[int, float] = defaultdict(float)
        possible = 0.0
        for alternatives, weight in self._weigh_query(query):
            rarity = max((self._rarity(term) for term, _ in alternatives), default=self._rarity(""))
            possible += weight * rarity
            for term, share in alternatives:
                numbers, weights = self._postings[term]
                factor_of_term = weight * share * self._rarity(term)
                for number, term_weight in zip(numbers, weights, strict=True):
                    scores[number] += factor_of_term * term_weight
        hits = []
        for number, score in scores.items():
            key = self._keys[number]
            if key is not None and score >= _MIN_SHARE * possible and accepts(key):
                hits.append(Hit(key, score * factor(key)))
        return nlargest(count, hits, key=lambda hit: (hit.score, hit.key))

    def _weigh_query(self, query: str) -> Iterable[tuple[list[tuple[str, float]], float]]:
        """Yield the known terms of each term of a query with their shares, and the weight of the query's term.

        A mistyped word stands for those near it. Repeats count once.
        """
        terms = drop_stop_terms(split(query))
        weights = dict.fromkeys(terms.characters, _CHARACTER_WEIGHT) | dict.fromkeys(terms.pairs, _PAIR_WEIGHT)
        for word in dict.fromkeys(terms.words):
            weights[word] = _SYNONYM_WEIGHT if word.startswith("=") else weights.get(word, 0.0) + 1
        for term, weight in weights.items():
            if term in self._postings:
                yield [(term, 1.0)], weight
            elif not term.startswith("="):
                yield [(near, _NEAR_WEIGHT) for near in self._near_words.find(term)], weight

    def _rarity(self, term: str) -> float:
        """Return how much a term tells texts apart."""
        posting = self._postings.get(term)
        texts = 0 if posting is None else min(len(posting[0]), len(self._numbers))
        return log(1 + (len(self._numbers) - texts + 0.5) / (texts + 0.5))

    def _compact(self) -> None:
        """Drop what is left of removed texts."""
        moved = {number: new for new, number in enumerate(sorted(self._numbers.values()))}
        self._keys = [self._keys[number] for number in moved]
        self._numbers = {key: moved[number] for key, number in self._numbers.items()}
        self._near_words = NearWords()
        for term, (numbers, weights) in [*self._postings.items()]:
            kept = [(moved[number], weight) for number, weight in zip(numbers, weights, strict=True) if number in moved]
            if not kept:
                del self._postings[term]
                continue
            self._postings[term] = array("I", (pair[0] for pair in kept)), array("f", (pair[1] for pair in kept))
            self._near_words.add(term)


def weigh_terms(text: IndexedText) -> dict[str, float]:
    """Return the terms of a text with their weights, each below 1.

    Takes about a millisecond per page of text.
    """
    sums: defaultdict[str, float] = defaultdict(float)
    for part, part_weight, usual in zip(text, _PART_WEIGHTS, _PART_TERMS, strict=True):
        terms = split(part)
        for kind in terms:
            weight = part_weight / (1 - _LENGTH_SHARE + _LENGTH_SHARE * len(kind) / usual)
            for term in kind:
                sums[term] += weight
    return {term: total / (total + _SATURATION) for term, total in sums.items()}
