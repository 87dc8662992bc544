"""The index of products of a local shop: in memory where its libraries are, else Postgres."""

from __future__ import annotations

from typing import Literal

from commerce.kernel.errors import NotReady
from commerce.kernel.optional import require_extra
from commerce.product_search.index_wire import check_socket_path
from config.settings import Settings

INDEX_WORKERS = ("product_index",)


def choose_index(settings: Settings) -> Literal["postgres", "memory"]:
    """Return the index that the settings name, else the one in memory if it can run here."""
    if "search" in settings.catalog.model_fields_set:
        return settings.catalog.search
    try:
        require_extra("serve an index in memory", "search", "numpy")
        check_socket_path(settings.product_index_socket())
    except NotReady:
        return "postgres"
    return "memory"
