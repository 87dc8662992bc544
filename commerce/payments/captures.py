"""Records what payment jobs find out: captures, endings, completed refunds and the steps before.

Concurrent jobs share a transaction.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from commerce.jobs import store as jobs
from commerce.kernel.clock import Clock, from_ms
from commerce.kernel.ids import IdGenerator
from commerce.kernel.postgres import Connection, Database
from commerce.kernel.shared_transactions import SharedTransactions
from commerce.payments import locked_orders, order_status, refund_status
from commerce.payments.order_status import Ending, LockedOrder, ProviderMismatch
from commerce.payments.provider_port import ProviderPayment, ProviderRefund
from commerce.payments.refund_status import RefundDelay, RefundFailed, RefundStart, RefundStep


class OrderUpdate(NamedTuple):
    """The job `update_order` of a payment."""

    payment_id: UUID


Finding = ProviderPayment | ProviderRefund | RefundStep | Ending | OrderUpdate
"""a capture, a step or the end of a refund, the end of a payment, or an order to be brought in line"""


class FindingRecorder:
    """Records findings, and what follows for their orders."""

    def __init__(self, db: Database, clock: Clock, ids: IdGenerator) -> None:
        self._clock = clock
        self._ids = ids
        self._transactions: SharedTransactions[Finding, str] = SharedTransactions(db, self._record)

    async def record(self, finding: Finding) -> str:
        """Record a finding. Returns the result word of its job.

        Raises `ProviderMismatch` if it contradicts our records, and `UniqueViolationError` of `TRANSACTION_CONSTRAINT`
        if the transaction belongs to another payment."""
        return await self._transactions.add(finding)

    async def _record(
        self, connection: Connection, findings: Sequence[Finding], may_wait: bool
    ) -> list[str | Exception | None]:
        now = from_ms(self._clock.now_ms())
        return await record_findings(connection, self._ids, findings, now, may_wait=may_wait)


async def record_findings(
    connection: Connection, ids: IdGenerator, findings: Sequence[Finding], now: datetime, *, may_wait: bool = True
) -> list[str | Exception | None]:
    """Record findings inside a transaction. Returns a result word, or the `ProviderMismatch`, for each.

    Without `may_wait`, None stands for those whose order is locked by another transaction."""
    payment_ids = [finding.payment_id for finding in findings]
    orders = await locked_orders.lock_orders(connection, payment_ids, may_wait=may_wait)
    results: list[str | Exception | None] = []
    for finding in findings:
        order = orders.get(finding.payment_id)
        if order is None and not may_wait:
            results.append(None)
            continue
        try:
            results.append(_record_finding(order, finding, now))
        except ProviderMismatch as error:
            results.append(error)
        if isinstance(finding, Ending) and order is not None:
            jobs.wake_waiters_after_commit(connection, order.order_id)
    await locked_orders.update_and_write(connection, ids, orders.values(), now)
    return results


def _record_finding(order: LockedOrder | None, finding: Finding, now: datetime) -> str:
    if order is None:
        raise ProviderMismatch(f"there is no payment {finding.payment_id}")
    payment = order.payments[finding.payment_id]
    if isinstance(finding, ProviderPayment):
        return order_status.record_capture(order, payment, finding, now)
    if isinstance(finding, ProviderRefund):
        return refund_status.record_refund(order, payment, finding)
    if isinstance(finding, RefundStart | RefundDelay | RefundFailed):
        return refund_status.take_step(order, finding, now)
    if isinstance(finding, Ending):
        order_status.record_ending(order, finding)
        return finding.status
    order_status.finish_job(order, payment)
    return "done"
