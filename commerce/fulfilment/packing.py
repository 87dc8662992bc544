"""Packs goods for one address into boxes: few parcels, none too heavy or too full."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from commerce.shipping.errors import CannotShip

WALLS_MM = 10
"""What a box adds to each of its inner sides."""
Sides = tuple[int, int, int]
"""In mm, the shortest first."""


class PackItem(msgspec.Struct, frozen=True):
    """Units of a line, all alike; weight and sides are those of one, in its own packing."""

    line: int
    sku: str
    quantity: int
    weight_g: int
    length_mm: int
    width_mm: int
    height_mm: int


class Box(msgspec.Struct, frozen=True):
    """A box measured inside; `weight_g` is that of the box, `max_contents_g` of what it may hold."""

    name: str
    length_mm: int
    width_mm: int
    height_mm: int
    weight_g: int
    max_contents_g: int


class PackedBox(msgspec.Struct, frozen=True):
    """A parcel as it is handed over: its outer sides and whole weight, units by line, no box where goods need none."""

    box: str | None
    length_mm: int
    width_mm: int
    height_mm: int
    weight_g: int
    contents: dict[int, int]


class _Room(NamedTuple):
    """What a box offers; `volume` is the part of it that goods may take."""

    volume: int
    max_contents_g: int
    sides: Sides
    box: Box


class _Filled:
    """A parcel in the making."""

    def __init__(self) -> None:
        self.weight_g = 0
        self.volume = 0
        self.sides: Sides = (0, 0, 0)
        self.contents: dict[int, int] = {}

    def takes(self, item: PackItem, room: _Room) -> int:
        """How many units more."""
        by_weight = (room.max_contents_g - self.weight_g) // item.weight_g
        return min(by_weight, (room.volume - self.volume) // _volume(item))

    def add(self, item: PackItem, units: int) -> None:
        self.weight_g += units * item.weight_g
        self.volume += units * _volume(item)
        shortest, middle, longest = map(max, self.sides, _sides(item))
        self.sides = shortest, middle, longest
        self.contents[item.line] = self.contents.get(item.line, 0) + units

    def fits(self, room: _Room) -> bool:
        fits = all(side <= inside for side, inside in zip(self.sides, room.sides, strict=True))
        return fits and self.weight_g <= room.max_contents_g and self.volume <= room.volume


def pack(items: Sequence[PackItem], boxes: Sequence[Box], fill: float, most: int) -> list[PackedBox]:
    """Parcels that hold all units of all items, the same for the same goods in any order.

    First fit decreasing by weight and volume into the largest box that an item fits, turned as need be; then each
    parcel goes into the smallest box that holds it. Goods may take the share `fill` of a box's room: how they lie in it
    is not worked out, the rest of the room is there for that. What fits no box travels by itself in its own packing.

    Raises `Unsendable` over `most` parcels. The work grows with items times parcels, not with units.

    Goods that all fit the largest box make at most d + 1/3 = 7/3 times as many parcels as the best packing into that
    box, for d = 2 limits and but for a constant. First fit decreasing by the largest share of a limit: M. R. Garey,
    R. L. Graham, D. S. Johnson, A. C. Yao, "Resource constrained scheduling as generalized bin packing", Journal of
    Combinatorial Theory A 21 (1976) 257-298, https://doi.org/10.1016/0097-3165(76)90001-7
    """
    rooms = sorted((_room(box, fill) for box in boxes), key=lambda room: (*room[:3], room.box.name))
    left = sorted(items, key=lambda item: (item.line, item.sku, item.quantity))
    parcels: list[PackedBox] = []
    for room in reversed(rooms):
        fitting = [item for item in left if _fits(item, room)]
        left = [item for item in left if not _fits(item, room)]
        filled = _first_fit_decreasing(fitting, room, most - len(parcels))
        parcels += [_in_smallest(parcel, rooms) for parcel in filled]
    for item in left:
        _check_count(len(parcels) + item.quantity, most)
        parcels += [_as_it_is(item) for _ in range(item.quantity)]
    return parcels


def _room(box: Box, fill: float) -> _Room:
    shortest, middle, longest = sorted((box.length_mm, box.width_mm, box.height_mm))
    return _Room(int(shortest * middle * longest * fill), box.max_contents_g, (shortest, middle, longest), box)


def _volume(item: PackItem) -> int:
    return item.length_mm * item.width_mm * item.height_mm


def _sides(item: PackItem) -> Sides:
    shortest, middle, longest = sorted((item.length_mm, item.width_mm, item.height_mm))
    return shortest, middle, longest


def _fits(item: PackItem, room: _Room) -> bool:
    one = _Filled()
    one.add(item, 1)
    return one.fits(room)


def _first_fit_decreasing(items: list[PackItem], room: _Room, most: int) -> list[_Filled]:
    # The largest share of a limit, multiplied by both limits, so that no fraction is rounded.
    items = sorted(items, key=lambda item: -max(item.weight_g * room.volume, _volume(item) * room.max_contents_g))
    parcels: list[_Filled] = []
    for item in items:
        units = item.quantity
        for parcel in parcels:
            if (taken := min(units, parcel.takes(item, room))) > 0:
                parcel.add(item, taken)
                units -= taken
        while units:
            _check_count(len(parcels) + 1, most)
            parcel = _Filled()
            taken = min(units, parcel.takes(item, room))
            parcel.add(item, taken)
            parcels.append(parcel)
            units -= taken
    return parcels


def _in_smallest(parcel: _Filled, rooms: list[_Room]) -> PackedBox:
    box = next(room.box for room in rooms if parcel.fits(room))
    outside = box.length_mm + WALLS_MM, box.width_mm + WALLS_MM, box.height_mm + WALLS_MM
    return PackedBox(box.name, *outside, parcel.weight_g + box.weight_g, parcel.contents)


def _as_it_is(item: PackItem) -> PackedBox:
    sides = item.length_mm, item.width_mm, item.height_mm
    return PackedBox(None, *sides, item.weight_g, {item.line: 1})


def _check_count(parcels: int, most: int) -> None:
    if parcels > most:
        raise CannotShip(
            "its goods make too many parcels: raise shipping.shipments_per_order, add a larger box to shipping.boxes, or "
            "have them brought another way"
        )
