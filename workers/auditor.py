"""Audits every sale that was opened, over and over, and shows what it finds as metrics."""

from __future__ import annotations

import logging

from commerce.audit.model import SaleAudit
from commerce.kernel.postgres import safe_error_text
from workers import metrics
from workers.loop import wait_or_stop
from workers.runtime import WorkerServices

_logger = logging.getLogger(__name__)
_PROMISES = ("P1", "P2", "P3", "P4", "P5", "P6", "P7", "P8")
_UNITS = ("initial", "available", "held", "sold", "in_stream")
_REST = 10  # an audit that takes long comes more seldom: it rests ten times as long as it worked


async def auditor(shop: WorkerServices) -> None:
    """A sale that cannot be audited now is tried again in the next round; its metric's time shows how old it is."""
    while not shop.stop.is_set():
        started = shop.clock.monotonic()
        for sale_id in await _sales(shop):
            if shop.stop.is_set():
                return
            try:
                publish_audit_metrics(await shop.audit.audit_sale(sale_id), shop.clock.now_ms() / 1000)
            except Exception as error:  # noqa: BLE001
                _logger.warning("a sale cannot be audited now", extra={"sale": sale_id, "why": safe_error_text(error)})
        took = shop.clock.monotonic() - started
        await wait_or_stop(shop.stop, max(shop.settings.observer.audit_every_s, took * _REST))


async def _sales(shop: WorkerServices) -> list[str]:
    try:
        return [sale.sale_id for sale in await shop.sales.list_opened()]
    except Exception as error:  # noqa: BLE001
        _logger.warning("the sales cannot be looked at", extra={"why": safe_error_text(error)})
        return []


def publish_audit_metrics(audit: SaleAudit, now_s: float) -> None:
    """Set the metrics of one sale."""
    total = audit.total
    for kind in _UNITS:
        metrics.SALE_UNITS.labels(audit.sale_id, kind).set(getattr(total, kind))
    metrics.AUDIT_DIFFERENCE.labels(audit.sale_id).set(audit.differences)
    for promise in _PROMISES:
        count = sum(finding.count for finding in audit.findings if finding.promise == promise)
        metrics.AUDIT_FINDINGS.labels(audit.sale_id, promise).set(count)
    metrics.AUDITED_AT.labels(audit.sale_id).set(now_s)
    for finding in audit.findings:
        _logger.error(
            "a promise is broken",
            extra={
                "sale": audit.sale_id,
                "promise": finding.promise,
                "what": finding.detail,
                "count": finding.count,
                "examples": finding.examples,
            },
        )
