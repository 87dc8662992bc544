"""Keeps the index of products as the catalog is. Several may run; one writes at a time."""

from __future__ import annotations

from commerce.product_search.indexer import ProductIndexer
from workers.loop import run_steps
from workers.runtime import WorkerServices

_POLL_INTERVAL_S = 0.5


async def product_indexer(services: WorkerServices) -> None:
    """Index what has changed until the process stops; a running step is finished."""
    indexer = ProductIndexer(services.db, services.clock)
    await run_steps("product_indexer", indexer.step, services.stop, _POLL_INTERVAL_S)
