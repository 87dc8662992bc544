"""Hints to mypyc about classes. Where nothing is compiled they do nothing and need no package."""

from __future__ import annotations

from typing import TYPE_CHECKING

__all__ = ["mypyc_attr"]

if TYPE_CHECKING:
    from mypy_extensions import mypyc_attr
else:

    def mypyc_attr(**_hints):
        """Leave a class as it is."""
        return lambda type_: type_
