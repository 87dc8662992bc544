"""The form of the order path that this process runs: compiled, or interpreted from the same source."""

from __future__ import annotations

from typing import Literal

from gateway import fast_path

Form = Literal["compiled", "interpreted"]


def order_path_form() -> Form:
    """Return whether the modules of the order path were compiled when this version was built."""
    return "interpreted" if str(fast_path.__file__).endswith(".py") else "compiled"
