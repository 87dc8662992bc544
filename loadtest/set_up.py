"""Faults in the set-up of a load test, which say nothing about the shop."""

from __future__ import annotations

SET_UP_STATUS = 3
"""exit status of a run that could not be made; 1 is a broken promise, a failure or a difference"""


class SetUpFault(Exception):
    """The key, the sale, an address or an option is wrong. The message says what to do."""
