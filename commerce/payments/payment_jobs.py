"""The payment driver's work, one claimed row at a time: ask, look, close, give back. Outside calls are made outside of
transactions, and what they say is written with the order locked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
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
from commerce.payments.order_status import ProviderMismatch
from commerce.payments.provider_port import PaymentRequest, Provider, ProviderPayment, RefundRequest
from commerce.reservations.reacquisition import StockReacquisition

_LOOK_FIRST_MS, _LOOK_MOST_MS = 1_000, 30_000
_GRACE_S = 1


class PaymentJobs:
    """`providers` are the ones outside by method; `attempts` is after how many failures in a row a job is parked;
    `refunds` is how fast money goes back."""

    def __init__(
        self,
        db: Database,
        clock: Clock,
        ids: IdGenerator,
        policy: RetryPolicy,
        attempts: int,
        providers: Mapping[str, Provider],
        retaking: StockReacquisition,
        refunds: RateLimiter,
    ) -> None:
        self._db = db
        self._clock = clock
        self._ids = ids
        self._policy = policy
        self._attempts = attempts
        self._providers = providers
        self._retaking = retaking
        self._refunds = refunds

    async def claim(self, count: int, without: Sequence[str], down: Sequence[str]) -> list[Payment | ClaimedRefund]:
        """Due payments and refunds, except those of methods that cannot be reached now. A payment is nobody else's, so
        it does not matter which of these are `down`."""
        now = self._now()
        async with self._db.connection() as connection:
            paced = self._refunds.available()
            # A quarter is kept for refunds, so that a rush of payments does not hold them up.
            most = count - min(count // 4, paced)
            payments = await store.claim_payments(connection, now, self._policy.lease_s, most, without)
            paced = min(count - len(payments), paced)
            refunds = await store.claim_refunds(connection, now, self._policy.lease_s, paced, without)
        self._refunds.consume(len(refunds))
        return [*payments, *refunds]

    async def work(self, job: Payment | ClaimedRefund) -> str:
        """Do what is to be done; gives a word for what became of it. Raises `Unclear` where the provider did not say,
        after the job was postponed."""
        try:
            if isinstance(job, ClaimedRefund):
                return await self._refund(job)
            return await self._payment(job)
        except ExternalOutcomeUnknown as error:
            await self._postpone(job, str(error), park=False)
            raise
        except ExternalRefusal as error:
            await self._postpone(job, f"{job.method} refuses: {error}", park=True)
            return "refused"
        except ProviderMismatch as error:
            await self._postpone(job, str(error), park=True)
            return "disagreement"
        except UniqueViolationError:
            await self._postpone(job, "the transaction belongs to another payment already", park=True)
            return "disagreement"

    # Payments.

    async def _payment(self, job: Payment) -> str:
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
        """Raises `Refused` for one that is offered no more: its payments wait for a person."""
        if method not in self._providers:
            raise ExternalRefusal("not_offered", "the settings do not name it")
        return self._providers[method]

    async def _create(self, job: Payment, provider: Provider) -> str:
        try:
            action = await provider.create(_charge(job))
        except ExternalRefusal as error:
            # Also said when an earlier answer got lost and the customer has paid, or can.
            with suppress(ExternalRefusal):
                seen = await provider.close(job.payment_id)
                if seen.state == "captured":
                    return await self.record_capture(job.payment_id, seen)
            return await self._finish(job, "failed", f"{job.method} refuses: {error}")
        failpoint("payment.after_create")
        async with self._db.connection() as connection:
            await store.mark_requested(connection, job.payment_id, action, self._next_poll_at(job))
        return "asked"

    async def _poll_provider(self, job: Payment, provider: Provider) -> str:
        closing = job.task == "close" or self._now() >= job.expires_at
        seen = await (provider.close if closing else provider.query)(job.payment_id)
        if closing and seen.state != "captured":
            # The money may have been on its way while it was closed: the last word is what it is afterwards.
            seen = await provider.query(job.payment_id)
        failpoint("payment.after_look")
        if seen.state == "captured":
            return await self.record_capture(job.payment_id, seen)
        # What the provider has never seen may still reach it, by a page that the customer has open: till it expires.
        over = self._now() >= job.expires_at + timedelta(seconds=_GRACE_S)
        if seen.state == "closed" or (closing and over and seen.state == "absent"):
            why = "it was not paid in time" if over else "it is not needed any more"
            return await self._finish(job, "closed", why if closing else f"it was closed at {job.method}")
        async with self._db.connection() as connection:
            await store.schedule_poll(connection, job, self._next_poll_at(job), "close" if closing else "query")
        return "waiting"

    def _next_poll_at(self, job: Payment) -> datetime:
        """Often at first, then ever more seldom, and once at its end."""
        look = self._later(job.created_at)
        end = job.expires_at + timedelta(seconds=_GRACE_S)
        return end if self._now() < end < look else look

    def _later(self, since: datetime) -> datetime:
        now_ms = self._clock.now_ms()
        return from_ms(now_ms + min(max((now_ms - to_ms(since)) // 4, _LOOK_FIRST_MS), _LOOK_MOST_MS))

    async def _process_internal(self, job: Payment) -> str:
        """Store credit and cash on delivery: nobody outside is asked, so it is one transaction."""
        async with self._db.transaction() as connection:
            order = await orders.lock_order(connection, job.order_id)
            now, paid = self._now(), await store.payment(connection, job.payment_id)
            if order is None or paid is None or paid.status != "pending":
                return "known"
            result = "closed"
            if paid.task == "close":
                await store.end_payment(connection, paid.payment_id, "closed", now, "it is not needed any more")
            elif paid.method == "cod":
                await store.authorise(connection, paid.payment_id)
                result = "authorised"
            elif await store.adjust_store_credit(connection, paid.user_id, paid.currency, -paid.amount_minor):
                seen = ProviderPayment(paid.payment_id, "captured", paid.amount, None, now)
                await order_status.record_capture(connection, order, paid, seen, now)
                result = "captured"
            else:
                await store.end_payment(connection, paid.payment_id, "failed", now, "there is not enough store credit")
                result = "failed"
            await order_status.update_order_and_payments(connection, self._ids, order, now)
        return result

    async def record_capture(self, payment_id: UUID, seen: ProviderPayment) -> str:
        """A provider says it was captured. Raises `Disagreement` where that cannot be."""
        async with self._db.transaction() as connection:
            result = await order_status.record_capture_by_id(connection, self._ids, payment_id, seen, self._now())
        failpoint("payment.after_capture")
        return result

    async def _finish(self, job: Payment, status: str, reason: str) -> str:
        async with self._db.transaction() as connection:
            order = await orders.lock_order(connection, job.order_id)
            if order is not None and await store.end_payment(connection, job.payment_id, status, self._now(), reason):
                await order_status.update_order_and_payments(connection, self._ids, order, self._now())
        return status

    async def _update_order(self, job: Payment) -> str:
        async with self._db.transaction() as connection:
            order = await orders.lock_order(connection, job.order_id)
            await store.set_task(connection, job.payment_id, None, self._now())
            if order is not None:
                await order_status.update_order_and_payments(connection, self._ids, order, self._now())
        return "settled"

    async def _recover_expired_order(self, job: Payment) -> str:
        """Paid after the order expired: the goods are taken again, or the money goes back."""
        outcome = await self._retaking.reacquire(job.order_id)
        if outcome == "wait":
            await self._postpone(job, "the goods are still on their way back", park=False)
            return "waiting"
        async with self._db.transaction() as connection:
            order, now = await orders.lock_order(connection, job.order_id), self._now()
            await store.set_task(connection, job.payment_id, None, now)
            if order is None or order.status != "cancelled":
                return "known"
            if outcome == "taken":
                await order_status.reinstate_order(connection, order, now)
            else:
                await order_status.refund_late_payments(connection, self._ids, order, now)
        return outcome

    # Refunds.

    async def _refund(self, job: ClaimedRefund) -> str:
        if job.method in INTERNAL_METHODS:
            return await self.refunded(job.refund.refund_id)
        provider, given = self._provider(job.method), job.refund
        order = RefundRequest(
            given.payment_id,
            given.refund_id,
            Money(given.amount_minor, given.currency),
            Money(job.captured_minor, given.currency),
            given.reason,
        )
        seen = await provider.query_refund(order) if given.requested else None
        if seen is None or seen.state == "absent":
            async with self._db.connection() as connection:
                await store.mark_refund_requested(connection, given.refund_id)
            seen = await provider.refund(order)
            failpoint("refund.after_call")
            if seen.state == "absent":
                raise ExternalOutcomeUnknown(f"{job.method} was asked for the refund and does not know it")
        if seen.state == "done":
            if seen.amount is not None and seen.amount != order.amount:
                raise ProviderMismatch(f"{job.method} says {seen.amount} went back, it should be {order.amount}")
            return await self.refunded(given.refund_id)
        if seen.state == "failed":
            raise ProviderMismatch(f"{job.method} could not give it back: {seen.reason or 'it does not say why'}")
        # It may take days, and each of these answers is none that failed.
        async with self._db.connection() as connection:
            await store.schedule_refund_poll(connection, given.refund_id, self._later(given.created_at))
        return "waiting"

    async def refunded(self, refund_id: UUID) -> str:
        """Money went back."""
        async with self._db.transaction() as connection:
            return await order_status.record_refund_by_id(connection, self._ids, refund_id, self._now())

    async def _postpone(self, job: Payment | ClaimedRefund, why: str, *, park: bool) -> None:
        """Try again later; what has failed too often is parked, for a person to look at."""
        attempts = job.refund.attempts if isinstance(job, ClaimedRefund) else job.attempts
        due_at = from_ms(self._clock.now_ms() + self._policy.delay_ms(attempts))
        park = park or attempts >= self._attempts
        async with self._db.connection() as connection:
            if isinstance(job, ClaimedRefund):
                await store.postpone_refund(connection, job.refund.refund_id, due_at, why, park=park)
            else:
                await store.postpone_payment(connection, job, due_at, why, park=park)

    def _now(self) -> datetime:
        return from_ms(self._clock.now_ms())


def _charge(job: Payment) -> PaymentRequest:
    subject = f"Order {job.order_id}"
    scene = job.flow
    return PaymentRequest(job.payment_id, job.order_id, job.amount, subject, job.expires_at, scene, job.payer)  # type: ignore[arg-type]
