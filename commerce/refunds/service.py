"""Grants refunds inside the transactions of cancellations, cases and staff: one path for all money."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from uuid import UUID

import msgspec

from commerce.jobs import store as jobs
from commerce.jobs.model import INTERNAL_SYSTEM, NewJob
from commerce.kernel.errors import KeyReused
from commerce.kernel.ids import IdGenerator
from commerce.kernel.money import format_money
from commerce.kernel.postgres import Connection
from commerce.orders import store as orders
from commerce.orders.model import ADVANCE_CANCELLATIONS, CANCELLATIONS
from commerce.orders.store import OrderHeader, StoryEvent
from commerce.payments import locked_orders, order_status
from commerce.payments import store as payments
from commerce.payments.errors import RefundExceedsCaptured
from commerce.payments.model import Refund
from commerce.payments.order_status import LockedOrder, NewRefund
from commerce.refunds import store
from commerce.refunds.allocation import OpenPayment, find_destination
from commerce.refunds.exchanged_orders import Backing, read_backing, sum_tied, take_first
from commerce.refunds.model import Allocation, Grant, GrantRequest
from commerce.refunds.store import GrantedSums, StoredGrant
from commerce.refunds.valuation import RefundableOrder, value_grant
from commerce.rights.service import find_decider

_MAX_REASON_CHARACTERS = 500


async def grant(
    connection: Connection, ids: IdGenerator, order: OrderHeader, request: GrantRequest, now: datetime
) -> Grant:
    """Grant a refund, ask for its money, and tell the customer in the order's story.

    Call inside a transaction that holds the order lock (`orders.lock_order`). A repeat of `kind` and `source_id`
    returns the stored grant and changes nothing. Units of an order of 0 make a grant without refunds. Raises as
    `value_grant`, and `RightNeeded` if the person whose request this is may not grant so much.
    """
    [locked] = await locked_orders.read_orders(connection, [order])
    backing = await read_backing(connection, order.order_id, locks=True)
    if request.source_id is not None:
        existing = await store.find_grant(connection, request.kind, request.source_id)
        if existing is not None:
            if request.request_digest != existing.request_digest:
                raise KeyReused(f"the key was used for another refund of {existing.amount_minor} minor units")
            return await _read_grant(connection, existing, locked, backing)
    value = value_grant(await _read_refundable(connection, order, locked, backing), request)
    if request.kind != "cancellation" and find_decider(request.actor):  # those are checked when they are opened
        await check_decision(connection, order, value.amount)
    grant_id = ids.new()
    await store.insert_grant(connection, grant_id, value, request, now)
    for part in value.allocations:
        payment = locked.payments.get(part.payment_id) or backing.payments[part.payment_id]
        if payment.status == "captured":  # other cash is refunded by `refund_collected`
            locked.changes.new_refunds.append(
                NewRefund(
                    payment, store.refund_key(grant_id), part.amount, request.reason, request.actor, is_announced=True
                )
            )
    await locked_orders.write_changes(connection, ids, [locked], now)
    if request.kind != "cancellation" and (
        backing.payments or any(part.goes_to == "not_collected" for part in value.allocations)
    ):  # refunds of its own payments put this job, too
        job = NewJob(order.order_id, ADVANCE_CANCELLATIONS, INTERNAL_SYSTEM, now)
        await jobs.put(connection, CANCELLATIONS, [job], now)
    if value.amount:
        await orders.insert_story_events(connection, [_story(value, grant_id, request)], now, request.actor)
    return msgspec.structs.replace(value, grant_id=grant_id)


async def waive_cash(
    connection: Connection,
    order: OrderHeader,
    payment_id: UUID,
    grant_id: UUID,
    amount_minor: int,
    reason: str,
    actor: str,
    now: datetime,
) -> bool:
    """Grant cash of a payment that need not be paid. It refunds no units.

    Returns False if that was granted before. Call inside a transaction that holds the order lock. Raises as
    `check_decision`."""
    if await store.find_grant(connection, "staff", payment_id) is not None:
        return False
    await check_decision(connection, order, amount_minor)
    part = Allocation(payment_id, "cod", amount_minor, "not_collected")
    value = Grant(None, order.order_id, amount_minor, order.total.currency, 0, 0, "ratio", [], [part])
    request = GrantRequest("staff", payment_id, reason, actor)
    await store.insert_grant(connection, grant_id, value, request, now)
    await orders.insert_story_events(connection, [_story(value, grant_id, request)], now, actor)
    return True


async def check_decision(connection: Connection, order: OrderHeader, amount_minor: int) -> None:
    """Check that the person whose request this is may decide to return an amount of an order.

    What the same person has granted of the order before counts, so that no large amount is decided in small parts. Call
    inside the transaction that holds the order lock, before it writes. Raises `RightNeeded`."""
    decider = find_decider()
    if decider is None:
        return
    if decider.limit_of(order.total.currency) is not None:
        amount_minor += await store.sum_granted_by(connection, order.order_id, decider.actor)
    await decider.check_amount(connection, amount_minor, order.total.currency)


async def preview(connection: Connection, order: OrderHeader, request: GrantRequest) -> Grant:
    """Compute what `grant` would grant now. Stores nothing and needs no lock. Raises as `value_grant`."""
    [locked] = await locked_orders.read_orders(connection, [order])
    backing = await read_backing(connection, order.order_id, locks=False)
    return value_grant(await _read_refundable(connection, order, locked, backing), request)


async def refund_collected(
    connection: Connection, ids: IdGenerator, order: OrderHeader, actor: str, now: datetime
) -> None:
    """Refund cash that was captured though earlier grants cover it.

    Call inside a transaction that holds the order lock. A repeat changes nothing."""
    amounts = await store.list_grant_amounts(connection, order.order_id)
    if not amounts:
        return
    [locked] = await locked_orders.read_orders(connection, [order])
    cash = [payment for payment in order_status.current_payments(locked.payments.values()) if payment.method == "cod"]
    if not cash or any(payment.status in ("pending", "authorised") for payment in cash):
        return
    backing = await read_backing(connection, order.order_id, locks=True)
    left = {store.refund_key(grant_id): amount for grant_id, amount in amounts.items()}
    requested = {(item.payment_id, item.refund_key): item.amount_minor for item in [*locked.refunds, *backing.refunds]}
    for (_, key), amount in requested.items():  # attempts that have failed are tried again
        if key in left:
            left[key] -= amount
    owed_minor = sum(left.values()) - sum(payment.amount_minor - payment.captured_minor for payment in cash)
    for payment in cash:
        remaining_minor = payment.captured_minor - sum(
            refund.amount_minor
            for refund in locked.refunds
            if refund.payment_id == payment.payment_id and refund.status != "failed"
        )
        for key in [key for key, amount in left.items() if amount > 0 and (payment.payment_id, key) not in requested]:
            part_minor = min(left[key], owed_minor, remaining_minor)
            if part_minor > 0:
                reason = "it was collected with other shipments"
                locked.changes.new_refunds.append(NewRefund(payment, key, part_minor, reason, actor))
                left[key] -= part_minor
                owed_minor -= part_minor
                remaining_minor -= part_minor
    await locked_orders.write_changes(connection, ids, [locked], now)


async def list_refunds(connection: Connection, order_id: UUID, grant_id: UUID) -> list[Refund]:
    """List the refunds that a grant of an order has asked for.

    Those of a replacement may be of an earlier order."""
    backing = await read_backing(connection, order_id, locks=False)
    refunds = [*await payments.list_refunds(connection, order_id), *backing.refunds]
    return [refund for refund in refunds if refund.refund_key == store.refund_key(grant_id)]


async def _read_refundable(
    connection: Connection, order: OrderHeader, locked: LockedOrder, backing: Backing
) -> RefundableOrder:
    if any(payment.task == "recover_order" for payment in locked.payments.values()):
        raise RefundExceedsCaptured(
            "cannot refund the order now: it was paid late and its stock is being reacquired; try again in a moment"
        )
    sums = await store.get_granted_sums(connection, order.order_id)
    coming_minor = 0
    if any(payment.method == "cod" and payment.status == "authorised" for payment in locked.payments.values()):
        collected_minor = (await payments.sum_uncaptured_cash(connection, [order.order_id]))[order.order_id]
        coming_minor = collected_minor + sums.cash_under_way_minor
    granted = {store.refund_key(grant_id) for grant_id in await store.list_grant_amounts(connection, order.order_id)}
    open_payments = _list_open_payments(locked, sums, coming_minor, granted, backing) + list(backing.open)
    tied_minor = await sum_tied(connection, order.order_id, [*locked.refunds, *backing.all_refunds])
    if tied_minor:  # it goes back with the replacements of the units that were paid with it
        held_minor = sum(payment.remaining_minor for payment in open_payments)
        open_payments = take_first(open_payments, held_minor - tied_minor)
    return RefundableOrder(
        order_id=order.order_id,
        currency=order.total.currency,
        lines=await store.list_refundable_lines(connection, order.order_id),
        freight_minor=sums.freight_minor - sums.granted_freight_minor,
        was_shipped=sums.was_shipped,
        payments=open_payments,
    )


def _list_open_payments(
    locked: LockedOrder, sums: GrantedSums, coming_minor: int, granted: Collection[str], backing: Backing
) -> list[OpenPayment]:
    """List what can still go back over each payment, in the order of the tenders.

    Cash on delivery that is not collected is still due, less what grants have taken off it: their amounts that are no
    refunds. `coming_minor` of it was collected with some shipments, or will be with those under way, because what they
    collect is fixed: only the rest need not be paid.
    """
    refunds = [refund for refund in locked.refunds if refund.status != "failed"]
    taken_off_minor = sums.granted_minor - sum(
        refund.amount_minor for refund in [*refunds, *backing.refunds] if refund.refund_key in granted
    )
    due_cash = order_status.list_due_cash(locked, taken_off_minor)
    open_payments = []
    for payment in locked.payments.values():
        refunded_minor = sum(refund.amount_minor for refund in refunds if refund.payment_id == payment.payment_id)
        remaining_minor = payment.captured_minor - refunded_minor
        if remaining_minor > 0:
            open_payments.append(OpenPayment(payment.payment_id, payment.method, remaining_minor))
        if due_minor := due_cash.get(payment.payment_id):
            part_minor = min(due_minor, coming_minor)
            coming_minor -= part_minor
            cash = OpenPayment(payment.payment_id, "cod", due_minor - part_minor, is_collected=False)
            open_payments += [cash, cash._replace(remaining_minor=part_minor, is_coming=True)]
    return [payment for payment in open_payments if payment.remaining_minor]


async def _read_grant(connection: Connection, stored: StoredGrant, locked: LockedOrder, backing: Backing) -> Grant:
    """Read a stored grant, with the refunds that were asked for."""
    allocations = []
    payments_of_grant = {**locked.payments, **backing.payments}
    place = {payment_id: number for number, payment_id in enumerate(payments_of_grant)}
    for refund in sorted([*locked.refunds, *backing.refunds], key=lambda refund: place[refund.payment_id]):
        if refund.refund_key == store.refund_key(stored.grant_id) and refund.status != "failed":
            method = payments_of_grant[refund.payment_id].method
            destination = find_destination(method)
            allocations.append(Allocation(refund.payment_id, method, refund.amount_minor, destination))
    return Grant(
        grant_id=stored.grant_id,
        order_id=stored.order_id,
        amount=stored.amount_minor,
        currency=stored.currency,
        freight=stored.freight_minor,
        fee=stored.fee_minor,
        strategy=stored.strategy,
        lines=await store.list_grant_lines(connection, stored.grant_id),
        allocations=allocations,
    )


def _story(value: Grant, grant_id: object, request: GrantRequest) -> StoryEvent:
    """Describe a grant to the customer: its refunds, and cash that need not be paid."""
    not_collected_minor = sum(part.amount for part in value.allocations if part.goes_to == "not_collected")
    refunded_minor = value.amount - not_collected_minor
    parts = []
    if refunded_minor:
        parts.append(f"{format_money(refunded_minor, value.currency)} is being refunded")
    if not_collected_minor:
        parts.append(f"{format_money(not_collected_minor, value.currency)} less is due on delivery")
    details = {"grant_id": str(grant_id), "amount": value.amount, "currency": value.currency}
    reason = f"{', '.join(parts)}: {request.reason}"
    return StoryEvent(value.order_id, "refund", reason[:_MAX_REASON_CHARACTERS], details)
