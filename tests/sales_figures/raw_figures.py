"""Figures of sales as a second calculation: order by order in Python, over the raw rows."""

from __future__ import annotations

from collections import Counter, defaultdict
from datetime import UTC, date, datetime
from typing import Any, NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo

from commerce.kernel.postgres import Connection

Key = tuple[str, str, datetime | date, str, str]
Cells = dict[Key, tuple[int, int, int]]
_TABLES = (
    *("orders", "order_lines", "order_events", "order_freight", "cancellations", "cancellation_lines", "shipments"),
    *("shipment_lines", "cases", "case_lines", "case_events", "return_receipts", "return_receipt_lines"),
    *("refund_grants", "refund_grant_lines"),
)
_BY_STAFF = "staff "


class RawRows(NamedTuple):
    """The rows of all tables, and of each table by order."""

    rows: dict[str, list[Any]]

    def select(self, table: str, **columns: object) -> list[Any]:
        return [row for row in self.rows[table] if all(row[name] == value for name, value in columns.items())]


class _Tally:
    def __init__(self, order: Any, skus: dict[tuple[int, int], str]) -> None:
        self._order, self._skus = order, skus
        self.cells: defaultdict[Key, list[int]] = defaultdict(lambda: [0, 0, 0])

    def add(self, at: datetime, figure: str, reason: str, units: Counter[str], worth: Counter[str], whole: int) -> None:
        """Add an event with the units and amounts of each SKU, and the amount of the whole."""
        minute = datetime(at.year, at.month, at.day, at.hour, at.minute, tzinfo=UTC)
        parts = [(sku, units[sku], worth[sku]) for sku in units]
        for sku, count, amount in [*parts, ("", sum(units.values()), whole)]:
            cell = self.cells[self._order["sale_id"], sku, minute, figure, reason]
            for place, value in enumerate((1, count, amount)):
                cell[place] += value

    def sku_of(self, row: Any) -> str:
        return self._skus[row["line_no"], row["address_no"]]


async def read_raw_rows(connection: Connection) -> RawRows:
    """Read all rows that figures come from."""
    return RawRows({table: await connection.fetch(f"SELECT * FROM {table}") for table in _TABLES})


def calculate(raw: RawRows) -> Cells:
    """Calculate the sums by minute."""
    sums: defaultdict[Key, list[int]] = defaultdict(lambda: [0, 0, 0])
    for order in raw.rows["orders"]:
        lines = raw.select("order_lines", order_id=order["order_id"])
        tally = _Tally(order, {(line["line_no"], line["address_no"]): line["sku"] for line in lines})
        _tally_order(raw, order, lines, tally)
        _tally_shipping(raw, order["order_id"], tally)
        _tally_cases(raw, order["order_id"], tally)
        _tally_money(raw, order["order_id"], tally)
        for key, values in tally.cells.items():
            for place, value in enumerate(values):
                sums[key][place] += value
    return {key: (events, units, amount) for key, (events, units, amount) in sums.items()}


def by_day(cells: Cells, zone: ZoneInfo) -> Cells:
    """Add the minutes of each day of a zone up."""
    days: defaultdict[Key, list[int]] = defaultdict(lambda: [0, 0, 0])
    for (sale_id, sku, minute, figure, reason), values in cells.items():
        assert isinstance(minute, datetime)
        for place, value in enumerate(values):
            days[sale_id, sku, minute.astimezone(zone).date(), figure, reason][place] += value
    return {key: (events, units, amount) for key, (events, units, amount) in days.items()}


def _tally_order(raw: RawRows, order: Any, lines: list[Any], tally: _Tally) -> None:
    units, worth = Counter[str](), Counter[str]()
    for line in lines:
        units[line["sku"]] += line["quantity"]
        worth[line["sku"]] += line["quantity"] * line["unit_price_minor"] - line["discount_minor"]
    freight = sum(row["amount_minor"] for row in raw.select("order_freight", order_id=order["order_id"]))
    whole = sum(worth.values()) + freight + order["cod_fee_minor"]
    tally.add(order["accepted_at"], "accepted", "", units, worth, whole)
    status = "awaiting_payment"
    for event in sorted(raw.select("order_events", order_id=order["order_id"]), key=lambda event: event["seq"]):
        if event["kind"] != "status":
            continue
        assert event["from_status"] == status
        status = event["to_status"]
        if status in ("paid", "confirmed"):
            tally.add(event["at"], "paid", "", units, worth, whole)
            if event["from_status"] == "cancelled":
                tally.add(event["at"], "recovered", "", units, worth, whole)
        elif status == "cancelled" and event["from_status"] == "awaiting_payment":
            tally.add(event["at"], "lapsed", _lapse_reason(event["actor"]), units, worth, whole)
    assert status == order["status"]


def _lapse_reason(actor: str) -> str:
    if actor == "release_worker":
        return "expired"
    return "by_staff" if actor.startswith(_BY_STAFF) else "by_customer"


def _tally_shipping(raw: RawRows, order_id: UUID, tally: _Tally) -> None:
    for cancellation in raw.select("cancellations", order_id=order_id, status="done"):
        units = Counter[str]()
        for line in raw.select("cancellation_lines", cancellation_id=cancellation["cancellation_id"]):
            units[tally.sku_of(line)] += line["cancelled"]
        if +units:
            tally.add(cancellation["ended_at"], "cancelled", cancellation["cause"], +units, Counter(), 0)
    for shipment in raw.select("shipments", order_id=order_id, status="delivered"):
        units = Counter[str]()
        for line in raw.select("shipment_lines", shipment_id=shipment["shipment_id"]):
            units[line["sku"]] += line["quantity"]
        tally.add(shipment["ended_at"], "delivered", "", units, Counter(), 0)


def _tally_cases(raw: RawRows, order_id: UUID, tally: _Tally) -> None:
    for case in raw.select("cases", order_id=order_id):
        lines = {line["case_line_no"]: line for line in raw.select("case_lines", case_id=case["case_id"])}
        units = Counter[str]()
        for line in lines.values():
            units[line["sku"]] += line["quantity"]
        tally.add(case["created_at"], "requested", case["reason_code"], units, Counter(), 0)
        for event in raw.select("case_events", case_id=case["case_id"]):
            if event["to_status"] in ("declined", "cancelled"):
                tally.add(event["at"], "withdrawn", case["reason_code"], units, Counter(), 0)
            elif event["to_status"] == "requested":
                tally.add(event["at"], "requested", case["reason_code"], units, Counter(), 0)
        for receipt in raw.select("return_receipts", case_id=case["case_id"]):
            received = Counter[str]()
            for line in raw.select("return_receipt_lines", receipt_id=receipt["receipt_id"]):
                received[lines[line["case_line_no"]]["sku"]] += line["quantity"]
            if received:
                tally.add(receipt["received_at"], "received", case["reason_code"], received, Counter(), 0)


def _tally_money(raw: RawRows, order_id: UUID, tally: _Tally) -> None:
    for grant in raw.select("refund_grants", order_id=order_id):
        reason = "by_staff"
        if grant["kind"] == "case":
            [case] = raw.select("cases", case_id=grant["source_id"])
            reason = case["reason_code"]
        elif grant["kind"] == "cancellation":
            [cancellation] = raw.select("cancellations", cancellation_id=grant["source_id"])
            reason = cancellation["cause"]
        units, worth = Counter[str](), Counter[str]()
        for line in raw.select("refund_grant_lines", grant_id=grant["grant_id"]):
            units[tally.sku_of(line)] += line["quantity"]
            worth[tally.sku_of(line)] += line["amount_minor"]
        whole = sum(worth.values()) + grant["freight_minor"] - grant["fee_minor"]
        if not units:
            whole = grant["amount_minor"]
        tally.add(grant["created_at"], "refunded", reason, units, worth, whole)
