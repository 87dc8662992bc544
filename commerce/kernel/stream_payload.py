"""The payload of a sale's stream: accepted orders as MessagePack."""

from __future__ import annotations

from uuid import UUID

import msgspec

from commerce.kernel.coupon_skus import coupon_sku
from lua import EntryId


class AcceptedLine(msgspec.Struct, frozen=True, array_like=True):
    """The part of an order line for one address; prices are in minor units.

    `discount` is taken off the whole line. `list_price` is that of a unit outside the sale; orders of earlier versions
    have none.
    """

    line_no: int
    address_no: int
    sku: str
    quantity: int
    unit_price: int
    list_price: int | None = None
    discount: int = 0


class AcceptedDiscount(msgspec.Struct, frozen=True, array_like=True):
    """A promotion of an order with what it takes off, in minor units; customers read `label`."""

    promotion_id: str
    label: str
    amount: int


class PriceParts(msgspec.Struct, frozen=True, array_like=True):
    """Parts of an order's price besides its products, in minor units; `freight` is by address.

    `coupons` are the codes that it uses, each once.
    """

    discounts: list[AcceptedDiscount] = []
    freight: list[int] = []
    cod_fee: int = 0
    coupons: list[str] = []


class AcceptedOrder(msgspec.Struct, frozen=True, array_like=True):
    """An order in the stream.

    New fields are only added at the end, with a default, so that old entries stay readable. `ship_to` and `payments`
    are JSON texts that are stored unchanged; `traceparent` is the W3C trace context of the request.
    """

    order_id: UUID
    user_id: str
    idempotency_key: str
    body_digest: bytes
    sale_id: str
    generation: int
    currency: str
    total_minor: int
    pay_within_s: int
    ship_to: str
    payments: str
    lines: list[AcceptedLine]
    traceparent: str = ""
    parts: PriceParts | None = None
    """None if the price is that of the products alone"""

    def units(self) -> dict[str, int]:
        """Sum the units by SKU; a coupon is a unit too."""
        units: dict[str, int] = {}
        for line in self.lines:
            units[line.sku] = units.get(line.sku, 0) + line.quantity
        for code in self.parts.coupons if self.parts else ():
            units[coupon_sku(code)] = 1
        return units


_encoder = msgspec.msgpack.Encoder(uuid_format="bytes")
_decoder = msgspec.msgpack.Decoder(AcceptedOrder)


def encode_accepted(order: AcceptedOrder) -> bytes:
    return _encoder.encode(order)


def decode_accepted(payload: bytes) -> AcceptedOrder:
    """Decode an accepted order. Raises `msgspec.MsgspecError` (a `ValueError`) if the bytes are none."""
    return _decoder.decode(payload)


class StreamedOrder(msgspec.Struct, frozen=True, gc=False):
    """An accepted order with its stream entry and the entry's original bytes."""

    order: AcceptedOrder
    entry: EntryId
    payload: bytes
