"""Receipts of returns, their surplus, and units that are sent back."""

from __future__ import annotations

from datetime import datetime
from typing import Literal, NamedTuple
from uuid import UUID

import msgspec

SurplusDecision = Literal["send_back", "keep", "other_case"]
SendBackOutcome = Literal["sent", "handed_out"]


class Surplus(msgspec.Struct, frozen=True, kw_only=True):
    """Units that no case expected: too many, or another product.

    `sku` is null for a product that the shop does not sell."""

    surplus_id: UUID
    receipt_id: UUID
    sku: str | None
    description: str
    quantity: int
    decision: SurplusDecision | None
    other_case_id: UUID | None
    reason: str | None
    decided_at: datetime | None
    decided_by: str | None


class Receipt(msgspec.Struct, frozen=True, kw_only=True):
    """A warehouse's receipt. `lines` has units by `case_line_no`.

    Without a case it waits for staff to match it, until `matched_at`."""

    receipt_id: UUID
    case_id: UUID | None
    return_shipment_id: UUID | None
    warehouse_id: str
    tracking_no: str | None
    note: str
    received_at: datetime
    actor: str
    matched_at: datetime | None
    matched_by: str | None
    resolution: str | None
    lines: dict[int, int] = {}
    surplus: list[Surplus] = []


class SendBack(msgspec.Struct, frozen=True, kw_only=True):
    """Units that go to the customer again: rejected ones of a case line, or surplus.

    `outcome` is null while they are at the warehouse."""

    send_back_id: UUID
    case_id: UUID | None
    case_line_no: int | None
    surplus_id: UUID | None
    quantity: int
    outcome: SendBackOutcome | None
    carrier: str | None
    tracking_no: str | None
    created_at: datetime
    ended_at: datetime | None
    ended_by: str | None


class SurplusUnits(NamedTuple):
    """Surplus of a receipt to insert: a SKU, or a description."""

    sku: str | None
    description: str
    quantity: int


class NewReceipt(NamedTuple):
    """A receipt to insert, with units by `case_line_no`."""

    case_id: UUID | None
    return_shipment_id: UUID | None
    warehouse_id: str
    tracking_no: str | None
    note: str
    lines: dict[int, int]
    surplus: list[SurplusUnits]


class InspectedLine(NamedTuple):
    """An inspection's result for the received units of a case line."""

    case_line_no: int
    resellable: int
    damaged: int
    rejected: int
    note: str


class CaseLineUnits(NamedTuple):
    """Inspected units of a case line; `is_resold`: resellable ones return to stock."""

    case_line_no: int
    line_no: int
    address_no: int
    sku: str
    resellable: int
    damaged: int
    rejected: int
    is_resold: bool
