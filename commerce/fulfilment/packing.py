"""Packs the units for one address into few boxes, none too heavy or too full."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from commerce.shipping.errors import CannotShip
from commerce.shipping.policy import BoxRule

WALLS_MM = 10
"""Added to each inner side of a box for its outer side."""
Sides = tuple[int, int, int]
"""Millimetres, the shortest first."""


class PackItem(msgspec.Struct, frozen=True):
    """Identical units of an order line. Weight and sides are those of one unit in its own packing."""

    line_no: int
    sku: str
    quantity: int
    weight_g: int
    length_mm: int
    width_mm: int
    height_mm: int


class PackedBox(msgspec.Struct, frozen=True):
    """A packed box: outer sides, total weight, units by line number.

    `box` is None for a unit sent without a box.
    """

    box: str | None
    length_mm: int
    width_mm: int
    height_mm: int
    weight_g: int
    contents: dict[int, int]


class _BoxCapacity(NamedTuple):
    """The limits of a box. `volume` is the part of its space (mm³) that units may take."""

    volume: int
    max_contents_g: int
    sides: Sides
    box: BoxRule


class _OpenBox:
    """A box that is being filled."""

    def __init__(self) -> None:
        self.weight_g = 0
        self.volume = 0
        self.sides: Sides = (0, 0, 0)
        self.contents: dict[int, int] = {}

    def room_for(self, item: PackItem, capacity: _BoxCapacity) -> int:
        """Return how many more units of the item fit by weight and by volume."""
        by_weight = (capacity.max_contents_g - self.weight_g) // item.weight_g
        return min(by_weight, (capacity.volume - self.volume) // _volume(item))

    def add(self, item: PackItem, units: int) -> None:
        self.weight_g += units * item.weight_g
        self.volume += units * _volume(item)
        shortest, middle, longest = map(max, self.sides, _sides(item))
        self.sides = shortest, middle, longest
        self.contents[item.line_no] = self.contents.get(item.line_no, 0) + units

    def fits(self, capacity: _BoxCapacity) -> bool:
        by_sides = all(side <= inner for side, inner in zip(self.sides, capacity.sides, strict=True))
        return by_sides and self.weight_g <= capacity.max_contents_g and self.volume <= capacity.volume


def pack(items: Sequence[PackItem], boxes: Sequence[BoxRule], fill_ratio: float, max_boxes: int) -> list[PackedBox]:
    """Pack all units of all items. The result does not depend on the order of items or boxes.

    First fit decreasing by weight and volume into the largest box that an item fits, turned as needed; then each open
    box is replaced by the smallest box that holds its contents. Units may take the share `fill_ratio` of a box's space:
    their positions are not computed, and the rest of the space allows for that. A unit that fits no box is sent in its
    own packing.

    Raises `CannotShip` if more than `max_boxes` are needed. The work grows with items times boxes, not with units.

    If all items fit the largest box, there are at most d + 1/3 = 7/3 times as many boxes as in the best packing into
    that box, for d = 2 limits and up to a constant. Source, for first fit decreasing by the largest share of a limit:
    M. R. Garey, R. L. Graham, D. S. Johnson, A. C. Yao, "Resource constrained scheduling as generalized bin packing",
    Journal of Combinatorial Theory A 21 (1976) 257-298, https://doi.org/10.1016/0097-3165(76)90001-7
    """
    capacities = sorted((_capacity(box, fill_ratio) for box in boxes), key=lambda each: (*each[:3], each.box.name))
    remaining = sorted(items, key=lambda item: (item.line_no, item.sku, item.quantity))
    packed: list[PackedBox] = []
    for capacity in reversed(capacities):
        fitting = [item for item in remaining if _fits(item, capacity)]
        remaining = [item for item in remaining if not _fits(item, capacity)]
        open_boxes = _first_fit_decreasing(fitting, capacity, max_boxes - len(packed))
        packed += [_close_in_smallest(open_box, capacities) for open_box in open_boxes]
    for item in remaining:
        _check_count(len(packed) + item.quantity, max_boxes)
        packed += [_without_box(item) for _ in range(item.quantity)]
    return packed


def _capacity(box: BoxRule, fill_ratio: float) -> _BoxCapacity:
    shortest, middle, longest = sorted((box.length_mm, box.width_mm, box.height_mm))
    volume = int(shortest * middle * longest * fill_ratio)
    return _BoxCapacity(volume, box.max_contents_g, (shortest, middle, longest), box)


def _volume(item: PackItem) -> int:
    return item.length_mm * item.width_mm * item.height_mm


def _sides(item: PackItem) -> Sides:
    shortest, middle, longest = sorted((item.length_mm, item.width_mm, item.height_mm))
    return shortest, middle, longest


def _fits(item: PackItem, capacity: _BoxCapacity) -> bool:
    open_box = _OpenBox()
    open_box.add(item, 1)
    return open_box.fits(capacity)


def _first_fit_decreasing(items: list[PackItem], capacity: _BoxCapacity, max_boxes: int) -> list[_OpenBox]:
    # The largest share of a limit, multiplied by both limits, so that no fraction is rounded.
    items = sorted(
        items, key=lambda item: -max(item.weight_g * capacity.volume, _volume(item) * capacity.max_contents_g)
    )
    open_boxes: list[_OpenBox] = []
    for item in items:
        units = item.quantity
        for open_box in open_boxes:
            if (added := min(units, open_box.room_for(item, capacity))) > 0:
                open_box.add(item, added)
                units -= added
        while units:
            _check_count(len(open_boxes) + 1, max_boxes)
            open_box = _OpenBox()
            added = min(units, open_box.room_for(item, capacity))
            open_box.add(item, added)
            open_boxes.append(open_box)
            units -= added
    return open_boxes


def _close_in_smallest(open_box: _OpenBox, capacities: list[_BoxCapacity]) -> PackedBox:
    box = next(capacity.box for capacity in capacities if open_box.fits(capacity))
    outer = box.length_mm + WALLS_MM, box.width_mm + WALLS_MM, box.height_mm + WALLS_MM
    return PackedBox(box.name, *outer, open_box.weight_g + box.weight_g, open_box.contents)


def _without_box(item: PackItem) -> PackedBox:
    return PackedBox(None, item.length_mm, item.width_mm, item.height_mm, item.weight_g, {item.line_no: 1})


def _check_count(count: int, max_boxes: int) -> None:
    if count > max_boxes:
        raise CannotShip(
            f"the order needs more than {max_boxes} shipments; raise shipping.shipments_per_order, add a larger box to "
            "shipping.boxes, or have it delivered by other means"
        )
