"""Earlier rows that together take all cases of a row, which one alone does not. Without I/O.

Values of a subject that the same rows contain are alike, so one of them is tried for all, and only where fewest rows
are left. What rows say of different subjects is taken to be independent: a row is found only if no case at all is left.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from math import isfinite

from commerce.case_rules.match_regions import (
    DOMAINS,
    AmountRegion,
    Choice,
    Interval,
    ProductRegion,
    Region,
    Regions,
    Subset,
)

MAX_STEPS = 20_000
_ANYTHING = Interval(0, float("inf"))
_OTHER = "another one"
"""a sale or currency that no row names"""


class CoverSearch:
    """Looks for joint covers of the rows of a rule set, in at most `max_steps` for all of them.

    Rows that are left then are not looked at: such a set is stored as it is."""

    def __init__(self, max_steps: int = MAX_STEPS) -> None:
        self._steps_left = max_steps

    def find(self, earlier: Sequence[Regions], later: Regions) -> list[int]:
        """Return the places of rows that together take all cases of a later one, and none too many.

        Empty if a case is left, or might be."""
        rows = [row for row, regions in enumerate(earlier) if regions and _meets(regions, later)]
        if not self._is_covered([earlier[row] for row in rows], later):
            return []
        for row in list(rows):
            others = [other for other in rows if other != row]
            if self._is_covered([earlier[other] for other in others], later):
                rows = others
        return rows

    def _is_covered(self, rows: Sequence[Regions], later: Regions) -> bool:
        """Tell whether each case of `later` matches one of the rows. Sets of rows are bits of a number."""
        names = sorted({name for regions in rows for name in regions})
        choices = [_drop_supersets(_list_choices(name, rows, later.get(name))) for name in names]
        free = [
            sum(1 << row for row, regions in enumerate(rows) if regions.keys().isdisjoint(names[place:]))
            for place in range(len(names) + 1)
        ]
        results: dict[tuple[int, int], bool] = {}

        def is_covered(place: int, left: int) -> bool:
            """Tell whether the rows that are left take whatever the subjects from a place on may be."""
            if left & free[place] or not left:
                return bool(left)
            if (place, left) not in results:
                self._steps_left -= 1
                results[place, left] = self._steps_left > 0 and all(
                    is_covered(place + 1, rest) for rest in _drop_supersets(left & choice for choice in choices[place])
                )
            return results[place, left]

        return is_covered(0, (1 << len(rows)) - 1)


def _meets(regions: Regions, later: Regions) -> bool:
    """Tell whether a row has values in common with another one, as far as each subject can tell."""
    return all(any(_list_choices(name, [regions], later.get(name))) for name in regions)


def _drop_supersets(sets: Iterable[int]) -> list[int]:
    """Return the sets without supersets of others, the smallest first: they decide for all."""
    kept: list[int] = []
    for rows in sorted(set(sets), key=int.bit_count):
        if not any(rows & smaller == smaller for smaller in kept):
            kept.append(rows)
    return kept


def _list_choices(name: str, rows: Sequence[Regions], later: Region | None) -> list[int]:
    """List which rows contain each value that a later row allows for a subject."""
    regions = [(1 << row, row_regions.get(name)) for row, row_regions in enumerate(rows)]
    always = sum(bit for bit, region in regions if region is None)
    some = [(bit, region) for bit, region in regions if region is not None]
    if isinstance(some[0][1], ProductRegion | Subset):
        # Who contains a set contains its parts, too: the largest set decides. Without a bound nobody contains it.
        return [always | sum(bit for bit, region in some if later is not None and region.covers(later))]
    values = _list_values(name, [region for _, region in some], later)
    return [always | sum(bit for bit, region in some if region.contains(value)) for value in values]


def _list_values(name: str, regions: Sequence[Region], later: Region | None) -> Iterator[object]:
    """Yield values of a later region, all if it is None: one of each kind that the regions tell apart."""
    first = regions[0]
    if isinstance(first, Choice):
        named = frozenset().union(*(region.values for region in regions if isinstance(region, Choice)))
        everything = DOMAINS.get(name) or (frozenset({True, False}) if named <= {True, False} else named | {_OTHER})
        yield from later.values if isinstance(later, Choice) else everything
    elif isinstance(first, Interval):
        intervals = [region for region in regions if isinstance(region, Interval)]
        yield from _list_numbers(intervals, later if isinstance(later, Interval) else _ANYTHING)
        if later is None and name == "days":
            yield None
    else:
        amounts = [region.intervals for region in regions if isinstance(region, AmountRegion)]
        allowed = later.intervals if isinstance(later, AmountRegion) else None
        for currency in {_OTHER}.union(*amounts) if allowed is None else allowed:
            intervals = [each[currency] for each in amounts if currency in each]
            wanted = _ANYTHING if allowed is None else allowed[currency]
            yield from ((currency, number) for number in _list_numbers(intervals, wanted))
            if allowed is None:
                yield currency, None


def _list_numbers(intervals: Sequence[Interval], allowed: Interval) -> Iterator[float]:
    """Yield the lowest allowed number, and the first ones within and after each interval."""
    numbers = {max(0, allowed.low), *(each.low for each in intervals), *(each.high + 1 for each in intervals)}
    yield from sorted(number for number in numbers if isfinite(number) and allowed.contains(number))
