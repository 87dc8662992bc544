"""Every worker of the registry can be started by its name."""

from __future__ import annotations

from workers.__main__ import NAMES
from workers.registry import WORKERS


def test_command_knows_every_worker_of_registry() -> None:
    assert tuple(WORKERS) == NAMES
