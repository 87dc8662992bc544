"""Fees and payouts in providers' statements, as all of them write money."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import date
from decimal import Decimal, InvalidOperation
from typing import NamedTuple

from commerce.kernel.money import Money

_MAX_YUAN = Decimal(10) ** 13
_NUMBER = re.compile(r"[!-~]{1,64}")


class Payout(NamedTuple):
    """Money that a provider paid out to the shop's bank account, with its own number of it."""

    number: str
    amount: Money
    paid_on: date


class FundLine(NamedTuple):
    """A line of any provider's statement of funds: number, kind, day, and change of the balance in fen."""

    number: str
    kind: str
    booked_on: date
    change_minor: int


def parse_signed_fen(text: str) -> int:
    """Convert yuan such as `-0.06` or `0.06000` to fen.

    Raises `ValueError` unless it is a whole number of fen."""
    try:
        yuan = Decimal(text.strip() or "0")
        fen = int(yuan * 100)
    except (InvalidOperation, OverflowError, ValueError):
        raise ValueError(f"{text[:40]!r} is not an amount") from None
    if not abs(yuan) < _MAX_YUAN or fen != yuan * 100:
        raise ValueError(f"{text[:40]!r} is not a whole number of fen")
    return fen


def read_fee(text: str, *, is_refund: bool) -> int | str:
    """Return the fee on a line in fen: more than 0 if it is charged, less if it comes back with a refund.

    Providers differ in its sign. Returns the reason if it cannot be read."""
    try:
        fen = abs(parse_signed_fen(text))
    except ValueError as error:
        return f"fee {error}"
    return -fen if is_refund else fen


def check_number(number: str, column: str) -> str:
    """Return a provider's number of a line. Raises `ValueError` if it is none."""
    if not _NUMBER.fullmatch(number):
        raise ValueError(f"{number[:40]!r} is no {column}")
    return number


def list_payouts(lines: Iterable[FundLine | str], kind: str) -> list[Payout | str]:
    """Return the payouts among lines of funds; a reason for each line that cannot be read, or pays in."""
    payouts = list[Payout | str]()
    for line in lines:
        if isinstance(line, str):
            payouts.append(line)
        elif line.kind == kind and line.change_minor < 0:
            payouts.append(Payout(line.number, Money(-line.change_minor, "CNY"), line.booked_on))
        elif line.kind == kind:
            payouts.append(f"{line.number}: a payout that came back; post it by hand once the bank has confirmed it")
    return payouts
