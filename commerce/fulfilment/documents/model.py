"""What labels and packing lists say. A pick list says what `Wave` does."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

import msgspec

from commerce.kernel.address import Address
from commerce.kernel.money import Money

MOST_LABELS = 500
"""As many as a wave has parcels."""
MOST_LINES = 10_000


class LabelData(msgspec.Struct, frozen=True):
    """A label: parcel number `parcel` of `parcels` of its order. `cash` is what is collected at the door; `held` says
    why the parcel must not leave yet. `tracking_no`: 1 to 64 printable ASCII characters, no spaces."""

    order_id: UUID
    parcel: int
    parcels: int
    sender: Address
    to: Address
    carrier: str
    tracking_no: str
    weight_g: int
    service: str | None = None
    sort_code: str | None = None
    cash: Money | None = None
    held: str | None = None


class PackingLine(msgspec.Struct, frozen=True):
    """So many units of one article."""

    sku: str
    name: str
    quantity: int


class PackingList(msgspec.Struct, frozen=True):
    """What is in parcel number `parcel` of `parcels` of an order."""

    order_id: UUID
    parcel: int
    parcels: int
    sender: Address
    to: Address
    lines: Sequence[PackingLine]
