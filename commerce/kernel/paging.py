"""Lists page by cursor: the key of the last item seen, not a number that shifts when rows come and go."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

import msgspec

Item = TypeVar("Item")


class Page(msgspec.Struct, Generic[Item], frozen=True):
    """One page of a list. `next` is the cursor of the following page, null on the last."""

    items: list[Item]
    next: str | None


def page(found: Sequence[Item], size: int, key: Callable[[Item], str]) -> Page[Item]:
    """Cut a list that was asked for with `size + 1` rows into a page."""
    items = list(found[:size])
    return Page(items, key(items[-1]) if len(found) > size else None)
