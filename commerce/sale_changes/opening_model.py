"""Gaps of a draft that keep it from being opened."""

from __future__ import annotations

from typing import Literal

import msgspec

from commerce.kernel.types import Reason

GapKind = Literal["warehouse", "measures", "logistics", "rate_table", "rate", "freight_template", "price", "stock"]


class OpeningGap(msgspec.Struct, frozen=True):
    """Something that is missing, with what to do.

    `count` SKUs lack it, of which `skus` are the first. One that `is_warning` does not keep the sale from opening."""

    kind: GapKind
    detail: str
    is_warning: bool
    count: int = 0
    skus: list[str] = []


class OpeningGaps(msgspec.Struct, frozen=True):
    """All that a sale lacks."""

    items: list[OpeningGap]


class OpenSale(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Options of opening a sale.

    With `anyway` a draft is opened whatever it lacks, and the reason is recorded."""

    anyway: Reason | None = None
