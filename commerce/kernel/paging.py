"""Lists page by cursor: where the last page ended, not a number that shifts when rows come and go."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

import msgspec

from commerce.kernel.errors import Invalid

Item = TypeVar("Item")


class Page(msgspec.Struct, Generic[Item], frozen=True):
    """One page of a list. `next` is the cursor of the following page, null on the last."""

    items: list[Item]
    next: str | None


def encode_cursor(key: str) -> str:
    return base64.urlsafe_b64encode(key.encode()).decode().rstrip("=")


def decode_cursor(cursor: str) -> str:
    """Raises `Invalid` for a cursor that none of our pages gave."""
    try:
        return base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError):
        raise Invalid("the cursor is not one that a page of this list gave: start without a cursor") from None


def page(found: Sequence[Item], size: int, key: Callable[[Item], str]) -> Page[Item]:
    """Cut a list that was asked for with `size + 1` rows into a page."""
    items = list(found[:size])
    return Page(items, encode_cursor(key(items[-1])) if len(found) > size else None)
