"""Client of the sandbox's carriers, and the faults that drills set."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from ops.sandbox.carriers import CARRIERS
from tests.drills.paying_customers import SandboxClient

CARRIER_FAULTS: dict[str, Any] = {
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
"""`slow_ms` exceeds the worker's timeout: the call takes effect and its outcome stays unknown."""


class CarrierSandboxClient(SandboxClient):
    """Client of the sandbox's carriers."""

    async def set_faults(self, faults: Mapping[str, Any] | None = None) -> None:
        for carrier in CARRIERS:
            await self._call("PUT", f"/faults/{carrier}", CARRIER_FAULTS if faults is None else faults)

    async def set_unavailable(self, seconds: float) -> None:
        """Let no carrier answer for so long. Shipments continue, and webhooks are sent."""
        until_ms = int((time.time() + seconds) * 1_000)
        for carrier in CARRIERS:
            await self._call("PUT", f"/faults/{carrier}", {**CARRIER_FAULTS, "down": True, "down_until_ms": until_ms})
