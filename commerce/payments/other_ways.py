"""Ends refunds that cannot go back to their payments: store credit, transfers, bank cards.

Store credit needs the customer's consent, a transfer two people: one records it, another confirms it. Each refund ends
once, whatever is tried at the same time: all of it happens under the lock of its order.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import NamedTuple
from uuid import UUID

from commerce.jobs import store as jobs
from commerce.kernel.clock import Clock, from_ms
from commerce.kernel.errors import Invalid
from commerce.kernel.external import ExternalOutcomeUnknown, ExternalRefusal
from commerce.kernel.ids import IdGenerator
from commerce.kernel.paging import Page, to_page
from commerce.kernel.postgres import Connection, Database
from commerce.orders import store as orders
from commerce.orders.model import RefundWay
from commerce.payments import locked_orders, refund_status, refund_store, store
from commerce.payments.errors import (
    NoSuchRefund,
    RefundNotRedirected,
    RefundNotStuck,
    SecondPersonNeeded,
    TransferRecorded,
)
from commerce.payments.model import Payment, Refund, StuckRefundView
from commerce.payments.order_status import LockedOrder
from commerce.payments.provider_port import BankCard, Provider
from commerce.payments.refund_jobs import build_refund_request
from commerce.payments.refund_store import RefundLoad
from commerce.rights.service import find_decider

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_CALL_ALLOWANCE = timedelta(minutes=2)
"""time for the call that redirects a refund, before a job looks what became of it"""
_ACCEPTED = "accepted by the customer"


class _LockedRefund(NamedTuple):
    order: LockedOrder
    payment: Payment
    refund: Refund


class OtherWays:
    """Ends refunds that need another way. `providers` maps methods to external providers."""

    def __init__(self, db: Database, clock: Clock, ids: IdGenerator, providers: Mapping[str, Provider]) -> None:
        self._db = db
        self._clock = clock
        self._ids = ids
        self._providers = providers

    async def list_needing_other_way(self, cursor: str | None, size: int) -> Page[StuckRefundView]:
        """List refunds that need another way, the oldest first. Raises `Invalid` for a cursor that is none."""
        async with self._db.connection() as connection:
            rows = await refund_store.list_needing_other_way(connection, _parse_cursor(cursor), size + 1)
        return to_page(rows, size, _build_cursor)

    async def accept_store_credit(self, order_id: UUID, refund_id: UUID, user_id: str) -> None:
        """Pay a refund as store credit, by the customer's request. A repeat changes nothing.

        Raises `NoSuchRefund`, `RefundNotStuck`, and `TransferRecorded` if it is on its way to a bank account."""
        async with self._lock(refund_id, order_id, user_id) as (connection, locked):
            await self._pay_credit(connection, locked, _ACCEPTED, f"customer {user_id}"[:100])

    async def record_consent(self, refund_id: UUID, proof: str, actor: str) -> None:
        """Pay a refund as store credit, with the customer's consent.

        Raises as `accept_store_credit`, and `RightNeeded` if the person whose request this is may not."""
        async with self._lock(refund_id) as (connection, locked):
            if decider := find_decider():
                await decider.check_amount(connection, locked.refund.amount_minor, locked.payment.currency)
            await self._pay_credit(connection, locked, proof, actor)

    async def record_transfer(self, refund_id: UUID, reference: str, actor: str) -> None:
        """Record a bank transfer, in the place of one that is not confirmed. Confirmed, it ends the refund.

        Raises `NoSuchRefund` and `RefundNotStuck`."""
        async with self._lock(refund_id) as (connection, locked):
            _check_stuck(locked.refund)
            await refund_store.put_other_way(connection, locked.refund, "transfer", reference, actor, self._now())

    async def withdraw_transfer(self, refund_id: UUID) -> None:
        """Delete a transfer that was recorded and is not confirmed. A repeat changes nothing.

        Raises `NoSuchRefund` and `RefundNotStuck`."""
        async with self._lock(refund_id) as (connection, locked):
            _check_stuck(locked.refund)
            await refund_store.delete_other_way(connection, refund_id)

    async def confirm_transfer(self, refund_id: UUID, actor: str) -> None:
        """Confirm a transfer that another person has recorded: the refund is done. A repeat changes nothing.

        Raises `NoSuchRefund`, `RefundNotStuck`, and `SecondPersonNeeded`."""
        async with self._lock(refund_id) as (connection, locked):
            other_way = await refund_store.get_other_way(connection, refund_id)
            if locked.refund.way == "transfer" and other_way is not None and other_way.confirmed_by == actor:
                return
            _check_stuck(locked.refund)
            if other_way is None:
                raise RefundNotStuck("cannot confirm the transfer: none is recorded; record its reference first")
            if other_way.recorded_by == actor:
                raise SecondPersonNeeded("cannot confirm the transfer: you have recorded it, so another person must")
            await refund_store.confirm_other_way(connection, refund_id, actor, self._now())
            await self._complete(connection, locked, "transfer", other_way.proof, actor)

    async def need_other_way(self, refund_id: UUID, reason: str, actor: str) -> None:
        """Give up a parked refund at its provider: it needs another way from now on. A repeat changes nothing.

        Whoever does it has seen at the provider that the money did not move. Raises `NoSuchRefund`, and
        `RefundNotStuck` if it is done or not parked."""
        async with self._lock(refund_id) as (connection, locked):
            if locked.refund.status == "needs_other_way":
                return
            parked = [job for job in await jobs.find(connection, store.REFUNDS, [refund_id]) if job.parked]
            if locked.refund.status != "pending" or not parked:
                raise RefundNotStuck(f"the refund is {locked.refund.status} and not parked: it still may be made")
            text = f"{actor}: {reason}; before: {parked[0].last_error}"
            refund_status.need_other_way(locked.order, locked.refund, "by_staff", self._now(), text)
            await locked_orders.write_changes(connection, self._ids, [locked.order], self._now(), actor)

    async def redirect(self, refund_id: UUID, card: BankCard | None) -> None:
        """Have the provider send an abnormal refund to the customer's card, or to the shop's account.

        The card is passed on and kept nowhere. What becomes of the refund shows later. Raises `NoSuchRefund`,
        `RefundNotStuck`, `TransferRecorded`, and `RefundNotRedirected` if the provider refuses."""
        now = self._now()
        async with self._lock(refund_id) as (connection, locked):
            refund, method = locked.refund, locked.payment.method
            _check_stuck(refund)
            if refund.other_way_reason != "abnormal" or refund.provider_refund_id is None:
                raise RefundNotStuck("only a refund that is abnormal at its provider goes to another account")
            if method not in self._providers:
                raise RefundNotRedirected(f"the settings name no account at {method}")
            await _check_no_transfer(connection, refund_id)
            # From now on it is the provider's: neither credit nor a transfer is possible, whatever the call returns.
            await refund_store.reopen_refund(connection, refund_id, now + _CALL_ALLOWANCE, now)
            [job] = (await refund_store.get_refunds_to_request(connection, [refund_id])).values()
        try:
            await self._providers[method].redirect_refund(build_refund_request(job), refund.provider_refund_id, card)
        except ExternalOutcomeUnknown:
            return  # the job finds out
        except ExternalRefusal as refusal:
            await self._take_back(refund_id)
            raise RefundNotRedirected(f"{method} refuses: {refusal}; correct it, or use another way") from None
        async with self._db.connection() as connection:
            await jobs.retry(connection, store.REFUNDS, [refund_id], self._now())

    async def _take_back(self, refund_id: UUID) -> None:
        async with self._lock(refund_id) as (connection, locked):
            if locked.refund.status == "pending":
                error = locked.refund.provider_error
                refund_status.need_other_way(locked.order, locked.refund, "abnormal", self._now(), error)
                locked.order.changes.story.clear()  # the customer has read it before
                await locked_orders.write_changes(connection, self._ids, [locked.order], self._now())

    async def _pay_credit(self, connection: Connection, locked: _LockedRefund, proof: str, actor: str) -> None:
        if locked.refund.status == "done" and locked.refund.way == "store_credit":
            return
        _check_stuck(locked.refund)
        await _check_no_transfer(connection, locked.refund.refund_id)
        await refund_store.put_other_way(connection, locked.refund, "store_credit", proof, actor, self._now())
        await self._complete(connection, locked, "store_credit", proof, actor)

    async def _complete(
        self, connection: Connection, locked: _LockedRefund, way: RefundWay, reference: str, actor: str
    ) -> None:
        order, payment, refund = locked
        refund_status.complete(order, payment, refund, way, reference if way == "transfer" else None)
        await locked_orders.write_changes(connection, self._ids, [order], self._now(), actor)

    @asynccontextmanager
    async def _lock(
        self, refund_id: UUID, order_id: UUID | None = None, user_id: str | None = None
    ) -> AsyncIterator[tuple[Connection, _LockedRefund]]:
        """Lock the order of a refund, of this order and customer if they are given. Raises `NoSuchRefund`."""
        async with self._db.joined_transaction() as connection:
            stored = await store.get_refund(connection, refund_id)
            if stored is None or order_id not in (None, stored.order_id):
                raise NoSuchRefund(f"there is no refund {refund_id}, or it is not yours")
            header = await orders.lock_order(connection, stored.order_id)
            if header is None or user_id not in (None, header.user_id):
                raise NoSuchRefund(f"there is no refund {refund_id}, or it is not yours")
            [order] = await locked_orders.read_orders(connection, [header])
            refund = next(refund for refund in order.refunds if refund.refund_id == refund_id)
            yield connection, _LockedRefund(order, order.payments[refund.payment_id], refund)

    def _now(self) -> datetime:
        return from_ms(self._clock.now_ms())


async def measure_refunds(db: Database) -> list[RefundLoad]:
    """Add up the refunds that wait at a provider or need another way, by method, currency and reason."""
    async with db.connection() as connection:
        return await refund_store.measure_refunds(connection)


def _check_stuck(refund: Refund) -> None:
    if refund.status != "needs_other_way":
        way = f" by {refund.way}" if refund.way else ""
        raise RefundNotStuck(f"the refund is {refund.status}{way}: it does not need another way")


async def _check_no_transfer(connection: Connection, refund_id: UUID) -> None:
    other_way = await refund_store.get_other_way(connection, refund_id)
    if other_way is not None:
        raise TransferRecorded(
            "a transfer of the refund is recorded: it is to be confirmed, or withdrawn if it was not made"
        )


def _build_cursor(refund: StuckRefundView) -> str:
    return f"{(refund.since - _EPOCH) // timedelta(microseconds=1)},{refund.refund_id}"


def _parse_cursor(cursor: str | None) -> tuple[datetime, UUID]:
    since_us, _, refund_id = (cursor or "0," + str(UUID(int=0))).partition(",")
    try:
        return _EPOCH + timedelta(microseconds=int(since_us)), UUID(refund_id)
    except (ValueError, OverflowError):
        raise Invalid("cursor: use `next` of the previous page as it is") from None
