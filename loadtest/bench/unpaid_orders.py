"""Stored orders of the benchmarks that nobody has paid, and requests about them."""

from __future__ import annotations

from dataclasses import dataclass

import asyncpg
import jwt

from loadtest.bench.environment import BenchEnvironment
from loadtest.bench.wrk import LoadFailed


@dataclass(frozen=True, slots=True)
class UnpaidOrder:
    """An order of an earlier crowd that is not paid."""

    order_id: str
    key: str
    token: str

    def format_request(self, path: str, body: str = "", headers: str = "") -> str:
        """Return a POST request of the order's customer; each header ends with a line break."""
        content_type = "Content-Type: application/json\r\n" if body else ""
        return (
            f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {self.token}\r\n"
            f"{content_type}{headers}Content-Length: {len(body)}\r\n\r\n{body}"
        )

    def format_payment(self) -> str:
        """Return the request that begins to pay as the order says."""
        return self.format_request(f"/v1/orders/{self.order_id}/payments", "{}")


async def select_unpaid_orders(environment: BenchEnvironment, count: int) -> list[UnpaidOrder]:
    """Return stored orders that nobody has paid. Raises `LoadFailed` if there are too few."""
    async with environment.shop.db.connection() as connection:
        rows: list[asyncpg.Record] = await connection.fetch(
            "SELECT order_id, user_id, idempotency_key FROM orders WHERE status = 'awaiting_payment' LIMIT $1", count
        )
    if len(rows) < count:
        raise LoadFailed(f"{count} stored orders are needed, and there are {len(rows)}")
    headers = environment.tokens.read_text().splitlines()  # the tokens with which they were placed
    tokens = {jwt.decode(token, options={"verify_signature": False})["sub"]: token for token in map(_token_of, headers)}
    return [UnpaidOrder(str(row["order_id"]), row["idempotency_key"], tokens[row["user_id"]]) for row in rows]


def _token_of(header: str) -> str:
    return header.removeprefix("Authorization: Bearer ")
