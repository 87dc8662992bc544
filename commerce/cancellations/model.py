"""Cancellations of paid and confirmed orders: the input of customers and staff, and the answers."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Literal, NamedTuple
from uuid import UUID

import msgspec

from commerce.kernel.types import Reason
from commerce.orders.model import AddressNo, Order, OrderDetails, Quantity
from commerce.refunds.model import Grant

Cause = Literal["by_customer", "by_staff", "delivery_refused", "undeliverable", "lost", "refunded"]
LineKey = tuple[int, int]
"""number of an order line, and of its address"""
LineNo = Annotated[int, msgspec.Meta(ge=0, le=32_767, description="number of the order line")]
MAX_LINES = 1_000


class UnitsToCancel(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Units of an order line for one address; `ship_to` is the index of the address in the order."""

    line_no: LineNo
    quantity: Quantity
    ship_to: AddressNo = 0


CancelLines = Annotated[list[UnitsToCancel], msgspec.Meta(min_length=1, max_length=MAX_LINES)]


class CustomerCancelInput(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A customer's cancellation. Without `lines` all units that have not left the warehouse are cancelled."""

    lines: CancelLines | None = None
    reason: Reason | None = None


class StaffCancelInput(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The reason why staff cancel an order, or units of it; the customer sees it among the order's events."""

    reason: Reason
    lines: CancelLines | None = None


class CancellationLine(msgspec.Struct, frozen=True):
    """Units of a line that are to be cancelled.

    `kept` units could not be stopped: once they are delivered, a return is opened."""

    line_no: int
    ship_to: int
    sku: str
    quantity: int
    cancelled: int = 0
    kept: int = 0


class Cancellation(msgspec.Struct, frozen=True):
    """Units of an order that are not to be delivered.

    It is `open` while a shipment is being stopped, then `done`."""

    cancellation_id: UUID
    order_id: UUID
    status: Literal["open", "done"]
    cause: Cause
    reason: str
    actor: str
    created_at: datetime
    ended_at: datetime | None
    lines: list[CancellationLine]


class CancelledOrder(Order, frozen=True):
    """An order as a cancellation leaves it. `cancellation` is null if the order was not paid."""

    cancellation: Cancellation | None = None


class CancelledDetails(OrderDetails, frozen=True):
    """An order for staff as a cancellation leaves it."""

    cancellation: Cancellation | None = None


class CancellationPreview(msgspec.Struct, frozen=True):
    """The effect that a cancellation would have now. Nothing is stored.

    `shipments_to_stop` are booked with carriers, which may have collected them. `refund` is null if nothing was paid or
    is to be paid."""

    order_id: UUID
    lines: list[CancellationLine]
    shipments_to_stop: int
    refund: Grant | None


class OpenCancellation(msgspec.Struct, frozen=True):
    """A cancellation that waits for its shipments, for staff.

    `last_error` is of the job that stops one of them."""

    cancellation: Cancellation
    last_error: str | None


class CancelRequest(NamedTuple):
    """A request for a cancellation of `lines`, or of all that has not left if that is None."""

    order_id: UUID
    actor: str
    user_id: str | None
    """the customer whose order it must be; None stands for staff"""
    reason: str
    lines: Sequence[UnitsToCancel] | None = None
    idempotency_key: str | None = None
