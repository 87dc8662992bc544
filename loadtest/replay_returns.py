"""Returns of the retail data set, each matched to earlier purchases of that customer and product.

Units are taken from the latest purchase first: a customer returns what arrived last, and its time to return ends last.
A line that is not covered in full is refused as a whole, so that nobody is refunded for a part of it.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from loadtest.retail_dataset import RetailDataset, ReturnLine

NO_CUSTOMER = "no customer is named"
NO_PURCHASE = "no purchase in the file"
NO_EARLIER_PURCHASE = "no earlier purchase in the file, only a later one"
OTHER_PRICE = "bought at another price"
MORE_THAN_IS_LEFT = "more than is left of the purchases"


class ReturnedUnits(NamedTuple):
    """Units of one line of a basket that come back.

    `line_no` counts the basket's lines from 0, as its order does."""

    invoice: str
    line_no: int
    quantity: int


@dataclass(frozen=True, slots=True)
class MatchedReturn:
    """A return and the units that it takes from purchases."""

    line: ReturnLine
    units: tuple[ReturnedUnits, ...]


@dataclass(frozen=True, slots=True)
class RefusedReturn:
    """A return that no purchase covers. `reason` is one of a few, `detail` says what there is instead."""

    line: ReturnLine
    reason: str
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}" if self.detail else self.reason


@dataclass(frozen=True, slots=True)
class ReturnPlan:
    """All returns of a file: each is either matched or refused."""

    matched: list[MatchedReturn]
    refused: list[RefusedReturn]

    @property
    def matched_total(self) -> int:
        return sum(matched.line.total for matched in self.matched)

    @property
    def refused_total(self) -> int:
        return sum(refused.line.total for refused in self.refused)

    def count_reasons(self) -> list[tuple[str, int, int]]:
        """Return the reasons of refusal with the number of lines and their amount, the most common first."""
        totals: Counter[str] = Counter()
        for refused in self.refused:
            totals[refused.reason] += refused.line.total
        counts = Counter(refused.reason for refused in self.refused)
        return [(reason, count, totals[reason]) for reason, count in counts.most_common()]


@dataclass(slots=True)
class _Purchase:
    """A line of a basket, with the units that no return has taken."""

    invoice: str
    line_no: int
    sku: str
    price: int
    basket_no: int
    left: int


def match_returns(dataset: RetailDataset) -> ReturnPlan:
    """Match every return of a file, in the order of the file."""
    purchases: dict[tuple[str, str], list[_Purchase]] = defaultdict(list)
    for user_id, code, purchase in _list_purchases(dataset):
        purchases[user_id, code].append(purchase)
    plan = ReturnPlan([], [])
    for line in dataset.returns:
        result = _match(line, purchases.get((line.user_id or "", line.code), []))
        if isinstance(result, MatchedReturn):
            plan.matched.append(result)
        else:
            plan.refused.append(result)
    return plan


def _list_purchases(dataset: RetailDataset) -> Iterator[tuple[str, str, _Purchase]]:
    """Yield customer, stock code and purchase of every line of every basket."""
    for basket_no, basket in enumerate(dataset.baskets):
        for line_no, line in enumerate(basket.lines):
            purchase = _Purchase(basket.invoice, line_no, line.sku, line.price, basket_no, line.quantity)
            yield basket.user_id, dataset.codes[line.sku], purchase


def _match(line: ReturnLine, purchases: list[_Purchase]) -> MatchedReturn | RefusedReturn:
    """Take a return's units from the purchases of its customer and product, or say why not."""
    if line.problem is not None:
        return RefusedReturn(line, line.problem)
    if line.user_id is None:
        return RefusedReturn(line, NO_CUSTOMER)
    earlier = [purchase for purchase in purchases if purchase.basket_no < line.baskets_before]
    if not earlier:
        return RefusedReturn(line, NO_EARLIER_PURCHASE if purchases else NO_PURCHASE)
    same = [purchase for purchase in earlier if purchase.price == line.price]
    if not same:
        prices = sorted({purchase.price for purchase in earlier})
        return RefusedReturn(line, OTHER_PRICE, f"for {prices} pennies, not {line.price}")
    left = sum(purchase.left for purchase in same)
    if line.quantity > left:
        return RefusedReturn(line, MORE_THAN_IS_LEFT, f"{left} units are left, not {line.quantity}")
    units, missing = [], line.quantity
    for purchase in sorted(same, key=lambda purchase: (-purchase.basket_no, purchase.line_no)):
        taken = min(missing, purchase.left)
        if taken:
            purchase.left -= taken
            missing -= taken
            units.append(ReturnedUnits(purchase.invoice, purchase.line_no, taken))
    return MatchedReturn(line, tuple(units))
