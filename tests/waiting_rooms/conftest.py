"""Draws that take no time."""

from __future__ import annotations

import pytest

from commerce.waiting_rooms import draw


@pytest.fixture(autouse=True)
def short_delay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(draw, "DELAY_ITERATIONS", 10)
