"""Addresses of customers and warehouses, and what is checked of them."""

from __future__ import annotations

import re
from string import ascii_uppercase
from typing import Annotated

import msgspec

# Text that ends up on labels and in jsonb has no control characters. A pattern that is checked while decoding costs
# more than all the rest of it, so the document states it here, and `price_order` checks what could break it.
_PRINTABLE = {"pattern": r"^[^\x00-\x1f\x7f]*$"}
Text = Annotated[str, msgspec.Meta(min_length=1, max_length=200, extra_json_schema=_PRINTABLE)]
MaybeText = Annotated[str, msgspec.Meta(max_length=200, extra_json_schema=_PRINTABLE)]
PHONE, COUNTRY = r"\+?[0-9][0-9 ()-]{3,30}", "[A-Z]{2}"
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_COUNTRIES = frozenset(first + second for first in ascii_uppercase for second in ascii_uppercase)  # as COUNTRY says
_PHONE = re.compile(PHONE)


class Address(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where goods go."""

    name: Text
    phone: Annotated[str, msgspec.Meta(extra_json_schema={"pattern": f"^{PHONE}$"})]
    country: Annotated[str, msgspec.Meta(description="ISO 3166 alpha-2", extra_json_schema={"pattern": f"^{COUNTRY}$"})]
    city: Text
    line: Text
    province: MaybeText = ""
    district: MaybeText = ""
    postcode: Annotated[str, msgspec.Meta(max_length=20, extra_json_schema=_PRINTABLE)] = ""


def address_errors(address: Address) -> list[tuple[str, str]]:
    """What the types do not say: no control characters, and a country and a phone number that look like one. Names of
    fields, and what is wrong with each."""
    found = []
    texts = (address.name, address.city, address.line, address.province, address.district, address.postcode)
    # isprintable is quick and too strict (it knows no ideographic space), so it only says where to look closer.
    if not "".join(texts).isprintable():
        for name, text in zip(("name", "city", "line", "province", "district", "postcode"), texts, strict=True):
            if _CONTROL.search(text):
                found.append((name, "control characters are not allowed"))
    if address.country not in _COUNTRIES:
        found.append(("country", "not two capital letters, such as CN"))
    if not _PHONE.fullmatch(address.phone):
        found.append(("phone", "not a phone number of 4 to 31 digits, spaces, dashes and brackets"))
    return found
