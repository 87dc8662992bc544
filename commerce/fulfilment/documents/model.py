"""Data of labels and packing lists. A pick list is drawn from a `Wave`."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

import msgspec

from commerce.kernel.address import Address
from commerce.kernel.money import Money

MAX_LABELS = 500
"""Labels in one file: the most shipments that a wave can have."""
MAX_LINES = 10_000
"""Lines in one packing list or pick list."""


class LabelData(msgspec.Struct, frozen=True):
    """A label of shipment `parcel_no` of `shipment_count` of an order.

    `tracking_no` is 1 to 64 printable ASCII characters without spaces. With a `hold_reason` the shipment must not leave
    yet.
    """

    order_id: UUID
    parcel_no: int
    shipment_count: int
    sender: Address
    ship_to: Address
    carrier: str
    tracking_no: str
    weight_g: int
    service: str | None = None
    sort_code: str | None = None
    cash_to_collect: Money | None = None
    hold_reason: str | None = None


class PackingLine(msgspec.Struct, frozen=True):
    """Units of one product."""

    sku: str
    name: str
    quantity: int


class PackingList(msgspec.Struct, frozen=True):
    """The contents of shipment `parcel_no` of `shipment_count` of an order."""

    order_id: UUID
    parcel_no: int
    shipment_count: int
    sender: Address
    ship_to: Address
    lines: Sequence[PackingLine]
