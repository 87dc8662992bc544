"""The check that Redis would let a script write now."""

from __future__ import annotations

from lua.script import Commands, Script

_check_writable = Script("check_writable")
_MISSING_KEY = b"{sale:}:missing"  # of the form of a sale's keys, as permissions name them, and of no sale


async def check_writable(client: Commands) -> None:
    """Raise Redis's error if it refuses writes now; write nothing.

    It refuses them for want of memory, disk, replicas or permission, and as a replica.
    """
    await _check_writable.call(client, [_MISSING_KEY], [])
