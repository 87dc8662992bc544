"""Python's garbage collector in a process that lives long and makes much that is short-lived and has no cycles."""

from __future__ import annotations

import gc

_NEW_OBJECTS = 50_000


def tune_garbage_collector() -> None:
    """Call it when everything that lives as long as the process is there.

    That is not looked through for garbage again, and what a batch of orders makes and drops, which leaves no cycles
    behind, does not set off a collection: with Python's own threshold of 700 a writer spends a sixth of its time so.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_NEW_OBJECTS, 20, 50)
