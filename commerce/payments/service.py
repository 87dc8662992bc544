"""Payments for customers, providers and staff.

Nothing here calls a provider: the rows are the jobs of the payment worker.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import date, datetime, timedelta
from typing import Literal
from uuid import UUID

from asyncpg import UniqueViolationError

from commerce.kernel.clock import Clock, from_ms
from commerce.kernel.errors import Invalid
from commerce.kernel.failpoints import failpoint
from commerce.kernel.ids import IdGenerator
from commerce.kernel.money import Money
from commerce.kernel.postgres import Connection, Database
from commerce.orders import store as orders
from commerce.orders.errors import NoSuchOrder
from commerce.orders.model import Method, OrderStatus
from commerce.orders.store import OrderHeader
from commerce.payments import order_status, reconciliation, store
from commerce.payments.errors import NoSuchParkedJob, NoSuchPayment, NotCollectable, NotPayable, RefundExceedsCaptured
from commerce.payments.model import (
    INTERNAL_METHODS,
    OrderPayments,
    ParkedJob,
    Payment,
    PaymentView,
    Refund,
    RefundView,
    StoreCredit,
    TenderInput,
)
from commerce.payments.order_status import CaptureResult, ProviderMismatch, RefundResult
from commerce.payments.provider_port import PaymentFlow, PaymentWebhook, Provider, ProviderPayment, StatementLine
from commerce.payments.reconciliation import DAY, NEAR_MIDNIGHT, ReconciliationReport, RecordedDay

HasCashShipments = Callable[[Connection, UUID], Awaitable[bool]]
"""tells if an order has shipments that collect cash and have not reached their final status"""
WebhookResult = CaptureResult | RefundResult | Literal["recorded", "duplicate", "refused"]


class Payments:
    """Starts, shows, refunds and reconciles payments, and takes in providers' webhooks.

    `providers` maps methods to external providers. A payment expires `expiry_margin_s` before its order does, or a
    quarter of the order's payment time before it, whichever is less."""

    def __init__(
        self,
        db: Database,
        clock: Clock,
        ids: IdGenerator,
        providers: Mapping[str, Provider],
        expiry_margin_s: float,
        has_cash_shipments: HasCashShipments,
    ) -> None:
        self._db = db
        self._clock = clock
        self._ids = ids
        self._providers = providers
        self._expiry_margin = timedelta(seconds=expiry_margin_s)
        self._has_cash_shipments = has_cash_shipments

    async def start(self, order_id: UUID, user_id: str, tenders: Sequence[TenderInput]) -> OrderPayments:
        """Create the payments of an order, or replace them by others. The same tenders again change nothing.

        Without tenders, those of the order itself are used. Raises `NoSuchOrder`, `NotPayable` if the order does not
        wait for payment or is about to expire, and `Invalid` if the tenders do not fit the order."""
        async with self._db.transaction() as connection:
            order = await orders.lock_order(connection, order_id)
            if order is None or order.user_id != user_id:
                raise NoSuchOrder(f"there is no stored order {order_id}, or it is not yours")
            payments = await store.list_payments(connection, order_id)
            current = order_status.current_payments(payments)
            tenders = self._checked_tenders(order, tenders)
            if current and order.status is not OrderStatus.CANCELLED and _are_in_progress(current, tenders):
                return await self._with_refunds(connection, order, payments)
            now = self._now()
            expires_at = order.pay_by - min(self._expiry_margin, (order.pay_by - order.accepted_at) / 4)
            if order.status is not OrderStatus.AWAITING_PAYMENT:
                raise NotPayable(f"cannot pay the order: it is {order.status}")
            if now >= expires_at:
                raise NotPayable("cannot pay the order: it is about to expire")
            rows = [(self._ids.new(), tender, self._flow(no, tender)) for no, tender in enumerate(tenders)]
            revision = payments[-1].plan_revision + 1 if payments else 1
            await store.insert_payments(connection, order, revision, rows, now, expires_at)
            await order_status.update_order_and_payments(connection, self._ids, order, now)
            return await self._with_refunds(connection, order, await store.list_payments(connection, order_id))

    def _checked_tenders(self, order: OrderHeader, tenders: Sequence[TenderInput]) -> list[TenderInput]:
        tenders = list(tenders) or [TenderInput(tender.method, tender.amount) for tender in order.plan]
        if not tenders:
            raise Invalid("cannot start payments: the order has no payment plan; send `payments`")
        amount = sum(tender.amount for tender in tenders)
        if amount != order.total.amount:
            detail = (
                f"they add up to {amount} and the total is {order.total.amount} minor units of {order.total.currency}"
            )
            raise Invalid(f"/payments: {detail}", errors=[{"pointer": "/payments", "detail": detail}])
        for tender_no, tender in enumerate(tenders):
            provider = self._providers.get(tender.method)
            if tender.method in INTERNAL_METHODS:
                continue
            if provider is None:
                raise _tender_error(tender_no, "method", f"{tender.method} is not offered here")
            if order.total.currency not in provider.currencies:
                raise _tender_error(tender_no, "method", f"{tender.method} does not take {order.total.currency}")
            self._flow(tender_no, tender)
        return tenders

    def _flow(self, tender_no: int, tender: TenderInput) -> PaymentFlow | Literal["none"]:
        if tender.method in INTERNAL_METHODS:
            return "none"
        flows = self._providers[tender.method].flows
        flow = tender.flow or ("qr" if "qr" in flows else flows[0])
        if flow not in flows:
            raise _tender_error(tender_no, "flow", f"{tender.method} has {', '.join(flows)}")
        if flow == "jsapi" and tender.payer is None:
            raise _tender_error(tender_no, "payer", "jsapi needs the customer's id at the provider")
        return flow

    async def get(self, order_id: UUID, user_id: str | None) -> OrderPayments:
        """Return an order's payments; for staff (`user_id` None) those of any customer. Raises `NoSuchOrder`."""
        # Gateways poll this until the worker has called the provider. It takes no lock, which would be written to the
        # disk each time, and as few statements as give one state. Without a capture there are no refunds.
        async with self._db.connection() as connection:
            order = await orders.read_order_header(connection, order_id)
            if order is None or user_id not in (None, order.user_id):
                raise NoSuchOrder(f"there is no stored order {order_id}, or it is not yours")
            payments = await store.list_payments(connection, order_id)
            if not any(payment.status == "captured" for payment in payments):
                return _order_payments(order, payments, [])
            async with connection.transaction(isolation="repeatable_read", readonly=True):
                return await self._with_refunds(connection, order, await store.list_payments(connection, order_id))

    async def _with_refunds(
        self, connection: Connection, order: OrderHeader, payments: Sequence[Payment]
    ) -> OrderPayments:
        return _order_payments(order, payments, await store.list_refunds(connection, order.order_id))

    # Webhooks.

    async def handle_webhook(self, method: Method, webhook: PaymentWebhook, body: bytes) -> WebhookResult:
        """Store a verified webhook and what it changes, in one transaction.

        A webhook that contradicts our records is stored with the reason, changes nothing and is `refused`. One that was
        stored before is a `duplicate`, or `refused` again."""
        now = self._now()
        result: WebhookResult
        async with self._db.transaction() as connection:
            if not await store.insert_webhook(connection, method, webhook, now, body):
                stored_result = await store.get_webhook_result(connection, method, webhook.webhook_id)
                return "refused" if stored_result and stored_result.startswith("refused") else "duplicate"
            reason = ""
            try:
                async with connection.transaction():
                    result = await self._record_webhook(connection, method, webhook, now)
            except ProviderMismatch as error:
                result, reason = "refused", f": {error}"
            except UniqueViolationError:
                result, reason = "refused", ": its transaction belongs to another payment"
            await store.set_webhook_result(connection, method, webhook.webhook_id, f"{result}{reason}")
        failpoint("payment.after_webhook")
        return result

    async def _record_webhook(
        self, connection: Connection, method: Method, webhook: PaymentWebhook, now: datetime
    ) -> WebhookResult:
        subject = webhook.subject
        payment = await store.get_payment(connection, subject.payment_id)
        if payment is None or payment.method != method:
            raise ProviderMismatch(f"there is no payment {subject.payment_id} by {method}")
        if isinstance(subject, ProviderPayment):
            if subject.state != "captured":
                return "recorded"  # the payment worker queries the provider itself
            return await order_status.record_capture_by_id(connection, self._ids, payment.payment_id, subject, now)
        refund = await store.get_refund(connection, subject.refund_id)
        if refund is None or refund.payment_id != payment.payment_id:
            raise ProviderMismatch(f"there is no refund {subject.refund_id} of this payment")
        amount = Money(refund.amount_minor, refund.currency)
        if subject.amount is not None and subject.amount != amount:
            raise ProviderMismatch(f"{method} refunded {subject.amount}, but the refund is {amount}")
        if subject.state != "done":
            return "recorded"
        return await order_status.record_refund_by_id(connection, self._ids, refund.refund_id, now)

    # Staff.

    async def refund(
        self, order_id: UUID, idempotency_key: str, amount_minor: int | None, reason: str, actor: str
    ) -> OrderPayments:
        """Refund a part of what was captured, or all that is left, payment by payment from the last tender on.

        The same key again changes nothing. Raises `NoSuchOrder` and `RefundExceedsCaptured`."""
        refund_key = f"staff {idempotency_key}"
        async with self._db.transaction() as connection:
            order = await orders.lock_order(connection, order_id)
            if order is None:
                raise NoSuchOrder(f"there is no stored order {order_id}")
            payments = await store.list_payments(connection, order_id)
            refunds = await store.list_refunds(connection, order_id)
            if any(payment.task == "recover_order" for payment in payments):
                raise RefundExceedsCaptured(
                    "cannot refund the order now: it was paid late and its stock is being reacquired; "
                    "try again in a moment"
                )
            if not any(refund.refund_key == refund_key for refund in refunds):
                captured = [payment for payment in reversed(payments) if payment.status == "captured"]
                refunded_minor = sum(refund.amount_minor for refund in refunds if refund.status != "failed")
                available_minor = sum(payment.amount_minor for payment in captured) - refunded_minor
                remaining_minor = available_minor if amount_minor is None else amount_minor
                if not 0 < remaining_minor <= available_minor:
                    raise RefundExceedsCaptured(f"{available_minor} minor units are captured and not refunded")
                for payment in captured:
                    remaining_minor -= await order_status.refund_remaining(
                        connection, self._ids, payment, refund_key, reason, actor, self._now(), remaining_minor
                    )
            return await self._with_refunds(connection, order, await store.list_payments(connection, order_id))

    async def record_cash_collected(self, payment_id: UUID) -> None:
        """Record that the cash of a payment was collected. The same again changes nothing.

        Raises `NoSuchPayment`, and `NotCollectable` if no cash is due or shipments still collect it."""
        async with self._db.transaction() as connection:
            unlocked = await store.get_payment(connection, payment_id)
            order = await orders.lock_order(connection, unlocked.order_id) if unlocked else None
            payment = await store.get_payment(connection, payment_id)
            if order is None or payment is None:
                raise NoSuchPayment(f"there is no payment {payment_id}")
            if payment.method != "cod" or payment.status not in ("authorised", "captured"):
                raise NotCollectable(
                    f"cannot record cash: this is a payment by {payment.method} that is {payment.status}"
                )
            # A carrier must not collect cash from a customer who has paid already.
            if payment.status == "authorised" and await self._has_cash_shipments(connection, order.order_id):
                raise NotCollectable(
                    "carriers collect the cash: record the outcome of the order's shipments, or cancel these first"
                )
            now = self._now()
            collected = ProviderPayment(payment_id, "captured", payment.amount, None, now)
            if await order_status.record_capture(connection, order, payment, collected, now):
                await order_status.update_order_and_payments(connection, self._ids, order, now)

    async def grant_store_credit(self, user_id: str, amount: Money, idempotency_key: str) -> StoreCredit:
        """Grant store credit to a customer, once per key.

        Raises `Invalid` if the key was used for another grant."""
        posting = f"gift {idempotency_key}"
        entries = {f"credit:{user_id}": -amount.amount, "shop:credit": amount.amount}
        async with self._db.transaction() as connection:
            try:
                async with connection.transaction():
                    await store.insert_posting(connection, posting, None, amount.currency, self._now(), entries)
            except UniqueViolationError:
                expected = {(account, units, amount.currency) for account, units in entries.items()}
                if await store.get_posting(connection, posting) != expected:
                    pointer, detail = "/idempotency_key", "the key was used for another grant: send a new one"
                    raise Invalid(f"{pointer}: {detail}", errors=[{"pointer": pointer, "detail": detail}]) from None
            else:
                await store.adjust_store_credit(connection, user_id, amount.currency, amount.amount)
        return await self.get_store_credit(user_id)

    async def get_store_credit(self, user_id: str) -> StoreCredit:
        async with self._db.connection() as connection:
            return StoreCredit(user_id, await store.list_credit_balances(connection, user_id))

    async def list_parked_jobs(self) -> list[ParkedJob]:
        async with self._db.connection() as connection:
            return await store.list_parked_jobs(connection)

    async def retry_parked_job(self, job_id: UUID) -> None:
        """Make a parked payment or refund due now. Raises `NoSuchParkedJob`."""
        async with self._db.connection() as connection:
            if not await store.retry_parked_job(connection, job_id, self._now()):
                raise NoSuchParkedJob(f"no payment or refund with the id {job_id} is parked")

    async def reconcile(
        self,
        method: Method,
        day: date,
        statement: Sequence[StatementLine | str],
        neighbours: Sequence[StatementLine | str] = (),
        report_progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> ReconciliationReport:
        """Compare a provider's statement of a day in China with our records of it.

        `neighbours` are the lines of the statements of other days. `report_progress` gets the number of movements
        that are compared and the number of all."""
        start, end = reconciliation.day_bounds(day)
        async with self._db.transaction(isolation="repeatable_read", readonly=True) as connection:

            async def recorded(since: datetime, until: datetime) -> list[store.RecordedMovement]:
                return await store.list_movements(connection, method, since, until)

            records = RecordedDay(
                day=await recorded(start, end),
                around=[*await recorded(start - DAY, start), *await recorded(end, end + DAY)],
                early=await recorded(start, start + NEAR_MIDNIGHT),
                late=await recorded(end - NEAR_MIDNIGHT, end),
            )
            total, done = len(statement) + len(records.day), 0

            def count_movement() -> None:
                nonlocal done
                done += 1
                report_progress(done, total)

            report, unmatched = reconciliation.compare(statement, neighbours, records, day, count_movement)
            for line in unmatched:
                payment = await store.get_payment(connection, line.payment_id)
                refund = await store.get_refund(connection, line.refund_id) if line.refund_id else None
                report.differences.append(reconciliation.explain(line, method, payment, refund))
        return report

    def _now(self) -> datetime:
        return from_ms(self._clock.now_ms())


def _are_in_progress(current: Sequence[Payment], tenders: Sequence[TenderInput]) -> bool:
    """Tell if the current payments are these tenders, and none of them has ended or is being closed."""
    if any(payment.status in ("failed", "closed") or payment.task == "close" for payment in current):
        return False
    return [(payment.method, payment.amount_minor) for payment in current] == [
        (tender.method, tender.amount) for tender in tenders
    ] and all(tender.flow in (None, payment.flow) for payment, tender in zip(current, tenders, strict=True))


def _tender_error(tender_no: int, field: str, detail: str) -> Invalid:
    pointer = f"/payments/{tender_no}/{field}"
    return Invalid(f"{pointer}: {detail}", errors=[{"pointer": pointer, "detail": detail}])


def _order_payments(order: OrderHeader, payments: Sequence[Payment], refunds: Sequence[Refund]) -> OrderPayments:
    revision = payments[-1].plan_revision if payments else 0
    net_captured = sum(
        payment.amount_minor - payment.refunded_minor for payment in payments if payment.status == "captured"
    )
    views = [_payment_view(payment, refunds, current=payment.plan_revision == revision) for payment in payments]
    return OrderPayments(order.order_id, order.total, net_captured, views)


def _payment_view(payment: Payment, refunds: Sequence[Refund], *, current: bool) -> PaymentView:
    return PaymentView(
        payment_id=payment.payment_id,
        method=payment.method,
        amount=payment.amount,
        status=payment.status,
        current=current,
        expires_at=payment.expires_at,
        action=payment.action if payment.status == "pending" and current else None,
        reason=payment.reason,
        refunded=payment.refunded_minor,
        refunds=[
            RefundView(refund.refund_id, refund.amount_minor, refund.status, refund.reason, refund.created_at)
            for refund in refunds
            if refund.payment_id == payment.payment_id
        ],
    )
