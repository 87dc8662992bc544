"""What the shop has agreed with kuaidi100: its keys, addresses, and which carriers' parcels it follows."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

MIN_SALT = 16


@dataclass(frozen=True, slots=True)
class Kuaidi100Account:
    """An enterprise account. `notify_url` is where news is pushed to: kuaidi100 calls plain http, and https only where
    its support has enabled that (https://api.kuaidi100.com/document/5f0ffa8f2977d50a94e1023c)."""

    customer: str
    key: str = field(repr=False)
    salt: str = field(repr=False)
    base_url: str
    notify_url: str

    @classmethod
    def load(cls, *, customer: str, key: str, salt: str, base_url: str, notify_url: str) -> Self:
        """Raises `ValueError`, which says what to do and shows no secret."""
        if not re.fullmatch(r"[0-9A-Za-z]{1,64}", customer):
            raise ValueError("kuaidi100 customer: set the customer code of the enterprise account, letters and digits")
        if not re.fullmatch(r"[0-9A-Za-z]{1,64}", key):
            raise ValueError("kuaidi100 key: set the authorisation key of the enterprise account, letters and digits")
        if not re.fullmatch(rf"[!-~]{{{MIN_SALT},64}}", salt):
            # It is all that tells a genuine push from a made up one.
            raise ValueError(f"kuaidi100 salt: make up {MIN_SALT} to 64 random characters of ASCII without spaces")
        for name, url in (("base_url", base_url), ("notify_url", notify_url)):
            if not re.fullmatch(r"https?://[^\s?#]+", url):
                raise ValueError(f"kuaidi100 {name}: set an address that begins with http(s):// and has no query")
        return cls(customer, key, salt, base_url.rstrip("/"), notify_url)


def names_by_code(carriers: Mapping[str, str]) -> dict[str, str]:
    """Turns {"zto": "zhongtong"} round: names in the rate table by kuaidi100's codes. Raises `ValueError`."""
    names: dict[str, str] = {}
    for name, code in carriers.items():
        if not re.fullmatch(r"[a-z][a-z0-9_]{0,31}", name):
            raise ValueError(f"kuaidi100_carriers: {name[:40]!r} is no name of a carrier in a rate table, like zto")
        if not re.fullmatch(r"[a-z0-9_]{1,32}", code):
            raise ValueError(f"kuaidi100_carriers: set kuaidi100's code of {name}, small letters like zhongtong")
        if code in names:
            # A push says the code only, and two names would leave open whose parcel it is about.
            raise ValueError(f"kuaidi100_carriers: {names[code]} and {name} have the same code, {code}: keep one")
        names[code] = name
    return names
