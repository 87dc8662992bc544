"""Names of products that may be the same one."""

from __future__ import annotations

import random
import string

import pytest

from commerce.product_quality.like_titles import are_like, compute_bands, fold_title


@pytest.mark.parametrize(
    ("title", "other", "expected"),
    [
        ("iPhone 15 Pro 128GB", "IPHONE 15 PRO, 128 gb", True),
        ("iPhone 15 Pro 128GB", "iPhone 15 Pro 256GB", False),
        ("Cotton T-shirt white", "White cotton T-shirt", True),
        ("棉质短袖T恤 白色", "白色 棉质短袖T恤", True),
        ("Wireless Mouse", "Wireles Mouse", True),
        ("Ceramic mug with blue handle", "Ceramic mug with a blue handle", True),
        ("Ceramic mug blue", "Ceramic mug red", False),
        ("Shirt", "Skirt", False),
        ("Café crème", "cafe creme", True),
        ("Ｗｉｄｅ mug", "wide mug", True),
        ("!!!", "???", False),
    ],
)
def test_names_are_like_but_for_spelling(title: str, other: str, expected: bool) -> None:
    assert are_like(title, other) is expected
    assert are_like(other, title) is expected
    if expected:
        assert set(compute_bands([title])) & set(compute_bands([other]))


def test_names_without_letters_have_no_bands() -> None:
    assert compute_bands(["!!!", ""]) == []
    assert fold_title("  Tea - POT 3 ") == "tea pot 3"


def test_bands_are_numbers_of_32_bits_that_stay_the_same() -> None:
    bands = compute_bands(["Stoneware mug 300 ml"])
    assert bands == compute_bands(["Stoneware mug 300 ml", "Stoneware mug 300 ml"])
    assert len(bands) == 8
    assert all(-(2**31) <= band < 2**31 for band in bands)
    assert len(compute_bands([f"name {letter * 9}" for letter in string.ascii_letters])) <= 32


def test_like_names_share_a_band_and_others_do_not() -> None:
    chance = random.Random(7)
    words = ["".join(chance.choices(string.ascii_lowercase, k=chance.randint(4, 9))) for _ in range(400)]
    missed = shared = 0
    for _ in range(300):
        title = " ".join(chance.sample(words, 6))
        at = chance.randrange(len(title))
        typo = title[:at] + title[at + 1 :]
        assert are_like(title, typo) or " " in title[at]
        missed += not set(compute_bands([title])) & set(compute_bands([typo]))
        other = " ".join(chance.sample(words, 6))
        shared += bool(set(compute_bands([title])) & set(compute_bands([other])))
    assert missed <= 9
    assert shared <= 9
