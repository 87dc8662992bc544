"""Money is an integer of minor units (pennies, fen) and an ISO 4217 currency. No floats, anywhere."""

from __future__ import annotations

import re
from decimal import Decimal
from functools import lru_cache
from typing import Annotated

import msgspec
from iso4217 import Currency as _Iso

MAX_MINOR = 10**15
"""The most one amount may be: room for sums of a million of them in a signed 64-bit integer's safe range."""

Minor = Annotated[int, msgspec.Meta(ge=0, le=MAX_MINOR, description="minor units of the currency, e.g. pennies")]
Currency = Annotated[
    str,
    msgspec.Meta(
        pattern=r"^[A-Z]{3}\Z",
        description="ISO 4217 code",
        examples=["CNY", "GBP"],
        extra_json_schema={"enum": sorted(code.code for code in _Iso if code.exponent is not None)},
    ),
]


_AMOUNT = re.compile(r"[0-9]{1,18}(\.[0-9]{1,6})?")


class Money(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An amount with its currency."""

    amount: Minor
    currency: Currency


class MoneyError(ValueError):
    """An amount or a currency that does not exist."""


@lru_cache(maxsize=256)
def minor_digits(currency: str) -> int:
    """How many decimal digits a currency has: 2 for CNY, 0 for JPY, 3 for KWD."""
    try:
        digits: int | None = _Iso(currency).exponent
    except ValueError:
        raise MoneyError(f"{currency!r} is not an ISO 4217 currency") from None
    if digits is None:
        raise MoneyError(f"{currency} is not money that can be paid with")
    return digits


def parse_money(text: str, currency: str) -> int:
    """`"2.55"` and `"GBP"` give 255. Raises `MoneyError` for anything that is not exactly an amount."""
    digits = minor_digits(currency)
    text = text.strip()
    if not _AMOUNT.fullmatch(text):
        raise MoneyError(f"{text[:40]!r} is not an amount like 2.55")
    minor = Decimal(text).scaleb(digits)
    if minor != minor.to_integral_value():
        raise MoneyError(f"{text!r} is finer than {currency}, which has {digits} decimal digits")
    if minor > MAX_MINOR:
        raise MoneyError(f"{text!r} is more than {MAX_MINOR} minor units")
    return int(minor)


def format_money(amount: int, currency: str) -> str:
    """255 and `"GBP"` give `"2.55 GBP"`."""
    digits = minor_digits(currency)
    return f"{Decimal(amount).scaleb(-digits):.{digits}f} {currency}"
