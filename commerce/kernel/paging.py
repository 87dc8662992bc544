"""Paging by cursor: the key of a page's last item, which stays valid when rows come and go."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

import msgspec

Item = TypeVar("Item")


class Page(msgspec.Struct, Generic[Item], frozen=True):
    """One page of a list. `next` is the cursor of the following page, null on the last."""

    items: list[Item]
    next: str | None


def to_page(rows: Sequence[Item], size: int, key: Callable[[Item], str]) -> Page[Item]:
    """Make a page of `size` items from a query with the limit `size + 1`."""
    items = list(rows[:size])
    return Page(items, key(items[-1]) if len(rows) > size else None)
