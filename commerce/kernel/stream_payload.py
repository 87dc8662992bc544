"""What travels through the stream of a sale: accepted orders, as MessagePack."""

from __future__ import annotations

from uuid import UUID

import msgspec

from lua import EntryId


class AcceptedLine(msgspec.Struct, frozen=True, array_like=True):
    """A line's part for one address; the unit price is in minor units."""

    line_no: int
    address_no: int
    sku: str
    quantity: int
    unit_price: int


class AcceptedOrder(msgspec.Struct, frozen=True, array_like=True):
    """What the stream carries of an order, as MessagePack. Fields are only ever added, at the end, with a default.

    `ship_to` and `payments` are JSON texts, stored as they are; `traceparent` is the W3C trace context it came with.
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

    def units(self) -> dict[str, int]:
        """Units by SKU."""
        units: dict[str, int] = {}
        for line in self.lines:
            units[line.sku] = units.get(line.sku, 0) + line.quantity
        return units


_encoder = msgspec.msgpack.Encoder(uuid_format="bytes")
_decoder = msgspec.msgpack.Decoder(AcceptedOrder)


def encode_accepted(order: AcceptedOrder) -> bytes:
    return _encoder.encode(order)


def decode_accepted(payload: bytes) -> AcceptedOrder:
    """Raises `msgspec.MsgspecError` (a ValueError) for bytes that are no accepted order."""
    return _decoder.decode(payload)


class StreamedOrder(msgspec.Struct, frozen=True, gc=False):
    """An accepted order with the stream entry that carried it; `payload` is what the entry held."""

    order: AcceptedOrder
    entry: EntryId
    payload: bytes
