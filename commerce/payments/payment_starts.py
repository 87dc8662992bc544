"""Starts of payments; those of concurrent customers share a transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple
from uuid import UUID

from commerce.kernel.clock import Clock, from_ms
from commerce.kernel.errors import ProblemError
from commerce.kernel.ids import IdGenerator
from commerce.kernel.postgres import Connection, Database
from commerce.kernel.shared_transactions import SharedTransactions
from commerce.orders import store as orders
from commerce.orders.errors import NoSuchOrder
from commerce.orders.model import OrderStatus
from commerce.orders.store import OrderHeader
from commerce.payments import locked_orders, order_status, store
from commerce.payments.bill_text import build_bill_text
from commerce.payments.errors import NotPayable
from commerce.payments.model import OrderPayments, Payment, Refund, TenderInput
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


_WITHOUT_COD_FEE = (
    "cash on delivery has a fee in this sale, which the price of the order does not have: "
    "place the order with `cod` in its `payments`, or pay another way"
)


class PaymentStarts:
    """Creates, renews and replaces payments.

    Concurrent requests share transactions, and each is decided alone. Replacements are done in a transaction of their
    own, because they may wait for the lock of a customer's store credit; so are repeats for the same order."""

    def __init__(
        self,
        db: Database,
        clock: Clock,
        ids: IdGenerator,
        providers: Mapping[str, Provider],
        policy: PaymentPolicy,
    ) -> None:
        self._clock = clock
        self._ids = ids
        self._providers = providers
        self._policy = policy
        self._transactions: SharedTransactions[StartRequest, OrderPayments] = SharedTransactions(db, self._start)

    async def start(self, request: StartRequest) -> OrderPayments:
        """Start the payments of an order. Raises `NoSuchOrder`, `NotPayable` and `Invalid`."""
        return await self._transactions.add(request)

    async def _start(
        self, connection: Connection, requests: Sequence[StartRequest], may_wait: bool
    ) -> list[OrderPayments | Exception | None]:
        first_of = {request.order_id: request for request in reversed(requests)}
        headers = await _lock_orders(connection, list(first_of), may_wait)
        missing = [order_id for order_id in first_of if order_id not in headers]
        locked = await orders.find_existing(connection, missing) if missing and not may_wait else set()
        results: dict[UUID, OrderPayments | Exception] = {
            order_id: _no_such_order(order_id) for order_id in missing if order_id not in locked
        }
        payments = await store.list_payments_of_orders(connection, list(headers))
        without_fee = await _list_without_cod_fee(connection, headers, first_of)
        results |= dict.fromkeys(without_fee, NotPayable(_WITHOUT_COD_FEE))
        now, decisions = self._now(), []
        for order_id, order in headers.items():
            if order_id in without_fee:
                continue
            try:
                decision = self._decide(first_of[order_id], order, payments[order_id], now)
            except ProblemError as error:
                results[order_id] = error
                continue
            if may_wait or not decision.is_replacement:
                decisions.append(decision)
        results |= await self._apply(connection, decisions, now)
        return [
            results.get(request.order_id) if first_of[request.order_id] is request else None for request in requests
        ]

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
        payments, refunds = dict(inserted), list[Refund]()
        if repeated:
            payments |= await store.list_payments_of_orders(connection, repeated)
            refunds = await store.list_refunds_of_orders(connection, repeated)
        return {
            order.order_id: build_order_payments(order, payments[order.order_id], refunds, now)
            for order, *_ in decisions
        }

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


async def _lock_orders(connection: Connection, order_ids: Sequence[UUID], may_wait: bool) -> dict[UUID, OrderHeader]:
    if not may_wait:
        return await orders.lock_free_orders(connection, order_ids)
    [order_id] = order_ids  # only a transaction of one request waits
    order = await orders.lock_order(connection, order_id)
    return {order_id: order} if order else {}


async def _list_without_cod_fee(
    connection: Connection, headers: Mapping[UUID, OrderHeader], requests: Mapping[UUID, StartRequest]
) -> list[UUID]:
    """List orders to be paid on delivery that lack the fee of their sale for that."""
    changed = [
        order_id
        for order_id, order in headers.items()
        if any(tender.method == "cod" for tender in requests[order_id].tenders)
        and not any(tender.method == "cod" for tender in order.plan)
    ]
    return await store.list_without_cod_fee(connection, changed) if changed else []


def _no_such_order(order_id: UUID) -> NoSuchOrder:
    return NoSuchOrder(f"there is no stored order {order_id}, or it is not yours")
