"""Encodes orders and their lines as rows of Postgres's binary COPY.

The Postgres manual, "COPY", section "Binary Format", defines the format: a header, rows of fields with their lengths
before them, a trailer. Numbers are big-endian, times are microseconds since 2000-01-01 UTC, jsonb is a version byte and
text. asyncpg could encode Python values too; that would take as long as all other work of a writer.
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
    *("discount_minor", "freight_minor", "cod_fee_minor"),
    *("ship_to", "payment_plan", "accepted_at", "entry_seq", "persisted_at", "pay_by", "traceparent"),
)
LINE_COLUMNS = (
    *("order_id", "line_no", "address_no", "sku", "quantity", "unit_price_minor", "list_price_minor"),
    "discount_minor",
)

_HEADER, _TRAILER = b"PGCOPY\n\xff\r\n\0" + bytes(8), b"\xff\xff"
_NULL = b"\xff\xff\xff\xff"
_Y2K_MS = 946_684_800_000
_length = struct.Struct(">i").pack
# Each struct packs the fixed-size fields up to the next text, and the length of that text.
_id_to_user = struct.Struct(">hi16si").pack
_digest_to_sale = struct.Struct(">i16si").pack
_generation_to_currency = struct.Struct(">iqi").pack
_total_to_ship_to = struct.Struct(">iqiqiqiqib").pack
_to_plan = struct.Struct(">ib").pack
_times = struct.Struct(">iqiiiqiq").pack
_id_to_sku = struct.Struct(">hi16sihihi").pack
_quantity_and_prices = struct.Struct(">iiiqiqiq").pack
_quantity_and_price = struct.Struct(">iiiqiiq").pack


def encode_copy(
    orders: Sequence[tuple[AcceptedOrder, EntryId]], now: datetime, *, with_keys: bool = True
) -> tuple[bytes, bytes]:
    """Encode rows for the tables `orders` and `order_lines`. Without keys, idempotency keys are NULL.

    Raises `ValueError` if a value does not fit its column.
    """
    order_rows, line_rows = [_HEADER], [_HEADER]
    persisted_us = _to_postgres_us(to_ms(now))
    try:
        for order, entry in orders:
            _add_order(order_rows, order, entry, persisted_us, with_keys)
            id_ = order.order_id.bytes
            for line in order.lines:
                sku, list_price = line.sku.encode(), line.list_price
                line_rows += (
                    _id_to_sku(len(LINE_COLUMNS), 16, id_, 2, line.line_no, 2, line.address_no, len(sku)),
                    sku,
                    _quantity_and_price(4, line.quantity, 8, line.unit_price, -1, 8, line.discount)
                    if list_price is None
                    else _quantity_and_prices(4, line.quantity, 8, line.unit_price, 8, list_price, 8, line.discount),
                )
    except (struct.error, AttributeError) as error:
        raise ValueError(f"cannot encode the order: a field does not fit its column: {error}") from None
    order_rows.append(_TRAILER)
    line_rows.append(_TRAILER)
    return b"".join(order_rows), b"".join(line_rows)


def _add_order(rows: list[bytes], order: AcceptedOrder, entry: EntryId, persisted_us: int, with_key: bool) -> None:
    user, sale, currency = order.user_id.encode(), order.sale_id.encode(), order.currency.encode()
    ship_to, plan = order.ship_to.encode(), order.payments.encode()
    accepted_us = _to_postgres_us(entry.ms)
    discount = freight = cod_fee = 0
    if order.parts is not None:
        discount = sum(discount.amount for discount in order.parts.discounts)
        freight, cod_fee = sum(order.parts.freight), order.parts.cod_fee
    rows += (_id_to_user(len(ORDER_COLUMNS), 16, order.order_id.bytes, len(user)), user)
    if with_key:
        key = order.idempotency_key.encode()
        rows += (_length(len(key)), key)
    else:
        rows.append(_NULL)
    if len(order.body_digest) != 16:
        raise ValueError("cannot encode the order: its digest does not have 16 bytes")
    rows += (
        *(_digest_to_sale(16, order.body_digest, len(sale)), sale),
        *(_generation_to_currency(8, order.generation, len(currency)), currency),
        _total_to_ship_to(8, order.total_minor, 8, discount, 8, freight, 8, cod_fee, len(ship_to) + 1, 1),
        ship_to,
        *(_to_plan(len(plan) + 1, 1), plan),
        _times(8, accepted_us, 4, entry.seq, 8, persisted_us, 8, accepted_us + order.pay_within_s * 1_000_000),
    )
    if order.traceparent:
        trace = order.traceparent.encode()
        rows += (_length(len(trace)), trace)
    else:
        rows.append(_NULL)


def _to_postgres_us(ms: int) -> int:
    return (ms - _Y2K_MS) * 1_000
