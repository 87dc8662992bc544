"""Addresses of customers and warehouses, and their validation."""

from __future__ import annotations

import re
from string import ascii_uppercase
from typing import Annotated

import msgspec

# Text on labels and in jsonb has no control characters. Checking a pattern while decoding costs more than the rest of
# decoding, so the pattern is only stated in the schema, and `address_errors` checks it.
_PRINTABLE = {"pattern": r"^[^\x00-\x1f\x7f]*$"}
Text = Annotated[str, msgspec.Meta(min_length=1, max_length=200, extra_json_schema=_PRINTABLE)]
OptionalText = Annotated[str, msgspec.Meta(max_length=200, extra_json_schema=_PRINTABLE)]
PHONE, COUNTRY = r"\+?[0-9][0-9 ()-]{3,30}", "[A-Z]{2}"
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_COUNTRIES = frozenset(
    first + second for first in ascii_uppercase for second in ascii_uppercase
)  # the matches of COUNTRY
_PHONE = re.compile(PHONE)


class Address(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A postal address with name and phone number."""

    name: Text
    phone: Annotated[str, msgspec.Meta(extra_json_schema={"pattern": f"^{PHONE}$"})]
    country: Annotated[str, msgspec.Meta(description="ISO 3166 alpha-2", extra_json_schema={"pattern": f"^{COUNTRY}$"})]
    city: Text
    line: Text
    province: OptionalText = ""
    district: OptionalText = ""
    postcode: Annotated[str, msgspec.Meta(max_length=20, extra_json_schema=_PRINTABLE)] = ""


def address_errors(address: Address) -> list[tuple[str, str]]:
    """Check what the types do not express: control characters, country and phone number.

    Returns (field, error) pairs.
    """
    errors = []
    texts = (address.name, address.city, address.line, address.province, address.district, address.postcode)
    # isprintable is fast and too strict (it rejects the ideographic space), so it only selects what is checked closely.
    if not "".join(texts).isprintable():
        for name, text in zip(("name", "city", "line", "province", "district", "postcode"), texts, strict=True):
            if _CONTROL.search(text):
                errors.append((name, "control characters are not allowed"))
    if address.country not in _COUNTRIES:
        errors.append(("country", "not two capital letters, such as CN"))
    if not _PHONE.fullmatch(address.phone):
        errors.append(("phone", "not a phone number of 4 to 31 digits, spaces, dashes and brackets"))
    return errors
