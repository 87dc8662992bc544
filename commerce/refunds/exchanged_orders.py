"""The money behind replacements: it stays with the payments of the order that they come from.

A refund of units of a replacement goes over its own payments, and over those of the order whose units it replaced, up
to what was taken off its price for them; that order may be a replacement, too. Orders are locked from the newer one to
the older one.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from uuid import UUID

from commerce.exchanges import store as exchanges
from commerce.kernel.postgres import Connection
from commerce.orders import store as orders
from commerce.payments import locked_orders
from commerce.payments.model import Payment, Refund
from commerce.refunds import store
from commerce.refunds.allocation import OpenPayment

_MAX_LINKS = 20
"""exchanges of exchanges that are followed"""


@dataclass(frozen=True, slots=True)
class Backing:
    """Payments of earlier orders that stand behind a replacement, with what may still go back over each.

    `refunds` are those that the replacement's own grants have asked of them, `all_refunds` all that they have."""

    payments: dict[UUID, Payment] = field(default_factory=dict)
    open: Sequence[OpenPayment] = ()
    refunds: Sequence[Refund] = ()
    all_refunds: Sequence[Refund] = ()


async def read_backing(connection: Connection, order_id: UUID, *, locks: bool, links: int = _MAX_LINKS) -> Backing:
    """Read what stands behind an order; nothing unless it replaces units of another.

    With `locks` the orders behind it are locked: call it inside a transaction that holds its own lock."""
    exchange = await exchanges.find_replaced(connection, order_id) if links else None
    if exchange is None:
        return Backing()
    read = orders.lock_order if locks else orders.read_order_header
    header = await read(connection, exchange.order_id)
    assert header is not None
    [locked] = await locked_orders.read_orders(connection, [header])
    behind = await read_backing(connection, exchange.order_id, locks=locks, links=links - 1)
    all_refunds = [*locked.refunds, *behind.all_refunds]
    refunds = await _select_granted(connection, order_id, all_refunds)
    credit_minor = await exchanges.get_discount(connection, order_id)
    held = [*_list_held(locked.payments.values(), locked.refunds), *behind.open]
    return Backing(
        payments={**locked.payments, **behind.payments},
        open=take_first(held, credit_minor - _sum(refunds)),
        refunds=refunds,
        all_refunds=all_refunds,
    )


async def sum_tied(connection: Connection, order_id: UUID, refunds: Sequence[Refund]) -> int:
    """Sum the money of an order that stands behind replacements, less what they have refunded.

    `refunds` are those of the order and of the orders behind it."""
    tied_minor = 0
    for exchange in await exchanges.list_replacements(connection, order_id):
        granted = await _select_granted(connection, exchange.replacement_id, refunds)
        tied_minor += await exchanges.get_discount(connection, exchange.replacement_id) - _sum(granted)
    return max(tied_minor, 0)


def take_first(payments: Sequence[OpenPayment], amount_minor: int) -> list[OpenPayment]:
    """Return the first of the payments, up to an amount in all."""
    taken = []
    for payment in payments:
        part_minor = min(payment.remaining_minor, amount_minor)
        if part_minor > 0:
            taken.append(payment._replace(remaining_minor=part_minor))
            amount_minor -= part_minor
    return taken


async def _select_granted(connection: Connection, order_id: UUID, refunds: Sequence[Refund]) -> list[Refund]:
    """Return those of the refunds that grants of an order have asked for."""
    keys = {store.refund_key(grant_id) for grant_id in await store.list_grant_amounts(connection, order_id)}
    return [refund for refund in refunds if refund.refund_key in keys and refund.status != "failed"]


def _list_held(payments: Collection[Payment], refunds: Sequence[Refund]) -> list[OpenPayment]:
    held = []
    for payment in payments:
        own = [refund for refund in refunds if refund.payment_id == payment.payment_id and refund.status != "failed"]
        held.append(OpenPayment(payment.payment_id, payment.method, payment.captured_minor - _sum(own)))
    return held


def _sum(refunds: Sequence[Refund]) -> int:
    return sum(refund.amount_minor for refund in refunds)
