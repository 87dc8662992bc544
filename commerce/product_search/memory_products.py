"""The products of an index in memory: arrays of terms, filters, prices and numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from commerce.product_search.memory_postings import Mask, Postings, Rows, TermFields
from commerce.product_search.model import ProductHit

WEIGHTS = {0: 0.0, 1: 0.3, 2: 0.6, 3: 1.0}
"""by the codes in `IndexRow.terms`: only in descriptions, C, B, A"""
_encode_hit = msgspec.msgpack.Encoder().encode
_decode_hit = msgspec.msgpack.Decoder(ProductHit).decode


class IndexRow(NamedTuple):
    """A row of `product_search`.

    `terms` has codes of `WEIGHTS`; `hit` is None if the product is not listed."""

    product_no: int
    change_no: int
    hit: ProductHit | None
    prices: list[int]
    numbers: dict[str, list[float]]
    filters: list[str]
    terms: dict[str, int]


class NumberColumn:
    """The numbers that products have of one attribute."""

    def __init__(self, values: Mapping[int, Sequence[float]]) -> None:
        lengths = [len(row) for row in values.values()]
        self.products = np.fromiter(values.keys(), np.int64, len(values))
        self.lows = np.fromiter((row[0] for row in values.values()), np.float64, len(values))
        self.highs = np.fromiter((row[-1] for row in values.values()), np.float64, len(values))
        self._owners = np.repeat(self.products, lengths)
        self._values = np.fromiter((value for row in values.values() for value in row), np.float64, sum(lengths))

    def mark(self, low: float | None, high: float | None, size: int) -> Mask:
        """Return a mask of the products that have a number between these, both included."""
        mask = np.zeros(size, np.bool_)
        fits = np.ones(len(self._values), np.bool_)
        if low is not None:
            fits &= self._values >= low
        if high is not None:
            fits &= self._values <= high
        mask[self._owners[fits]] = True
        return mask


class MemoryProducts:
    """All products of the index. `change_no` is the last change that it has."""

    def __init__(self) -> None:
        self.change_no = 0
        self.size = 1
        """one more than the highest number of a product"""
        self.listed_count = 0
        self.terms, self.filters = Postings(), Postings()
        self.listed: Mask = np.zeros(1, np.bool_)
        self.min_minor: NDArray[np.int64] = np.zeros(1, np.int64)
        self.max_minor: NDArray[np.int64] = np.zeros(1, np.int64)
        self.currencies: NDArray[np.int16] = np.zeros(1, np.int16)
        self.currency_names: list[str] = []
        self._hits: dict[int, bytes] = {}
        self._numbers: dict[str, dict[int, list[float]]] = {}
        self._prices, self._values = Rows(), Rows()
        self._fields: TermFields | None = None
        self._columns: dict[str, NumberColumn] = {}

    def put(self, rows: Sequence[IndexRow]) -> None:
        """Put rows in the place of those with their numbers."""
        if not rows:
            return
        self._grow(max(row.product_no for row in rows) + 1)
        self.terms.replace({row.product_no: row.terms for row in rows})
        self.filters.replace({row.product_no: dict.fromkeys(row.filters, 0) for row in rows})
        for row in rows:
            self._put_values(row)
        self._prices.replace({row.product_no: row.prices for row in rows}, self.size)
        ids = self.filters.ids
        values = {row.product_no: [ids[name] for name in row.filters if "=" in name] for row in rows}
        self._values.replace(values, self.size)
        self.listed_count = int(self.listed.sum())
        self.change_no = max(self.change_no, *(row.change_no for row in rows))

    def read_hit(self, number: int) -> ProductHit:
        """Return what a list shows of a listed product."""
        return _decode_hit(self._hits[number])

    def count_values(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """Count the filters with values of the products with these numbers, by their ids in `filters`."""
        return np.bincount(self._values.select(numbers), minlength=len(self.filters.terms))

    def count_terms(self, numbers: NDArray[np.int64], term_ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """Count the products with these numbers that have each of some filters with values."""
        cost = self._values.estimate_cost(numbers)
        if cost < len(term_ids) or cost < sum(map(len, lists := self.filters.list_numbers(term_ids))):
            return self.count_values(numbers)[term_ids]
        matching = mark_numbers(numbers, self.size)
        return np.fromiter((np.count_nonzero(matching[own]) for own in lists), np.int64, len(lists))

    def mark_values(self, names: Sequence[str]) -> Mask:
        """Return a mask of the products that have one of some filters with values."""
        return self.filters.mark(names, self.size)

    def mark_prices(self, low: int, high: int, few: NDArray[np.int64] | None = None) -> Mask:
        """Return a mask of all products, or of `few`, that have a list price between these, both included."""
        lows, highs = self.min_minor, self.max_minor
        if few is not None:
            lows, highs = lows[few], highs[few]
        mask = ((lows >= low) & (lows <= high)) | ((highs >= low) & (highs <= high))
        around = np.flatnonzero((lows < low) & (highs > high))  # have a price between these perhaps
        prices = self._prices.open_lists(around if few is None else few[around])
        mask[around] = prices.have_between(low, high)
        return mask

    def open_values(self, few: NDArray[np.int64]) -> Callable[[Sequence[str]], Mask]:
        """Return a function as `mark_values` for some products."""
        lists, ids, end = self._values.open_lists(few), self.filters.ids, len(self.filters.terms)
        return lambda names: lists.have_one([ids[name] for name in names if name in ids], end)

    @property
    def fields(self) -> TermFields:
        """The fields of the filters."""
        if self._fields is None or len(self._fields.of_terms) != len(self.filters.terms):
            self._fields = TermFields(self.filters.terms)
        return self._fields

    @property
    def number_names(self) -> list[str]:
        return list(self._numbers)

    def find_numbers(self, attribute_id: str) -> NumberColumn:
        """Return the numbers of an attribute; an unknown one has none."""
        if attribute_id not in self._columns:
            self._columns[attribute_id] = NumberColumn(self._numbers.get(attribute_id, {}))
        return self._columns[attribute_id]

    def _put_values(self, row: IndexRow) -> None:
        number, hit = row.product_no, row.hit
        self.listed[number] = hit is not None
        for attribute_id, values in self._numbers.items():
            if values.pop(number, None) is not None:
                self._columns.pop(attribute_id, None)
        for attribute_id, numbers in row.numbers.items():
            self._numbers.setdefault(attribute_id, {})[number] = numbers
            self._columns.pop(attribute_id, None)
        if hit is None:
            self._hits.pop(number, None)
            self.min_minor[number] = self.max_minor[number] = 0
            return
        self._hits[number] = _encode_hit(hit)
        self.min_minor[number], self.max_minor[number] = hit.min_minor, hit.max_minor
        if hit.currency not in self.currency_names:
            self.currency_names.append(hit.currency)
        self.currencies[number] = self.currency_names.index(hit.currency)

    def _grow(self, size: int) -> None:
        more = size - self.size
        if more > 0:
            self.listed = np.concatenate([self.listed, np.zeros(more, np.bool_)])
            self.min_minor = np.concatenate([self.min_minor, np.zeros(more, np.int64)])
            self.max_minor = np.concatenate([self.max_minor, np.zeros(more, np.int64)])
            self.currencies = np.concatenate([self.currencies, np.zeros(more, np.int16)])
            self.size = size


def mark_numbers(numbers: NDArray[np.int64], size: int) -> Mask:
    """Return a mask of the products with these numbers."""
    mask = np.zeros(size, np.bool_)
    mask[numbers] = True
    return mask


def mark_bits(bits: bytes, size: int) -> Mask:
    """Return a mask of the products whose bit is set."""
    mask = np.zeros(size, np.bool_)
    unpacked = np.unpackbits(np.frombuffer(bits, np.uint8), bitorder="little")[:size]
    mask[: len(unpacked)] = unpacked
    return mask
