"""Jobs of refunds: ask providers to make them, ask again what became of them, and record it.

A provider is called outside of transactions. When it may be asked, and what its answer means, is decided in a
transaction that holds the order lock, in `refund_status.py`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Protocol
from uuid import UUID

from commerce.jobs.model import Job, JobResult, delayed, finished, parked, postponed, written
from commerce.kernel.batches import Batcher
from commerce.kernel.clock import Clock, from_ms
from commerce.kernel.external import ExternalDelay, ExternalOutcomeUnknown, ExternalRefusal
from commerce.kernel.failpoints import failpoint
from commerce.kernel.money import Money
from commerce.kernel.postgres import Database
from commerce.payments import refund_store
from commerce.payments.captures import FindingRecorder
from commerce.payments.model import INTERNAL_METHODS, RefundToRequest
from commerce.payments.order_status import ProviderMismatch
from commerce.payments.polling import poll_at
from commerce.payments.provider_port import Provider, ProviderRefund, RefundRequest
from commerce.payments.refund_status import RefundDelay, RefundFailed, RefundLimits, RefundRules, RefundStart

_GONE = finished("unchanged")


class RefundPolicy(Protocol):
    """The section `payments.refunds` of the settings, with the limits of each provider."""

    @property
    def attempts(self) -> int: ...
    @property
    def wait_initial_s(self) -> float: ...
    @property
    def wait_max_s(self) -> float: ...
    @property
    def long_wait_s(self) -> float: ...
    @property
    def limits(self) -> Mapping[str, RefundLimits]: ...


class RefundJobs:
    """Does the jobs of refunds. `providers` maps methods to external providers."""

    def __init__(
        self,
        db: Database,
        clock: Clock,
        findings: FindingRecorder,
        providers: Mapping[str, Provider],
        policy: RefundPolicy,
    ) -> None:
        self._db = db
        self._clock = clock
        self._findings = findings
        self._providers = providers
        self._policy = policy
        self._refunds: Batcher[UUID, RefundToRequest | None] = Batcher(self._read)

    async def work(self, jobs: Sequence[Job]) -> list[JobResult]:
        """Take the next step of one refund."""
        [job] = jobs
        refund = await self._refunds.add(job.subject)
        return [_GONE if refund is None else await _explain_contradictions(refund.method, self._work(refund))]

    async def _read(self, refund_ids: Sequence[UUID]) -> list[RefundToRequest | None]:
        async with self._db.connection() as connection:
            refunds = await refund_store.get_refunds_to_request(connection, refund_ids)
        return [refunds.get(refund_id) for refund_id in refund_ids]

    async def _work(self, job: RefundToRequest) -> JobResult:
        refund = job.refund
        if refund.status != "pending":
            return _GONE
        if job.method in INTERNAL_METHODS:
            return await self._complete(ProviderRefund(refund.payment_id, refund.refund_id, "done"))
        if job.method not in self._providers:
            raise ExternalRefusal("not_offered", "the settings do not name it")
        provider, request = self._providers[job.method], build_refund_request(job)
        rules = RefundRules(self._policy.limits[job.method], self._policy.attempts, self._policy.long_wait_s)
        provider_refund = await provider.query_refund(request) if refund.requested else None
        if provider_refund is None or provider_refund.state == "absent":
            word = await self._findings.record(RefundStart(refund.payment_id, refund.refund_id, rules))
            if word == "waiting":
                return postponed(word, self._now() + timedelta(seconds=rules.limits.min_interval_s))
            if word != "requested":
                return written(word)
            try:
                provider_refund = await provider.refund(request)
            except ExternalDelay as delay:
                return await self._wait(job, delay, rules)
            failpoint("refund.after_call")
            if provider_refund.state == "absent":
                raise ExternalOutcomeUnknown(f"{job.method} received the refund request and does not know the refund")
        return await self._record(job, provider_refund, rules)

    async def _record(self, job: RefundToRequest, provider_refund: ProviderRefund, rules: RefundRules) -> JobResult:
        refund = job.refund
        if provider_refund.state == "done":
            return await self._complete(provider_refund)
        if provider_refund.state == "failed":
            failed = RefundFailed(refund.payment_id, refund.refund_id, provider_refund, rules)
            word = await self._findings.record(failed)
            failpoint("refund.after_failure")
            return written(word)
        has_changed = refund.wait_reason is not None or refund.provider_refund_id != provider_refund.provider_refund_id
        if has_changed:
            async with self._db.connection() as connection:
                await refund_store.mark_refund_accepted(
                    connection, refund.refund_id, provider_refund.provider_refund_id
                )
        # The provider may take days, and each of these answers is no failure.
        return postponed("waiting", poll_at(self._now(), refund.created_at))

    async def _wait(self, job: RefundToRequest, delay: ExternalDelay, rules: RefundRules) -> JobResult:
        """Try again later, for as long as the provider's window is open."""
        refund = job.refund
        step = RefundDelay(refund.payment_id, refund.refund_id, delay.reason, str(delay), rules)
        word = await self._findings.record(step)
        if word != "waiting":
            return written(word)
        since = refund.waiting_since or self._now()
        due_at = poll_at(self._now(), since, self._policy.wait_initial_s * 1000, self._policy.wait_max_s * 1000)
        return delayed(word, f"{job.method} does not make it now: {delay}", due_at)

    async def _complete(self, provider_refund: ProviderRefund) -> JobResult:
        """Record a refund that is done. Raises `ProviderMismatch` if its amount is another."""
        word = await self._findings.record(provider_refund)
        return written(word) if word == "refunded" else _GONE

    def _now(self) -> datetime:
        return from_ms(self._clock.now_ms())


def build_refund_request(job: RefundToRequest) -> RefundRequest:
    """Build the request of a refund: the same whenever it is repeated, which providers require."""
    refund = job.refund
    return RefundRequest(
        payment_id=refund.payment_id,
        refund_id=refund.refund_id,
        amount=Money(refund.amount_minor, refund.currency),
        captured=Money(job.captured_minor, refund.currency),
        reason=refund.reason,
    )


async def _explain_contradictions(method: str, work: Awaitable[JobResult]) -> JobResult:
    """Park a job that its provider refuses, or whose provider contradicts our records."""
    try:
        return await work
    except ExternalRefusal as error:
        return parked("refused", f"{method} refuses: {error}")
    except ProviderMismatch as error:
        return parked("mismatch", str(error))
