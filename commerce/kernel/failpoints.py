"""Failpoints: named places where a test may kill the process. In production `failpoint` does nothing.

A process started with `FLOODGATE_FAILPOINT=name` kills itself when it passes that failpoint, as `kill -9` would do;
with `name:3`, when it passes for the third time.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable


def _pass(name: str) -> None:
    """Do nothing: no failpoint is armed."""


def _arm(setting: str) -> Callable[[str], None]:
    armed_name, _, count = setting.partition(":")
    passes_left = int(count or 1)

    def crash(name: str) -> None:
        nonlocal passes_left
        if name == armed_name:
            passes_left -= 1
            if passes_left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    return crash


failpoint: Callable[[str], None] = _arm(setting) if (setting := os.environ.get("FLOODGATE_FAILPOINT")) else _pass
