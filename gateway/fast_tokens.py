"""Fast path of tokens: those of the common form are verified here, all others by PyJWT.

A token about which there is any doubt is left to PyJWT. What is accepted here PyJWT accepts as well, and the only
refusal here, of a wrong signature, is PyJWT's own: docs/decisions/0076-tokens-by-two-judges.md.
"""

from __future__ import annotations

from binascii import a2b_base64, b2a_base64
from collections.abc import Callable
from functools import partial
from hmac import compare_digest
from typing import Any

import jwt
import msgspec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hmac import HMAC

from commerce.kernel.clock import Clock
from config.auth import AuthKey

_SignatureCheck = Callable[[bytes, bytes], bool]
"""takes the signed bytes and the signature"""

MAX_MOMENT_S = 1 << 40
"""seconds since 1970 that no moment of a customer reaches"""
_MAX_HEADERS = 64
_CHANGES_VERIFICATION = frozenset(("crit", "b64"))
"""members of a header by which the rest of a token is read in another way"""
_TO_STANDARD_ALPHABET = bytes.maketrans(b"-_+/=", b"+/!!!")
"""base64url to base64; what is not of the former becomes what is not of the latter"""
_PADDING = (b"", b"===", b"==", b"=")


class TokenClaims(msgspec.Struct, forbid_unknown_fields=True, frozen=True, gc=False):
    """The claims of the common form. Moments are seconds since 1970."""

    sub: str
    aud: str
    iss: str
    exp: int
    iat: int = 0
    nbf: int = 0
    jti: str = ""
    roles: list[str] = []
    account_created_at: int | None = None


class FastTokenVerifier:
    """Verifies tokens whose header PyJWT has accepted before, and whose payload has nothing unusual.

    The bytes of a header alone decide which key and algorithm apply, so equal bytes need no second judgement. At most
    64 headers are remembered."""

    def __init__(self, issuer: str, clock: Clock) -> None:
        self._issuer = issuer
        self._clock = clock
        self._checks: dict[str, _SignatureCheck] = {}
        self._decode_claims = msgspec.json.Decoder(TokenClaims).decode

    def learn_header(self, token: str, key: AuthKey, loaded_key: Any) -> None:
        """Remember the header of a token that PyJWT has accepted with that key.

        `loaded_key` is as PyJWT prepares it."""
        header = token.partition(".")[0]
        if header in self._checks or not _CHANGES_VERIFICATION.isdisjoint(jwt.get_unverified_header(token)):
            return
        if len(self._checks) >= _MAX_HEADERS:
            del self._checks[next(iter(self._checks))]
        self._checks[header] = _create_check(key, loaded_key)

    def verify(self, token: str, audience: str) -> TokenClaims | None:
        """Return the claims of a valid token; None if PyJWT has to judge it.

        Raises `jwt.InvalidSignatureError` if nothing but the signature is wrong; PyJWT checks that before the claims.
        Moments are compared without leeway: what only leeway makes valid is left to PyJWT."""
        try:
            header, payload, signature = token.encode().split(b".")
            check = self._checks.get(token[: len(header)])
            if check is None:
                return None
            claims = self._decode_claims(_decode_base64url(payload))
            now_s = self._clock.now_ms() // 1_000
            is_valid = (
                claims.aud == audience
                and claims.iss == self._issuer
                and now_s < claims.exp < MAX_MOMENT_S
                and claims.iat <= now_s
                and claims.nbf <= now_s
            )
            if not is_valid:
                return None
            if check(b"%b.%b" % (header, payload), _decode_base64url(signature)):
                return claims
        except (ValueError, msgspec.MsgspecError):
            return None
        # PyJWT would check the signature again, and forged tokens would cost twice as much as valid ones.
        raise jwt.InvalidSignatureError("Signature verification failed")


def _create_check(key: AuthKey, loaded_key: Any) -> _SignatureCheck:
    """Create the check of a key's signatures.

    It is PyJWT's own, except for HS256, where cryptography's HMAC can be copied and takes less time."""
    if key.algorithm == "HS256":
        return partial(_check_hmac, HMAC(loaded_key, SHA256()))
    verify = jwt.get_algorithm_by_name(key.algorithm).verify
    return lambda signed, signature: verify(signed, loaded_key, signature)


def _check_hmac(keyed: HMAC, signed: bytes, signature: bytes) -> bool:
    mac = keyed.copy()
    mac.update(signed)
    return compare_digest(mac.finalize(), signature)


def _decode_base64url(segment: bytes) -> bytes:
    """Decode a segment that is exactly as an encoder writes it. Raises `ValueError` for all others.

    The decoder skips foreign characters and unused bits; encoding again shows whether there were any."""
    padded = segment.translate(_TO_STANDARD_ALPHABET) + _PADDING[len(segment) % 4]
    decoded = a2b_base64(padded)
    if b2a_base64(decoded, newline=False) != padded:
        raise ValueError("not in canonical base64url")
    return decoded
