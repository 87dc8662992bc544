"""Addresses of customers and warehouses, and their validation."""

from __future__ import annotations

import re
from string import ascii_letters, digits
from typing import Annotated

import msgspec

from commerce.kernel.countries import COUNTRIES
from commerce.kernel.types import CONTROL, is_filled

# Text on labels and in jsonb has no control characters. Checking a pattern while decoding costs more than the rest of
# decoding, so the pattern is only stated in the schema, and `address_errors` checks it.
_PRINTABLE = {"pattern": rf"^[^{CONTROL}]*$"}
Text = Annotated[str, msgspec.Meta(min_length=1, max_length=200, extra_json_schema=_PRINTABLE)]
OptionalText = Annotated[str, msgspec.Meta(max_length=200, extra_json_schema=_PRINTABLE)]
_MAX_PHONE_CHARS = 32
_PHONE_SCHEMA = {"pattern": r"^\+?[0-9]([ ()-]*[0-9]){3}[0-9 ()-]*$", "maxLength": _MAX_PHONE_CHARS}
_PHONE = re.compile(r"\+?[0-9][ ()-]*+[0-9][ ()-]*+[0-9][ ()-]*+[0-9][0-9 ()-]*+")
_CONTROL = re.compile(f"[{CONTROL}]")
_FIRST_LETTERS = frozenset(ascii_letters + digits + "".join(map(chr, range(0x4E00, 0xA000))))
"""Usual beginnings of names and streets: most addresses need no closer look."""


class Address(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A postal address with name and phone number."""

    name: Text
    phone: Annotated[str, msgspec.Meta(extra_json_schema=_PHONE_SCHEMA)]
    country: Annotated[str, msgspec.Meta(description="ISO 3166 alpha-2", extra_json_schema={"enum": sorted(COUNTRIES)})]
    city: Text
    line: Text
    province: OptionalText = ""
    district: OptionalText = ""
    postcode: Annotated[str, msgspec.Meta(max_length=20, extra_json_schema=_PRINTABLE)] = ""


def is_phone(text: str) -> bool:
    """Tell whether a text is a phone number: 4 digits or more, spaces, dashes, brackets, a plus."""
    return len(text) <= _MAX_PHONE_CHARS and _PHONE.fullmatch(text) is not None


def address_errors(address: Address) -> list[tuple[str, str]]:
    """Check what the types do not express: visible text, control characters, country and phone number.

    Returns (field, error) pairs.
    """
    errors = []
    name, city, line = address.name, address.city, address.line
    texts = (name, city, line, address.province, address.district, address.postcode)
    # isprintable and first letters are fast and too strict (they reject the ideographic space and a quote in front), so
    # they only select what is checked closely.
    if not "".join(texts).isprintable():
        for field, text in zip(("name", "city", "line", "province", "district", "postcode"), texts, strict=True):
            if _CONTROL.search(text):
                errors.append((field, "control characters are not allowed"))
    if not (name[:1] in _FIRST_LETTERS and city[:1] in _FIRST_LETTERS and line[:1] in _FIRST_LETTERS):
        for field, text in (("name", name), ("city", city), ("line", line)):
            if not is_filled(text):
                errors.append((field, "it needs at least one letter or digit"))
    if address.country not in COUNTRIES:
        errors.append(("country", "not the code of a country in two capital letters (ISO 3166-1), such as CN"))
    if len(address.phone) > _MAX_PHONE_CHARS or not _PHONE.fullmatch(address.phone):
        errors.append(("phone", "not a phone number of 4 to 31 digits, with spaces, dashes and brackets"))
    return errors
