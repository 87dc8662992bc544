"""Checks of single orders: each is a statement that returns what violates it among some orders."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from uuid import UUID

from commerce.audit import store
from commerce.audit.model import MAX_EXAMPLES, Finding
from commerce.kernel.postgres import Connection, Database

ORDER_CHECKS = (
    ("P2", "orders_without_lines", "orders have no lines"),
    ("P2", "wrong_totals", "totals of orders are not what their lines and freight cost"),
    ("P2", "wrong_discounts", "discounts of orders are not those of their lines or promotions"),
    ("P2", "wrong_freight", "freight of orders is not that of their addresses"),
    ("P3", "repeated_keys", "an idempotency key of a user has several orders"),
    ("P5", "cancelled_without_release", "the stock of cancelled orders is not released"),
    ("P5", "releases_without_job", "nothing is done about pending releases"),
    ("P5", "orphan_releases", "stock is released for orders that are neither cancelled nor paid"),
    ("P5", "released_other_units", "other units are released than were reserved"),
    ("P5", "reacquired_without_cause", "stock was reacquired for orders that are cancelled"),
    ("P5", "reacquired_other_units", "other units were reacquired than released"),
    ("P6", "unbalanced_postings", "postings in the ledger do not balance"),
    ("P6", "payments_and_ledger", "payments or refunds differ from their ledger entries"),
    ("P6", "captures_on_other_accounts", "captures or refunds are on the account of another provider or customer"),
    ("P6", "orphan_postings", "postings belong to no payment, refund or shipment, or entries to no posting"),
    ("P6", "cash_and_shipments", "cash of delivered shipments is not posted"),
    ("P6", "uncaptured_cash", "collected cash belongs to no payment, or more is captured than was collected"),
    ("P6", "freight_refunded_again", "more freight is refunded than was paid"),
    ("P6", "grants_and_money", "captured less refunded money of orders is not their total less their refund grants"),
    ("P6", "cases_and_grants", "money of resolved cases differs from its grant"),
    ("P6", "refunds_and_ways", "refunds that are done were paid another way than they say, or without proof"),
    ("P6", "credit_and_ledger", "store credit differs from its account in the ledger"),
    ("P6", "money_without_order", "captured money belongs to no paid order and is not refunded"),
    ("P6", "paid_without_money", "payments of orders do not add up to their totals"),
    ("P6", "wrong_exchanges", "what was paid for exchanged units is not what their replacement cost less"),
    ("P6", "payments_without_job", "nothing is done about pending payments or refunds"),
    ("P6", "over_refunded", "refunds exceed the captured amount"),
    ("P7", "fulfilment_counts_out_of_order", "lines have more units delivered than shipped, or shipped than ordered"),
    ("P7", "fulfilment_and_cancellations", "cancelled units of lines differ from their cancellations"),
    ("P7", "fulfilment_and_shipments", "counts of fulfilment lines differ from their shipments"),
    ("P7", "shipped_without_counts", "statuses of orders contradict the counts of their fulfilment lines"),
    ("P7", "booked_twice", "shipments have several current bookings"),
    ("P7", "shipped_without_booking", "shipments are with a carrier without a booking"),
    ("P7", "paid_without_fulfilment", "paid orders have no fulfilment"),
    ("P7", "orders_without_job", "nothing is done about orders to plan or to complete"),
    ("P7", "orders_without_end", "orders or cancellations wait for nothing"),
    ("P7", "shipments_without_job", "nothing is done about shipments to book, cancel or track"),
    ("P7", "units_in_several_cases", "cases have more units than were delivered"),
    ("P7", "uninspected_units", "units of inspected cases are neither resellable, damaged nor rejected"),
    ("P7", "cases_without_job", "nothing is done about open cases"),
    ("P7", "kept_units_without_case", "delivered units that were cancelled too late have no cases"),
    ("P8", "broken_histories", "histories of orders do not lead to their status"),
    ("P8", "broken_shipment_histories", "histories of shipments do not lead to their status"),
    ("P8", "broken_case_histories", "histories of cases do not lead to their status"),
)
_ORDERS_PER_STATEMENT = 5_000


class OrderFindings:
    """Findings of the order checks, collected over groups of orders. A violation counts once."""

    def __init__(self) -> None:
        self._violations: dict[tuple[str, str], dict[str, None]] = {}

    def add(self, promise: str, detail: str, violations: Sequence[str]) -> None:
        if violations:
            self._violations.setdefault((promise, detail), {}).update(dict.fromkeys(violations))

    def list_findings(self) -> list[Finding]:
        return [
            Finding(promise, detail, len(violations), list(violations)[:MAX_EXAMPLES])
            for (promise, detail), violations in self._violations.items()
        ]


async def check_orders(connection: Connection, ids: Sequence[UUID], findings: OrderFindings) -> None:
    """Check orders by their ids, and releases by theirs, and add what violates a promise."""
    for first in range(0, len(ids), _ORDERS_PER_STATEMENT):
        part = ids[first : first + _ORDERS_PER_STATEMENT]
        for promise, name, detail in ORDER_CHECKS:
            findings.add(promise, detail, await store.list_violations(connection, name, part))


async def check_all_orders(
    db: Database, sale_id: str, findings: OrderFindings, report_progress: Callable[[int], None]
) -> None:
    """Check every order of a sale, a few thousand at a time, each time in a snapshot of their own.

    Orders that change meanwhile leave marks, so the audit that follows checks them again.
    """
    checked = 0
    async for ids in store.iter_order_ids(db, sale_id, _ORDERS_PER_STATEMENT):
        async with store.open_order_snapshot(db) as connection:
            await check_orders(connection, ids, findings)
        checked += len(ids)
        report_progress(checked)
