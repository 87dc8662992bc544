"""Rows of carts and their lines."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from commerce.cart.model import CartOwner, CartWarning, CheckoutState, StoredCart, StoredLine
from commerce.kernel.postgres import Connection
from commerce.kernel.sql import load_queries

queries = load_queries(__package__, cart_lines=StoredLine._fields)
_warnings = msgspec.json.Decoder(list[CartWarning])


async def add_cart(connection: Connection, cart_id: UUID, user_id: str | None, now: datetime) -> bool:
    """Add a cart. Returns False if it exists already, or the customer has another."""
    return await connection.fetchval(queries.add_cart, cart_id, user_id, now) is not None


async def get(connection: Connection, owner: CartOwner) -> StoredCart | None:
    """Read a cart with its lines. Call inside a snapshot: both are of one moment then."""
    return await _read(connection, owner, queries.get_cart_of_user, queries.get_guest_cart)


async def lock(connection: Connection, owner: CartOwner) -> StoredCart | None:
    """Lock a cart until the transaction ends, and read it with its lines."""
    return await _read(connection, owner, queries.lock_cart_of_user, queries.lock_guest_cart)


async def _read(connection: Connection, owner: CartOwner, of_user: str, of_guest: str) -> StoredCart | None:
    if owner.user_id is not None:
        row = await connection.fetchrow(of_user, owner.user_id)
    else:
        row = await connection.fetchrow(of_guest, owner.cart_id)
    if row is None:
        return None
    lines = [_to_line(line) for line in await connection.fetch(queries.list_lines, row["cart_id"])]
    checkout = CheckoutState(row["checkout_id"], row["version"]) if row["checkout_id"] else None
    return StoredCart(row["cart_id"], row["user_id"], row["version"], row["merged_into"], checkout, lines)


def _to_line(row: Any) -> StoredLine:
    return StoredLine(*row.values())


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
