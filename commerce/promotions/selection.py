"""Chooses the candidates of a class that together take the greatest amount off and touch no SKU twice.

The choice is exact: a search over the candidates that exclude each other, which remembers what it has solved. It
depends on the candidates only. Of equal sums the one is chosen that has the smallest promotion id in which they
differ.
"""

from __future__ import annotations

from collections.abc import Sequence

from commerce.promotions.candidates import Candidate

MAX_SUBPROBLEMS = 1_000
"""Bound of the search, beyond which the rest is chosen greedily.

Rules that people think of do not reach it."""
_Choice = tuple[int, int]
"""The sum of a set and its rank.

The rank has a bit for each candidate, a higher one for a smaller index."""


def choose(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Choose the best candidates of a class, in the given sequence.

    At most one of them is for each SKU alone.
    """
    touched = 0
    for candidate in candidates:
        touched += len(candidate.skus)
    if touched == len({sku for candidate in candidates for sku in candidate.skus}):
        return list(candidates)  # none excludes another, as is usual
    return _Search(candidates).run()


class _Search:
    """Sets of candidates as bits of integers: the best set of those that are still possible."""

    def __init__(self, candidates: Sequence[Candidate]) -> None:
        self._candidates = candidates
        self._count = len(candidates)
        self._bits = [1 << (self._count - 1 - index) for index in range(self._count)]
        touching: dict[str, int] = {}
        for candidate, bit in zip(candidates, self._bits, strict=True):
            for sku in candidate.skus:
                touching[sku] = touching.get(sku, 0) | bit
        self._excluded = []
        for candidate, bit in zip(candidates, self._bits, strict=True):
            excluded = 0
            for sku in candidate.skus:
                excluded |= touching[sku]
            self._excluded.append(excluded & ~bit)
        # Each exclusion has a candidate of several SKUs on one side at least, so to branch on these is enough.
        self._branching = [index for index, candidate in enumerate(candidates) if len(candidate.skus) > 1]
        self._solved: dict[int, _Choice] = {}

    def run(self) -> list[Candidate]:
        _, rank = self._solve((1 << self._count) - 1)
        return [candidate for candidate, bit in zip(self._candidates, self._bits, strict=True) if rank & bit]

    def _solve(self, possible: int) -> _Choice:
        """Solve each component alone: candidates of different ones do not exclude each other."""
        amount = rank = 0
        while possible:
            component = self._first_component(possible)
            possible &= ~component
            part = self._solved.get(component) or self._solve_component(component)
            amount += part[0]
            rank |= part[1]
        return amount, rank

    def _first_component(self, possible: int) -> int:
        component = frontier = 1 << (possible.bit_length() - 1)
        while frontier:
            index = self._count - frontier.bit_length()
            reached = self._excluded[index] & possible & ~component
            component |= reached
            frontier = (frontier | reached) & ~self._bits[index]
        return component

    def _solve_component(self, component: int) -> _Choice:
        if not component & (component - 1):
            return self._candidates[self._count - component.bit_length()].amount, component
        if len(self._solved) >= MAX_SUBPROBLEMS:
            return self._take_greedily(component)
        index = max(
            (index for index in self._branching if component & self._bits[index]),
            key=lambda index: (component & self._excluded[index]).bit_count(),
        )
        bit = self._bits[index]
        amount, rank = self._solve(component & ~bit & ~self._excluded[index])
        choice = max((amount + self._candidates[index].amount, rank | bit), self._solve(component & ~bit))
        self._solved[component] = choice
        return choice

    def _take_greedily(self, possible: int) -> _Choice:
        amount = rank = 0
        for index in sorted(range(self._count), key=lambda index: (-self._candidates[index].amount, index)):
            if possible & self._bits[index]:
                amount += self._candidates[index].amount
                rank |= self._bits[index]
                possible &= ~self._excluded[index]
        return amount, rank
