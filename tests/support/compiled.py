"""Tests that replace parts of modules in which compiled code does not look them up again."""

from __future__ import annotations

import pytest

from gateway.compiled import order_path_form

interpreted_only = pytest.mark.skipif(
    order_path_form() == "compiled", reason="replaces a part of a compiled module, whose callers have it built in"
)
