"""Recognises values that a spreadsheet program has changed, and says so in the reason of a refusal."""

from __future__ import annotations

import re
from collections.abc import Iterable

_SCIENTIFIC = re.compile(r"[+-]?[0-9](?:[.,][0-9]+)?[Ee]\+[0-9]{1,3}")
_DATE = re.compile(r"[0-9]{1,4}[/.][0-9]{1,2}[/.][0-9]{1,4}")
_REMEDY = "format the column as text and enter the value again"
MAX_LOST_ZEROS = 6


def explain_scientific(text: str) -> str:
    """Return why a number such as `1.23E+05` is refused, and an empty text for every other value."""
    if not _SCIENTIFIC.fullmatch(text.strip()):
        return ""
    return f"{text.strip()[:40]} is what a spreadsheet makes of a long number, and digits are lost: {_REMEDY}"


def explain_date(text: str) -> str:
    """Return why a day such as `2026/11/11` is refused, and an empty text for every other value."""
    if not _DATE.fullmatch(text.strip()):
        return ""
    return f"{text.strip()} is how a spreadsheet shows a day: write it as 2026-11-11, in a column formatted as text"


def list_padded(text: str) -> list[str]:
    """Return what a number may have been before a spreadsheet dropped its leading zeros."""
    if not (text.isascii() and text.isdigit()) or text.startswith("0"):
        return []
    return ["0" * zeros + text for zeros in range(1, MAX_LOST_ZEROS + 1)]


def explain_lost_zeros(text: str, values: Iterable[str]) -> str:
    """Return why an unknown number is refused if with leading zeros it is a known one; else an empty text."""
    candidates = list_padded(text)
    if (match := next((value for value in values if value in candidates), None)) is None:
        return ""
    return f"leading zeros are lost: there is {match}, and no {text}: {_REMEDY}"
