"""Every SQL statement finds its rows by an index in a database of half a million orders.

`FLOODGATE_DRILL_ORDERS` sets another number of orders.
"""

from __future__ import annotations

import asyncio
import importlib
import os
from collections.abc import AsyncIterator, Iterator, Mapping
from datetime import datetime, timedelta
from importlib import resources
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest

from commerce.kernel.postgres import Connection
from commerce.kernel.sql import Queries, load_queries
from tests.drills import grown_shop
from tests.drills.expected_plans import EXPECTED, NEEDED, SMALL
from tests.drills.list_values import values_of_lists
from tests.drills.quality_values import values_of_quality
from tests.drills.sales_values import values_of_sales
from tests.drills.search_values import values_of_search
from tests.drills.statement_plans import Plans
from tests.drills.support_values import values_of_conversations, values_of_support
from tests.support.servers import Servers

pytestmark = [pytest.mark.drill, pytest.mark.timeout(1_800)]
ORDERS = int(os.environ.get("FLOODGATE_DRILL_ORDERS", "500000"))
ORDER_IDS = (
    *("order_id", "payment_id", "refund_id", "shipment_id", "booking_id", "release_id", "change_id", "subject"),
    *("cart_id", "checkout_id", "address_id", "cancellation_id", "grant_id", "source_id", "part_of"),
    *("case_id", "return_shipment_id", "receipt_id", "surplus_id", "send_back_id"),
    *("conversation_id", "previous_id", "merged_into", "attachment_id", "import_id"),
)
"""Columns whose values are ids of orders in the filled database."""


def statements() -> dict[str, str]:
    """Return the SQL blocks of all packages by `package.name`, without those that have no plan."""
    blocks: dict[str, str] = {}
    for part in resources.files("commerce").iterdir():
        if part.joinpath("queries.sql").is_file():
            package = f"commerce.{part.name}"
            queries: Queries = (
                load_queries(package) if part.name == "kernel" else importlib.import_module(f"{package}.store").queries
            )
            blocks |= {f"{part.name}.{name}": sql for name, sql in queries.all().items()}
    return {name: sql for name, sql in blocks.items() if not sql.startswith("SET")}


class GrownShop:
    """A filled database, and typical values of its statements."""

    def __init__(
        self, connection: Connection, now: datetime, sizes: Mapping[str, int], order: Mapping[str, Any]
    ) -> None:
        self.connection = connection
        self.sizes = sizes
        order_id = order["order_id"]
        columns: dict[str, object] = {
            **dict.fromkeys(ORDER_IDS, order_id),
            "sale_id": f"sale-{ORDERS // 500 - 1}",
            "user_id": order["user_id"],
            "idempotency_key": order["idempotency_key"],
            "sku": "sku-5",
            "method": "alipay",
            "system": "sf_express",
            "queue": "releases",
            "carrier": "sf_express",
            "webhook_id": f"webhook-{ORDERS - 9_999}",
            "tracking_no": f"SF{ORDERS - 9_999}",
            "warehouse_id": "w1",
            "vehicle_id": "V1",
            "actor": "staff",
            "account": "orders",
            "currency": "CNY",
            "posting": f"capture {order_id}",
            "kind": "address",
            "mark": order_id.bytes,
            **dict.fromkeys(("plan_revision", "epoch"), 1),
            "created_at": now - timedelta(days=7),
            "accepted_at": now - timedelta(days=2),
            "(uuid)": order_id,
            **dict.fromkeys(("(text)", "(name)"), "sale-1"),
            "(timestamp with time zone)": now,
            "(date)": now.date(),
            "(time without time zone)": "10:00",
            **dict.fromkeys(("(bigint)", "(integer)", "(smallint)", "(double precision)", "(real)"), 100),
            "(boolean)": False,
            "(bytea)": order_id.bytes,
            "(jsonb)": "{}",
            "(xid)": 1,
        }
        self.plans = Plans(connection, sizes, columns)
        first, last = UUID(int=0), UUID(int=2**128 - 1)
        day: dict[int, object] = {2: now - timedelta(days=1), 3: now}
        every_warehouse: dict[int, object] = {1: None, 2: first}
        of_catalog = values_of_sales(now) | values_of_search(ORDERS // 5) | values_of_quality(now)
        self.values: dict[str, dict[int, object]] = {
            **{name: every_warehouse for name in statements() if name.startswith("fulfilment.list_")},
            **{f"fulfilment.list_{name}": {} for name in ("lines_to_plan", "line_details", "unplanned_orders")},
            **values_of_support(now),
            "fulfilment.list_wave_shipments": {1: order["wave_id"]},
            "fulfilment.list_picks": {1: order["wave_id"]},
            "fulfilment.list_packing_lines": {},
            "fulfilment.list_stalled": every_warehouse | {4: now - timedelta(days=2)},
            "fulfilment.list_no_first_scan": every_warehouse | {4: now - timedelta(days=1)},
            **(values_of_lists(now) | _values_of_cases(now) | values_of_conversations(now)),
            **(_values_of_searches(order) | of_catalog),
            "ledger.list_held_cash": {1: None},
            "orders.get_events": {2: 0},
            "orders.list_orders": {2: last},
            "payments.list_captures": day,
            "payments.list_needing_other_way": {3: 100},
            "payments.list_completed_refunds": day | {1: "wechatpay"},
            "payments.sum_entries": {1: sizes["ledger"] - 1_000, 2: 2**63 - 1},
            "sales.list_changed_items": {2: 0, 3: ""},
            "shipping.list_events_after": {2: 0},
            "waiting_rooms.read_part": {2: 1},
        }
        """values by statement and parameter, where those of a column or type will not do"""


def _values_of_cases(now: datetime) -> dict[str, dict[int, object]]:
    """Return values of lists of cases and suspects: the newest, and those to act on."""
    first, last = UUID(int=0), UUID(int=2**128 - 1)
    return {
        "screening.list_order_phones": {2: last},
        "screening.list_suspects": {2: 50, 3: "", 4: 0},
        "screening.list_users": {2: 0, 3: 101, 5: None, 6: None},
        "aftersales.list_open": {1: now - timedelta(days=1), 3: "staff", 4: False, 5: now},
        "aftersales.list_of_user": {2: last},
        "aftersales.list_all": {1: last},
        "aftersales.list_policies": {1: None, 2: ""},
        "case_rules.list_past": {1: now, 2: now - timedelta(days=1), 3: first, 4: 500},
        "case_rules.count_past": {1: last, 2: last},
        "return_shipments.find_by_tracking_nos": {1: ["RT17"]},
        "return_receipts.list_expected": {1: first, 2: None, 3: now - timedelta(days=9)},
        "return_receipts.list_not_received": {1: first, 2: None, 3: "delivered"},
        "return_receipts.list_parked": {1: first},
        "return_receipts.list_unmatched": {1: first, 2: None},
        "return_receipts.list_undecided": {1: first},
        "return_receipts.list_open_send_backs": {1: first},
    }


def _values_of_searches(order: Mapping[str, Any]) -> dict[str, dict[int, object]]:
    """Return values of searches for orders, without a day."""
    whole: dict[int, object] = {1: UUID(int=0), 2: UUID(int=2**128 - 1), 3: 100}
    return {
        "order_search.list_by_id": whole,
        "order_search.list_of_user": whole | {4: order["user_id"]},
        "order_search.list_by_phone": whole | {4: "13800007919"},
        "order_search.list_by_phone_end": whole | {4: "7919"},
        "order_search.list_by_name": whole | {4: "name7919"},
        "order_search.find_by_tracking_no": {1: f"SF{ORDERS - 9_999}"},
        "order_search.find_by_transaction_no": {1: f"T{ORDERS - 9_999}", 2: order["order_id"]},
        "order_search.filter_orders": {1: [order["order_id"]], 3: None, 4: "paid", 5: None, 6: "7919", 7: None},
    }


@pytest.fixture(scope="module")
def grown_url(servers: Servers) -> Iterator[str]:
    """URL of a filled database, which the tests leave as it is."""
    name = f"grown_{uuid4().hex}"

    async def create() -> None:
        admin = await asyncpg.connect(servers.database_url.format("postgres"))
        await admin.execute(servers.copy_template(name))
        await admin.close()
        connection = await asyncpg.connect(servers.database_url.format(name))
        await grown_shop.fill(connection, ORDERS)
        await connection.close()

    async def drop() -> None:
        admin = await asyncpg.connect(servers.database_url.format("postgres"))
        await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
        await admin.close()

    asyncio.run(create())
    yield servers.database_url.format(name)
    asyncio.run(drop())


@pytest.fixture
async def grown_database(grown_url: str) -> AsyncIterator[GrownShop]:
    connection = await asyncpg.connect(grown_url)
    await connection.execute("SET jit = off")  # as the shop's own connections have it
    tables = await connection.fetch(
        "SELECT relname, reltuples::bigint AS rows FROM pg_class "
        "WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
    )
    sizes = {row["relname"]: row["rows"] for row in tables if row["relname"] not in SMALL}
    order = await connection.fetchrow(
        "SELECT orders.order_id, user_id, idempotency_key, wave_id "
        "FROM orders JOIN shipments USING (order_id) WHERE shipments.status = 'in_transit' LIMIT 1"
    )
    assert order is not None
    now = await connection.fetchval("SELECT max(accepted_at) FROM orders WHERE sale_id = 'ordinary'")
    yield GrownShop(connection, now, sizes, dict(order))
    await connection.close()


@pytest.mark.parametrize("name", sorted(statements()))
async def test_statement_finds_its_rows_by_an_index(grown_database: GrownShop, name: str) -> None:
    faults = await grown_database.plans.find_faults(statements()[name], grown_database.values.get(name, {}))
    assert not faults or name in EXPECTED, "; ".join(faults)


def test_every_exception_names_a_statement() -> None:
    assert not EXPECTED.keys() - statements().keys()


@pytest.mark.parametrize(("index", "name"), sorted(NEEDED.items()))
async def test_statement_without_its_index_is_found(grown_database: GrownShop, index: str, name: str) -> None:
    transaction = grown_database.connection.transaction()
    await transaction.start()
    try:
        await grown_database.connection.execute(f"DROP INDEX {index}")
        assert await grown_database.plans.find_faults(statements()[name], grown_database.values.get(name, {}))
    finally:
        await transaction.rollback()


async def test_every_table_that_grows_has_rows(grown_database: GrownShop) -> None:
    """A table that a migration adds must be filled, or be said to stay small."""
    assert not [table for table, rows in grown_database.sizes.items() if rows < ORDERS / 1_000]
