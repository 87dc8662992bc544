"""`floodgate up` has an index in memory where it can run and no other is named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from config.settings import Settings
from ops.local.search_process import choose_index


def test_index_that_the_settings_name_is_used(make_settings: Callable[..., Settings]) -> None:
    assert choose_index(make_settings(catalog={"search": "postgres"})) == "postgres"
    assert choose_index(make_settings(catalog={"search": "memory"})) == "memory"


def test_index_in_memory_is_chosen_if_it_can_run(
    make_settings: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    short = make_settings(catalog={"index_socket": "/tmp/fg.sock"})
    assert choose_index(short) == "memory"
    too_long = make_settings(catalog={"index_socket": str(Path("/", *["long"] * 30))})
    assert choose_index(too_long) == "postgres"
    monkeypatch.setattr("commerce.kernel.optional.find_spec", lambda module: None)
    assert choose_index(short) == "postgres"
