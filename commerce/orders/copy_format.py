"""Orders and their lines as rows of Postgres's binary COPY.

The format is that of the Postgres manual, "COPY", section "Binary Format": a header, rows of fields with their lengths
before them, a trailer; numbers are big-endian, times are microseconds since 2000-01-01 UTC, jsonb is a version byte and
text. asyncpg can make such rows of Python values; it takes as long for that as for everything else a writer does.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from datetime import datetime

from commerce.kernel.clock import to_ms
from commerce.kernel.stream_payload import AcceptedOrder
from lua import EntryId

ORDER_COLUMNS = (
    *("order_id", "user_id", "idempotency_key", "body_digest", "sale_id", "generation", "currency", "total_minor"),
    *("ship_to", "payment_plan", "accepted_at", "entry_seq", "persisted_at", "pay_by", "traceparent"),
)
LINE_COLUMNS = ("order_id", "line_no", "address_no", "sku", "quantity", "unit_price_minor")

_HEADER, _TRAILER = b"PGCOPY\n\xff\r\n\0" + bytes(8), b"\xff\xff"
_NULL = b"\xff\xff\xff\xff"
_Y2K_MS = 946_684_800_000
_length = struct.Struct(">i").pack
# Each packs the fields of known size up to the next text, and that text's length.
_id_to_user = struct.Struct(">hi16si").pack
_digest_to_sale = struct.Struct(">i16si").pack
_generation_to_currency = struct.Struct(">iqi").pack
_total_to_ship_to = struct.Struct(">iqib").pack
_to_plan = struct.Struct(">ib").pack
_times = struct.Struct(">iqiiiqiq").pack
_id_to_sku = struct.Struct(">hi16sihihi").pack
_quantity_and_price = struct.Struct(">iiiq").pack


def encode_copy(
    arrived: Sequence[tuple[AcceptedOrder, EntryId]], now: datetime, *, with_keys: bool = True
) -> tuple[bytes, bytes]:
    """What COPY takes for `orders` and for `order_lines`. Without keys the idempotency keys are NULL.

    Raises `ValueError` for what no column can hold.
    """
    orders, lines = [_HEADER], [_HEADER]
    persisted_us = _us(to_ms(now))
    try:
        for order, entry in arrived:
            _add_order(orders, order, entry, persisted_us, with_keys)
            id_ = order.order_id.bytes
            for line in order.lines:
                sku = line.sku.encode()
                lines += (
                    _id_to_sku(len(LINE_COLUMNS), 16, id_, 2, line.line_no, 2, line.address_no, len(sku)),
                    sku,
                    _quantity_and_price(4, line.quantity, 8, line.unit_price),
                )
    except (struct.error, AttributeError) as error:
        raise ValueError(f"a field does not fit its column: {error}") from None
    orders.append(_TRAILER)
    lines.append(_TRAILER)
    return b"".join(orders), b"".join(lines)


def _add_order(rows: list[bytes], order: AcceptedOrder, entry: EntryId, persisted_us: int, with_key: bool) -> None:
    user, sale, currency = order.user_id.encode(), order.sale_id.encode(), order.currency.encode()
    ship_to, plan = order.ship_to.encode(), order.payments.encode()
    accepted_us = _us(entry.ms)
    rows += (_id_to_user(len(ORDER_COLUMNS), 16, order.order_id.bytes, len(user)), user)
    if with_key:
        key = order.idempotency_key.encode()
        rows += (_length(len(key)), key)
    else:
        rows.append(_NULL)
    if len(order.body_digest) != 16:
        raise ValueError("the digest is not of 16 bytes")
    rows += (
        *(_digest_to_sale(16, order.body_digest, len(sale)), sale),
        *(_generation_to_currency(8, order.generation, len(currency)), currency),
        *(_total_to_ship_to(8, order.total_minor, len(ship_to) + 1, 1), ship_to),
        *(_to_plan(len(plan) + 1, 1), plan),
        _times(8, accepted_us, 4, entry.seq, 8, persisted_us, 8, accepted_us + order.pay_within_s * 1_000_000),
    )
    if order.traceparent:
        trace = order.traceparent.encode()
        rows += (_length(len(trace)), trace)
    else:
        rows.append(_NULL)


def _us(ms: int) -> int:
    return (ms - _Y2K_MS) * 1_000
