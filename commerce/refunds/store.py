"""Rows of refund grants and of the order lines that they refund."""

from __future__ import annotations

from typing import NamedTuple
from uuid import UUID

from commerce.kernel.postgres import Connection
from commerce.kernel.sql import load_queries

queries = load_queries(__package__)


class PaidLine(NamedTuple):
    """An order line for one address, with what was paid for it in minor units."""

    line_no: int
    address_no: int
    quantity: int
    paid_minor: int


async def list_paid_lines(connection: Connection, order_id: UUID) -> list[PaidLine]:
    return [PaidLine(*row) for row in await connection.fetch(queries.list_paid_lines, order_id)]
