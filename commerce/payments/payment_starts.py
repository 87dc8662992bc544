"""Starts of payments; those of concurrent customers share a transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple
from uuid import UUID

from commerce.kernel.batches import Batcher
from commerce.kernel.clock import Clock, from_ms
from commerce.kernel.errors import ProblemError
from commerce.kernel.ids import IdGenerator
from commerce.kernel.postgres import POSTGRES_UNAVAILABLE_OR_BUSY, Connection, Database
from commerce.orders import store as orders
from commerce.orders.errors import NoSuchOrder
from commerce.orders.model import OrderStatus
from commerce.orders.store import OrderHeader
from commerce.payments import locked_orders, order_status, store
from commerce.payments.bill_text import build_bill_text
from commerce.payments.errors import NotPayable
from commerce.payments.model import OrderPayments, Payment, TenderInput
from commerce.payments.payment_reads import build_order_payments
from commerce.payments.provider_port import Provider
from commerce.payments.tenders import (
    ActionRenewal,
    NewPayment,
    PaymentPolicy,
    PlannedTender,
    are_in_progress,
    check_tenders,
    needs_new_action,
    plan_tender,
)

_MAX_ORDERS = 100
"""orders of a transaction: it locks them until it ends"""
_Result = OrderPayments | ProblemError


class StartRequest(NamedTuple):
    """A customer's request to pay an order by tenders; without any, by those of the order itself.

    `client_ip` is the network address of the request."""

    order_id: UUID
    user_id: str
    tenders: Sequence[TenderInput]
    client_ip: str | None


class _Decision(NamedTuple):
    """The payments that an order has, and what a request changes: new tenders, or new actions."""

    order: OrderHeader
    payments: Sequence[Payment]
    tenders: Sequence[PlannedTender] = ()
    renewals: Sequence[ActionRenewal] = ()

    @property
    def is_replacement(self) -> bool:
        return bool(self.tenders and self.payments)


class PaymentStarts:
    """Creates, renews and replaces payments.

    Requests that come in one iteration of the event loop, or while a transaction is in flight, share the next one. Each
    is decided alone. It is done in a transaction of its own if it would have to wait, for the lock of its order or of a
    customer's store credit, and if the shared transaction fails by its data."""

    def __init__(
        self,
        db: Database,
        clock: Clock,
        ids: IdGenerator,
        providers: Mapping[str, Provider],
        policy: PaymentPolicy,
    ) -> None:
        self._db = db
        self._clock = clock
        self._ids = ids
        self._providers = providers
        self._policy = policy
        self._shared: Batcher[StartRequest, _Result | None] = Batcher(self._start_shared, max_items=_MAX_ORDERS)

    async def start(self, request: StartRequest) -> OrderPayments:
        """Start the payments of an order. Raises `NoSuchOrder`, `NotPayable` and `Invalid`."""
        result = await self._shared.add(request)
        if result is None:
            result = await self._start_alone(request)
        if isinstance(result, ProblemError):
            raise result
        return result

    async def _start_shared(self, requests: Sequence[StartRequest]) -> list[_Result | None]:
        """Do requests in one transaction. Returns None for those that must be done alone."""
        by_order = {request.order_id: request for request in reversed(requests)}  # the first of each order
        try:
            async with self._db.transaction() as connection:
                results = await self._start_free(connection, by_order)
        except POSTGRES_UNAVAILABLE_OR_BUSY:
            raise
        except Exception:  # noqa: BLE001  # the one at fault gets it again when it is alone
            return [None] * len(requests)
        return [
            results.get(request.order_id) if by_order[request.order_id] is request else None for request in requests
        ]

    async def _start_free(
        self, connection: Connection, requests: Mapping[UUID, StartRequest]
    ) -> dict[UUID, _Result | None]:
        """Do the requests of orders that nobody has locked, without replacements."""
        headers = await orders.lock_free_orders(connection, list(requests))
        missing = [order_id for order_id in requests if order_id not in headers]
        locked = await orders.find_existing(connection, missing) if missing else set()
        results: dict[UUID, _Result | None] = {
            order_id: None if order_id in locked else _no_such_order(order_id) for order_id in missing
        }
        payments = await store.list_payments_of_orders(connection, list(headers))
        now, decisions = self._now(), []
        for order_id, order in headers.items():
            try:
                decision = self._decide(requests[order_id], order, payments[order_id], now)
            except ProblemError as error:
                results[order_id] = error
                continue
            if not decision.is_replacement:
                decisions.append(decision)
        return results | await self._apply(connection, decisions, now)

    async def _start_alone(self, request: StartRequest) -> OrderPayments:
        """Do one request in its own transaction, and wait for the locks that it needs."""
        async with self._db.transaction() as connection:
            order = await orders.lock_order(connection, request.order_id)
            if order is None:
                raise _no_such_order(request.order_id)
            payments, now = await store.list_payments(connection, request.order_id), self._now()
            decision = self._decide(request, order, payments, now)
            return (await self._apply(connection, [decision], now))[request.order_id]

    def _decide(
        self, request: StartRequest, order: OrderHeader, payments: Sequence[Payment], now: datetime
    ) -> _Decision:
        """Decide what a request changes at a locked order. Raises the refusals of `start`."""
        if order.user_id != request.user_id:
            raise _no_such_order(order.order_id)
        tenders = check_tenders(order, request.tenders, self._providers, self._policy)
        current = order_status.current_payments(payments)
        if (
            current
            and order.status is not OrderStatus.CANCELLED
            and are_in_progress(current, tenders, request.client_ip)
        ):
            renewals = [
                ActionRenewal(payment.payment_id, tender.return_url)
                for payment, tender in zip(current, tenders, strict=True)
                if needs_new_action(payment, tender, now)
            ]
            return _Decision(order, payments, renewals=renewals)
        margin = timedelta(seconds=self._policy.expiry_margin_s)
        expires_at = order.pay_by - min(margin, (order.pay_by - order.accepted_at) / 4)
        if order.status is not OrderStatus.AWAITING_PAYMENT:
            raise NotPayable(f"cannot pay the order: it is {order.status}")
        if now >= expires_at:
            raise NotPayable("cannot pay the order: it is about to expire")
        planned = [
            plan_tender(
                *(tender, tender_no, order.order_id, self._providers, self._policy),
                now=now,
                expires_at=expires_at,
                client_ip=request.client_ip,
            )
            for tender_no, tender in enumerate(tenders)
        ]
        return _Decision(order, payments, planned)

    async def _apply(
        self, connection: Connection, decisions: Sequence[_Decision], now: datetime
    ) -> dict[UUID, OrderPayments]:
        """Write what was decided about locked orders, and return the payments of each."""
        inserted = await self._insert(connection, [decision for decision in decisions if decision.tenders], now)
        renewals = [renewal for decision in decisions for renewal in decision.renewals]
        await store.renew_actions(connection, renewals, now)
        for decision in decisions:
            if decision.is_replacement:
                await locked_orders.update_order(connection, self._ids, decision.order, now)
        repeated = [decision.order.order_id for decision in decisions if decision.payments]
        payments = inserted | (await store.list_payments_of_orders(connection, repeated) if repeated else {})
        results = {}
        for order in (decision.order for decision in decisions):
            refunds = await store.list_refunds(connection, order.order_id) if order.order_id in repeated else []
            results[order.order_id] = build_order_payments(order, payments[order.order_id], refunds, self._now())
        return results

    async def _insert(
        self, connection: Connection, decisions: Sequence[_Decision], now: datetime
    ) -> dict[UUID, list[Payment]]:
        products = await store.get_first_products(connection, [decision.order.order_id for decision in decisions])
        new_payments = []
        for order, payments, tenders, _ in decisions:
            product = products.get(order.order_id)
            subject = build_bill_text(self._policy.shop_name, *product) if product else None
            revision = payments[-1].plan_revision + 1 if payments else 1
            new_payments += [
                NewPayment(self._ids.new(), order, revision, tender_no, tender, subject)
                for tender_no, tender in enumerate(tenders)
            ]
        return await store.insert_payments(connection, new_payments, now)

    def _now(self) -> datetime:
        return from_ms(self._clock.now_ms())


def _no_such_order(order_id: UUID) -> NoSuchOrder:
    return NoSuchOrder(f"there is no stored order {order_id}, or it is not yours")
