"""Barcodes: GTINs of 8, 12, 13 or 14 digits, with a check digit (GS1 General Specifications, 7.9)."""

from __future__ import annotations

import re

_GTIN = re.compile(r"[0-9]{8}|[0-9]{12,14}")


def check_gtin(text: str) -> None:
    """Raise `ValueError` unless a text is a GTIN with the right check digit."""
    if not _GTIN.fullmatch(text):
        raise ValueError(f"{text[:20]!r} is no barcode of 8, 12, 13 or 14 digits; type the digits below the bars")
    digit = compute_check_digit(text[:-1])
    if text[-1] != digit:
        raise ValueError(
            f"{text} ends in {text[-1]}, and the check digit of {text[:-1]} is {digit}; compare it with the package"
        )


def compute_check_digit(digits: str) -> str:
    """Return the digit that makes these a GTIN: from the right, every other digit counts three times."""
    total = sum(int(digit) * (3 if place % 2 == 0 else 1) for place, digit in enumerate(reversed(digits)))
    return str(-total % 10)
