"""Values of refunds: of units, freight and agreed amounts, and their payments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple
from uuid import UUID

from commerce.kernel.errors import Invalid
from commerce.kernel.money import format_money
from commerce.payments.errors import RefundExceedsCaptured
from commerce.refunds.allocation import OpenPayment, allocate
from commerce.refunds.errors import FreightRefunded, UnitsRefunded
from commerce.refunds.model import Grant, GrantedLine, GrantLine, GrantRequest
from commerce.refunds.shares import unit_share


class RefundableLine(NamedTuple):
    """An order line for one address, with its price paid and its units that are refunded already."""

    line_no: int
    address_no: int
    quantity: int
    paid_minor: int
    refunded_units: int


class RefundableOrder(NamedTuple):
    """The facts of an order that decide a refund.

    `freight_minor` is what is left of its freight. Of cash that is coming a cancellation may promise some.
    """

    order_id: UUID
    currency: str
    lines: Sequence[RefundableLine]
    freight_minor: int
    was_shipped: bool
    payments: Sequence[OpenPayment]

    @property
    def coming_minor(self) -> int:
        """Cash that shipments have collected or will collect, which is captured when all of them have ended."""
        return sum(payment.remaining_minor for payment in self.payments if payment.is_coming)


def value_grant(order: RefundableOrder, request: GrantRequest) -> Grant:
    """Compute a grant, which has no id yet.

    Units may come to less than their value: what came back before without units, and what the payments no longer hold,
    is withheld. Raises `Invalid`, `UnitsRefunded`, `FreightRefunded`, and `RefundExceedsCaptured` for an amount without
    units that the payments do not hold, or if staff ask for money that is not collected.
    """
    lines = _value_lines(order, request)
    freight_minor = _value_freight(order, request, lines)
    value_minor = sum(line.amount for line in lines)
    extra_minor, fee_minor = 0, request.fee_minor
    if request.amount_override is not None:
        if not lines:
            extra_minor = request.amount_override
        elif request.amount_override > value_minor:
            raise Invalid(
                f"/amount: {format_money(value_minor, order.currency)} was paid for these units: send this or less, "
                "or an amount without lines"
            )
        else:
            fee_minor += value_minor - request.amount_override
    amount_minor = value_minor + freight_minor + extra_minor - fee_minor
    if amount_minor < 0:
        raise _fee_error(amount_minor + request.fee_minor, order)
    payments = order.payments
    if request.kind == "staff":
        payments = [payment for payment in payments if payment.is_collected]
        _check_collected(order, amount_minor, request)
    elif request.kind == "case":
        payments = [payment for payment in payments if not payment.is_coming]
    held_minor = sum(payment.remaining_minor for payment in payments)
    if request.lines == "rest":
        if request.fee_minor > held_minor:
            raise _fee_error(held_minor, order)
        amount_minor = held_minor - request.fee_minor
        fee_minor = max(value_minor + freight_minor - amount_minor, 0)
    elif amount_minor > held_minor:
        _check_limit(order, held_minor, lines, request)
        fee_minor += amount_minor - held_minor
        amount_minor = held_minor
    return Grant(
        *(None, order.order_id, amount_minor, order.currency, freight_minor, fee_minor, request.strategy),
        lines=lines,
        allocations=allocate(amount_minor, payments, request.strategy),
    )


def _check_limit(order: RefundableOrder, held_minor: int, lines: Sequence[GrantedLine], request: GrantRequest) -> None:
    """Refuse to reduce an amount without units, and one whose cash is captured later.

    Those of cancellations include that cash, and are reduced: an order must be able to end."""
    if request.kind == "cancellation":
        return
    if not lines:
        raise RefundExceedsCaptured(f"{held_minor} minor units are captured and not refunded")
    if order.coming_minor:
        raise RefundExceedsCaptured(
            f"{held_minor} minor units are captured and not refunded; {order.coming_minor} of cash are captured "
            "once the other shipments of the order have ended: refund it then"
        )


def _check_collected(order: RefundableOrder, amount_minor: int, request: GrantRequest) -> None:
    """Refuse to refund money that is not collected yet, or not held any more."""
    held_minor = sum(payment.remaining_minor for payment in order.payments if payment.is_collected)
    due_minor = sum(payment.remaining_minor for payment in order.payments if not payment.is_collected)
    if amount_minor > held_minor and due_minor and request.lines != "rest":
        raise RefundExceedsCaptured(
            f"{held_minor} minor units are captured and not refunded, and {due_minor} are to be paid on delivery: "
            "cancel units in place of refunding them"
        )
    if held_minor == 0 and (amount_minor > 0 or request.lines == "rest"):
        raise RefundExceedsCaptured("0 minor units are captured and not refunded")


def _value_lines(order: RefundableOrder, request: GrantRequest) -> list[GrantedLine]:
    if request.lines == "rest":
        wanted = [
            GrantLine(line.line_no, line.address_no, line.quantity - line.refunded_units)
            for line in order.lines
            if line.refunded_units < line.quantity
        ]
    else:
        wanted = list(request.lines)
    by_place = {(line.line_no, line.address_no): line for line in order.lines}
    granted = []
    for number, (line_no, address_no, quantity) in enumerate(wanted):
        line = by_place.pop((line_no, address_no), None)
        if line is None:
            detail = f"the order has no line {line_no} for address {address_no}, or it is named twice"
            raise Invalid(f"/lines/{number}: {detail}", errors=[{"pointer": f"/lines/{number}", "detail": detail}])
        left = line.quantity - line.refunded_units
        if not 0 < quantity <= left:
            raise UnitsRefunded(
                f"cannot refund {quantity} units of line {line_no} for address {address_no}: "
                f"{line.refunded_units} of {line.quantity} are refunded, so {left} are left"
            )
        amount_minor = unit_share(line.paid_minor, line.quantity, line.refunded_units, quantity)
        granted.append(GrantedLine(line_no, address_no, line.refunded_units, quantity, amount_minor))
    return granted


def _value_freight(order: RefundableOrder, request: GrantRequest, lines: Sequence[GrantedLine]) -> int:
    if request.freight == "none":
        return 0
    if request.freight == "rest":
        return order.freight_minor
    if request.freight == "unshipped":
        units_left = sum(line.quantity - line.refunded_units for line in order.lines)
        is_last = bool(lines) and sum(line.quantity for line in lines) == units_left
        return order.freight_minor if is_last and not order.was_shipped else 0
    if request.freight > order.freight_minor:
        raise FreightRefunded(
            f"cannot refund {request.freight} minor units of freight: {order.freight_minor} are left of it"
        )
    return request.freight


def _fee_error(max_minor: int, order: RefundableOrder) -> Invalid:
    return Invalid(f"/fee: it exceeds the refund: withhold {format_money(max_minor, order.currency)} or less")
