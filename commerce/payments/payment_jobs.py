"""Jobs of the payment worker: create, query and close payments, recover late orders, refund.

Providers are called outside of transactions. Their answers are recorded in a transaction that holds the order lock.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Literal
from uuid import UUID

from asyncpg import UniqueViolationError

from commerce.kernel.clock import Clock, from_ms, to_ms
from commerce.kernel.external import ExternalOutcomeUnknown, ExternalRefusal
from commerce.kernel.failpoints import failpoint
from commerce.kernel.ids import IdGenerator
from commerce.kernel.jobs import RateLimiter, RetryPolicy
from commerce.kernel.money import Money
from commerce.kernel.postgres import Database
from commerce.orders import store as orders
from commerce.payments import order_status, store
from commerce.payments.model import INTERNAL_METHODS, ClaimedRefund, Payment
from commerce.payments.order_status import CaptureResult, ProviderMismatch, RefundResult
from commerce.payments.provider_port import PaymentRequest, Provider, ProviderPayment, RefundRequest
from commerce.reservations.reacquisition import ReacquireDecision, StockReacquisition

_MIN_POLL_INTERVAL_MS, _MAX_POLL_INTERVAL_MS = 1_000, 30_000
_EXPIRY_GRACE = timedelta(seconds=1)
_CREATION_ALLOWANCE = timedelta(seconds=30)
"""time that may pass between the start of a payment and its request to the provider"""
FinalStatus = Literal["failed", "closed"]
JobResult = (
    CaptureResult
    | RefundResult
    | FinalStatus
    | ReacquireDecision
    | Literal["requested", "authorised", "waiting", "done", "refused", "mismatch"]
)


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
    ) -> None:
        self._db = db
        self._clock = clock
        self._ids = ids
        self._policy = policy
        self._max_attempts = max_attempts
        self._providers = providers
        self._reacquisition = reacquisition
        self._refund_limiter = refund_limiter

    async def claim(
        self, count: int, excluded_systems: Sequence[str], unavailable_systems: Sequence[str]
    ) -> list[Payment | ClaimedRefund]:
        """Claim due payments and refunds, without those of excluded methods.

        A payment belongs to one method only, so `unavailable_systems` makes no difference here."""
        now = self._now()
        async with self._db.connection() as connection:
            max_refunds = self._refund_limiter.available()
            # A quarter is kept for refunds, so that a rush of payments does not delay them.
            max_payments = count - min(count // 4, max_refunds)
            payments = await store.claim_payments(connection, now, self._policy.lease_s, max_payments, excluded_systems)
            max_refunds = min(count - len(payments), max_refunds)
            refunds = await store.claim_refunds(connection, now, self._policy.lease_s, max_refunds, excluded_systems)
        self._refund_limiter.consume(len(refunds))
        return [*payments, *refunds]

    async def work(self, job: Payment | ClaimedRefund) -> JobResult:
        """Do a job and return its result.

        Raises `ExternalOutcomeUnknown` if the provider gave no usable answer, after postponing the job."""
        try:
            if isinstance(job, ClaimedRefund):
                return await self._refund(job)
            return await self._process_payment(job)
        except ExternalOutcomeUnknown as error:
            await self._postpone(job, str(error), park=False)
            raise
        except ExternalRefusal as error:
            await self._postpone(job, f"{job.method} refuses: {error}", park=True)
            return "refused"
        except ProviderMismatch as error:
            await self._postpone(job, str(error), park=True)
            return "mismatch"
        except UniqueViolationError as error:
            if error.constraint_name != store.TRANSACTION_CONSTRAINT:
                raise
            await self._postpone(job, "the transaction belongs to another payment already", park=True)
            return "mismatch"

    # Payments.

    async def _process_payment(self, job: Payment) -> JobResult:
        if job.task == "update_order":
            return await self._update_order(job)
        if job.task == "recover_order":
            return await self._recover_expired_order(job)
        if job.method in INTERNAL_METHODS:
            return await self._process_internal(job)
        provider = self._provider(job.method)
        if job.task == "create" and self._now() < job.expires_at:
            return await self._create(job, provider)
        return await self._poll_provider(job, provider)

    def _provider(self, method: str) -> Provider:
        """Return a provider. Raises `ExternalRefusal` if it is no longer offered: its jobs wait for staff."""
        if method not in self._providers:
            raise ExternalRefusal("not_offered", "the settings do not name it")
        return self._providers[method]

    async def _create(self, job: Payment, provider: Provider) -> JobResult:
        try:
            request = _payment_request(job, provider)
            if request.expires_at - self._now() < provider.min_lifetime:
                raise ExternalRefusal("too_late", f"{job.method} requires {provider.min_lifetime} to pay")
            action = await provider.create(request)
        except ExternalRefusal as error:
            # Providers also refuse if an earlier answer got lost and the customer has paid, or can pay.
            with suppress(ExternalRefusal):
                provider_payment = await provider.close(job.payment_id)
                if provider_payment.state == "captured":
                    return await self.record_capture(job.payment_id, provider_payment)
            # The provider's own text is for staff: customers can do nothing with it, and it may name our account.
            reason = f"{job.method} did not accept the payment: start the payments again, or choose another method"
            return await self._end_payment(job, "failed", reason, str(error))
        failpoint("payment.after_create")
        async with self._db.connection() as connection:
            await store.mark_requested(connection, job.payment_id, action, self._next_poll_at(job))
        return "requested"

    async def _poll_provider(self, job: Payment, provider: Provider) -> JobResult:
        """Query a payment, or close it if it is due to end, and record the provider's answer."""
        closing = job.task == "close" or self._now() >= job.expires_at
        provider_payment = await (provider.close if closing else provider.query)(job.payment_id)
        if closing and provider_payment.state != "captured":
            # Money may have been captured while it was closed: only a query afterwards is final.
            provider_payment = await provider.query(job.payment_id)
        failpoint("payment.after_poll")
        if provider_payment.state == "captured":
            return await self.record_capture(job.payment_id, provider_payment)
        # Until it expires, a payment that is absent may still reach the provider from a page the customer has open.
        expired = self._now() >= job.expires_at + _EXPIRY_GRACE
        if provider_payment.state == "closed" or (closing and expired and provider_payment.state == "absent"):
            reason = "it was not paid in time" if expired else "it is no longer needed"
            return await self._end_payment(job, "closed", reason if closing else f"it was closed at {job.method}")
        async with self._db.connection() as connection:
            await store.schedule_poll(connection, job, self._next_poll_at(job), "close" if closing else "query")
        return "waiting"

    def _next_poll_at(self, job: Payment) -> datetime:
        """Return when to poll next: often at first, then less often, and once when the payment has expired."""
        poll_at = self._poll_at(job.created_at)
        end = job.expires_at + _EXPIRY_GRACE
        return end if self._now() < end < poll_at else poll_at

    def _poll_at(self, created_at: datetime) -> datetime:
        """Return now plus a quarter of the age, within the limits of the poll interval."""
        now_ms = self._clock.now_ms()
        interval_ms = max((now_ms - to_ms(created_at)) // 4, _MIN_POLL_INTERVAL_MS)
        return from_ms(now_ms + min(interval_ms, _MAX_POLL_INTERVAL_MS))

    async def _process_internal(self, job: Payment) -> JobResult:
        """Process store credit or cash on delivery in one transaction, because no provider is called."""
        async with self._db.transaction() as connection:
            order = await orders.lock_order(connection, job.order_id)
            now, payment = self._now(), await store.get_payment(connection, job.payment_id)
            if order is None or payment is None or payment.status != "pending":
                return "unchanged"
            result: JobResult = "closed"
            if payment.task == "close":
                await store.end_payment(connection, payment.payment_id, "closed", now, "it is no longer needed")
            elif payment.method == "cod":
                await store.mark_authorised(connection, payment.payment_id)
                result = "authorised"
            elif await store.adjust_store_credit(connection, payment.user_id, payment.currency, -payment.amount_minor):
                captured = ProviderPayment(payment.payment_id, "captured", payment.amount, None, now)
                await order_status.record_capture(connection, order, payment, captured, now)
                result = "captured"
            else:
                reason = "there is not enough store credit"
                await store.end_payment(connection, payment.payment_id, "failed", now, reason)
                result = "failed"
            await order_status.update_order_and_payments(connection, self._ids, order, now)
        return result

    async def record_capture(self, payment_id: UUID, provider_payment: ProviderPayment) -> CaptureResult:
        """Record a capture at a provider. Raises `ProviderMismatch` if it contradicts our records."""
        async with self._db.transaction() as connection:
            result = await order_status.record_capture_by_id(
                connection, self._ids, payment_id, provider_payment, self._now()
            )
        failpoint("payment.after_capture")
        return result

    async def _end_payment(
        self, job: Payment, status: FinalStatus, reason: str, provider_error: str | None = None
    ) -> FinalStatus:
        async with self._db.transaction() as connection:
            order = await orders.lock_order(connection, job.order_id)
            if order is not None and await store.end_payment(
                connection, job.payment_id, status, self._now(), reason, provider_error
            ):
                await order_status.update_order_and_payments(connection, self._ids, order, self._now())
        return status

    async def _update_order(self, job: Payment) -> JobResult:
        async with self._db.transaction() as connection:
            order = await orders.lock_order(connection, job.order_id)
            await store.set_task(connection, job.payment_id, None, self._now())
            if order is not None:
                await order_status.update_order_and_payments(connection, self._ids, order, self._now())
        return "done"

    async def _recover_expired_order(self, job: Payment) -> JobResult:
        """Reacquire the stock of an order that was paid too late, or refund it if that is refused."""
        decision = await self._reacquisition.reacquire(job.order_id)
        if decision == "retry":
            await self._postpone(job, "the stock is still being released", park=False)
            return "waiting"
        async with self._db.transaction() as connection:
            order, now = await orders.lock_order(connection, job.order_id), self._now()
            await store.set_task(connection, job.payment_id, None, now)
            if order is None or order.status != "cancelled":
                return "unchanged"
            if decision == "reacquired":
                await order_status.reinstate_order(connection, order, now)
            else:
                await order_status.refund_late_payments(connection, self._ids, order, now)
        return decision

    # Refunds.

    async def _refund(self, job: ClaimedRefund) -> JobResult:
        refund = job.refund
        if job.method in INTERNAL_METHODS:
            return await self._record_refund(refund.refund_id)
        provider = self._provider(job.method)
        request = RefundRequest(
            payment_id=refund.payment_id,
            refund_id=refund.refund_id,
            amount=Money(refund.amount_minor, refund.currency),
            captured=Money(job.captured_minor, refund.currency),
            reason=refund.reason,
        )
        provider_refund = await provider.query_refund(request) if refund.requested else None
        if provider_refund is None or provider_refund.state == "absent":
            async with self._db.connection() as connection:
                await store.mark_refund_requested(connection, refund.refund_id)
            provider_refund = await provider.refund(request)
            failpoint("refund.after_call")
            if provider_refund.state == "absent":
                raise ExternalOutcomeUnknown(f"{job.method} received the refund request and does not know the refund")
        if provider_refund.state == "done":
            if provider_refund.amount is not None and provider_refund.amount != request.amount:
                raise ProviderMismatch(
                    f"{job.method} refunded {provider_refund.amount}, but the refund is {request.amount}"
                )
            return await self._record_refund(refund.refund_id)
        if provider_refund.state == "failed":
            raise ProviderMismatch(f"{job.method} could not refund: {provider_refund.reason or 'it names no reason'}")
        # The provider may take days, and each of these answers is no failure.
        async with self._db.connection() as connection:
            await store.schedule_refund_poll(connection, refund.refund_id, self._poll_at(refund.created_at))
        return "waiting"

    async def _record_refund(self, refund_id: UUID) -> RefundResult:
        async with self._db.transaction() as connection:
            return await order_status.record_refund_by_id(connection, self._ids, refund_id, self._now())

    async def _postpone(self, job: Payment | ClaimedRefund, reason: str, *, park: bool) -> None:
        """Schedule the next attempt; park the job for staff if `park` is set or its attempts are used up."""
        attempts = job.refund.attempts if isinstance(job, ClaimedRefund) else job.attempts
        due_at = from_ms(self._clock.now_ms() + self._policy.delay_ms(attempts))
        park = park or attempts >= self._max_attempts
        async with self._db.connection() as connection:
            if isinstance(job, ClaimedRefund):
                await store.postpone_refund(connection, job.refund.refund_id, due_at, reason, park=park)
            else:
                await store.postpone_payment(connection, job, due_at, reason, park=park)

    def _now(self) -> datetime:
        return from_ms(self._clock.now_ms())


def _payment_request(job: Payment, provider: Provider) -> PaymentRequest:
    """Build the request of a payment: the same whenever it is repeated, which providers require."""
    return PaymentRequest(
        payment_id=job.payment_id,
        order_id=job.order_id,
        amount=job.amount,
        subject=job.subject or f"Order {job.order_id}",
        expires_at=max(job.expires_at, job.created_at + provider.min_lifetime + _CREATION_ALLOWANCE),
        flow=job.flow,  # type: ignore[arg-type]  # only internal methods have the flow "none"
        payer=job.payer,
        return_url=job.return_url,
        payer_ip=job.payer_ip,
    )
