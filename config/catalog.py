"""Settings of the search of products."""

from __future__ import annotations

from typing import Literal

from config.base import AbsolutePath, Positive, SettingsSection


class CatalogSettings(SettingsSection):
    """The index that finds products, and limits of searches in each gateway process."""

    search: Literal["postgres", "memory"] = "postgres"
    index_socket: AbsolutePath | None = None  # of the index in memory; left out: product_index.sock in data_dir
    index_timeout_ms: Positive = 300  # of the index in memory; then Postgres is asked
    search_timeout_ms: Positive = 1_000  # of each statement; a search has a few
    concurrent_searches: Positive = 2
    waiting_searches: Positive = 100  # a later one is refused
    search_wait_ms: Positive = 1_000
    tracked_skus: Positive = 200_000  # in open sales; their stock is read once a second while customers filter by it
