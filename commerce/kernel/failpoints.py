"""Named places where a crash would hurt. In production `crash_point` does nothing.

A test starts a process with `FLOODGATE_FAILPOINT=name` (or `name:3` for the third time it is passed), and the process
kills itself there, as `kill -9` would.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable


def _nothing(name: str) -> None:
    """Production."""


def _armed(place: str) -> Callable[[str], None]:
    wanted, _, count = place.partition(":")
    left = int(count or 1)

    def crash(name: str) -> None:
        nonlocal left
        if name == wanted:
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    return crash


failpoint: Callable[[str], None] = _armed(place) if (place := os.environ.get("FLOODGATE_FAILPOINT")) else _nothing
