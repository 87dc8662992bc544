"""Optional extras: libraries that an installation may lack."""

from __future__ import annotations

from importlib.util import find_spec

from commerce.kernel.errors import NotReady


def require_extra(action: str, extra: str, *modules: str) -> None:
    """Check that all modules of an extra can be imported, without importing them.

    Call before the import. `action` begins with a verb, as in "print labels". Raises `NotReady` naming the first
    missing module and the extra to install.
    """
    for module in modules:
        if find_spec(module) is None:
            raise NotReady(f"cannot {action}: {module} is not installed; install floodgate[{extra}]")
