"""Money as an integer of minor units (pennies, fen) and an ISO 4217 currency, never as a float."""

from __future__ import annotations

import re
from decimal import Decimal
from functools import lru_cache
from typing import Annotated

import msgspec
from iso4217 import Currency as _Iso

from commerce.kernel.spreadsheets import explain_scientific

MAX_MINOR = 10**15
"""Upper limit of one amount. A sum of a thousand such amounts fits a signed 64-bit integer."""

Minor = Annotated[int, msgspec.Meta(ge=0, le=MAX_MINOR, description="minor units of the currency, e.g. pennies")]
Price = Annotated[
    int,
    msgspec.Meta(
        le=MAX_MINOR,
        description="minor units of the currency, at least 1",
        extra_json_schema={"minimum": 1},  # checked by `check_price`, which says why
    ),
]
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
    """An amount or a currency is invalid."""


@lru_cache(maxsize=256)
def minor_digits(currency: str) -> int:
    """Return the number of decimal digits of a currency: 2 for CNY, 0 for JPY, 3 for KWD.

    Raises `MoneyError` if the currency is unknown or cannot be used for payments.
    """
    try:
        digits: int | None = _Iso(currency).exponent
    except ValueError:
        raise MoneyError(f"{currency!r} is not an ISO 4217 currency") from None
    if digits is None:
        raise MoneyError(f"{currency} cannot be used for payments")
    return digits


def parse_money(text: str, currency: str) -> int:
    """Convert a decimal amount to minor units: `"2.55"` in `"GBP"` to 255.

    Raises `MoneyError` if the text is no amount or has more decimals than the currency.
    """
    digits = minor_digits(currency)
    text = text.strip()
    if reason := explain_scientific(text):
        raise MoneyError(reason)
    if not _AMOUNT.fullmatch(text):
        raise MoneyError(f"{text[:40]!r} is not an amount like 2.55")
    minor = Decimal(text).scaleb(digits)
    if minor != minor.to_integral_value():
        raise MoneyError(f"{text!r} has more decimals than {currency}, which has {digits} decimal digits")
    if minor > MAX_MINOR:
        raise MoneyError(f"{text!r} is more than {MAX_MINOR} minor units")
    return int(minor)


def check_price(price: int) -> None:
    """Raise `MoneyError` if a price is not above 0."""
    if price < 1:
        raise MoneyError(f"the price is {price}; give a price above 0, and give products away by a promotion")


def format_money(amount: int, currency: str) -> str:
    """Format minor units for people: 255 in `"GBP"` as `"2.55 GBP"`.

    An old row in a currency that does not exist is shown too: it must not keep staff from seeing the others.
    """
    try:
        digits = minor_digits(currency)
    except MoneyError:
        return f"{amount} minor units of {currency}"
    return f"{Decimal(amount).scaleb(-digits):.{digits}f} {currency}"
