"""Searches for orders: each yields what a plain comparison of all orders yields."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from itertools import count
from random import Random
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from commerce.kernel.address import is_phone
from commerce.kernel.postgres import Database
from commerce.order_search import store
from commerce.order_search.contact_forms import normalise_name, normalise_phone
from commerce.order_search.errors import SearchTooWide
from commerce.order_search.model import OrderMatch, OrderSearch
from commerce.order_search.service import OrderFinder, index_contacts
from ops.services import CliServices
from tests.support.sales import ADDRESS
from tests.support.shipping_shop import ShippingShop

ZONE = ZoneInfo("Asia/Shanghai")
START = datetime(2026, 11, 10, 15, 30, tzinfo=UTC)
"""half an hour before midnight in China"""
_numbers = count(1)


@dataclass(frozen=True)
class KnownOrder:
    """An order as a plain comparison needs it."""

    order_id: UUID
    user: str
    status: str
    contacts: tuple[tuple[str, str], ...]

    @property
    def day(self) -> date:
        return datetime.fromtimestamp((self.order_id.int >> 80) / 1000, ZONE).date()


def make_id(at: datetime) -> UUID:
    return UUID(int=(int(at.timestamp() * 1000) << 80) + (7 << 76) + (2 << 62) + next(_numbers))


async def insert(db: Database, orders: Sequence[KnownOrder]) -> None:
    """Store orders in one statement, as the writer does."""
    rows = [
        (
            *(order.order_id, order.user, str(order.order_id), order.status),
            msgspec.json.encode([{**ADDRESS, "name": name, "phone": phone} for name, phone in order.contacts]).decode(),
            datetime.fromtimestamp((order.order_id.int >> 80) / 1000, UTC),
        )
        for order in orders
    ]
    async with db.connection() as connection:
        await connection.execute(
            "INSERT INTO orders (order_id, user_id, idempotency_key, body_digest, sale_id, generation, currency, "
            "total_minor, status, status_seq, ship_to, payment_plan, accepted_at, entry_seq, persisted_at, pay_by, "
            "cancelled_at, cancel_reason) SELECT order_id, user_id, key, decode(repeat('00', 16), 'hex'), 'sale', 1, "
            "'CNY', 1, status, (status = 'cancelled')::int, ship_to, '[]', at, 0, at, at + interval '1 hour', "
            "CASE status WHEN 'cancelled' THEN at END, CASE status WHEN 'cancelled' THEN 'expired' END "
            "FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::jsonb[], $6::timestamptz[]) "
            "AS input (order_id, user_id, key, status, ship_to, at)",
            *zip(*rows, strict=True),
        )


async def index_all(db: Database) -> int:
    orders = 0
    while done := await index_contacts(db, 3):
        orders += done
    return orders


async def find_all(finder: OrderFinder, size: int = 100, **search: Any) -> list[OrderMatch]:
    """Follow the pages of a search to their end."""
    matches: list[OrderMatch] = []
    cursor: UUID | None = None
    for _ in range(1_000):
        page = await finder.find(msgspec.convert({**search, "cursor": cursor}, OrderSearch), size)
        assert len(page.items) <= size
        matches += page.items
        if page.next is None:
            return matches
        cursor = UUID(page.next)
    raise AssertionError("the pages have no end")


def fits(order: KnownOrder, search: dict[str, Any]) -> bool:
    def contact_fits(name: str, phone: str) -> bool:
        digits = normalise_phone(phone)
        return (
            search.get("phone") in (None, phone)
            and digits.endswith(search.get("phone_end", ""))
            and search.get("name") in (None, name)
        )

    return (
        order.order_id.hex.startswith(search.get("order", "").replace("-", ""))
        and search.get("user_id") in (None, order.user)
        and search.get("status") in (None, order.status)
        and search.get("first_day", date.min) <= order.day <= search.get("last_day", search.get("first_day", date.max))
        and any(contact_fits(*contact) for contact in order.contacts)
    )


def random_searches(random: Random, orders: Sequence[KnownOrder], number: int) -> Iterator[dict[str, Any]]:
    """Yield combinations of conditions, most of which some order fits."""
    for _ in range(number):
        order = random.choice(orders)
        name, phone = random.choice(order.contacts)
        other = random.choice(orders)
        conditions = {
            "order": str(order.order_id)[: random.choice((8, 13, 18, 36))],
            "user_id": random.choice((order.user, other.user)),
            "phone": phone,
            "phone_end": normalise_phone(phone)[-4:],
            "name": name,
            "status": random.choice((order.status, other.status)),
            "first_day": order.day,
        }
        names = random.sample(sorted(conditions), random.randint(1, 4))
        if names != ["status"]:
            yield {name: conditions[name] for name in names}


async def test_searches_find_the_same_orders_as_a_plain_comparison(shop: CliServices) -> None:
    random = Random(18)
    contacts = [(f"Name {n % 7}", f"1380000{n % 5:04}") for n in range(12)]
    orders = [
        KnownOrder(
            make_id(START + timedelta(minutes=random.randint(0, 3_000))),
            f"u{random.randint(0, 9)}",
            random.choice(("awaiting_payment", "cancelled")),
            tuple(random.sample(contacts, random.choice((1, 1, 1, 3)))),
        )
        for _ in range(300)
    ]
    for first in range(0, len(orders), 40):
        await insert(shop.db, orders[first : first + 40])
    assert await index_all(shop.db) == len(orders)
    newest = sorted(orders, key=lambda order: order.order_id, reverse=True)
    finder, small = OrderFinder(shop.db, ZONE), OrderFinder(shop.db, ZONE, max_examined=7)
    successes = 0
    for search in random_searches(random, orders, 150):
        expected = [order.order_id for order in newest if fits(order, search)]
        assert [match.order_id for match in await find_all(finder, 5, **search)] == expected, search
        assert [match.order_id for match in await find_all(small, 2, **search)] == expected, search
        successes += bool(expected)
    assert successes > 50


async def test_search_without_an_index_names_conditions_to_add(shop: CliServices) -> None:
    finder = OrderFinder(shop.db, ZONE)
    for search, pointer in (
        (OrderSearch(), ""),
        (OrderSearch(status="paid"), "/status"),
        (OrderSearch(last_day=date(2026, 1, 1)), ""),
    ):
        with pytest.raises(SearchTooWide, match="add order, user_id") as refusal:
            await finder.find(search, 5)
        assert refusal.value.extra["errors"][0]["pointer"] == pointer


async def test_day_is_the_day_of_the_shop(shop: CliServices) -> None:
    before, after = (
        KnownOrder(make_id(START + timedelta(minutes=minutes)), "u", "awaiting_payment", (("A", "13800000000"),))
        for minutes in (29, 31)
    )
    await insert(shop.db, [before, after])
    finder = OrderFinder(shop.db, ZONE)
    days = (date(2026, 11, 10), date(2026, 11, 11))
    by_day = [[match.order_id for match in await find_all(finder, first_day=day)] for day in days]
    assert by_day == [[before.order_id], [after.order_id]]
    both = await find_all(finder, first_day=days[0], last_day=days[1])
    assert [match.order_id for match in both] == [after.order_id, before.order_id]
    assert await find_all(finder, first_day=days[1], last_day=days[0]) == []


async def test_order_is_found_by_numbers_of_shipments_and_payments(ship: ShippingShop) -> None:
    order_id, [shipment] = await ship.add_booked_order(("a", 1, 0))
    other_id, _ = await ship.add_booked_order(("a", 1, 0))
    finder = OrderFinder(ship.shop.db, ZONE)
    [payment] = await ship.fetch_rows("SELECT payment_id, transaction_id FROM payments WHERE order_id = $1", order_id)
    await ship.fetch_rows("UPDATE payments SET transaction_id = 'T-0001' WHERE order_id = $1 RETURNING 1", order_id)
    payment_id: UUID = payment["payment_id"]
    assert shipment.tracking_no is not None
    for search in (
        {"tracking_no": shipment.tracking_no},
        {"transaction_no": "T-0001"},
        {"transaction_no": str(payment_id)},
        {"transaction_no": payment_id.hex},
        {"transaction_no": "T-0001", "tracking_no": shipment.tracking_no, "user_id": "user"},
        {"order": order_id.hex.upper()},
    ):
        assert [match.order_id for match in await find_all(finder, **search)] == [order_id], search
    for search in (
        {"tracking_no": "none"},
        {"transaction_no": "T-0001", "user_id": "nobody"},
        {"transaction_no": "T-0001", "order": str(other_id)},
    ):
        assert await find_all(finder, **search) == [], search


async def test_orders_are_indexed_once_by_several_workers(shop: CliServices) -> None:
    """A repeat, two processes at once and a rolled-back step neither lose nor double a recipient."""
    orders = [
        KnownOrder(make_id(START), f"u{n}", "awaiting_payment", ((f"N{n}", "13800000000"), ("B", "+49 30 1234")))
        for n in range(60)
    ]
    for order in orders:
        await insert(shop.db, [order])

    async def fail_in_a_step() -> None:
        async with shop.db.transaction() as connection:
            await store.insert_contacts(connection, set(await store.take_batches(connection, 50)))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail_in_a_step()
    assert sum(await asyncio.gather(*(index_all(shop.db) for _ in range(3)))) == 60
    async with shop.db.connection() as connection:
        await connection.execute("INSERT INTO orders_to_index (order_ids) SELECT array_agg(order_id) FROM orders")
    assert await index_all(shop.db) == 60
    async with shop.db.connection() as connection:
        assert await connection.fetchval("SELECT count(*) FROM order_contacts") == 120
        assert await connection.fetchval("SELECT count(*) FROM order_contacts WHERE phone = '49301234'") == 60
        assert await connection.fetchval("SELECT count(*) FROM orders_to_index") == 0


@pytest.mark.parametrize(
    ("written", "stored"),
    [
        ("13800000000", "13800000000"),
        ("+86 138 0000-0000", "13800000000"),
        ("0086 (138) 00000000", "13800000000"),
        ("86 13800000000", "13800000000"),
        ("010-8888 6666", "01088886666"),
        ("+49 30 1234", "49301234"),
        ("8612", "8612"),
    ],
)
def test_phone_numbers_are_compared_by_digits(written: str, stored: str) -> None:
    assert normalise_phone(written) == stored


@given(st.from_regex(r"\+?[0-9][0-9 ()-]{3,20}", fullmatch=True).filter(is_phone))
def test_stored_form_of_a_phone_number_is_digits_and_stays(phone: str) -> None:
    stored = normalise_phone(phone)
    assert stored.isdecimal()
    assert phone.replace(" ", "").replace("-", "").replace("(", "").replace(")", "").endswith(stored[-4:])
    assert normalise_phone(f"+{stored}") in (stored, normalise_phone(stored))


@given(st.text())
def test_stored_form_of_a_name_stays(name: str) -> None:
    stored = normalise_name(name)
    assert normalise_name(f" {stored} ") == normalise_name(stored)
    assert not any(letter.isspace() for letter in stored)


@pytest.mark.parametrize(("some", "other"), [("张 三", "张三"), ("ZHANG San", "zhang san"), ("Ｚｈａｎｇ", "zhang")])
def test_names_are_compared_without_blanks_case_and_width(some: str, other: str) -> None:
    assert normalise_name(some) == normalise_name(other)
