"""All workers by name.

Each is imported when a process runs it, so that none loads what it does not need.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from workers.runtime import Worker

NAMES = (
    "order_writer",
    "release_worker",
    "payment_worker",
    "fulfilment_worker",
    "aftersales_worker",
    "picture_worker",
    "product_indexer",
    "quality_worker",
    "product_index",
    "sale_sync",
    "room_keeper",
    "screening_worker",
    "wait_list_keeper",
    "retention_worker",
    "observer",
    "auditor",
)
"""each the name of a module and of its worker"""


def load_worker(name: str) -> Worker:
    """Import the worker with one of `NAMES`."""
    return cast("Worker", getattr(import_module(f"workers.{name}"), name))
