"""Orders encoded for COPY arrive in Postgres with the same values."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from commerce.kernel.clock import SystemClock, from_ms
from commerce.kernel.ids import IdGenerator
from commerce.kernel.stream_payload import AcceptedDiscount, AcceptedLine, AcceptedOrder, PriceParts, StreamedOrder
from commerce.orders.copy_format import encode_copy
from commerce.orders.store import copy_orders
from lua import EntryId

NOW_MS = SystemClock().now_ms()
ids = IdGenerator()
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=60)
smallint, integer, bigint = st.integers(0, 2**15 - 1), st.integers(1, 2**31 - 1), st.integers(0, 2**63 - 1)
json_lists = st.lists(st.integers(0, 9), max_size=5).map(lambda items: str(items).replace(" ", ""))
lines = st.lists(
    st.builds(
        lambda line_no, address_no, sku, quantity, price, list_price, share: AcceptedLine(
            line_no,
            address_no,
            sku,
            quantity,
            price,
            list_price,
            quantity * price * share // 100 if price < 2**31 else 0,
        ),
        *(smallint, smallint, texts, integer, bigint, st.none() | bigint, st.integers(0, 100)),
    ),
    min_size=1,
    max_size=6,
    unique_by=lambda line: (line.line_no, line.address_no),
)
amounts = st.integers(1, 2**31)
parts = st.builds(
    PriceParts,
    discounts=st.lists(st.builds(AcceptedDiscount, texts, texts, amounts), max_size=3),
    freight=st.lists(st.integers(0, 2**31), max_size=3),
    cod_fee=st.integers(0, 2**31),
)
orders = st.builds(
    AcceptedOrder,
    order_id=st.builds(ids.new),
    user_id=texts,
    idempotency_key=texts,
    body_digest=st.binary(min_size=16, max_size=16),
    sale_id=texts,
    generation=bigint,
    currency=st.sampled_from(["CNY", "GBP", "JPY"]),
    total_minor=bigint,
    pay_within_s=st.integers(1, 31_536_000),
    ship_to=json_lists,
    payments=json_lists,
    lines=lines,
    traceparent=st.one_of(st.just(""), texts),
    parts=st.none() | parts,
).filter(lambda order: order.parts is None or order.total_minor >= sum(order.parts.freight) + order.parts.cod_fee)


@pytest.fixture
async def connection(database_url: str) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    connection = await asyncpg.connect(database_url)
    yield connection
    await connection.close()


def draw_orders(count: int) -> list[AcceptedOrder]:
    """Draw orders with hypothesis first, because hypothesis cannot await a database."""
    drawn: list[AcceptedOrder] = []

    @settings(max_examples=count, database=None, suppress_health_check=[HealthCheck.too_slow])
    @given(orders)
    def gather(order: AcceptedOrder) -> None:
        drawn.append(order)

    gather()
    return drawn


async def test_copied_orders_keep_every_field(connection: asyncpg.Connection[asyncpg.Record]) -> None:
    for number, order in enumerate(draw_orders(200)):
        entry = EntryId(NOW_MS + number, number)
        async with connection.transaction():
            await copy_orders(connection, [StreamedOrder(order, entry, b"")], from_ms(NOW_MS))
            row = await connection.fetchrow("SELECT * FROM orders WHERE order_id = $1", order.order_id)
            stored = await connection.fetch(
                "SELECT line_no, address_no, sku, quantity, unit_price_minor, list_price_minor, discount_minor "
                "FROM order_lines WHERE order_id = $1 ORDER BY line_no, address_no",
                order.order_id,
            )
            discounts = await connection.fetch(
                "SELECT promotion_id, label, amount_minor FROM order_discounts WHERE order_id = $1 "
                "ORDER BY discount_no",
                order.order_id,
            )
            freight = await connection.fetch(
                "SELECT address_no, amount_minor FROM order_freight WHERE order_id = $1 ORDER BY address_no",
                order.order_id,
            )
            await connection.execute("DELETE FROM orders")  # the next order may have the same user and key
        assert row is not None
        assert (row["user_id"], row["idempotency_key"]) == (order.user_id, order.idempotency_key)
        assert (row["body_digest"], row["sale_id"]) == (order.body_digest, order.sale_id)
        assert (row["generation"], row["currency"]) == (order.generation, order.currency)
        assert row["total_minor"] == order.total_minor
        assert row["ship_to"].replace(" ", "") == order.ship_to
        assert row["payment_plan"].replace(" ", "") == order.payments
        assert (row["accepted_at"], row["entry_seq"]) == (from_ms(entry.ms), entry.seq)
        assert row["persisted_at"] == from_ms(NOW_MS)
        assert row["pay_by"] == from_ms(entry.ms) + timedelta(seconds=order.pay_within_s)
        assert row["traceparent"] == (order.traceparent or None)
        assert row["status"] == "awaiting_payment"
        price = order.parts or PriceParts()
        assert [AcceptedDiscount(*discount) for discount in discounts] == price.discounts
        assert [tuple(row) for row in freight] == [row for row in enumerate(price.freight) if row[1]]
        assert row["discount_minor"] == sum(discount.amount for discount in price.discounts)
        assert (row["freight_minor"], row["cod_fee_minor"]) == (sum(price.freight), price.cod_fee)
        expected = sorted(order.lines, key=lambda line: (line.line_no, line.address_no))
        assert [AcceptedLine(*line) for line in stored] == expected


async def test_copied_order_without_key_has_null_key(connection: asyncpg.Connection[asyncpg.Record]) -> None:
    [order] = draw_orders(1)
    await copy_orders(connection, [StreamedOrder(order, EntryId(NOW_MS, 0), b"")], from_ms(NOW_MS), with_keys=False)
    assert await connection.fetchval("SELECT idempotency_key FROM orders") is None


@pytest.mark.parametrize(
    "change",
    [
        {"total_minor": 2**63},
        {"generation": -(2**70)},
        {"body_digest": b"short"},
        {"user_id": 7},
        {"user_id": "\ud800"},
        {"lines": [AcceptedLine(2**15, 0, "a", 1, 1)]},
    ],
)
def test_encoding_of_value_that_fits_no_column_is_refused(change: dict[str, object]) -> None:
    [order] = draw_orders(1)
    values = {name: getattr(order, name) for name in order.__struct_fields__} | change
    with pytest.raises(ValueError, match=r"fit|digest|encode"):
        encode_copy([(AcceptedOrder(**values), EntryId(NOW_MS, 0))], from_ms(NOW_MS))
