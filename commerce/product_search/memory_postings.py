"""Terms of products and where they occur, as arrays of numpy."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.int32]
Mask = NDArray[np.bool_]
_NO_NUMBERS: Numbers = np.empty(0, np.int32)
_NO_WEIGHTS = np.empty(0, np.uint8)
_FEW = 8
"""One in so many products is few: their lists are taken one by one."""


class Postings:
    """For each term the numbers of the products that have it, sorted, and the weight that it has in each."""

    def __init__(self) -> None:
        self.ids: dict[str, int] = {}
        self.terms: list[str] = []
        self._numbers: list[Numbers] = []
        self._weights: list[NDArray[np.uint8]] = []
        self._of_product: dict[int, Numbers] = {}
        """ids of terms by the number of the product"""

    def replace(self, products: Mapping[int, Mapping[str, int]]) -> None:
        """Replace all terms of some products; each term comes with its weight, from 0 to 255."""
        removed: defaultdict[int, list[int]] = defaultdict(list)
        added: defaultdict[int, list[tuple[int, int]]] = defaultdict(list)
        for number, terms in products.items():
            for term_id in self._of_product.pop(number, _NO_NUMBERS).tolist():
                removed[term_id].append(number)
            ids = [self._name(term) for term in terms]
            for term_id, weight in zip(ids, terms.values(), strict=True):
                added[term_id].append((number, weight))
            if ids:
                self._of_product[number] = np.array(ids, np.int32)
        for term_id in {*removed, *added}:
            self._change(term_id, removed.get(term_id, ()), added.get(term_id, ()))

    def find(self, term: str) -> Numbers:
        """Return the numbers of the products that have a term."""
        term_id = self.ids.get(term)
        return _NO_NUMBERS if term_id is None else self._numbers[term_id]

    def weigh(self, term: str) -> NDArray[np.uint8]:
        """Return the weights of a term, in the sequence of `find`."""
        term_id = self.ids.get(term)
        return _NO_WEIGHTS if term_id is None else self._weights[term_id]

    def list_ids(self, number: int) -> Numbers:
        """Return the ids of the terms of a product."""
        return self._of_product.get(number, _NO_NUMBERS)

    def mark(self, terms: Iterable[str], size: int) -> Mask:
        """Return a mask of `size` products, of those that have one of the terms."""
        mask = np.zeros(size, np.bool_)
        for term in terms:
            mask[self.find(term)] = True
        return mask

    def _name(self, term: str) -> int:
        term_id = self.ids.get(term)
        if term_id is None:
            term_id = self.ids[term] = len(self.terms)
            self.terms.append(term)
            self._numbers.append(_NO_NUMBERS)
            self._weights.append(_NO_WEIGHTS)
        return term_id

    def _change(self, term_id: int, removed: Sequence[int], added: Sequence[tuple[int, int]]) -> None:
        numbers, weights = self._numbers[term_id], self._weights[term_id]
        if removed:
            kept = ~np.isin(numbers, np.array(removed, np.int32))
            numbers, weights = numbers[kept], weights[kept]
        if added:
            numbers = np.concatenate([numbers, np.array([number for number, _ in added], np.int32)])
            weights = np.concatenate([weights, np.array([weight for _, weight in added], np.uint8)])
            order = np.argsort(numbers, kind="stable")
            numbers, weights = numbers[order], weights[order]
        self._numbers[term_id], self._weights[term_id] = numbers, weights


class Rows:
    """Lists of integers by the number of a product, end to end in one array."""

    def __init__(self, lists: Sequence[Numbers]) -> None:
        lengths = np.fromiter((len(row) for row in lists), np.int64, len(lists))
        self._starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
        self._items = np.concatenate([_NO_NUMBERS, *lists])
        self._owners = np.repeat(np.arange(len(lists), dtype=np.int32), lengths)

    def count(self, matching: Mask, size: int) -> NDArray[np.int64]:
        """Count the integers below `size` in the lists of the found products."""
        numbers = np.flatnonzero(matching)
        if len(numbers) * _FEW > len(matching):
            return np.bincount(self._items[matching[self._owners]], minlength=size)
        starts = self._starts[numbers]
        lengths = self._starts[numbers + 1] - starts
        ends = np.cumsum(lengths)
        total = int(ends[-1]) if len(ends) else 0
        places = np.arange(total) + np.repeat(starts - ends + lengths, lengths)
        return np.bincount(self._items[places], minlength=size)


class TermFields:
    """The fields of terms such as `color=red`, by the ids of the terms."""

    def __init__(self, terms: Sequence[str]) -> None:
        self.names: list[str] = []
        ids: dict[str, int] = {}
        of_terms = []
        for term in terms:
            name, separator, _ = term.partition("=")
            if separator and name not in ids:
                ids[name] = len(self.names)
                self.names.append(name)
            of_terms.append(ids[name] if separator else -1)
        self.of_terms = np.array(of_terms, np.int32)
        self._ids = ids

    def find(self, name: str) -> int:
        """Return the id of a field, -2 if no term has it."""
        return self._ids.get(name, -2)
