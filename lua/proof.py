"""The nonces of solved proofs of work. They are forgotten when their challenges have expired."""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

from lua.keys import SaleKeys
from lua.script import Commands, Script

_spend = Script("spend_proof")


class SpendOutcome(IntEnum):
    """Outcomes of spending a solution; the numbers are those of `spend_proof.lua`."""

    SPENT = 0
    SPENT_BEFORE = 1
    FULL = 2


class SpendResult(NamedTuple):
    """Redis's decision on a solution, and the nonces that it remembers of the sale."""

    outcome: SpendOutcome
    remembered: int


async def spend_proof(client: Commands, keys: SaleKeys, nonce: bytes, expires_ms: int, max_nonces: int) -> SpendResult:
    """Remember the nonce of a solved challenge until that has expired, unless it is remembered already."""
    outcome, remembered = await _spend.call(client, [keys.proofs], [nonce, expires_ms, max_nonces])
    return SpendResult(SpendOutcome(outcome), remembered)
