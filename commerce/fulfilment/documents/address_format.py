"""Formats an address in the order of its country, without name and phone.

Source of the orders: Google's address data, as in https://chromium-i18n.appspot.com/ssl-address/data/CN.
"""

from __future__ import annotations

import unicodedata

from commerce.kernel.address import Address

_LARGEST_FIRST = frozenset({"CN", "HK", "JP", "KR", "MO", "TW"})
_POSTCODE_FIRST = frozenset(
    [
        "AT",
        "BE",
        "BG",
        "CH",
        "CZ",
        "DE",
        "DK",
        "EE",
        "ES",
        "FI",
        "FR",
        "GR",
        "HR",
        "IL",
        "IT",
        "LT",
        "LU",
        "MX",
        "NL",
        "NO",
        "PL",
        "PT",
        "RO",
        "RS",
        "SE",
        "SI",
        "SK",
        "TR",
    ]
)


def is_wide(char: str) -> bool:
    """Tell whether a character is as wide as high (Chinese, Japanese, Korean).

    A line may break beside it.
    """
    return unicodedata.east_asian_width(char) in "WF"


def format_address(address: Address) -> list[str]:
    """Return the lines of an address.

    In China province, city, district and line are one line, and a city that is its own province is written once. The
    postcode follows, against the official order, because drivers find their way by the words.
    """
    city = " ".join(filter(None, (address.district, address.city)))
    if address.country in _LARGEST_FIRST:
        parts = [address.city, address.district, address.line]
        if address.province != address.city:
            parts.insert(0, address.province)
        parts = [part for part in parts if part]
        spaced = address.country == "KR" or not any(is_wide(char) for part in parts for char in part)
        lines = [(" " if spaced else "").join(parts), address.postcode]
    elif address.country in _POSTCODE_FIRST:
        lines = [address.line, " ".join(filter(None, (address.postcode, city, address.province)))]
    else:
        tail = " ".join(filter(None, (address.province, address.postcode)))
        lines = [address.line, ", ".join(filter(None, (city, tail)))]
    if address.country != "CN":
        lines.append(address.country)
    return [line for line in lines if line]
