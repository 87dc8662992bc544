"""Moves inspected units: to stock, off it, or to the customer again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from commerce.kernel.ids import IdGenerator
from commerce.kernel.postgres import Connection
from commerce.reservations.store import GiveBack, give_back
from commerce.return_receipts import store
from commerce.return_receipts.model import CaseLineUnits
from commerce.return_receipts.store import KeptUnits, NewSendBack
from commerce.warehouse_stock.store import ReturnedStock, return_units

_ACTOR = "return_receipts"


async def book_units(
    connection: Connection,
    ids: IdGenerator,
    case_id: UUID,
    order_id: UUID,
    release_id: UUID,
    lines: Sequence[CaseLineUnits],
    now: datetime,
) -> None:
    """Move the units of an inspected case, once per `release_id`.

    Call inside the transaction that resolves the case and holds the order lock. Resellable units return to stock,
    damaged ones and those that are not resold are written off, rejected ones are to be sent back. Kept units count as
    returned and leave their customer's limit; units that were not received move nothing. Raises `UnitsNotLeft`."""
    kept, written_off = Counter[str](), Counter[str]()
    for line in lines:
        kept[line.sku] += line.resellable + line.damaged
        written_off[line.sku] += line.damaged + (0 if line.is_resold else line.resellable)
    if kept.total():
        request = GiveBack(release_id, order_id, kept, f"returned by case {case_id}", written_off)
        if not await give_back(connection, request, now):
            return
        returned = [
            KeptUnits(order_id, line.line_no, line.address_no, line.resellable + line.damaged) for line in lines
        ]
        await store.add_returned_units(connection, [units for units in returned if units.kept])
        await _return_to_stock(connection, case_id, order_id, release_id, lines, now)
    rejected = [
        NewSendBack(ids.new(), case_id, line.case_line_no, None, line.rejected) for line in lines if line.rejected
    ]
    await store.insert_send_backs(connection, rejected, now)


async def _return_to_stock(
    connection: Connection,
    case_id: UUID,
    order_id: UUID,
    release_id: UUID,
    lines: Sequence[CaseLineUnits],
    now: datetime,
) -> None:
    """Record resellable units in the warehouses that received them."""
    received = Counter[tuple[int, str]]()
    for receipt in await store.list_of_case(connection, case_id):
        for case_line_no, units in receipt.lines.items():
            received[case_line_no, receipt.warehouse_id] += units
    returned = Counter[tuple[str, str, bool]]()
    for line in lines:
        left = line.resellable
        for (case_line_no, warehouse_id), units in received.items():
            if case_line_no == line.case_line_no and (taken := min(left, units)):
                returned[line.sku, warehouse_id, line.is_resold] += taken
                left -= taken
    stock = [ReturnedStock(sku, place, units, is_resold) for (sku, place, is_resold), units in returned.items()]
    await return_units(connection, order_id, release_id, f"case {case_id}", _ACTOR, now, stock)
