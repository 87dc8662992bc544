"""Settings of the shop as a whole."""

from __future__ import annotations

from config.base import SettingsSection, TimeZoneName


class ShopSettings(SettingsSection):
    """The zone of times that staff write without one, and in which commands show times beside UTC."""

    time_zone: TimeZoneName = "UTC"
