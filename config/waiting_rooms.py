"""Settings of waiting rooms: when automatic ones open and close, and who delivers rounds of drand."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from config.base import Positive, Seconds, SettingsSection

RelayUrl = Annotated[str, Field(max_length=200, pattern=r"^(https://[!-~]+|http://(127\.0\.0\.1|localhost)(:\d+)?/?)$")]
"""https, or a relay on this machine"""


class WaitingRoomSettings(SettingsSection):
    """Thresholds of automatic rooms, over all gateways: refused new orders of a sale per second.

    A room opens after `opens_after_s` at or above the one, and closes after `closes_after_s` below the other in which
    nobody waited.

    `drand_relays` are base URLs of drand's public HTTP API; without them staff enters the value of a named round.
    """

    opens_at_refused_per_s: Positive = 100
    opens_after_s: Annotated[float, Field(ge=1, le=600)] = 3
    closes_below_refused_per_s: Positive = 10
    closes_after_s: Annotated[float, Field(ge=1, le=86_400)] = 60
    drand_relays: Annotated[tuple[RelayUrl, ...], Field(max_length=10)] = ()
    drand_timeout_s: Seconds = 5
    drand_response_bytes: Positive = 4_096

    @model_validator(mode="after")
    def _check_hysteresis(self) -> WaitingRoomSettings:
        if self.closes_below_refused_per_s > self.opens_at_refused_per_s:
            raise ValueError(
                "closes_below_refused_per_s is above opens_at_refused_per_s: a room would close in a rush; lower it"
            )
        return self
