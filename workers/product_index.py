"""The index of products in memory: follows Postgres and answers gateways of this machine."""

from __future__ import annotations

import logging

from commerce.kernel.gc_tuning import tune_garbage_collector
from commerce.kernel.optional import require_extra
from commerce.product_search.index_server import IndexServer
from workers.loop import run_steps
from workers.runtime import WorkerServices

_logger = logging.getLogger(__name__)
_POLL_INTERVAL_S = 0.5


async def product_index(services: WorkerServices) -> None:
    """Answer searches until the process stops.

    The index is built from Postgres at the start; until it is whole, gateways ask Postgres. Raises `NotReady` if a
    library is missing.
    """
    require_extra("serve an index in memory", "search", "numpy")
    require_extra("search texts", "knowledge", "rjieba", "snowballstemmer", "opencc")
    from commerce.product_search.memory_follower import MemoryIndexFollower  # noqa: PLC0415  # only this needs numpy

    follower = MemoryIndexFollower(services.db)

    async def step() -> int:
        was_whole = follower.index is not None
        changed = await follower.step()
        if not was_whole:
            tune_garbage_collector()  # a full collection of the index would hold searches up
            _logger.info("the index in memory is whole", extra={"products": changed})
        return changed

    async with IndexServer(lambda: follower.index).listen(services.settings.product_index_socket()):
        await run_steps("product_index", step, services.stop, _POLL_INTERVAL_S)
