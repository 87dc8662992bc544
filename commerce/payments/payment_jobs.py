"""Jobs of the payment worker: create, query and close payments, recover late orders.

Those of refunds are in `refund_jobs.py`.

Providers are called outside of transactions. Their answers are recorded in a transaction that holds the order lock.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from uuid import UUID

from asyncpg import UniqueViolationError

from commerce.jobs import store as jobs
from commerce.jobs.model import Job, JobHandler, JobResult, failed, finished, parked, postponed, written
from commerce.jobs.service import JobQueue
from commerce.kernel.batches import Batcher
from commerce.kernel.clock import Clock, from_ms
from commerce.kernel.external import ExternalRefusal
from commerce.kernel.failpoints import failpoint
from commerce.kernel.ids import IdGenerator
from commerce.kernel.jobs import RateLimiter, RetryPolicy
from commerce.kernel.postgres import Database
from commerce.payments import locked_orders, order_status, store
from commerce.payments.captures import FindingRecorder, OrderUpdate
from commerce.payments.model import INTERNAL_METHODS, TASKS, Payment, RequestedPayment
from commerce.payments.order_status import Ending, ProviderMismatch
from commerce.payments.polling import poll_at
from commerce.payments.provider_port import PaymentRequest, Provider, ProviderPayment
from commerce.payments.refund_jobs import RefundJobs, RefundPolicy
from commerce.reservations.reacquisition import StockReacquisition

_EXPIRY_GRACE = timedelta(seconds=1)
_CREATION_ALLOWANCE = timedelta(seconds=30)
"""time that may pass between the start of a payment and its request to the provider"""
_GONE = finished("unchanged")


class PaymentJobs:
    """Does payment and refund jobs.

    `providers` maps methods to external providers. After `max_attempts` failures in a row a job is parked.
    `refund_limiter` limits how many refunds are begun per second."""

    def __init__(
        self,
        db: Database,
        clock: Clock,
        ids: IdGenerator,
        policy: RetryPolicy,
        max_attempts: int,
        providers: Mapping[str, Provider],
        reacquisition: StockReacquisition,
        refund_limiter: RateLimiter,
        refund_policy: RefundPolicy,
    ) -> None:
        self._db = db
        self._clock = clock
        self._ids = ids
        self._providers = providers
        self._reacquisition = reacquisition
        self._payments: Batcher[UUID, Payment | None] = Batcher(self._read_payments)
        self._requested: Batcher[RequestedPayment, bool] = Batcher(self._mark_requested)
        self._findings = FindingRecorder(db, clock, ids)
        payment = JobHandler(self._work_on_payment, max_attempts=max_attempts)
        refunds = RefundJobs(db, clock, self._findings, providers, refund_policy)
        refund = JobHandler(refunds.work, max_attempts=max_attempts)
        handlers = {f"payment.{task}": payment for task in TASKS}
        self.queues = (
            JobQueue(store.PAYMENTS, handlers, db, clock, policy),
            JobQueue(store.REFUNDS, {"refund.request": refund}, db, clock, policy, refund_limiter),
        )
        """the queues of payments and refunds"""

    async def _read_payments(self, payment_ids: Sequence[UUID]) -> list[Payment | None]:
        async with self._db.connection() as connection:
            payments = await store.get_payments(connection, payment_ids)
        return [payments.get(payment_id) for payment_id in payment_ids]

    async def _mark_requested(self, requested: Sequence[RequestedPayment]) -> list[bool]:
        async with self._db.connection() as connection:
            marked = await store.mark_requested(connection, requested)
            for item in requested:
                jobs.wake_waiters_after_commit(connection, item.order_id)
        return [item.job.subject in marked for item in requested]

    async def _work_on_payment(self, jobs: Sequence[Job]) -> list[JobResult]:
        [job] = jobs
        payment = await self._payments.add(job.subject)
        if payment is None:
            return [_GONE]
        task = job.kind.removeprefix("payment.")
        return [await _explain_contradictions(payment.method, self._process_payment(job, task, payment))]

    # Payments.

    async def _process_payment(self, job: Job, task: str, payment: Payment) -> JobResult:
        if task == "update_order":
            return written(await self._findings.record(OrderUpdate(payment.payment_id)))
        if task == "recover_order":
            return await self._recover_expired_order(payment)
        if payment.status != "pending":
            return _GONE
        if payment.method in INTERNAL_METHODS:
            return await self._process_internal(payment)
        provider = self._provider(payment.method)
        if task == "create" and self._now() < payment.expires_at:
            return await self._create(job, payment, provider)
        return await self._poll_provider(task, payment, provider)

    def _provider(self, method: str) -> Provider:
        """Return a provider. Raises `ExternalRefusal` if it is no longer offered: its jobs wait for staff."""
        if method not in self._providers:
            raise ExternalRefusal("not_offered", "the settings do not name it")
        return self._providers[method]

    async def _create(self, job: Job, payment: Payment, provider: Provider) -> JobResult:
        try:
            request = _payment_request(payment, provider)
            if request.expires_at - self._now() < provider.min_lifetime:
                raise ExternalRefusal("too_late", f"{payment.method} requires {provider.min_lifetime} to pay")
            action = await provider.create(request)
        except ExternalRefusal as error:
            # Providers also refuse if an earlier answer got lost and the customer has paid, or can pay.
            with suppress(ExternalRefusal):
                provider_payment = await provider.close(payment.payment_id)
                if provider_payment.state == "captured":
                    return await self._record_capture(provider_payment)
            # The provider's own text is for staff: customers can do nothing with it, and it may name our account.
            reason = f"{payment.method} did not accept the payment: start the payments again, or choose another method"
            return written(await self._findings.record(Ending(payment.payment_id, "failed", reason, str(error))))
        failpoint("payment.after_create")
        was_waiting = await self._requested.add(
            RequestedPayment(job, payment.order_id, action, self._next_poll_at(payment))
        )
        return written("requested" if was_waiting else "unchanged")

    async def _poll_provider(self, task: str, payment: Payment, provider: Provider) -> JobResult:
        """Query a payment, or close it if it is due to end, and record the provider's answer."""
        closing = task == "close" or self._now() >= payment.expires_at
        provider_payment = await (provider.close if closing else provider.query)(payment.payment_id)
        if closing and provider_payment.state != "captured":
            # Money may have been captured while it was closed: only a query afterwards is final.
            provider_payment = await provider.query(payment.payment_id)
        failpoint("payment.after_poll")
        if provider_payment.state == "captured":
            return await self._record_capture(provider_payment)
        # Until it expires, a payment that is absent may still reach the provider from a page the customer has open.
        expired = self._now() >= payment.expires_at + _EXPIRY_GRACE
        if provider_payment.state == "closed" or (closing and expired and provider_payment.state == "absent"):
            reason = "it was not paid in time" if expired else "it is no longer needed"
            reason = reason if closing else f"it was closed at {payment.method}"
            return written(await self._findings.record(Ending(payment.payment_id, "closed", reason)))
        return postponed("waiting", self._next_poll_at(payment), "payment.close" if closing else "payment.query")

    def _next_poll_at(self, payment: Payment) -> datetime:
        """Return when to poll next: often at first, then less often, and once when the payment has expired."""
        next_poll_at = poll_at(self._now(), payment.created_at)
        end = payment.expires_at + _EXPIRY_GRACE
        return end if self._now() < end < next_poll_at else next_poll_at

    async def _process_internal(self, unlocked: Payment) -> JobResult:
        """Process store credit or cash on delivery in one transaction, because no provider is called."""
        async with self._db.transaction() as connection:
            order = (await locked_orders.lock_orders(connection, [unlocked.payment_id])).get(unlocked.payment_id)
            payment = order.payments[unlocked.payment_id] if order else None
            if order is None or payment is None or payment.status != "pending":
                return _GONE
            now, word = self._now(), "closed"
            jobs.wake_waiters_after_commit(connection, order.order_id)
            if payment.task == "close":
                order_status.record_ending(order, Ending(payment.payment_id, "closed", "it is no longer needed"))
            elif payment.method == "cod":
                order_status.record_authorisation(order, payment)
                word = "authorised"
            elif await store.adjust_store_credit(connection, payment.user_id, payment.currency, -payment.amount_minor):
                captured = ProviderPayment(payment.payment_id, "captured", payment.amount, None, now)
                word = order_status.record_capture(order, payment, captured, now)
            else:
                reason = "there is not enough store credit"
                order_status.record_ending(order, Ending(payment.payment_id, "failed", reason))
                word = "failed"
            await locked_orders.update_and_write(connection, self._ids, [order], now)
        return written(word)

    async def _record_capture(self, provider_payment: ProviderPayment) -> JobResult:
        """Record a capture at a provider. Raises `ProviderMismatch` if it contradicts our records."""
        word = await self._findings.record(provider_payment)
        failpoint("payment.after_capture")
        return written(word) if word == "captured" else _GONE

    async def _recover_expired_order(self, payment: Payment) -> JobResult:
        """Reacquire the stock of an order that was paid too late, or refund it if that is refused."""
        decision = await self._reacquisition.reacquire(payment.order_id)
        if decision == "retry":
            return failed("waiting", "the stock is still being released")
        async with self._db.transaction() as connection:
            order = (await locked_orders.lock_orders(connection, [payment.payment_id])).get(payment.payment_id)
            await jobs.remove(connection, store.PAYMENTS, [payment.payment_id])
            if order is None or order.status != "cancelled":
                return written("unchanged")
            if decision == "reacquired":
                order_status.reinstate(order)
            else:
                order_status.refund_late_payments(order)
            await locked_orders.write_changes(connection, self._ids, [order], self._now())
        return written(decision)

    def _now(self) -> datetime:
        return from_ms(self._clock.now_ms())


async def _explain_contradictions(method: str, work: Awaitable[JobResult]) -> JobResult:
    """Park a job that its provider refuses, or whose provider contradicts our records."""
    try:
        return await work
    except ExternalRefusal as error:
        return parked("refused", f"{method} refuses: {error}")
    except ProviderMismatch as error:
        return parked("mismatch", str(error))
    except UniqueViolationError as error:
        if error.constraint_name != store.TRANSACTION_CONSTRAINT:
            raise
        return parked("mismatch", "the transaction belongs to another payment already")


def _payment_request(payment: Payment, provider: Provider) -> PaymentRequest:
    """Build the request of a payment: the same whenever it is repeated, which providers require."""
    return PaymentRequest(
        payment_id=payment.payment_id,
        order_id=payment.order_id,
        amount=payment.amount,
        subject=payment.subject or f"Order {payment.order_id}",
        expires_at=max(payment.expires_at, payment.created_at + provider.min_lifetime + _CREATION_ALLOWANCE),
        flow=payment.flow,  # type: ignore[arg-type]  # only internal methods have the flow "none"
        payer=payment.payer,
        return_url=payment.return_url,
        payer_ip=payment.payer_ip,
    )
