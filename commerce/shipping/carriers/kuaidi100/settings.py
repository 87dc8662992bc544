"""The shop's account at kuaidi100: keys, addresses, and the carriers whose shipments it tracks."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

MIN_SALT_CHARACTERS = 16


@dataclass(frozen=True, slots=True)
class Kuaidi100Account:
    """An enterprise account. kuaidi100 sends webhooks to `notify_url`.

    It locks a number that is queried again before `min_poll_interval_s`.

    It calls plain http, and https only if its support has enabled that
    (https://api.kuaidi100.com/document/5f0ffa8f2977d50a94e1023c)."""

    customer: str
    key: str = field(repr=False)
    salt: str = field(repr=False)
    base_url: str
    notify_url: str
    min_poll_interval_s: float = 1_800

    @classmethod
    def load(
        cls,
        *,
        customer: str,
        key: str,
        salt: str,
        base_url: str,
        notify_url: str,
        min_poll_interval_s: float = 1_800,
    ) -> Self:
        """Check the credentials.

        Raises `ValueError` with the remedy if one cannot be used; it shows no secret."""
        if not re.fullmatch(r"[0-9A-Za-z]{1,64}", customer):
            raise ValueError("kuaidi100 customer: set the customer code of the enterprise account, letters and digits")
        if not re.fullmatch(r"[0-9A-Za-z]{1,64}", key):
            raise ValueError("kuaidi100 key: set the authorisation key of the enterprise account, letters and digits")
        if not re.fullmatch(rf"[!-~]{{{MIN_SALT_CHARACTERS},64}}", salt):
            # Only the salt distinguishes a genuine webhook from a forged one.
            raise ValueError(
                f"kuaidi100 salt: generate {MIN_SALT_CHARACTERS} to 64 random characters of ASCII without spaces"
            )
        for name, url in (("base_url", base_url), ("notify_url", notify_url)):
            if not re.fullmatch(r"https?://[^\s?#]+", url):
                raise ValueError(f"kuaidi100 {name}: set an address that begins with http(s):// and has no query")
        return cls(
            customer=customer,
            key=key,
            salt=salt,
            base_url=base_url.rstrip("/"),
            notify_url=notify_url,
            min_poll_interval_s=min_poll_interval_s,
        )


def names_by_code(carriers: Mapping[str, str]) -> dict[str, str]:
    """Invert {"zto": "zhongtong"}: return names in the rate table by kuaidi100's codes.

    Raises `ValueError` if a name or a code is malformed, or if a code occurs twice."""
    names: dict[str, str] = {}
    for name, code in carriers.items():
        if not re.fullmatch(r"[a-z][a-z0-9_]{0,31}", name):
            raise ValueError(f"kuaidi100_carriers: {name[:40]!r} is no name of a carrier in a rate table, like zto")
        if not re.fullmatch(r"[a-z0-9_]{1,32}", code):
            raise ValueError(f"kuaidi100_carriers: set kuaidi100's code of {name}, small letters like zhongtong")
        if code in names:
            # A webhook contains only the code, so with two names it would not identify the carrier.
            raise ValueError(f"kuaidi100_carriers: {names[code]} and {name} have the same code, {code}: keep one")
        names[code] = name
    return names
