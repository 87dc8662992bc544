"""Proofs of work at the entrance of waiting rooms, by version 2 of ALTCHA (https://altcha.org).

A challenge belongs to one customer and one sale, which its signature covers with everything else. It is made with a
counter that is known, so that making and verifying it costs microseconds. A solution counts once: its nonce is
remembered in Redis until the challenge expires.
"""

from __future__ import annotations

import secrets
from types import NoneType
from typing import Any, NamedTuple

from altcha import ChallengeParameters, Payload, create_challenge, verify_solution

import lua
from commerce.kernel.clock import Clock
from commerce.kernel.errors import NotReady, Overloaded
from commerce.kernel.redis_client import REDIS_UNAVAILABLE
from commerce.screening.errors import ProofInvalid, ProofRequired
from config.screening import ScreeningSettings
from gateway import metrics
from lua import Commands, SaleKeys, SpendOutcome

MAX_PROOF_CHARS = 2_048
_ALGORITHM, _HASHES_PER_ATTEMPT = "SHA-256", 10
_UNREADABLE = (ValueError, KeyError, TypeError, AttributeError, RecursionError)


class SolvedProof(NamedTuple):
    """A solution that is right; it counts if its nonce is spent."""

    nonce: bytes
    expires_ms: int


class ProofOfWork:
    """Makes challenges, verifies solutions and spends them. Without a `key` it can do neither."""

    def __init__(self, key: str | None, link: Commands, settings: ScreeningSettings, clock: Clock) -> None:
        self._secrets = None if key is None else (f"challenge {key}", f"solution {key}")
        self._link = link
        self._settings = settings
        self._clock = clock

    def verify(self, sale_id: str, user_id: str, proof: str | None) -> SolvedProof:
        """Verify a proof: base64 of JSON with `challenge` and `solution`.

        Raises `ProofRequired` with a challenge if there is no proof, `ProofInvalid` with a new one if it is not that of
        this customer and sale, forged, wrong or expired, and `NotReady` if the settings have no key.
        """
        if proof is None:
            metrics.PROOFS.labels("issued").inc()
            raise ProofRequired(
                "solve the challenge and join again with the solution in the header Proof-Of-Work",
                self._create_challenge(sale_id, user_id),
            )
        solution = self._read(sale_id, user_id, proof)
        if solution is None:
            metrics.PROOFS.labels("invalid").inc()
            raise self._invalid(sale_id, user_id, "the proof of work is wrong, expired, or of another account or sale")
        return solution

    async def spend(self, sale_id: str, user_id: str, solution: SolvedProof) -> None:
        """Let a solution count, once over all gateways.

        Raises `ProofInvalid` if it has counted before, `Overloaded` if too many are remembered, `NotReady` if Redis
        does not answer.
        """
        try:
            outcome, remembered = await lua.spend_proof(
                self._link, SaleKeys(sale_id), solution.nonce, solution.expires_ms, self._settings.proofs_per_sale
            )
        except REDIS_UNAVAILABLE:
            raise NotReady("Redis cannot be reached; repeat the request") from None
        metrics.PROOFS.labels(_RESULTS[outcome]).inc()
        metrics.PROOFS_REMEMBERED.labels(sale_id).set(remembered)
        if outcome is SpendOutcome.SPENT_BEFORE:
            raise self._invalid(sale_id, user_id, "this proof of work was used before")
        if outcome is SpendOutcome.FULL:
            raise Overloaded("too many proofs of work are remembered; repeat the request later")

    def _invalid(self, sale_id: str, user_id: str, reason: str) -> ProofInvalid:
        return ProofInvalid(f"{reason}; solve the new challenge", self._create_challenge(sale_id, user_id))

    def _create_challenge(self, sale_id: str, user_id: str) -> dict[str, Any]:
        challenge_secret, solution_secret = self._require_secrets()
        attempts = self._settings.proof_attempts
        challenge = create_challenge(
            _ALGORITHM,
            _HASHES_PER_ATTEMPT,
            counter=attempts // 2 + secrets.randbelow(attempts // 2),
            expires_at=self._clock.now_ms() // 1000 + self._settings.proof_valid_s,
            data=_data(sale_id, user_id),
            hmac_secret=challenge_secret,
            hmac_key_secret=solution_secret,
        )
        return challenge.to_dict()

    def _read(self, sale_id: str, user_id: str, proof: str) -> SolvedProof | None:
        challenge_secret, solution_secret = self._require_secrets()
        try:
            payload = Payload.from_base64(proof)
            parameters = payload.challenge.parameters
            # Before the library writes them as JSON again: it takes milliseconds if they are nested, or many numbers.
            if parameters.data != _data(sale_id, user_id) or not _is_flat(parameters):
                return None
            is_right = verify_solution(payload, challenge_secret, hmac_key_secret=solution_secret).verified
        except _UNREADABLE:
            return None
        if not is_right:
            return None
        assert parameters.expires_at is not None  # the signature says that it is ours
        if parameters.expires_at * 1000 <= self._clock.now_ms():
            return None
        return SolvedProof(bytes.fromhex(parameters.nonce), int(parameters.expires_at) * 1000)

    def _require_secrets(self) -> tuple[str, str]:
        if self._secrets is None:
            raise NotReady("cannot sign challenges: set FLOODGATE_AUTH__ROOM_TICKET_KEY")
        return self._secrets


_RESULTS = {SpendOutcome.SPENT: "solved", SpendOutcome.SPENT_BEFORE: "used_before", SpendOutcome.FULL: "full"}


def _data(sale_id: str, user_id: str) -> dict[str, str]:
    return {"sale_id": sale_id, "user_id": user_id}


def _is_flat(parameters: ChallengeParameters) -> bool:
    """Tell whether the parameters besides `data` are texts and integers, as in all challenges."""
    return all(type(value) in (str, int, NoneType) for name, value in vars(parameters).items() if name != "data")
