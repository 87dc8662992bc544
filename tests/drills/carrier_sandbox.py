"""Carriers that refuse, are slow or away, and lose pushes and parcels."""

from __future__ import annotations

import time
from typing import Any

from ops.sandbox.carriers import CARRIERS
from tests.drills.paying_customers import SandboxClient

MISBEHAVIOUR: dict[str, Any] = {
    "refused_share": 0.05,
    "slow_share": 0.05,
    "slow_ms": 3_000,
    "duplicate_share": 0.05,
    "delayed_share": 0.02,
    "extra_delay_ms": 3_000,
    "reordered_share": 0.1,
    "dropped_share": 0.05,
    "wrong_signature_share": 0.01,
    "unknown_code_share": 0.03,
    "failed_share": 0.05,
    "lost_share": 0.02,
    "returned_share": 0.02,
}
"""Slow is longer than the driver waits: what it asked for is done, and it does not know."""


class CarrierSandboxClient(SandboxClient):
    """The interface of the sandbox's carriers, for whoever runs a drill."""

    async def misbehave(self) -> None:
        for carrier in CARRIERS:
            await self._call("PUT", f"/faults/{carrier}", MISBEHAVIOUR)

    async def away(self, seconds: float) -> None:
        """Nobody answers for so long. Parcels move on, and are told of."""
        until_ms = int((time.time() + seconds) * 1_000)
        for carrier in CARRIERS:
            await self._call("PUT", f"/faults/{carrier}", {**MISBEHAVIOUR, "down": True, "down_until_ms": until_ms})
