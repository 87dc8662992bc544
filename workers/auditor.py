"""Audits all sales that were ever opened, in rounds, and publishes the findings as metrics."""

from __future__ import annotations

import logging

from commerce.audit.model import PROMISES, SaleAudit
from commerce.kernel.failures import Failures
from commerce.kernel.postgres import safe_error_text
from workers import metrics
from workers.loop import wait_or_stop
from workers.runtime import WorkerServices

_logger = logging.getLogger(__name__)
_UNIT_KINDS = ("initial", "available", "held", "sold", "in_stream")
_IDLE_RATIO = 10  # the pause after a round is ten times its duration, so slow audits run less often


async def auditor(services: WorkerServices) -> None:
    """Audit round after round. A failed audit is repeated in the next; the timestamp metric shows its age."""
    while not services.stop.is_set():
        started = services.clock.monotonic()
        failures = Failures("audit a sale", _logger)
        for sale_id in await _list_sales(services):
            if services.stop.is_set():
                return
            with failures.catch(sale_id=sale_id):
                publish_audit_metrics(await services.audit.audit_sale(sale_id), services.clock.now_ms() / 1000)
        metrics.WORKER_FAILURES.labels("auditor").inc(failures.count)
        duration_s = services.clock.monotonic() - started
        await wait_or_stop(services.stop, max(services.settings.observer.audit_every_s, duration_s * _IDLE_RATIO))


async def _list_sales(services: WorkerServices) -> list[str]:
    try:
        return [sale.sale_id for sale in await services.sales.list_opened()]
    except Exception as error:  # noqa: BLE001
        _logger.warning("cannot list the sales", extra={"reason": safe_error_text(error)})
        return []


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
