"""Rows of carts, their lines, and checkouts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from commerce.cart.model import (
    CartOwner,
    CartWarning,
    CheckoutOrder,
    CheckoutState,
    OrderProblem,
    StoredCart,
    StoredCheckout,
    StoredCheckoutOrder,
    StoredLine,
)
from commerce.kernel.postgres import Connection
from commerce.kernel.sql import load_queries
from commerce.orders.model import PlaceOrder

_CHECKOUT_COLUMNS = StoredCheckout._fields[:-1]
queries = load_queries(
    __package__,
    cart_lines=StoredLine._fields,
    checkouts=_CHECKOUT_COLUMNS,
    checkout_orders=StoredCheckoutOrder._fields,
)
_warnings = msgspec.json.Decoder(list[CartWarning])
_body = msgspec.json.Decoder(PlaceOrder)
_problem = msgspec.json.Decoder(OrderProblem)


async def add_cart(connection: Connection, cart_id: UUID, user_id: str | None, now: datetime) -> bool:
    """Add a cart. Returns False if it exists already, or the customer has another."""
    return await connection.fetchval(queries.add_cart, cart_id, user_id, now) is not None


async def get(connection: Connection, owner: CartOwner) -> StoredCart | None:
    """Read a cart with its lines, both of one moment."""
    is_guests = owner.user_id is None
    query = queries.get_guest_cart if is_guests else queries.get_cart_of_user
    rows = await connection.fetch(query, owner.cart_id if is_guests else owner.user_id)
    if not rows:
        return None
    return _to_cart(rows[0], [row for row in rows if row["sale_id"] is not None])


async def lock(connection: Connection, owner: CartOwner) -> StoredCart | None:
    """Lock a cart until the transaction ends, and read it with its lines."""
    is_guests = owner.user_id is None
    query = queries.lock_guest_cart if is_guests else queries.lock_cart_of_user
    row = await connection.fetchrow(query, owner.cart_id if is_guests else owner.user_id)
    if row is None:
        return None
    # Not in the statement that waits for the lock: that would see lines of before.
    return _to_cart(row, await connection.fetch(queries.list_lines, row["cart_id"]))


def _to_cart(row: Any, rows: Sequence[Any]) -> StoredCart:
    lines = [StoredLine(*(line[field] for field in StoredLine._fields)) for line in rows]
    checkout = CheckoutState(row["checkout_id"], row["version"]) if row["checkout_id"] else None
    return StoredCart(row["cart_id"], row["user_id"], row["version"], row["merged_into"], checkout, lines)


async def put_lines(connection: Connection, cart_id: UUID, lines: Sequence[StoredLine]) -> None:
    """Insert lines, or replace those of the same sale and SKU; they keep their `added_at`."""
    await connection.execute(queries.put_lines, cart_id, *(list(column) for column in zip(*lines, strict=True)))


async def delete_lines(connection: Connection, cart_id: UUID, keys: Iterable[tuple[str, str]]) -> None:
    """Delete lines by sale and SKU."""
    sales, skus = zip(*keys, strict=True)
    await connection.execute(queries.delete_lines, cart_id, list(sales), list(skus))


async def raise_version(connection: Connection, cart_id: UUID, now: datetime) -> None:
    await connection.execute(queries.raise_version, cart_id, now)


async def get_merge_warnings(connection: Connection, cart_id: UUID) -> list[CartWarning]:
    """Return what a guest's cart that was merged had warned of."""
    return _warnings.decode(await connection.fetchval(queries.get_merge_warnings, cart_id))


async def mark_merged(
    connection: Connection, cart_id: UUID, into: UUID, warnings: Sequence[CartWarning], now: datetime
) -> None:
    await connection.execute(queries.mark_merged, cart_id, into, msgspec.json.encode(warnings).decode(), now)


async def find_checkout(connection: Connection, user_id: str, version: int) -> StoredCheckout | None:
    """Read the checkout of a version of the customer's cart.

    Call inside a snapshot or under the cart's lock.
    """
    return await _read_checkout(connection, await connection.fetchrow(queries.find_checkout, user_id, version))


async def get_checkout(connection: Connection, checkout_id: UUID) -> StoredCheckout | None:
    """Read a checkout. Call inside a snapshot or under the cart's lock."""
    return await _read_checkout(connection, await connection.fetchrow(queries.get_checkout, checkout_id))


async def _read_checkout(connection: Connection, row: Any) -> StoredCheckout | None:
    if row is None:
        return None
    orders = [
        StoredCheckoutOrder(
            **{
                **order,
                "body": None if order["body"] is None else _body.decode(order["body"]),
                "problem": None if order["problem"] is None else _problem.decode(order["problem"]),
            }
        )
        for order in await connection.fetch(queries.list_checkout_orders, row["checkout_id"])
    ]
    return StoredCheckout(**row, orders=orders)


async def insert_checkout(connection: Connection, checkout: StoredCheckout, lease_until: datetime) -> None:
    """Insert a checkout with its orders, and mark its cart. Call under the cart's lock."""
    await connection.execute(
        queries.insert_checkout,
        *(checkout.checkout_id, checkout.cart_id, checkout.cart_version, checkout.user_id, checkout.request_digest),
        *(lease_until, checkout.created_at),
    )
    await connection.execute(
        queries.insert_checkout_orders,
        checkout.checkout_id,
        [order.sale_id for order in checkout.orders],
        [msgspec.json.encode(order.body).decode() for order in checkout.orders],
        [order.total_minor for order in checkout.orders],
        [order.currency for order in checkout.orders],
    )
    await connection.execute(queries.set_checkout, checkout.cart_id, checkout.checkout_id)


async def claim_checkout(connection: Connection, checkout_id: UUID, now: datetime, lease_until: datetime) -> int | None:
    """Claim a checkout. Returns the number of this attempt.

    It is None if another request has the lease, or the checkout is done.
    """
    attempt: int | None = await connection.fetchval(queries.claim_checkout, checkout_id, now, lease_until)
    return attempt


async def record_order(
    connection: Connection, checkout: StoredCheckout, order: CheckoutOrder, lease_until: datetime
) -> bool:
    """Record the outcome of an order and renew the lease. Returns False if the lease was lost."""
    problem = None if order.problem is None else msgspec.json.encode(order.problem).decode()
    recorded = await connection.fetchval(
        queries.record_order,
        *(checkout.checkout_id, checkout.attempt, lease_until),
        *(order.sale_id, order.outcome, order.order_id, order.pay_by, problem),
    )
    return recorded is not None


async def return_checkout(connection: Connection, checkout: StoredCheckout, now: datetime) -> None:
    await connection.execute(queries.return_checkout, checkout.checkout_id, checkout.attempt, now)


async def end_checkout(connection: Connection, checkout: StoredCheckout, now: datetime) -> bool:
    """End a checkout and open its cart again. Returns False if the lease was lost.

    Call under the cart's lock.
    """
    if await connection.fetchval(queries.end_checkout, checkout.checkout_id, checkout.attempt, now) is None:
        return False
    await connection.execute(queries.forget_order_bodies, checkout.checkout_id)
    await connection.execute(queries.end_cart_checkout, checkout.cart_id, now)
    return True
