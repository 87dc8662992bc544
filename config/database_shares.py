"""Settings of the connections that a gateway has to Postgres."""

from __future__ import annotations

from pydantic import model_validator

from config.base import Positive, SettingsSection


class DatabaseShareSettings(SettingsSection):
    """Postgres connections of a gateway process: in all, and those that each kind of use keeps."""

    total_connections: Positive = 11
    customer_connections: Positive = 2
    staff_connections: Positive = 2
    webhook_connections: Positive = 2
    background_connections: Positive = 2  # prices, waiting rooms and all else that the gateway itself reads
    search_connections: Positive = 1  # searches of products, beside others only as far as nobody else needs them

    @model_validator(mode="after")
    def _check_total(self) -> DatabaseShareSettings:
        kept = sum(
            (
                *(self.customer_connections, self.staff_connections, self.webhook_connections),
                *(self.background_connections, self.search_connections),
            )
        )
        if kept > self.total_connections:
            raise ValueError(f"the shares keep {kept} connections of {self.total_connections}; raise total_connections")
        return self
