"""Check digits of barcodes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from commerce.catalog.gtin import check_gtin, compute_check_digit


def digits_of(*lengths: int) -> st.SearchStrategy[str]:
    return st.sampled_from(lengths).flatmap(lambda length: st.text("0123456789", min_size=length, max_size=length))


DIGITS = digits_of(7, 11, 12, 13)


@pytest.mark.parametrize(
    "barcode", ["4006381333931", "036000291452", "73513537", "10614141000415", "5901234123457", "96385074"]
)
def test_barcodes_of_real_products_are_right(barcode: str) -> None:
    check_gtin(barcode)


@given(digits=DIGITS, wrong=st.integers(1, 9))
def test_exactly_one_check_digit_is_right_and_the_refusal_names_it(digits: str, wrong: int) -> None:
    right = compute_check_digit(digits)
    check_gtin(digits + right)
    with pytest.raises(ValueError, match=f"the check digit of {digits} is {right}"):
        check_gtin(f"{digits}{(int(right) + wrong) % 10}")


@given(digits=DIGITS, place=st.integers(0, 12), other=st.integers(1, 9))
def test_one_mistyped_digit_is_found(digits: str, place: int, other: int) -> None:
    barcode = digits + compute_check_digit(digits)
    place %= len(digits)
    mistyped = f"{barcode[:place]}{(int(barcode[place]) + other) % 10}{barcode[place + 1 :]}"
    with pytest.raises(ValueError, match="the check digit of"):
        check_gtin(mistyped)


@given(digits=digits_of(7, 11, 12))
def test_shorter_barcode_with_zeros_before_it_has_the_same_check_digit(digits: str) -> None:
    assert compute_check_digit(digits) == compute_check_digit(digits.rjust(13, "0"))


@pytest.mark.parametrize(
    "text", ["", "123", "123456789", "400638133393a", "40063813339\uff13\uff11", "4006381333931\n"]
)
def test_text_that_is_no_barcode_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no barcode of 8, 12, 13 or 14 digits"):
        check_gtin(text)
