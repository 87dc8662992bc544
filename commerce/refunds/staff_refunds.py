"""Refunds by staff: previews, and grants under a key of their own."""

from __future__ import annotations

from datetime import datetime
from hashlib import sha256
from uuid import UUID, uuid5

import msgspec

from commerce.kernel.clock import Clock, from_ms
from commerce.kernel.errors import KeyReused
from commerce.kernel.ids import IdGenerator
from commerce.kernel.postgres import Connection, Database
from commerce.orders import store as orders
from commerce.orders.errors import NoSuchOrder
from commerce.orders.store import OrderHeader
from commerce.payments import store as payments
from commerce.payments.model import OrderPayments
from commerce.payments.payment_reads import build_order_payments
from commerce.refunds import service
from commerce.refunds.model import (
    Grant,
    GrantedLine,
    GrantLine,
    GrantRequest,
    PreviewLine,
    RefundInput,
    RefundPreview,
    RefundTerms,
    UnitAmount,
)

_encode_sorted = msgspec.json.Encoder(order="sorted").encode
_DIGEST_BYTES = 16


class StaffRefunds:
    """Previews and grants refunds for staff. Jobs of the payment worker call the providers."""

    def __init__(self, db: Database, clock: Clock, ids: IdGenerator) -> None:
        self._db = db
        self._clock = clock
        self._ids = ids

    async def preview(self, order_id: UUID, terms: RefundTerms) -> RefundPreview:
        """Compute a refund without storing anything. Raises `NoSuchOrder`, and as `value_grant`."""
        async with self._db.snapshot() as connection:
            order = await orders.read_order_header(connection, order_id)
            if order is None:
                raise NoSuchOrder(f"there is no stored order {order_id}")
            return _preview(await service.preview(connection, order, _grant_request(terms)))

    async def refund(self, order_id: UUID, wanted: RefundInput, actor: str) -> OrderPayments:
        """Refund a part of an order, or all that is left of it. The same key again changes nothing.

        Raises `NoSuchOrder`, `KeyReused` if the key belongs to another refund of the order, and as `value_grant`."""
        async with self._db.transaction() as connection:
            order = await orders.lock_order(connection, order_id)
            if order is None:
                raise NoSuchOrder(f"there is no stored order {order_id}")
            now = from_ms(self._clock.now_ms())
            if not await _is_refund_of_earlier_version(connection, order_id, wanted):
                await self._grant(connection, order, wanted, actor, now)
            order_payments = await payments.list_payments(connection, order_id)
            refunds = await payments.list_refunds(connection, order_id)
            return build_order_payments(order, order_payments, refunds, now, for_staff=True)

    async def _grant(
        self, connection: Connection, order: OrderHeader, wanted: RefundInput, actor: str, now: datetime
    ) -> None:
        request = build_staff_request(order.order_id, wanted, actor)
        await service.grant(connection, self._ids, order, request, now)


def build_staff_request(order_id: UUID, wanted: RefundInput, actor: str) -> GrantRequest:
    """Return the request of a refund by staff: its source is the key within the order."""
    return _grant_request(
        wanted,
        source_id=uuid5(order_id, wanted.idempotency_key),
        reason=wanted.reason,
        actor=actor,
        request_digest=sha256(_encode_sorted(wanted)).digest()[:_DIGEST_BYTES],
    )


async def _is_refund_of_earlier_version(connection: Connection, order_id: UUID, wanted: RefundInput) -> bool:
    """Tell whether the key was used before grants were stored. Raises `KeyReused` if for another refund."""
    refund_key = f"staff {wanted.idempotency_key}"
    earlier = [
        refund
        for refund in await payments.list_refunds(connection, order_id)
        if refund.refund_key == refund_key and refund.status != "failed"
    ]
    refunded_minor = sum(refund.amount_minor for refund in earlier)
    if earlier and (wanted.reason != earlier[0].reason or wanted.amount not in (None, refunded_minor) or wanted.lines):
        raise KeyReused(f"the key was used for another refund of {refunded_minor} minor units")
    return bool(earlier)


def _grant_request(
    terms: RefundTerms,
    *,
    source_id: UUID | None = None,
    reason: str = "",
    actor: str = "",
    request_digest: bytes | None = None,
) -> GrantRequest:
    is_rest = not terms.lines and terms.amount is None and terms.freight == "none"
    lines = [GrantLine(line.line_no, line.ship_to, line.quantity) for line in terms.lines]
    return GrantRequest(
        kind="staff",
        source_id=source_id,
        reason=reason,
        actor=actor,
        lines="rest" if is_rest else lines,
        freight="rest" if is_rest else terms.freight,
        fee_minor=terms.fee,
        amount_override=terms.amount,
        strategy=terms.strategy,
        request_digest=request_digest,
    )


def _preview(grant: Grant) -> RefundPreview:
    return RefundPreview(
        *(grant.order_id, grant.amount, grant.currency, grant.freight, grant.fee, grant.strategy),
        lines=[
            PreviewLine(*(line.line_no, line.ship_to, line.quantity, line.amount), _unit_amounts(line))
            for line in grant.lines
        ],
        allocations=grant.allocations,
    )


def _unit_amounts(line: GrantedLine) -> list[UnitAmount]:
    """Return what units of a line are worth each. Units of a line differ by one minor unit at most."""
    each, dearer = divmod(line.amount, line.quantity)
    amounts = [UnitAmount(line.quantity - dearer, each), UnitAmount(dearer, each + 1)]
    return [amount for amount in amounts if amount.units]
