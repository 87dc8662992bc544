"""Grades products whose quality may have changed, and counts them by grade and day. Several may run."""

from __future__ import annotations

import asyncio
from typing import get_args
from zoneinfo import ZoneInfo

from commerce.product_quality.grading import ProductGrading
from commerce.product_quality.model import Grade
from commerce.product_quality.quality_history import QualityRecords
from workers import metrics
from workers.loop import run_steps
from workers.runtime import WorkerServices

_POLL_INTERVAL_S = 1.0
_COUNT_INTERVAL_S = 600.0
"""reads a row of each product"""
_MEASURE_INTERVAL_S = 10.0


async def quality_worker(services: WorkerServices) -> None:
    """Grade products until the process stops. The next grades wait while others use the processor."""
    policy = services.settings.quality
    grading = ProductGrading(services.db, services.clock, policy, metrics.UNGRADED_PRODUCTS.inc)
    records = QualityRecords(services.db, services.clock, ZoneInfo(services.settings.shop.time_zone))

    async def count() -> int:
        await records.count()
        counts = await records.count_on_sale()
        total = sum(counts.values())
        for grade in get_args(Grade):
            metrics.PRODUCT_GRADE_RATIO.labels(grade).set(counts.get(grade, 0) / total if total else 0)
        return 0

    async def measure() -> int:
        metrics.QUALITY_LAG_SECONDS.set(await grading.measure_lag())
        return 0

    await asyncio.gather(
        run_steps("quality_worker", grading.step, services.stop, _POLL_INTERVAL_S),
        run_steps("quality_worker", count, services.stop, _COUNT_INTERVAL_S),
        run_steps("quality_worker", measure, services.stop, _MEASURE_INTERVAL_S),
    )
