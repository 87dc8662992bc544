"""The end of a shipment drill: orders, shipments, records of the carriers and cash must agree.

Fulfilment lines are counted again here, from the contents of shipments. The records of the carriers are read from the
sandbox's file, shipment by shipment.
"""

from __future__ import annotations

import asyncio
import re
import sqlite3
from collections import Counter, defaultdict
from contextlib import closing
from typing import Any, NamedTuple
from uuid import UUID

import aiohttp
import orjson

from commerce.audit.model import SaleAudit
from ops.services import CliServices, open_cli_services
from tests.drills.carrier_sandbox import CarrierSandboxClient
from tests.drills.client_record import format_examples
from tests.drills.final_checks import check_final_state
from tests.drills.local_stack import LocalStack
from tests.drills.receiving_customers import STOCK, ReceivingCustomers
from tests.support.gateway import bearer
from tests.support.sales import eventually

_POLL_INTERVAL_S, _WORKLIST_TIMEOUT_S = 1.0, 60.0
_UNREPORTED_LOSS = "lost without report"
_FINAL_STATUSES = {"delivered": "delivered", "returned": "returned_to_sender", "lost": "lost"}
"""final states of the sandbox's carriers → our statuses"""
_PARKED_REASONS = ("no carrier takes it: ", "zto refuses: ", "yto refuses: ")
"""Reasons for parked shipments: every possible carrier refused the booking or the subscription."""
_COUNT_UNFINISHED = """
SELECT (SELECT count(*) FROM orders WHERE sale_id = $1) AS orders,
       (SELECT count(*) FROM orders WHERE sale_id = $1 AND status IN ('awaiting_payment', 'paid', 'confirmed'))
           AS unplanned,
       (SELECT count(*) FROM payments JOIN orders USING (order_id) JOIN jobs ON jobs.subject = payment_id
        WHERE sale_id = $1 AND queue = 'payments') AS payments
"""
_LIST_OPEN_SHIPMENTS = """
SELECT count(*) OVER () AS remaining, carrier, tracking_no, status, kind, attempts, last_error
FROM shipments LEFT JOIN jobs ON queue = 'shipments' AND subject = shipment_id
WHERE ended_at IS NULL AND parked IS NOT TRUE AND (tracking_no IS NULL OR tracking_no <> ALL($1::text[])) LIMIT 5
"""
_LIST_FULFILMENT_LINES = """
SELECT order_id, line_no, address_no, order_lines.quantity, ordered, planned, shipped, delivered, cancelled
FROM order_lines JOIN orders USING (order_id) LEFT JOIN fulfilment_lines USING (order_id, line_no, address_no)
WHERE sale_id = $1
"""
_LIST_CANCELLED = """
SELECT idempotency_key FROM orders WHERE sale_id = $1 AND status = 'cancelled' AND NOT EXISTS (
    SELECT FROM fulfilment_lines WHERE fulfilment_lines.order_id = orders.order_id AND delivered > 0)
"""
_LIST_CONTENTS = """
SELECT shipment_lines.order_id, line_no, shipment_lines.address_no, quantity, status
FROM shipment_lines JOIN shipments USING (shipment_id)
"""
_LIST_CASH_PAYMENTS = """
SELECT order_id, orders.status AS order_status, payments.status, payments.amount_minor, payments.captured_minor,
       (SELECT coalesce(sum(cod_minor), 0) FROM shipments WHERE shipments.order_id = orders.order_id
        AND shipments.status = 'delivered') AS collected_minor
FROM orders JOIN payments USING (order_id) WHERE sale_id = $1 AND method = 'cod'
"""


class CarrierRecord(NamedTuple):
    """A shipment in the records of a carrier."""

    carrier: str
    tracking_no: str
    order_no: str
    state: str


def _read_carrier_records(stack: LocalStack, condition: str = "") -> list[CarrierRecord]:
    with closing(sqlite3.connect(f"file:{stack.home}/sandbox/shipments.sqlite?mode=ro", uri=True)) as file:
        rows = file.execute(f"SELECT carrier, tracking_no, order_no, state FROM shipments {condition}")
        return [CarrierRecord(*row) for row in rows]


def list_unreported_losses(stack: LocalStack) -> set[str]:
    """Return the tracking numbers lost at kuaidi100, which has no code for a loss: their events just end."""
    records = _read_carrier_records(stack, "WHERE carrier = 'kuaidi100' AND state = 'lost'")
    return {record.tracking_no for record in records}


async def wait_until_idle(stack: LocalStack, customers: ReceivingCustomers, timeout_s: float) -> None:
    """Wait until every order is planned, and every shipment has ended or waits for staff on a worklist."""
    deadline = asyncio.get_running_loop().time() + timeout_s
    expected = {"orders": len(customers.record.promised_orders()), "unplanned": 0, "payments": 0}
    async with open_cli_services(stack.settings()) as shop:
        while True:
            async with shop.db.connection() as connection:
                [row] = await connection.fetch(_COUNT_UNFINISHED, customers.record.sale_id)
                rows = await connection.fetch(_LIST_OPEN_SHIPMENTS, list(list_unreported_losses(stack)))
            counts = dict(row)
            if counts == expected and not rows:
                return
            if asyncio.get_running_loop().time() > deadline:
                shipments = [dict(row) for row in rows]
                raise AssertionError(f"not idle within {timeout_s} s: {counts}, expected {expected}; {shipments}")
            await asyncio.sleep(_POLL_INTERVAL_S)


class ShipmentCheckResult(NamedTuple):
    """The audit, and counts of ended and parked shipments, orders and cash payments."""

    audit: SaleAudit
    ended: Counter[str]
    parked: Counter[str]
    orders: Counter[str]
    cash: Counter[str]


async def check_shipments(
    stack: LocalStack, customers: ReceivingCustomers, staff_tracking_nos: set[str]
) -> ShipmentCheckResult:
    """Compare all records. `staff_tracking_nos` are the numbers that staff entered when they packed."""
    carrier_records, sale_id = _read_carrier_records(stack), customers.record.sale_id
    async with open_cli_services(stack.settings()) as shop:
        ended, parked = await _check_statuses(shop, carrier_records, list_unreported_losses(stack))
        is_delivered = await _check_fulfilment_lines(shop, sale_id)
        cash = await _check_cash(shop, sale_id, is_delivered)
        await _check_bookings(shop, carrier_records)
        async with shop.db.connection() as connection:
            rows = await connection.fetch("SELECT status, count(*) FROM orders WHERE sale_id = $1 GROUP BY 1", sale_id)
            cancelled = await connection.fetch(_LIST_CANCELLED, sale_id)
    for row in cancelled:  # nothing of them was delivered
        customers.by_key[row["idempotency_key"]].intended.is_cancelled = True
    unknown = {record.tracking_no for record in carrier_records if record.carrier == "kuaidi100"} - staff_tracking_nos
    assert not unknown, f"kuaidi100 has numbers that staff did not enter, {format_examples(unknown)}"
    totals = await CarrierSandboxClient(stack).fetch_totals()
    assert [totals[name]["booked_more_than_once"] for name in ("sf_express", "kuaidi100")] == [0, 0], totals
    # A loss without report reaches its worklist only after `stalled_after_s`.
    await eventually(lambda: _are_on_worklists(stack, parked.total(), ended[_UNREPORTED_LOSS]), _WORKLIST_TIMEOUT_S)
    errors = _read_logged_errors(stack)
    assert not errors, format_examples(errors)
    orders = Counter({row["status"]: row["count"] for row in rows})
    return ShipmentCheckResult(
        audit=await check_final_state(stack, customers.record, STOCK, {}),
        ended=ended,
        parked=parked,
        orders=orders,
        cash=cash,
    )


async def _are_on_worklists(stack: LocalStack, parked: int, stalled: int) -> bool:
    """Return whether the worklists have exactly so many parked and stalled shipments."""
    headers = bearer(stack.settings(), "clerk", roles=("warehouse",))
    async with (
        aiohttp.ClientSession(f"http://127.0.0.1:{stack.admin_port}", headers=headers) as client,
        client.get("/v1/admin/worklists") as answer,
    ):
        counts = orjson.loads(await answer.read())
    return (counts["unplanned"], counts["parked"], counts["stalled"]) == (0, parked, stalled)


async def _check_statuses(
    shop: CliServices, carrier_records: list[CarrierRecord], unreported_losses: set[str]
) -> tuple[Counter[str], Counter[str]]:
    """Check that our final statuses equal the carriers', and that others are parked for a known reason.

    Returns the number of ended shipments by status and of parked ones by reason."""
    by_tracking_no = {record.tracking_no: record for record in carrier_records}
    async with shop.db.connection() as connection:
        rows = await connection.fetch(
            "SELECT * FROM shipments LEFT JOIN jobs ON queue = 'shipments' AND subject = shipment_id"
        )
    wrong, ended, parked = [], Counter[str](), Counter[str]()
    for row in rows:
        record = by_tracking_no.get(row["tracking_no"])
        final_status = _FINAL_STATUSES.get(record.state) if record else None
        if row["parked"] and row["ended_at"] is None:
            assert row["last_error"], dict(row)
            parked[re.sub(r"\d+", "N", row["last_error"])] += 1
            if not row["last_error"].startswith(_PARKED_REASONS):
                wrong.append(f"{row['shipment_id']} is parked: {row['last_error']}")
        elif row["tracking_no"] in unreported_losses:
            ended[_UNREPORTED_LOSS] += 1
            final_status = row["status"]
        else:
            ended[row["status"]] += 1
            if row["ended_at"] is None:
                wrong.append(f"{row['shipment_id']} stays {row['status']}")
        if final_status and row["status"] != final_status and not row["parked"]:
            wrong.append(f"{row['shipment_id']} is {row['status']}, {record}")
    assert not wrong, format_examples(wrong)
    return ended, parked


async def _check_fulfilment_lines(shop: CliServices, sale_id: str) -> dict[UUID, bool]:
    """Check P7 by counting again, line by line. Returns whether each order is completely delivered."""
    async with shop.db.connection() as connection:
        lines = await connection.fetch(_LIST_FULFILMENT_LINES, sale_id)
        contents = await connection.fetch(_LIST_CONTENTS)
    counted: dict[tuple[Any, ...], list[int]] = defaultdict(lambda: [0, 0, 0])
    for order_id, line_no, address_no, units, status in contents:
        counts = counted[order_id, line_no, address_no]
        counts[0] += units * (status not in ("cancelled", "lost", "returned_to_sender"))
        counts[1] += units * (status in ("picked_up", "in_transit", "out_for_delivery", "delivered"))
        counts[2] += units * (status == "delivered")
    wrong, states = [], defaultdict[UUID, list[tuple[int, int]]](list)
    for row in lines:
        counts = counted.pop((row["order_id"], row["line_no"], row["address_no"]), [0, 0, 0])
        stored = [row["planned"], row["shipped"], row["delivered"]]
        expected = row["ordered"] - row["cancelled"]
        if stored != counts or not counts[2] <= counts[1] <= counts[0] <= expected or row["ordered"] != row["quantity"]:
            wrong.append(f"{dict(row)}, in shipments {counts}")
        states[row["order_id"]].append((counts[2], expected))
    assert not wrong, format_examples(wrong)
    assert not counted, f"in shipments and not ordered, {format_examples(map(str, counted))}"
    # Units that were cancelled are not waited for, and an order without any others is cancelled itself.
    return {
        order_id: all(delivered == expected for delivered, expected in units) and any(map(sum, units))
        for order_id, units in states.items()
    }


async def _check_cash(shop: CliServices, sale_id: str, is_delivered: dict[UUID, bool]) -> Counter[str]:
    """Check that cash is captured once all shipments that collect it are delivered, and not before.

    Also checks the order status `delivered`. Returns the number of cash payments by status."""
    async with shop.db.connection() as connection:
        rows = await connection.fetch(_LIST_CASH_PAYMENTS, sale_id)
        orders = await connection.fetch("SELECT order_id, status FROM orders WHERE sale_id = $1", sale_id)
    wrong = [
        f"{order['order_id']} is {order['status']}"
        for order in orders
        if (order["status"] == "delivered") != is_delivered[order["order_id"]]
    ]
    for row in rows:
        # A shipment of cheap units may have nothing to collect, so that the capture does not wait for it.
        expected = {
            "captured": row["captured_minor"] == row["collected_minor"] > 0,
            "authorised": row["collected_minor"] < row["amount_minor"] and not is_delivered[row["order_id"]],
            "closed": row["collected_minor"] == 0,
        }
        if not expected.get(row["status"]):
            wrong.append(f"{dict(row)}: differs from the cash that its shipments collected")
    assert not wrong, format_examples(wrong)
    return Counter(row["status"] for row in rows)


async def _check_bookings(shop: CliServices, carrier_records: list[CarrierRecord]) -> None:
    """Check that SF has each of our bookings once with our outcome, and no others."""
    async with shop.db.connection() as connection:
        rows = await connection.fetch(
            "SELECT booking_id, shipment_id, outcome, tracking_no FROM bookings WHERE carrier = 'sf_express'"
        )
    bookings = {row["booking_id"]: row for row in rows}
    sf_records = [record for record in carrier_records if record.carrier == "sf_express"]
    by_id = {UUID(record.order_no): record for record in sf_records}
    assert len(by_id) == len(sf_records), "two shipments of SF with one order number"
    unknown = [str(record) for id_, record in by_id.items() if id_ not in bookings]
    assert not unknown, f"SF has bookings that are not ours, {format_examples(unknown)}"
    allowed = {"booked": ("booked",), "refused": ("refused",), "cancelled": ("cancelled", "absent"), "requested": ()}
    wrong = []
    for id_, booking in bookings.items():
        record = by_id.get(id_)
        state = "absent" if record is None else "booked"
        if record is not None and record.state in ("refused", "cancelled"):
            state = record.state
        is_other_number = state == "booked" and record and record.tracking_no != booking["tracking_no"]
        if state not in allowed[booking["outcome"]] or is_other_number:
            wrong.append(f"{dict(booking)} here, {record} at SF")
    assert not wrong, format_examples(wrong)
    current = Counter(
        bookings[id_]["shipment_id"] for id_, record in by_id.items() if record.state not in ("refused", "cancelled")
    )
    twice = [str(id_) for id_, count in current.items() if count > 1]
    assert not twice, f"booked at SF more than once, {format_examples(twice)}"


def _read_logged_errors(stack: LocalStack) -> list[str]:
    """Return the log lines of level ERROR of all processes."""
    lines = [line for log in (stack.home / "logs").glob("*.log*") for line in log.read_bytes().splitlines()]
    return [line.decode()[:1_000] for line in lines if b'"level":"ERROR"' in line]


async def summarise_tracking(stack: LocalStack) -> str:
    """Format counts of tracking events by source, of sent and stored webhooks, and the carriers' totals."""
    async with open_cli_services(stack.settings()) as shop, shop.db.connection() as connection:
        rows = await connection.fetch(
            "SELECT source, count(*), count(*) FILTER (WHERE is_unknown_code) AS unknown, "
            "count(*) FILTER (WHERE contradicts_history) AS contradicting FROM shipment_events GROUP BY 1"
        )
        webhooks = await connection.fetch("SELECT result, count(*) FROM carrier_webhooks GROUP BY 1")
    with closing(sqlite3.connect(f"file:{stack.home}/sandbox/shipments.sqlite?mode=ro", uri=True)) as file:
        sent, attempts, open_ = file.execute("SELECT count(*), sum(attempts), sum(done = 0) FROM webhooks").fetchone()
    events = ", ".join(
        f"{row['count']} by {row['source']} ({row['unknown']} unknown, {row['contradicting']} contradicting)"
        for row in rows
    )
    stored = ", ".join(f"{row['count']} {row['result']}" for row in webhooks)
    totals = orjson.dumps(await CarrierSandboxClient(stack).fetch_totals()).decode()
    return f"events: {events}; webhooks: {sent} ({attempts} attempts, {open_} open), stored {stored}\n{totals}"
