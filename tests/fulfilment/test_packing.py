"""Packing: all units are kept, no limit is exceeded, and there are few boxes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import pairwise
from random import Random
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from commerce.fulfilment.packing import WALLS_MM, PackedBox, PackItem, pack
from commerce.shipping.errors import CannotShip


class Box(NamedTuple):
    """A box as the settings describe it."""

    name: str
    length_mm: int
    width_mm: int
    height_mm: int
    weight_g: int
    max_contents_g: int


S = Box("S", 250, 200, 100, 120, 3_000)
M = Box("M", 400, 300, 200, 350, 10_000)
L = Box("L", 600, 400, 400, 800, 25_000)
TUBE = Box("tube", 1200, 100, 100, 200, 4_000)
BOXES = [M, S, L]

sides = st.one_of(st.integers(1, 150), st.sampled_from([100, 200, 250, 400, 401, 600, 601, 900, 1200]))
weights = st.one_of(st.integers(1, 2_000), st.sampled_from([3_000, 3_001, 12_500, 12_501, 25_000, 25_001, 1_000_000]))
quantities = st.one_of(st.integers(1, 5), st.integers(1, 60))
box_sets = st.lists(st.sampled_from([S, M, L, TUBE]), max_size=4, unique=True)
fills = st.sampled_from([0.1, 0.8, 1.0])


@st.composite
def pack_items(draw: st.DrawFn) -> list[PackItem]:
    parts = draw(st.lists(st.tuples(quantities, weights, sides, sides, sides), max_size=12))
    return [PackItem(line, f"sku{line}", *part) for line, part in enumerate(parts)]


def volume(item: PackItem) -> int:
    return item.length_mm * item.width_mm * item.height_mm


def room(box: Box) -> int:
    return box.length_mm * box.width_mm * box.height_mm


def fits(item: PackItem, box: Box, fill: float) -> bool:
    inside = sorted((box.length_mm, box.width_mm, box.height_mm))
    turned = sorted((item.length_mm, item.width_mm, item.height_mm))
    by_side = turned[0] <= inside[0] and turned[1] <= inside[1] and turned[2] <= inside[2]
    return by_side and item.weight_g <= box.max_contents_g and volume(item) <= room(box) * fill


def loads(packed: PackedBox, items: Sequence[PackItem]) -> tuple[int, int]:
    """Return the weight and volume of the contents of a box."""
    by_line = {item.line_no: item for item in items}
    contents = [(by_line[line], units) for line, units in packed.contents.items()]
    weight_g = sum(item.weight_g * units for item, units in contents)
    return weight_g, sum(volume(item) * units for item, units in contents)


def holds(box: Box, packed: PackedBox, items: Sequence[PackItem], fill: float) -> bool:
    weight_g, used_volume = loads(packed, items)
    contents = [item for item in items if item.line_no in packed.contents]
    return (
        weight_g <= box.max_contents_g
        and used_volume <= room(box) * fill
        and all(fits(item, box, fill) for item in contents)
    )


@settings(max_examples=150, deadline=None)
@given(items=pack_items(), boxes=box_sets, fill=fills)
def test_pack_any_items_keeps_all_units_and_all_limits(items: list[PackItem], boxes: list[Box], fill: float) -> None:
    packed_boxes = pack(items, boxes, fill, 10_000)
    for item in items:
        assert sum(packed.contents.get(item.line_no, 0) for packed in packed_boxes) == item.quantity
    by_name = {box.name: box for box in boxes}
    for packed in packed_boxes:
        assert all(units > 0 for units in packed.contents.values())
        outside = packed.length_mm, packed.width_mm, packed.height_mm
        if packed.box is None:
            [(line, units)] = packed.contents.items()
            item = items[line]
            assert units == 1
            assert not any(fits(item, box, fill) for box in boxes)
            assert (*outside, packed.weight_g) == (item.length_mm, item.width_mm, item.height_mm, item.weight_g)
        else:
            box = by_name[packed.box]
            assert holds(box, packed, items, fill)
            assert outside == (box.length_mm + WALLS_MM, box.width_mm + WALLS_MM, box.height_mm + WALLS_MM)
            assert packed.weight_g == box.weight_g + loads(packed, items)[0]
            smaller = [other for other in boxes if room(other) < room(box)]
            assert not any(holds(other, packed, items, fill) for other in smaller)


@settings(max_examples=60, deadline=None)
@given(items=pack_items(), boxes=box_sets, chance=st.randoms(use_true_random=False))
def test_pack_in_any_order_returns_equal_boxes(items: list[PackItem], boxes: list[Box], chance: Random) -> None:
    first = pack(items, boxes, 0.8, 10_000)
    chance.shuffle(items)
    chance.shuffle(boxes)
    assert pack(items, boxes, 0.8, 10_000) == first


@settings(max_examples=100, deadline=None)
@given(items=pack_items())
def test_pack_two_consecutive_boxes_hold_more_than_one_could(items: list[PackItem]) -> None:
    """The first unit of a box did not fit the one before.

    So there are fewer boxes than four times the number that weight or volume requires at least, plus one.
    """
    items = [item for item in items if fits(item, L, 0.8)]
    packed_boxes = pack(items, [L], 0.8, 10_000)
    all_loads = [loads(packed, items) for packed in packed_boxes]
    for (weight_a, volume_a), (weight_b, volume_b) in pairwise(all_loads):
        assert weight_a + weight_b > L.max_contents_g or volume_a + volume_b > room(L) * 0.8
    min_boxes = max(
        sum(weight for weight, _ in all_loads) / L.max_contents_g, sum(used for _, used in all_loads) / (room(L) * 0.8)
    )
    assert len(packed_boxes) < 4 * min_boxes + 1


@st.composite
def full_boxes(draw: st.DrawFn) -> tuple[int, list[PackItem]]:
    """Draw a number of boxes of 100 x 100 x 100 mm and 10 kg, and items that fill them completely."""
    count = draw(st.integers(1, 30))
    chance = draw(st.randoms(use_true_random=False))
    items = []
    for _ in range(count):
        parts = chance.randint(1, 6)
        heights = [0, *sorted(chance.sample(range(1, 100), parts - 1)), 100]
        loads = [0, *sorted(chance.sample(range(1, 10_000), parts - 1)), 10_000]
        for (low, high), (light, heavy) in zip(pairwise(heights), pairwise(loads), strict=True):
            items.append(PackItem(len(items), "slab", 1, heavy - light, 100, high - low, 100))
    return count, items


@settings(max_examples=40, deadline=None)
@given(example=full_boxes())
def test_pack_box_count_is_within_bound_of_best_packing(example: tuple[int, list[PackItem]]) -> None:
    best, items = example
    packed_boxes = pack(items, [Box("full", 100, 100, 100, 1, 10_000)], 1.0, 10_000)
    assert best <= len(packed_boxes) <= best * 7 / 3 + 1


def test_pack_uses_smallest_box_that_holds_contents() -> None:
    def box(*item: int) -> str | None:
        [packed] = pack([PackItem(0, "a", *item)], BOXES, 0.8, 10)
        return packed.box

    assert box(1, 3_000, 200, 100, 250) == "M"  # S has the sides but not the volume, of which four fifths may be used
    assert box(1, 3_000, 250, 90, 170) == "S"
    assert box(1, 3_001, 250, 90, 170) == "M"
    assert box(1, 100, 251, 1, 1) == "M"
    assert box(2, 12_500, 10, 10, 10) == "L"
    assert box(1, 25_001, 10, 10, 10) is None
    assert box(1, 10, 601, 10, 10) is None


def test_pack_unit_that_fits_no_box_is_sent_without_box() -> None:
    packed_boxes = pack(
        [PackItem(3, "ladder", 2, 9_000, 2_000, 400, 100), PackItem(4, "nail", 5, 1, 5, 5, 50)], BOXES, 0.8, 10
    )
    assert packed_boxes == [
        PackedBox("S", 260, 210, 110, 125, {4: 5}),
        PackedBox(None, 2_000, 400, 100, 9_000, {3: 1}),
        PackedBox(None, 2_000, 400, 100, 9_000, {3: 1}),
    ]
    assert pack([], BOXES, 0.8, 0) == []


def test_pack_long_item_uses_long_box() -> None:
    packed_boxes = pack(
        [PackItem(0, "pole", 3, 100, 1_100, 20, 20), PackItem(1, "ball", 1, 100, 90, 90, 90)], [L, TUBE], 0.8, 10
    )
    assert [(packed.box, packed.contents) for packed in packed_boxes] == [("tube", {1: 1}), ("tube", {0: 3})]


@pytest.mark.parametrize(
    "item", [PackItem(0, "cable", 1_000_000, 900, 10, 10, 10), PackItem(0, "ladder", 1_000_000, 9, 2_000, 1, 1)]
)
def test_pack_into_too_many_boxes_is_refused_quickly(item: PackItem) -> None:
    started = time.perf_counter()
    with pytest.raises(CannotShip, match=r"shipping\.shipments_per_order"):
        pack([item], BOXES, 0.8, 200)
    assert time.perf_counter() - started < 0.1


def test_pack_into_exactly_max_boxes_succeeds() -> None:
    for item in (PackItem(0, "a", 8, 25_000, 10, 10, 10), PackItem(0, "b", 8, 1, 2_000, 1, 1)):
        assert len(pack([item], BOXES, 0.8, 8)) == 8
        with pytest.raises(CannotShip):
            pack([item], BOXES, 0.8, 7)


def test_pack_large_order_takes_little_time() -> None:
    chance = Random(1)
    small_items = [
        PackItem(n, "x", 100, chance.randint(5, 40), *(chance.randint(5, 60) for _ in range(3))) for n in range(1_000)
    ]
    started = time.perf_counter()
    packed_boxes = pack(small_items, BOXES, 0.8, 200)
    cables = pack([PackItem(0, "cable", 100_000, 40, 100, 80, 20)], BOXES, 0.8, 250)
    assert time.perf_counter() - started < 1.5
    assert sum(units for packed in packed_boxes for units in packed.contents.values()) == 100_000
    assert sum(packed.contents[0] for packed in cables) == 100_000
    assert [packed.contents[0] for packed in cables] == [480] * 208 + [160]
