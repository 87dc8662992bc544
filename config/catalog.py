"""Settings of the search of products."""

from __future__ import annotations

from typing import Literal

from config.base import Positive, SettingsSection


class CatalogSettings(SettingsSection):
    """The index that finds products, and limits of searches in each gateway process."""

    search: Literal["postgres"] = "postgres"
    search_timeout_ms: Positive = 1_000  # of each statement; a search has a few
    concurrent_searches: Positive = 2
    waiting_searches: Positive = 100  # a later one is refused
    search_wait_ms: Positive = 1_000
    tracked_skus: Positive = 200_000  # in open sales; their stock is read once a second while customers filter by it
