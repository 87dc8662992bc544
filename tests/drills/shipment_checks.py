"""The end of a shipping drill: orders, parcels, the carriers' own books and the cash must tell one story.

What is counted of goods is counted here once more, from what parcels hold; the carriers' books are read from the
sandbox's file, parcel by parcel.
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

_POLL_INTERVAL_S, _ON_LISTS_S = 1.0, 60.0
_SILENT = "silently lost"
_ENDS = {"delivered": "delivered", "returned": "returned_to_sender", "lost": "lost"}
"""The carriers' words for it, and ours."""
_REASONS = ("no carrier takes it: ", "zto refuses: ", "yto refuses: ")
"""What may stop a parcel here: whoever could bring it was asked and will not, or does not want to be asked for news."""
_REST = """
SELECT (SELECT count(*) FROM orders WHERE sale_id = $1) AS orders,
       (SELECT count(*) FROM orders WHERE sale_id = $1 AND status IN ('awaiting_payment', 'paid', 'confirmed'))
           AS unplanned,
       (SELECT count(*) FROM payments JOIN orders USING (order_id) WHERE sale_id = $1 AND task IS NOT NULL) AS payments
"""
_OPEN = """
SELECT count(*) OVER () AS left, carrier, tracking_no, status, task, attempts, last_error FROM shipments
WHERE ended_at IS NULL AND NOT parked AND (tracking_no IS NULL OR tracking_no <> ALL($1::text[])) LIMIT 5
"""
_LINES = """
SELECT order_id, line_no, address_no, order_lines.quantity AS wanted, ordered, planned, shipped, delivered
FROM order_lines JOIN orders USING (order_id) LEFT JOIN fulfilment_lines USING (order_id, line_no, address_no)
WHERE sale_id = $1
"""
_HELD = """
SELECT shipment_lines.order_id, line_no, shipment_lines.address_no, quantity, status
FROM shipment_lines JOIN shipments USING (shipment_id)
"""
_CASH = """
SELECT order_id, orders.status AS order_status, payments.status, payments.amount_minor AS amount,
       (SELECT coalesce(-sum(ledger.amount_minor), 0) FROM ledger
        WHERE posting = 'capture ' || payment_id AND account = 'orders') AS taken,
       (SELECT coalesce(sum(cod_minor), 0) FROM shipments WHERE shipments.order_id = orders.order_id
        AND shipments.status = 'delivered') AS collected
FROM orders JOIN payments USING (order_id) WHERE sale_id = $1 AND method = 'cod'
"""


class CarrierRecord(NamedTuple):
    """A parcel in the carriers' books."""

    carrier: str
    number: str
    order_no: str
    state: str


def _carrier_records(stack: LocalStack, which: str = "") -> list[CarrierRecord]:
    with closing(sqlite3.connect(f"file:{stack.home}/sandbox/shipments.sqlite?mode=ro", uri=True)) as file:
        return [
            CarrierRecord(*row)
            for row in file.execute(f"SELECT carrier, tracking_no, order_no, state FROM shipments {which}")
        ]


def _silently_lost(stack: LocalStack) -> set[str]:
    """kuaidi100 has no word for it, so its parcels are only not heard of any more."""
    return {one.number for one in _carrier_records(stack, "WHERE carrier = 'kuaidi100' AND state = 'lost'")}


async def wait_until_idle(stack: LocalStack, payers: ReceivingCustomers, timeout_s: float) -> None:
    """Wait until every order is in parcels, and every parcel is over, or waits for a person on a list of the desk."""
    deadline = asyncio.get_running_loop().time() + timeout_s
    wanted = {"orders": len(payers.record.promised()), "unplanned": 0, "payments": 0}
    async with open_cli_services(stack.settings()) as shop:
        while True:
            async with shop.db.connection() as connection:
                [row] = await connection.fetch(_REST, payers.record.sale_id)
                left = [dict(one) for one in await connection.fetch(_OPEN, list(_silently_lost(stack)))]
            now = dict(row)
            if (now, left) == (wanted, []):
                return
            if asyncio.get_running_loop().time() > deadline:
                raise AssertionError(f"not at rest within {timeout_s} s: {now}, wanted {wanted}; {left}")
            await asyncio.sleep(_POLL_INTERVAL_S)


class ShipmentCheckResult(NamedTuple):
    """The audit, parcels by how they ended, and why the others wait for a person."""

    audit: SaleAudit
    ends: Counter[str]
    parked: Counter[str]
    orders: Counter[str]
    cash: Counter[str]


async def check_shipments(stack: LocalStack, payers: ReceivingCustomers, numbers: set[str]) -> ShipmentCheckResult:
    """Compare everything with everything. `numbers` are those that the desk gave parcels by itself."""
    theirs, sale_id = _carrier_records(stack), payers.record.sale_id
    async with open_cli_services(stack.settings()) as shop:
        ends, parked = await _check_ends(shop, theirs, _silently_lost(stack))
        whole = await _check_fulfilment_lines(shop, sale_id)
        cash = await _check_cash(shop, sale_id, whole)
        await _check_carriers(shop, theirs, numbers)
        async with shop.db.connection() as connection:
            rows = await connection.fetch("SELECT status, count(*) FROM orders WHERE sale_id = $1 GROUP BY 1", sale_id)
    books = await CarrierSandboxClient(stack).totals()
    assert [books[name]["booked_more_than_once"] for name in ("sf_express", "kuaidi100")] == [0, 0], books
    # Who is silently lost is found by nobody before it has not been heard of for long.
    await eventually(lambda: _on_lists(stack, parked.total(), ends[_SILENT]), _ON_LISTS_S)
    assert not (faults := _errors(stack)), format_examples(faults)
    orders = Counter({row["status"]: row["count"] for row in rows})
    return ShipmentCheckResult(await check_final_state(stack, payers.record, STOCK, {}), ends, parked, orders, cash)


async def _on_lists(stack: LocalStack, parked: int, stuck: int) -> bool:
    """Whether the desk has on its lists what waits for a person, and nothing else."""
    headers = bearer(stack.settings(), "desk", roles=("warehouse",))
    async with (
        aiohttp.ClientSession(f"http://127.0.0.1:{stack.admin_port}", headers=headers) as client,
        client.get("/v1/admin/worklists") as answer,
    ):
        counts = orjson.loads(await answer.read())
    return (counts["unplanned"], counts["parked"], counts["stalled"]) == (0, parked, stuck)


async def _check_ends(
    shop: CliServices, theirs: list[CarrierRecord], lost: set[str]
) -> tuple[Counter[str], Counter[str]]:
    """Where a parcel ended with its carrier it ended here; what did not end waits for a person who knows why."""
    at = {one.number: one for one in theirs}
    async with shop.db.connection() as connection:
        rows = await connection.fetch("SELECT * FROM shipments")
    wrong, ends, parked = [], Counter[str](), Counter[str]()
    for row in rows:
        said = at.get(row["tracking_no"])
        end = _ENDS.get(said.state) if said else None
        if row["parked"] and row["ended_at"] is None:
            assert row["last_error"], dict(row)
            parked[_shape(row["last_error"])] += 1
            if not row["last_error"].startswith(_REASONS):
                wrong.append(f"{row['shipment_id']} is parked: {row['last_error']}")
        elif row["tracking_no"] in lost:
            ends[_SILENT] += 1
            end = row["status"]
        else:
            ends[row["status"]] += 1
            if row["ended_at"] is None:
                wrong.append(f"{row['shipment_id']} is {row['status']} for ever")
        if end and row["status"] != end and not row["parked"]:
            wrong.append(f"{row['shipment_id']} is {row['status']}, {said}")
    assert not wrong, format_examples(wrong)
    return ends, parked


def _shape(reason: str) -> str:
    """Without what is of one parcel only."""
    return re.sub(r"\d+", "N", reason)


async def _check_fulfilment_lines(shop: CliServices, sale_id: str) -> dict[UUID, bool]:
    """P7, counted once more, line by line; gives whether all of an order has arrived."""
    async with shop.db.connection() as connection:
        lines = await connection.fetch(_LINES, sale_id)
        held = await connection.fetch(_HELD)
    counted: dict[tuple[Any, ...], list[int]] = defaultdict(lambda: [0, 0, 0])
    for order_id, line_no, address_no, units, status in held:
        counts = counted[order_id, line_no, address_no]
        counts[0] += units * (status not in ("cancelled", "lost", "returned_to_sender"))
        counts[1] += units * (status in ("picked_up", "in_transit", "out_for_delivery", "delivered"))
        counts[2] += units * (status == "delivered")
    wrong, whole = [], dict[UUID, bool]()
    for row in lines:
        found = counted.pop((row["order_id"], row["line_no"], row["address_no"]), [0, 0, 0])
        kept = [row["planned"], row["shipped"], row["delivered"]]
        if kept != found or row["ordered"] != row["wanted"] or not found[2] <= found[1] <= found[0] <= row["wanted"]:
            wrong.append(f"{dict(row)}, in parcels {found}")
        whole[row["order_id"]] = whole.get(row["order_id"], True) and found[2] == row["wanted"]
    assert not wrong, format_examples(wrong)
    assert not counted, f"in parcels and not ordered, {format_examples(map(str, counted))}"
    return whole


async def _check_cash(shop: CliServices, sale_id: str, whole: dict[UUID, bool]) -> Counter[str]:
    """What is paid at the door is taken once all parcels that collect a part have arrived, and not before; orders say
    themselves whether all has arrived."""
    async with shop.db.connection() as connection:
        rows = await connection.fetch(_CASH, sale_id)
        said = await connection.fetch("SELECT order_id, status FROM orders WHERE sale_id = $1", sale_id)
    wrong = [f"{row['order_id']} is {row['status']}" for row in said
             if (row["status"] == "delivered") != whole[row["order_id"]]]  # fmt: skip
    for row in rows:
        # A parcel whose goods cost next to nothing may have no part of it to collect, so nobody waits for that one.
        all_of_it = row["collected"] == row["amount"]
        if (row["status"], row["taken"]) != (("captured", row["amount"]) if all_of_it else ("authorised", 0)):
            wrong.append(f"{dict(row)}: not what its parcels collected")
        if whole[row["order_id"]] and not all_of_it:
            wrong.append(f"{dict(row)}: all of it has arrived")
    assert not wrong, format_examples(wrong)
    return Counter(row["status"] for row in rows)


async def _check_carriers(shop: CliServices, theirs: list[CarrierRecord], numbers: set[str]) -> None:
    """Each of our bookings is at SF once and as it is here, and SF has none besides; kuaidi100 knows no number that
    the desk did not give."""
    async with shop.db.connection() as connection:
        rows = await connection.fetch("SELECT booking_id, shipment_id, outcome, tracking_no FROM bookings "
                                      "WHERE carrier = 'sf_express'")  # fmt: skip
    known = {row["booking_id"]: row for row in rows}
    sf = {UUID(one.order_no): one for one in theirs if one.carrier == "sf_express"}
    assert len(sf) == sum(one.carrier == "sf_express" for one in theirs), "an order number twice"
    strange = [str(one) for id_, one in sf.items() if id_ not in known]
    assert not strange, f"SF has what nobody here knows, {format_examples(strange)}"
    wrong = []
    for id_, row in known.items():
        one = sf.get(id_)
        state = "absent" if one is None else one.state if one.state in ("refused", "cancelled") else "booked"
        fine = {"booked": ("booked",), "refused": ("refused",), "cancelled": ("cancelled", "absent"), "asked": ()}
        if state not in fine[row["outcome"]] or (state == "booked" and one and one.number != row["tracking_no"]):
            wrong.append(f"{dict(row)} here, {one} there")
    assert not wrong, format_examples(wrong)
    standing = Counter(
        known[id_]["shipment_id"] for id_, one in sf.items() if one.state not in ("refused", "cancelled")
    )
    twice = [str(id_) for id_, times in standing.items() if times > 1]
    assert not twice, f"SF comes more than once, {format_examples(twice)}"
    foreign = {one.number for one in theirs if one.carrier == "kuaidi100"} - numbers
    assert not foreign, f"kuaidi100 has numbers that the desk did not give, {format_examples(foreign)}"


def _errors(stack: LocalStack) -> list[str]:
    """What the programs have logged as a fault of theirs."""
    lines = [line for log in (stack.home / "logs").glob("*.log*") for line in log.read_bytes().splitlines()]
    return [line.decode()[:1_000] for line in lines if b'"level":"ERROR"' in line]


async def summarise_tracking(stack: LocalStack) -> str:
    """What was heard and how, and how often the carriers' pushes were sent."""
    async with open_cli_services(stack.settings()) as shop, shop.db.connection() as connection:
        rows = await connection.fetch(
            "SELECT source, count(*), count(*) FILTER (WHERE unknown) AS unknown, "
            "count(*) FILTER (WHERE contradicts_history) AS odd FROM shipment_events GROUP BY 1"
        )
        results = await connection.fetch("SELECT result, count(*) FROM carrier_webhooks GROUP BY 1")  # fmt: skip
    with closing(sqlite3.connect(f"file:{stack.home}/sandbox/shipments.sqlite?mode=ro", uri=True)) as file:
        pushes, sent, open_ = file.execute("SELECT count(*), sum(attempts), sum(done = 0) FROM webhooks").fetchone()
    events = ", ".join(
        f"{row['count']} by {row['source']} ({row['unknown']} unknown, {row['odd']} odd)" for row in rows
    )
    notices = ", ".join(f"{row['count']} {row['result']}" for row in results)
    books = orjson.dumps(await CarrierSandboxClient(stack).totals()).decode()
    return f"events: {events}; pushes: {pushes} ({sent} attempts, {open_} open), stored {notices}\n{books}"
