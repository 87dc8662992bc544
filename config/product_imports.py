"""Settings of imports and exports of products."""

from __future__ import annotations

from config.base import Positive, Seconds, SettingsSection


class ProductImportSettings(SettingsSection):
    """Limits of imports and exports of products."""

    max_bytes: Positive = 134_217_728
    upload_timeout_s: Seconds = 300
    concurrent_uploads: Positive = 2  # per process, each in a file of its own on disk
    concurrent_exports: Positive = 2  # per process
