"""Inputs and views of staff who receive and inspect returns."""

from __future__ import annotations

from typing import Annotated, Literal
from uuid import UUID

import msgspec

from commerce.aftersales.model import CaseLine, CaseSummary, LineNo, Payer, UnitCount, Version
from commerce.catalog.model import Sku
from commerce.kernel.types import Reason, filled_or_empty_line
from commerce.return_receipts.model import Receipt, SendBack, SendBackOutcome, SurplusDecision
from commerce.return_shipments.model import CarrierName, ReturnShipmentDetails
from commerce.shipping.model import EnteredTrackingNo, WarehouseId

Note = Annotated[str, filled_or_empty_line(200)]
InspectedCount = Annotated[int, msgspec.Meta(ge=0, le=100_000)]
CaseUnitsInput = Annotated[dict[LineNo, UnitCount], msgspec.Meta(max_length=100, description="units by `case_line_no`")]


class CollectionInput(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Units that a carrier is to collect at the customer: these, or all that have not come back."""

    version: Version
    lines: CaseUnitsInput | None = None
    payer: Payer | None = None


class SurplusInput(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Units that the case does not expect: of a SKU, or described if the shop does not sell them."""

    sku: Sku | None = None
    description: Note = ""
    quantity: UnitCount


class ReceiptInput(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Units that have arrived, by case or by tracking number. If a case is known, `version` is required.

    `lines` has the units that the case expects; more than it expects become surplus."""

    warehouse: WarehouseId
    case_id: UUID | None = None
    tracking_no: EnteredTrackingNo | None = None
    version: Version | None = None
    lines: CaseUnitsInput = {}
    surplus: Annotated[list[SurplusInput], msgspec.Meta(max_length=100)] = []
    note: Note = ""


class MatchInput(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The case of a receipt that had none.

    Without `lines` the units are matched by SKU; with it these units count, whatever the receipt calls them."""

    case_id: UUID
    version: Version
    reason: Reason
    lines: CaseUnitsInput | None = None


class SurplusInstruction(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A decision on surplus: send it back, keep it, or count it as received by another case.

    For another case its `version` is required, and `case_line_no` unless a line of it has the same SKU."""

    decision: SurplusDecision
    reason: Reason
    case_id: UUID | None = None
    version: Version | None = None
    case_line_no: LineNo | None = None


class InspectedUnits(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Results for the received units of a line, together at most as many.

    Resellable units return to stock, damaged ones are written off; both are refunded. Rejected ones go back to the
    customer, without money."""

    resellable: InspectedCount = 0
    damaged: InspectedCount = 0
    rejected: InspectedCount = 0
    note: Note = ""


class InspectionInput(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Results by `case_line_no`, in place of earlier ones of the same lines.

    With `nothing_more` the case does not wait for units that have not come: they are not refunded."""

    version: Version
    reason: Reason = "inspected"
    lines: Annotated[dict[LineNo, InspectedUnits], msgspec.Meta(max_length=100)] = {}
    nothing_more: bool = False


class SendBackInput(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The way on which units went to the customer again: sent with a carrier, or handed out."""

    outcome: SendBackOutcome
    carrier: CarrierName | None = None
    tracking_no: EnteredTrackingNo | None = None


class ReturnOutcomeInput(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The final status of a return shipment that its tracking does not report."""

    status: Literal["delivered", "lost"]
    reason: Reason


class ReturnedCase(msgspec.Struct, frozen=True, kw_only=True):
    """A case with all that came back, or should, for it."""

    case: CaseSummary
    lines: list[CaseLine]
    shipments: list[ReturnShipmentDetails]
    receipts: list[Receipt]
    send_backs: list[SendBack]


class ReceiptResult(msgspec.Struct, frozen=True, kw_only=True):
    """A stored receipt, and its case as it is now; `unmatched_because` says why it has none."""

    receipt: Receipt
    case: CaseSummary | None = None
    unmatched_because: str | None = None


class ReturnWorklistCounts(msgspec.Struct, frozen=True, kw_only=True):
    """Number of items on each worklist of returns.

    Return shipments that are `expected`, `overdue` (nothing was reported of them for long), `arrived` and not received,
    `lost`, or `parked` with a job that was given up; cases `to_inspect`; receipts that are `unmatched`; `surplus` to
    decide on; units `to_send_back`."""

    expected: int
    overdue: int
    arrived: int
    lost: int
    parked: int
    to_inspect: int
    unmatched: int
    surplus: int
    to_send_back: int


ShipmentWorklist = Literal["expected", "overdue", "arrived", "lost", "parked"]
