"""Terms of products and where they occur, as arrays of numpy."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.int32]
Mask = NDArray[np.bool_]
_NO_NUMBERS: Numbers = np.empty(0, np.int32)
_NO_WEIGHTS = np.empty(0, np.uint8)


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

    def weigh_in(self, term: str, numbers: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Return the weights of a term in products with sorted numbers, 0 in those without it."""
        own, weights = self.find(term), self.weigh(term)
        if not len(own):
            return np.zeros(len(numbers), np.uint8)
        sought = numbers.astype(np.int32)
        places = np.minimum(np.searchsorted(own, sought), len(own) - 1)
        return np.where(own[places] == sought, weights[places], np.uint8(0))

    def list_numbers(self, term_ids: NDArray[np.int64]) -> list[Numbers]:
        """Return the numbers of the products that have each of some terms."""
        return [self._numbers[term_id] for term_id in term_ids.tolist()]

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

    def __init__(self) -> None:
        self._items = np.empty(0, np.int64)
        self._starts = np.zeros(1, np.int64)
        self._lengths = np.zeros(1, np.int64)

    def replace(self, lists: Mapping[int, Sequence[int]], size: int) -> None:
        """Replace the lists of some products, with numbers below `size`."""
        more = np.zeros(max(0, size - len(self._starts)), np.int64)
        self._starts, self._lengths = np.concatenate([self._starts, more]), np.concatenate([self._lengths, more])
        numbers = np.fromiter(lists.keys(), np.int64, len(lists))
        lengths = np.fromiter(map(len, lists.values()), np.int64, len(lists))
        added = np.fromiter(chain.from_iterable(lists.values()), np.int64, int(lengths.sum()))
        self._starts[numbers] = len(self._items) + np.cumsum(lengths) - lengths
        self._lengths[numbers] = lengths
        self._items = np.concatenate([self._items, added])
        if len(self._items) > 2 * self._lengths.sum():  # most belong to lists that were replaced
            self._items = self.select(np.arange(len(self._starts)))
            self._starts = np.cumsum(self._lengths) - self._lengths

    def select(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the lists of some products, one after the other."""
        lengths = self._lengths[numbers]
        ends = np.cumsum(lengths)
        total = int(ends[-1]) if len(ends) else 0
        return self._items[np.arange(total) + np.repeat(self._starts[numbers] - ends + lengths, lengths)]

    def open_lists(self, numbers: NDArray[np.int64]) -> OpenLists:
        """Return the lists of some products, to be searched several times."""
        return OpenLists(self.select(numbers), np.repeat(np.arange(len(numbers)), self._lengths[numbers]), len(numbers))

    def estimate_cost(self, numbers: NDArray[np.int64]) -> int:
        """Return about how many integers the lists of some products have."""
        return len(numbers) * len(self._items) // len(self._starts)


class OpenLists:
    """The lists of `count` products: all items, and the place of the product that has each."""

    def __init__(self, items: NDArray[np.int64], owners: NDArray[np.int64], count: int) -> None:
        self._items = items
        self._owners = owners
        self._count = count

    def have_between(self, low: int, high: int) -> Mask:
        """Return for each product if an integer of its list is between these, both included."""
        return self._gather((self._items >= low) & (self._items <= high))

    def have_one(self, wanted: Sequence[int], end: int) -> Mask:
        """Return for each product if its list has one of these integers; all integers are below `end`."""
        is_wanted = np.zeros(end, np.bool_)
        is_wanted[wanted] = True
        return self._gather(is_wanted[self._items])

    def _gather(self, fits: Mask) -> Mask:
        mask = np.zeros(self._count, np.bool_)
        mask[self._owners[fits]] = True
        return mask


class TermFields:
    """The fields and values of terms such as `color=red`, by the ids of the terms."""

    def __init__(self, terms: Sequence[str]) -> None:
        self.names: list[str] = []
        self.values: list[str] = []
        ids: dict[str, int] = {}
        of_terms = []
        for term in terms:
            name, separator, value = term.partition("=")
            self.values.append(value)
            if separator and name not in ids:
                ids[name] = len(self.names)
                self.names.append(name)
            of_terms.append(ids[name] if separator else -1)
        self.of_terms = np.array(of_terms, np.int32)
        self._ids = ids
        self._terms: dict[str, NDArray[np.int64]] = {}

    def list_terms(self, name: str) -> NDArray[np.int64]:
        """Return the ids of the terms of a field."""
        terms = self._terms.get(name)
        if terms is None:
            terms = np.flatnonzero(self.of_terms == self._ids.get(name, -2))
            if name in self._ids:
                self._terms[name] = terms
        return terms
