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
    rejected = [
        NewSendBack(ids.new(), case_id, line.case_line_no, None, line.rejected) for line in lines if line.rejected
    ]
    await store.insert_send_backs(connection, rejected, now)
