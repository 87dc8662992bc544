"""Forms of phone numbers and names in which they are stored for searches, and compared."""

from __future__ import annotations

import unicodedata

_CHINA, _MOBILE_DIGITS = "86", 11


def normalise_phone(phone: str) -> str:
    """Return the digits of a phone number, without the prefix of China of a mobile number."""
    digits = "".join(letter for letter in phone if letter in "0123456789")
    national = digits.removeprefix("00")
    if national.startswith(_CHINA) and len(national) == len(_CHINA) + _MOBILE_DIGITS:
        return national.removeprefix(_CHINA)
    return digits


def normalise_name(name: str) -> str:
    """Return a name without blanks, and without differences of case and width."""
    return "".join(unicodedata.normalize("NFKC", name).casefold().split())
