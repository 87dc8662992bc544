"""Audits all sales that were ever opened, in rounds, and publishes the findings as metrics."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import timedelta

from commerce.audit.model import PROMISES, SaleAudit, SealedSale
from commerce.audit.service import Audit
from commerce.kernel.clock import Clock, from_ms
from commerce.kernel.failures import Failures
from commerce.kernel.postgres import safe_error_text
from commerce.sales.model import Sale
from commerce.sales.service import Sales
from config.settings import ObserverSettings
from workers import metrics
from workers.loop import wait_or_stop
from workers.runtime import WorkerServices

_logger = logging.getLogger(__name__)
_UNIT_KINDS = ("initial", "available", "held", "sold", "written_off", "in_stream")
_IDLE_RATIO = 10  # the pause after a round of changes is ten times its duration, so slow audits run less often


async def auditor(services: WorkerServices) -> None:
    """Audit what changes, round after round, and at the same time, once a day, all history of each sale.

    A failed audit is repeated in the next round; the timestamp metric shows its age.
    """
    rounds = Rounds(services.audit, services.sales, services.clock, services.settings.observer, services.stop)
    interval_s, clock = services.settings.observer.audit_every_s, services.clock

    async def repeat(run: Callable[[Failures], Awaitable[None]], idle_ratio: int) -> None:
        while not services.stop.is_set():
            started_s = clock.monotonic()
            failures = Failures("audit a sale", _logger)
            await run(failures)
            metrics.WORKER_FAILURES.labels("auditor").inc(failures.count)
            await wait_or_stop(services.stop, max(interval_s, (clock.monotonic() - started_s) * idle_ratio))

    await asyncio.gather(repeat(rounds.audit_changes, _IDLE_RATIO), repeat(rounds.audit_history, 0))


class Rounds:
    """Decides which sales are audited.

    A sale that was clean when this process looked at it, is at rest and has not changed is left alone until its history
    is due.
    """

    def __init__(
        self, audit: Audit, sales: Sales, clock: Clock, settings: ObserverSettings, stop: asyncio.Event
    ) -> None:
        self._audit = audit
        self._sales = sales
        self._clock = clock
        self._settings = settings
        self._stop = stop
        self._clean: set[str] = set()

    async def audit_changes(self, failures: Failures) -> None:
        """Audit every sale that may have changed since it was sealed."""
        sales, seals = await self._list_sales()
        resting = {seal.sale_id for seal in seals if seal.is_at_rest} & self._clean
        for sale in sales:
            if sale.sale_id in resting and sale.state == "closed":
                metrics.AUDIT_TIMESTAMP_SECONDS.labels(sale.sale_id).set(self._clock.now_ms() / 1000)
            else:
                await self._run_audit(sale.sale_id, self._audit.audit_changes, failures)

    async def audit_history(self, failures: Failures) -> None:
        """Audit the whole sales for which this is due."""
        due_at = from_ms(self._clock.now_ms()) - timedelta(seconds=self._settings.audit_history_every_s)
        for seal in (await self._list_sales())[1]:
            if seal.whole_at <= due_at:
                await self._run_audit(seal.sale_id, self._audit.seal_history, failures)

    async def _list_sales(self) -> tuple[list[Sale], list[SealedSale]]:
        try:
            return await self._sales.list_opened(), await self._audit.list_seals()
        except Exception as error:  # noqa: BLE001
            _logger.warning("cannot list the sales", extra={"reason": safe_error_text(error)})
            return [], []

    async def _run_audit(self, sale_id: str, audit: Callable[[str], Awaitable[SaleAudit]], failures: Failures) -> None:
        if self._stop.is_set():
            return
        self._clean.discard(sale_id)
        with failures.catch(sale_id=sale_id):
            result = await audit(sale_id)
            publish_audit_metrics(result, self._clock.now_ms() / 1000)
            if result.clean:
                self._clean.add(sale_id)


def publish_audit_metrics(audit: SaleAudit, now_s: float) -> None:
    """Set the metrics of an audited sale and log its findings."""
    total = audit.total
    for kind in _UNIT_KINDS:
        metrics.SALE_UNITS.labels(audit.sale_id, kind).set(getattr(total, kind))
    metrics.AUDIT_DIFFERENCE_UNITS.labels(audit.sale_id).set(audit.differences)
    for promise in PROMISES:
        count = sum(finding.count for finding in audit.findings if finding.promise == promise)
        metrics.AUDIT_FINDINGS.labels(audit.sale_id, promise).set(count)
    metrics.AUDIT_TIMESTAMP_SECONDS.labels(audit.sale_id).set(now_s)
    for finding in audit.findings:
        _logger.error(
            "audit found a broken promise",
            extra={
                "sale_id": audit.sale_id,
                "promise": finding.promise,
                "finding": finding.detail,
                "count": finding.count,
                "examples": finding.examples,
            },
        )
