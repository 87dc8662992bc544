"""Texts of attributes in CSV files: how values are written, and what a text stands for."""

from __future__ import annotations

import re
from typing import Any

from commerce.categories.attribute_values import AttributeDefinition
from commerce.kernel.spreadsheets import explain_date, explain_scientific
from commerce.product_imports.product_csv import SEPARATOR, split_list

_NUMBER = re.compile(r"[+-]?[0-9]{1,16}(\.[0-9]{1,15})?")
_BOOLEANS = {"true": True, "false": False}


def write_cell(value: Any) -> str:
    """Write the value of an attribute as the text of a cell."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return SEPARATOR.join(value)
    return str(value)


def read_cell(text: str, definition: AttributeDefinition | None, kept: Any) -> tuple[Any, str]:
    """Return the value that a text stands for, and what is wrong with it.

    The text of the value that the product has already stands for that value. A text that fits no value is returned as
    it is, for the rules of attributes to refuse.
    """
    text = str(text)  # a value is no `Cell`
    if kept is not None and text.replace("\r\n", "\n") == write_cell(kept).replace("\r\n", "\n"):
        return kept, ""
    if definition is None:
        return text, ""
    if definition.kind == "number":
        return _read_number(text)
    if definition.kind == "date":
        return text.strip(), explain_date(text)
    if definition.kind == "choices":
        return split_list(text), ""
    if definition.kind == "boolean":
        return _BOOLEANS.get(text.strip().lower(), text), ""
    return (text.strip() if definition.kind == "choice" else text), ""


def _read_number(text: str) -> tuple[Any, str]:
    number = text.strip()
    if not _NUMBER.fullmatch(number):
        return text, explain_scientific(text)
    return (float(number) if "." in number else int(number)), ""
