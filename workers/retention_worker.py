"""Deletes rows that nobody needs any more. Several may run."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from datetime import timedelta
from functools import partial

from commerce.aftersales.case_evidence import CaseEvidence
from commerce.conversations.message_files import MessageFiles
from commerce.kernel.clock import from_ms
from commerce.kernel.failures import Failures
from commerce.kernel.ids import IdGenerator
from commerce.pictures.picture_policy import open_picture_files
from commerce.pictures.service import ProductPictures
from commerce.product_imports.service import ProductImports
from commerce.retention.model import Deletion, Table
from commerce.retention.service import Retention
from commerce.screening.screener import Screener
from config.retention import RetentionSettings
from workers import metrics
from workers.loop import run_steps, wait_or_stop
from workers.runtime import WorkerServices
from workers.screening_worker import make_signal_limits

_logger = logging.getLogger(__name__)
_POLL_INTERVAL_S = 60.0


async def retention_worker(services: WorkerServices) -> None:
    """Take one small step of each table, then pause: deleting never delays the shop."""
    settings = services.settings.retention
    retention = Retention(services.db, services.clock, retention_ages(settings), settings.rows_per_step)
    steps: dict[str, Callable[[], Awaitable[Deletion]]] = {
        table: partial(retention.delete_old, table) for table in retention_ages(settings)
    }
    steps["screened_users"] = _screening_step(services)
    steps["case_evidence"] = _evidence_step(services)
    steps["conversation_attachments"] = _attachment_step(services)
    steps["pictures"] = _picture_step(services)
    steps["product_imports"] = _import_step(services)

    async def step() -> int:
        failures = Failures("delete old rows", _logger)
        counts = []
        for table, delete in steps.items():
            with failures.catch(table=table):
                deletion = await delete()
                metrics.RETENTION_DELETED_ROWS.labels(table).inc(deletion.rows)
                metrics.RETENTION_OVERDUE_SECONDS.labels(table).set(deletion.overdue.total_seconds())
                counts.append(deletion.rows)
        failures.raise_any()
        is_finished = max(counts) < settings.rows_per_step
        await wait_or_stop(services.stop, _POLL_INTERVAL_S if is_finished else settings.step_pause_s)
        return sum(counts)

    await run_steps("retention_worker", step, services.stop, 0)


def retention_ages(settings: RetentionSettings) -> dict[Table, timedelta]:
    """Return the age of each table from which its rows are deleted."""
    return {
        "payment_webhooks": timedelta(days=settings.payment_webhook_days),
        "carrier_webhooks": timedelta(days=settings.carrier_webhook_days),
        "shipment_events": timedelta(days=settings.tracking_event_days),
        "staff_requests": timedelta(days=settings.staff_request_days),
        "carts": timedelta(days=settings.guest_cart_days),
        "checkouts": timedelta(days=settings.checkout_days),
        "article_votes": timedelta(days=settings.article_vote_days),
        "missed_searches": timedelta(days=settings.missed_search_days),
        "order_views": timedelta(days=settings.order_view_days),
        "sales_by_minute": timedelta(days=settings.sales_minute_days),
        "picture_imports": timedelta(days=settings.picture_import_days),
        "product_quality_days": timedelta(days=settings.quality_day_days),
    }


def _screening_step(services: WorkerServices) -> Callable[[], Awaitable[Deletion]]:
    """Customers of sales that were screened; also while screening is not enabled."""
    settings, screening = services.settings.retention, services.settings.screening
    screener = Screener(
        *(services.db, services.redis, services.clock, make_signal_limits(screening)),
        settings.rows_per_step,
        timedelta(days=settings.screening_days),
    )

    async def delete() -> Deletion:
        return Deletion(await screener.delete_old(), timedelta())

    return delete


def _evidence_step(services: WorkerServices) -> Callable[[], Awaitable[Deletion]]:
    """Pictures that were uploaded and that no case uses, with their files."""
    settings, clock = services.settings, services.clock
    evidence = CaseEvidence(services.db, clock, IdGenerator(clock), settings.aftersales, settings.data_dir)

    async def delete() -> Deletion:
        before = from_ms(clock.now_ms()) - timedelta(days=settings.retention.unused_evidence_days)
        return Deletion(await evidence.delete_unused(before, settings.retention.rows_per_step), timedelta())

    return delete


def _attachment_step(services: WorkerServices) -> Callable[[], Awaitable[Deletion]]:
    """Attachments that were uploaded and not sent, with their files."""
    settings, clock = services.settings, services.clock
    files = MessageFiles(
        *(services.db, clock, IdGenerator(clock), settings.conversations, settings.aftersales, settings.data_dir)
    )

    async def delete() -> Deletion:
        before = from_ms(clock.now_ms()) - timedelta(days=settings.retention.unused_evidence_days)
        return Deletion(await files.delete_unused(before, settings.retention.rows_per_step), timedelta())

    return delete


def _picture_step(services: WorkerServices) -> Callable[[], Awaitable[Deletion]]:
    """Pictures that no product has any more, with their files."""
    settings, clock, policy = services.settings, services.clock, services.settings.pictures
    files = open_picture_files(policy, settings.data_dir)
    pictures = ProductPictures(services.db, clock, IdGenerator(clock), policy, files)

    async def delete() -> Deletion:
        before = from_ms(clock.now_ms()) - timedelta(days=settings.retention.unused_picture_days)
        return Deletion(await pictures.delete_unused(before, settings.retention.rows_per_step), timedelta())

    return delete


def _import_step(services: WorkerServices) -> Callable[[], Awaitable[Deletion]]:
    """Imports of products, with their files and reports."""
    settings, clock = services.settings.retention, services.clock
    imports = ProductImports(services.db, clock, IdGenerator(clock))

    async def delete() -> Deletion:
        before = from_ms(clock.now_ms()) - timedelta(days=settings.product_import_days)
        return Deletion(await imports.delete_old(before, settings.rows_per_step), timedelta())

    return delete
