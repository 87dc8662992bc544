"""Rounds of drand, fetched from relays and believed for their signature only.

A relay can be slow, unavailable or wrong, and another one may answer in its place: the signature is by the threshold
key of drand's quicknet, so it does not matter who delivers it. The scheme is `bls-unchained-g1-rfc9380`:
https://docs.drand.love/docs/cryptography.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Sequence
from urllib.parse import urlsplit

import msgspec

from commerce.kernel.errors import NotReady
from commerce.kernel.external import ExternalOutcomeUnknown, HttpTransport
from commerce.kernel.optional import require_extra
from commerce.waiting_rooms.draw import QUICKNET

_logger = logging.getLogger(__name__)
QUICKNET_PUBLIC_KEY = bytes.fromhex(
    "83cf0f2896adee7eb8b5f01fcad3912212c437e0073e911fb90022d3e760183c8c4b450b6a0a6c3ac6a5776a2d106451"
    "0d1fec758c921cc22b0e17e63aaf4bcb5ed66304de9cf809bd274ca73bab4af5a6e9c76a4bc09e76eae8991ef5ece45a"
)
"""member `public_key` of https://api.drand.sh/QUICKNET/info, a point of G2"""
SIGNATURE_DOMAIN = b"BLS_SIG_BLS12381G1_XMD:SHA-256_SSWU_RO_NUL_"
_MAX_REASON_CHARS = 300


class _Beacon(msgspec.Struct):
    """A relay's answer, without the members that are not used."""

    round: int
    signature: str
    randomness: str | None = None


class _NoBeacon(Exception):
    """A relay has not delivered the round."""


class DrandRelays:
    """Relays of drand's public HTTP API, by their base URLs.

    Needs the extra `drand`; raises `NotReady` if that is not installed.
    """

    def __init__(self, transport: HttpTransport, urls: Sequence[str], public_key: bytes = QUICKNET_PUBLIC_KEY) -> None:
        require_extra("fetch rounds of drand", "drand", "py_arkworks_bls12381")
        self._transport = transport
        self._urls = [url.rstrip("/") for url in urls]
        self._public_key = public_key

    async def fetch_randomness(self, source: str) -> str:
        """Return the randomness of a source `drand:CHAIN:ROUND`, 64 hex digits.

        All relays are asked at once, and the first right answer counts. Raises `NotReady` with each relay's reason if
        none has one.
        """
        round_no = int(source.rpartition(":")[2])
        calls = [asyncio.create_task(self._request_beacon(url, round_no)) for url in self._urls]
        reasons = []
        try:
            for call in asyncio.as_completed(calls):
                try:
                    return await call
                except _NoBeacon as error:
                    reasons.append(str(error))
        finally:
            for running in calls:
                running.cancel()
            await asyncio.gather(*calls, return_exceptions=True)
        raise NotReady(f"cannot fetch {source}: {'; '.join(reasons)[:_MAX_REASON_CHARS]}")

    async def _request_beacon(self, url: str, round_no: int) -> str:
        host = urlsplit(url).hostname
        try:
            response = await self._transport.send(
                "GET", f"{url}/{QUICKNET}/public/{round_no}", {"Accept": "application/json"}
            )
        except ExternalOutcomeUnknown as error:
            raise _NoBeacon(f"{host}: {error}") from None
        if response.status != 200:
            raise _NoBeacon(f"{host}: status {response.status}")
        try:
            beacon = msgspec.json.decode(response.body, type=_Beacon)
            signature = bytes.fromhex(beacon.signature)
        except (ValueError, RecursionError):  # msgspec's errors are ValueErrors too
            raise _NoBeacon(f"{host}: the answer is no round of drand") from None
        randomness = hashlib.sha256(signature).hexdigest()
        is_right = (
            beacon.round == round_no
            and beacon.randomness in (None, randomness)
            and verify_signature(self._public_key, round_no, signature)
        )
        if not is_right:
            _logger.warning("a relay of drand gave a wrong round", extra={"system": host, "round": round_no})
            raise _NoBeacon(f"{host}: the signature is not that of round {round_no}")
        return randomness


def verify_signature(public_key: bytes, round_no: int, signature: bytes) -> bool:
    """Tell whether a round's signature is by the key, and in its only encoding.

    With two encodings there would be two values of one round, since the randomness is the digest of the signature.
    """
    from py_arkworks_bls12381 import GT, G1Point, G2Point  # noqa: PLC0415  # an extra

    message = hashlib.sha256(round_no.to_bytes(8, "big")).digest()
    try:
        point, key = G1Point.from_compressed_bytes(signature), G2Point.from_compressed_bytes(public_key)
    except ValueError:
        return False
    if point.to_compressed_bytes() != signature:
        return False
    hashed = G1Point.hash_to_curve(message, SIGNATURE_DOMAIN)
    return GT.pairing(point, G2Point()) == GT.pairing(hashed, key)
