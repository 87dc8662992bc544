"""Reads of orders for staff, the recipients that are searched for, and the record of views."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Literal
from uuid import UUID

import msgspec
import orjson

from commerce.kernel.address import Address
from commerce.kernel.money import Money
from commerce.kernel.postgres import Connection
from commerce.kernel.sql import load_queries
from commerce.order_search.contact_forms import normalise_name, normalise_phone
from commerce.order_search.model import (
    ContactFilter,
    OrderGrant,
    OrderMatch,
    OrderPosting,
    OrderView,
    TransactionNumbers,
)
from commerce.orders.model import OrderStatus

queries = load_queries(__package__)
SearchKey = Literal["user", "phone", "phone_end", "name"]
_BY_KEY: dict[SearchKey, str] = {
    "user": queries.list_of_user,
    "phone": queries.list_by_phone,
    "phone_end": queries.list_by_phone_end,
    "name": queries.list_by_name,
}


async def list_by_id(connection: Connection, first: UUID, last: UUID, count: int) -> list[UUID]:
    """List orders with ids from `first` to `last`, newest first."""
    return [row[0] for row in await connection.fetch(queries.list_by_id, first, last, count)]


async def list_by_key(
    connection: Connection, key: SearchKey, value: str, first: UUID, last: UUID, count: int
) -> list[UUID]:
    """List orders of a user, phone number or name with ids from `first` to `last`, newest first."""
    return [row[0] for row in await connection.fetch(_BY_KEY[key], first, last, count, value)]


async def find_by_tracking_no(connection: Connection, tracking_no: str) -> set[UUID]:
    """Find the orders of shipments and return shipments with this tracking number."""
    return {row[0] for row in await connection.fetch(queries.find_by_tracking_no, tracking_no)}


async def find_by_transaction_no(connection: Connection, number: str, own_id: UUID | None) -> set[UUID]:
    """Find the orders of payments and refunds with this number, or with this id of ours."""
    return {row[0] for row in await connection.fetch(queries.find_by_transaction_no, number, own_id)}


async def filter_orders(
    connection: Connection,
    order_ids: Sequence[UUID],
    count: int,
    user_id: str | None,
    status: str | None,
    contact: ContactFilter,
) -> list[OrderMatch]:
    """Read those of the orders that fit, newest first."""
    rows = await connection.fetch(queries.filter_orders, order_ids, count, user_id, status, *contact)
    return [
        OrderMatch(
            *(row["order_id"], row["user_id"], row["sale_id"], OrderStatus(row["status"])),
            Money(row["total_minor"], row["currency"]),
            row["accepted_at"],
            row["recipients"],
        )
        for row in rows
    ]


async def take_batches(connection: Connection, count: int) -> list[UUID]:
    """Delete some of the batches that wait, and return their orders. Call inside a transaction."""
    return [order_id for row in await connection.fetch(queries.take_batches, count) for order_id in row["order_ids"]]


async def insert_contacts(connection: Connection, order_ids: Collection[UUID]) -> int:
    """Store the recipients of orders in the searched forms, each once. Returns the number of recipients."""
    contacts = [
        (row["order_id"], address_no, normalise_phone(address.phone), normalise_name(address.name))
        for row in await connection.fetch(queries.read_addresses, list(order_ids))
        for address_no, address in enumerate(msgspec.json.decode(row["ship_to"], type=list[Address]))
    ]
    if contacts:
        await connection.execute(queries.insert_contacts, *zip(*contacts, strict=True))
    return len(contacts)


async def list_grants(connection: Connection, order_id: UUID) -> list[OrderGrant]:
    return [OrderGrant(*row) for row in await connection.fetch(queries.list_grants, order_id)]


async def list_postings(connection: Connection, order_id: UUID) -> list[OrderPosting]:
    """List the postings of an order in their sequence, each with all of its entries."""
    return [
        OrderPosting(**{**row, "entries": orjson.loads(row["entries"])})
        for row in map(dict, await connection.fetch(queries.list_postings, order_id))
    ]


async def list_transactions(connection: Connection, order_id: UUID) -> list[TransactionNumbers]:
    return [TransactionNumbers(*row) for row in await connection.fetch(queries.list_transactions, order_id)]


async def list_return_shipments(connection: Connection, order_id: UUID) -> list[UUID]:
    return [row[0] for row in await connection.fetch(queries.list_return_shipments, order_id)]


async def insert_view(connection: Connection, order_id: UUID, actor: str, now: datetime) -> None:
    await connection.execute(queries.insert_view, order_id, actor[:100], now)


async def list_views(connection: Connection, order_id: UUID) -> list[OrderView]:
    """List those who have opened an order, the latest first."""
    return [OrderView(*row) for row in await connection.fetch(queries.list_views, order_id)]
