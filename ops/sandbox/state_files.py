"""Files of the sandbox's data directory."""

from __future__ import annotations

from pathlib import Path

PAYMENTS = "payments.sqlite"
SHIPMENTS = "shipments.sqlite"
PROVIDER_FAULTS = "provider-faults.json"
CARRIER_FAULTS = "carrier-faults.json"
_OLD_FILES = ("sandbox.sqlite", "switches.json", "carrier-switches.json")
"""File names of older versions, whose contents are not migrated."""


def refuse_old_state(directory: Path) -> None:
    """Raise `ValueError` if the sandbox's data directory was written by an older version."""
    old_file = next((name for name in _OLD_FILES if (directory / name).exists()), None)
    if old_file is not None:
        raise ValueError(
            f"cannot use {directory}: {old_file} was written by an older version; delete {directory}, "
            "which holds simulated payments and shipments only"
        )
