"""The units of an inspected case: to stock, off it, or to the customer again, with the money."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from uuid import uuid5

from commerce.aftersales.case_status import LockedCase
from commerce.aftersales.model import PolicyTerms
from commerce.kernel.ids import IdGenerator
from commerce.kernel.postgres import Connection
from commerce.return_receipts.model import CaseLineUnits
from commerce.return_receipts.service import book_units


async def book_inspected_units(
    connection: Connection, ids: IdGenerator, locked: LockedCase, policies: Mapping[str, PolicyTerms], now: datetime
) -> None:
    """Move the units of an inspected case. `policies` are its terms by SKU.

    Call once, inside the transaction that resolves the case and holds the order lock. Units whose terms do not let them
    be resold are written off. Raises `UnitsNotLeft`."""
    case = locked.case
    release_id = uuid5(case.case_id, f"inspected in version {case.version}")  # a case may be reopened
    lines = [
        CaseLineUnits(
            *(line.case_line_no, line.line_no, line.ship_to, line.sku),
            *(line.resellable, line.damaged, line.rejected),
            is_resold=policies[line.sku].is_resold if line.sku in policies else True,
        )
        for line in locked.lines
    ]
    await book_units(connection, ids, case.case_id, case.order_id, release_id, lines, now)
