"""A customer's address is in the database only: in no log and in no error text."""

from __future__ import annotations

import logging
import traceback

import asyncpg
import msgspec
import pytest

import lua
from commerce.kernel.errors import Conflict
from commerce.kernel.postgres import Connection, safe_error_text
from commerce.kernel.stream_payload import decode_accepted, encode_accepted
from commerce.orders.service import Actor, Orders
from config.settings import Settings
from lua import SaleKeys
from ops.services import CliServices
from tests.support.gateway import run_workers
from tests.support.sales import eventually, make_sale, reservation, reserve
from tests.support.servers import Servers

ADDRESS = '[{"name": "Zhang San", "phone": "1380", "country": "CN", "city": "Atlantis", "line": "Wenyi West Road 969"}]'
PRIVATE = ("Zhang", "Wenyi")


@pytest.fixture
async def keys(shop: CliServices, sale_id: str) -> SaleKeys:
    return await make_sale(shop, sale_id, {"a": (50, 100, None)})


async def place_order(shop: CliServices, sale_id: str, keys: SaleKeys, ship_to: str) -> lua.Reservation:
    order = reservation(shop.ids.new, sale_id, {"a": 1})
    payload = encode_accepted(msgspec.structs.replace(decode_accepted(order.payload), ship_to=ship_to))
    order = msgspec.structs.replace(order, payload=payload)
    await reserve(shop.redis, keys, order)
    return order


async def is_drained(shop: CliServices, keys: SaleKeys) -> bool:
    return (await lua.read_backlog(shop.redis, keys)).orders == 0


def log_text(caplog: pytest.LogCaptureFixture) -> str:
    """Return all log records with their tracebacks and extras."""
    formatter = logging.Formatter()
    return "\n".join(f"{formatter.format(record)} {record.__dict__}" for record in caplog.records)


REFUSED = {
    "a constraint": (
        ADDRESS,
        'CheckViolationError: new row for relation "orders" violates check constraint "known_city" '
        "(SQLSTATE 23514, constraint known_city)",
    ),
    "invalid JSON": (
        ADDRESS[:-1],
        "InvalidTextRepresentationError: invalid input syntax for type json (SQLSTATE 22P02, column orders.ship_to)",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_refused_order_leaks_no_address_into_logs_or_errors(
    shop: CliServices,
    settings: Settings,
    sale_id: str,
    keys: SaleKeys,
    servers: Servers,
    caplog: pytest.LogCaptureFixture,
    name: str,
) -> None:
    ship_to, error_text = REFUSED[name]
    async with shop.db.connection() as connection:
        await connection.execute(
            "ALTER TABLE orders ADD CONSTRAINT known_city CHECK (ship_to->0->>'city' IS DISTINCT FROM 'Atlantis')"
        )
    order = await place_order(shop, sale_id, keys, ship_to)
    async with run_workers(settings, "order_writer"):
        await eventually(lambda: is_drained(shop, keys))
    [letter] = (await shop.dead_letters.list_letters(None, 10)).items
    assert letter.error == error_text
    with pytest.raises(Conflict) as retry_error:
        await shop.dead_letters.retry(order.order_id, "test")
    text = log_text(caplog) + (servers.home / "logs" / "postgres.log").read_text(errors="replace")
    assert "dead-lettered an order" in text
    for private in PRIVATE:
        assert private not in text + letter.error + retry_error.value.detail


async def test_traceback_of_database_error_quotes_no_row(
    shop: CliServices, settings: Settings, sale_id: str, keys: SaleKeys
) -> None:
    """Errors that leave the pool, and their causes, have no DETAIL."""
    order = await place_order(shop, sale_id, keys, ADDRESS)
    async with run_workers(settings, "order_writer"):
        await eventually(lambda: is_drained(shop, keys))
    async with shop.db.connection() as connection:
        await connection.execute("ALTER TABLE orders ADD CHECK (cancel_reason <> 'by_customer')")
    orders = Orders(shop.db, shop.redis, shop.clock)
    with pytest.raises(asyncpg.CheckViolationError) as raised:
        await orders.cancel(order.order_id, Actor("user", "customer user"), [sale_id], 1)
    statement = "INSERT INTO sales SELECT $1, 'Wenyi', 'no currency', 'open', now(), NULL, 900, 1, 0, 1, 0, now()"
    with pytest.raises(RuntimeError) as wrapped:
        async with shop.db.connection() as connection:
            await _execute_and_wrap_error(connection, statement, sale_id)
    for error in (raised.value, wrapped.value):
        text = "".join(traceback.format_exception(error))
        assert "violates check constraint" in text
        assert "DETAIL" not in text
        assert not any(private in text for private in PRIVATE)


async def _execute_and_wrap_error(connection: Connection, statement: str, sale_id: str) -> None:
    try:
        await connection.execute(statement, sale_id)
    except asyncpg.PostgresError as error:
        raise RuntimeError("wrapped") from error


async def test_error_text_of_asyncpg_quotes_no_value(shop: CliServices) -> None:
    with pytest.raises(asyncpg.DataError, match="Wenyi") as raised:
        async with shop.db.connection() as connection:
            await connection.execute("SELECT $1::integer", "Wenyi")
    assert safe_error_text(raised.value) == "DataError: invalid input for query argument $1"
