"""Rows of the address book."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec
import orjson

from commerce.addresses.model import SavedAddress
from commerce.kernel.address import Address
from commerce.kernel.postgres import Connection
from commerce.kernel.sql import load_queries

queries = load_queries(__package__, saved_addresses=SavedAddress.__struct_fields__)


async def lock_address_book(connection: Connection, user_id: str) -> None:
    await connection.execute(queries.lock_address_book, user_id)


async def list_addresses(connection: Connection, user_id: str, count: int) -> list[SavedAddress]:
    """List a customer's addresses: the default, then the newest."""
    return [_from_row(row) for row in await connection.fetch(queries.list_addresses, user_id, count)]


async def find_addresses(connection: Connection, user_id: str, address_ids: Sequence[UUID]) -> list[SavedAddress]:
    """Return those of the addresses that the customer has, in any order."""
    return [_from_row(row) for row in await connection.fetch(queries.find_addresses, user_id, address_ids)]


async def insert_address(connection: Connection, user_id: str, saved: SavedAddress) -> None:
    await connection.execute(
        queries.insert_address, saved.address_id, user_id, _to_json(saved.address), saved.is_default, saved.created_at
    )


async def update_address(
    connection: Connection, user_id: str, address_id: UUID, address: Address, now: datetime
) -> SavedAddress | None:
    """Replace an address. Returns None if the customer has none with this id."""
    row = await connection.fetchrow(queries.update_address, user_id, address_id, _to_json(address), now)
    return None if row is None else _from_row(row)


async def set_default(connection: Connection, user_id: str, address_id: UUID, now: datetime) -> SavedAddress | None:
    """Set the default address. Returns None if the customer has none with this id; then roll back."""
    await connection.execute(queries.clear_default, user_id, address_id, now)
    row = await connection.fetchrow(queries.set_default, user_id, address_id, now)
    return None if row is None else _from_row(row)


async def delete_address(connection: Connection, user_id: str, address_id: UUID) -> None:
    await connection.execute(queries.delete_address, user_id, address_id)


def _to_json(address: Address) -> str:
    return msgspec.json.encode(address).decode()


def _from_row(row: Any) -> SavedAddress:
    values = {**row, "address": msgspec.convert(orjson.loads(row["address"]), Address)}
    return SavedAddress(**values)
