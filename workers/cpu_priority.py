"""Lets a worker process give way to others where all of a machine's CPUs are busy.

Orders wait for gateways, the order writer, Redis and Postgres, and searches for the index in memory. What other workers
do may be some milliseconds later. On a machine that runs all of them, every time slice of such a worker is one that all
orders of a batch wait for.

A nice value alone changes little: by the autogroup feature of Linux it counts among the processes of one session, and
each service is a session of its own. The session has a nice value, too, in `/proc/PID/autogroup`
(https://man7.org/linux/man-pages/man7/sched.7.html, "The autogroup feature" and "The nice value and group scheduling").
Neither counts between control groups with a CPU weight, as systemd's `CPUWeight` makes them.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from pathlib import Path

_logger = logging.getLogger(__name__)
NICE = 5
"""about a third of the CPU time of a process with 0, while both want it

With 10, about a tenth, customers who begin to pay on a machine that is full of other work wait for seconds."""
_AUTOGROUP = Path("/proc/self/autogroup")
_ATTEMPTS, _PAUSE_S = 20, 0.11


def lower_cpu_priority() -> None:
    """Give this process the nice value `NICE`, and its session, too, if it leads one. Only on Linux.

    Threads and processes that it starts inherit it. A shell that has started this process keeps the value of its own
    session. If the system refuses, that is logged, and nothing else changes."""
    if sys.platform != "linux":
        return
    try:
        if os.getpriority(os.PRIO_PROCESS, 0) < NICE:
            os.setpriority(os.PRIO_PROCESS, 0, NICE)
        if os.getsid(0) == os.getpid() and _has_autogroup():
            _lower_session_priority()
    except OSError as error:
        _logger.info("cannot lower the CPU priority", extra={"reason": str(error)})


def _has_autogroup() -> bool:
    """Return whether this session is an autogroup. The file is empty where the feature was off."""
    return _AUTOGROUP.exists() and bool(_AUTOGROUP.read_text())


def _lower_session_priority() -> None:
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            _AUTOGROUP.write_text(str(NICE))
        except BlockingIOError:  # Linux lets all users together write one of these files every tenth of a second
            if attempt == _ATTEMPTS:
                raise
            time.sleep(_PAUSE_S)
        else:
            return
