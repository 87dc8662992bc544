"""Authentication by tokens: JWTs (RFC 7519), verified with the keys in the settings.

A customer's token has the audience `floodgate`; staff have `floodgate-admin` and a list of roles.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from hashlib import sha256
from typing import Any, Literal

import jwt
import msgspec

from commerce.coupons.issued_codes import IssuedCodes
from commerce.kernel.clock import Clock
from commerce.rights.model import SUPPORT_ROLES, SupportRole, include_lower_roles
from config.auth import AuthKey, AuthSettings
from gateway.fast_tokens import MAX_MOMENT_S, FastTokenVerifier
from gateway.problems import Forbidden, Unauthorized

Audience = Literal["floodgate", "floodgate-admin"]
Role = Literal["catalog", "sales", "warehouse", "operator"] | SupportRole
ROLES: tuple[Role, ...] = ("catalog", "sales", *SUPPORT_ROLES, "warehouse", "operator")
"""Roles of staff; `operator` includes all others, and each of support those that are below it."""

_SUBJECT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,63}")
_MAX_TOKEN_CHARS = 4_096
_NO_ROLES: frozenset[str] = frozenset()


class Identity(msgspec.Struct, frozen=True, gc=False):
    """The content of a verified token, with all roles that its roles include.

    `expires_ms` counts from 1970."""

    subject: str
    roles: frozenset[str]
    expires_ms: float
    account_created_s: int | None = None
    """when the customer's account was created, in seconds since 1970, if the token tells"""
    user_hash: int = 0
    """32 bits that are the same in all processes"""


class Authenticator:
    """Verifies tokens and caches the verified ones until they expire."""

    def __init__(self, settings: AuthSettings, clock: Clock) -> None:
        self._keys = {key.kid: key for key in settings.keys}
        self._settings = settings
        self._clock = clock
        self._fast_path = FastTokenVerifier(settings.issuer, clock)
        self._loaded_keys: dict[str, Any] = {}
        self._verified: dict[Audience, dict[str | bytes, Identity]] = {"floodgate": {}, "floodgate-admin": {}}
        self._verified_earlier: dict[Audience, dict[str | bytes, Identity]] = {"floodgate": {}, "floodgate-admin": {}}
        self._verified_customers = self._verified["floodgate"]

    def identify_customer(self, authorization: str | bytes | None) -> Identity:
        """Identify the customer of an `Authorization` header, given as text or as bytes from the wire.

        Raises `Unauthorized`.
        """
        identity = self._verified_customers.get(authorization)  # type: ignore[arg-type]  # None is not in it
        if identity is not None and self._clock.now_ms() < identity.expires_ms:
            return identity
        return self._identify(authorization, "floodgate")

    def find_recent_customer(self, authorization: str | bytes | None) -> Identity | None:
        """Return the customer of a token that was verified lately, None if that is not known."""
        recent, earlier = self._verified_customers, self._verified_earlier["floodgate"]
        return recent.get(authorization) or earlier.get(authorization)  # type: ignore[arg-type]  # None is in neither

    def identify_staff(self, authorization: str | None, role: Role, *others: Role) -> Identity:
        """Identify staff and check that they have one of the roles. Raises `Unauthorized` or `Forbidden`."""
        identity = self._identify(authorization, "floodgate-admin")
        if identity.roles.isdisjoint((role, *others, "operator")):
            raise Forbidden(
                f"this operation needs the role {role!r}; the token has {', '.join(sorted(identity.roles)) or 'none'}"
            )
        return identity

    def _identify(self, authorization: str | bytes | None, audience: Audience) -> Identity:
        if authorization is None:
            raise Unauthorized("send a header `Authorization: Bearer TOKEN`")
        verified = self._verified[audience]
        cached = verified.pop(authorization, None) or self._verified_earlier[audience].pop(authorization, None)
        if cached is not None and self._clock.now_ms() < cached.expires_ms:
            self._keep(audience, authorization, cached)
            return cached
        text = authorization.decode("latin-1") if isinstance(authorization, bytes) else authorization
        scheme, _, token = text.partition(" ")
        if scheme.lower() != "bearer" or not token or len(token) > _MAX_TOKEN_CHARS:
            raise Unauthorized("the Authorization header is not `Bearer TOKEN`")
        identity = self._verify(token.strip(), audience)
        self._keep(audience, authorization, identity)
        return identity

    def _keep(self, audience: Audience, authorization: str | bytes, identity: Identity) -> None:
        """Cache a verified token.

        When half of the cache is recent, it becomes the earlier half, and what was not used since then goes.
        """
        verified = self._verified[audience]
        if len(verified) >= (self._settings.token_cache + 1) // 2:
            self._verified_earlier[audience], verified = verified, {}
            self._verified[audience] = verified
            self._verified_customers = self._verified["floodgate"]
        verified[authorization] = identity

    def _verify(self, token: str, audience: Audience) -> Identity:
        try:
            claims = self._fast_path.verify(token, audience)
        except jwt.InvalidSignatureError as error:
            raise Unauthorized(f"the token is not valid here: {error}") from None
        if claims is None:
            return self._verify_with_library(token, audience)
        return self._build_identity(claims.sub, claims.roles, claims.account_created_at, float(claims.exp))

    def _verify_with_library(self, token: str, audience: Audience) -> Identity:
        """Let PyJWT judge a token, and remember the header of an accepted one for the fast path."""
        try:
            key = self._find_key(jwt.get_unverified_header(token))
            loaded_key = self._load_key(key)
            claims = jwt.decode(
                token,
                loaded_key,
                algorithms=[key.algorithm],
                audience=audience,
                issuer=self._settings.issuer,
                leeway=self._settings.clock_leeway_s,
                options={"require": ["exp", "sub", "aud", "iss"]},
            )
            expires_s = float(claims["exp"])
        except jwt.ExpiredSignatureError:
            raise Unauthorized("the token has expired: get a new one") from None
        except jwt.ImmatureSignatureError:
            leeway_s = self._settings.clock_leeway_s
            raise Unauthorized(
                f"the token is not valid yet: `iat` or `nbf` is more than {leeway_s} s in the future; fix the clock"
            ) from None
        except (jwt.PyJWTError, ValueError, OverflowError) as error:
            raise Unauthorized(f"the token is not valid here: {error}") from None
        self._fast_path.learn_header(token, key, loaded_key)
        return self._build_identity(claims["sub"], claims.get("roles", []), claims.get("account_created_at"), expires_s)

    def _build_identity(self, subject: object, roles: object, created_s: object, expires_s: float) -> Identity:
        """Check the claims that are this shop's own, and return whom they identify."""
        if not isinstance(subject, str) or not _SUBJECT.fullmatch(subject):
            raise Unauthorized("the token's subject is not a user id of this shop")
        if not isinstance(roles, list) or not all(isinstance(role, str) for role in roles):
            raise Unauthorized("the token's roles are not a list of names")
        if created_s is not None and (type(created_s) is not int or not 0 <= created_s < MAX_MOMENT_S):
            raise Unauthorized("the token's account_created_at is not in whole seconds since 1970")
        return Identity(
            subject,
            include_lower_roles(roles) if roles else _NO_ROLES,
            (expires_s + self._settings.clock_leeway_s) * 1_000,
            created_s,
            zlib.crc32(subject.encode()),
        )

    def _load_key(self, key: AuthKey) -> Any:
        """Return a key as PyJWT prepares it: parsing a PEM takes as long as checking a signature."""
        loaded_key = self._loaded_keys.get(key.kid)
        if loaded_key is None:
            prepare = jwt.get_algorithm_by_name(key.algorithm).prepare_key
            loaded_key = self._loaded_keys[key.kid] = prepare(key.secret.get_secret_value())
        return loaded_key

    def _find_key(self, header: dict[str, object]) -> AuthKey:
        kid = header.get("kid")
        key = self._keys.get(kid) if isinstance(kid, str) else None
        if key is None:
            raise jwt.InvalidTokenError("the key that signed it is not in auth.keys")
        return key


def sign_token(
    settings: AuthSettings,
    clock: Clock,
    subject: str,
    audience: Audience,
    roles: Sequence[str],
    ttl_s: int,
    *,
    account_created_s: int | None = None,
) -> str:
    """Create a token with the first key that can sign. Raises `ValueError` if none can."""
    if not _SUBJECT.fullmatch(subject):
        raise ValueError(f"{subject!r} is not a user id: letters, digits and ._@+- up to 64")
    now_s = clock.now_ms() // 1000
    claims = {"sub": subject, "aud": audience, "iss": settings.issuer, "iat": now_s, "exp": now_s + ttl_s}
    if audience == "floodgate-admin":
        claims["roles"] = list(roles)
    if account_created_s is not None:
        claims["account_created_at"] = account_created_s
    for key in settings.keys:
        secret = key.secret if key.algorithm == "HS256" else key.sign_with
        if secret is not None:
            return jwt.encode(claims, secret.get_secret_value(), key.algorithm, headers={"kid": key.kid})
    raise ValueError("no key in auth.keys can sign: set sign_with of a key, or let your identity service create tokens")


def room_ticket_key(settings: AuthSettings) -> str | None:
    """Return the key that signs tickets of waiting rooms, None if there is none."""
    own = settings.room_ticket_key
    return own.get_secret_value() if own is not None else _derive_key(settings, b"floodgate-room ")


def build_issued_codes(settings: AuthSettings) -> IssuedCodes | None:
    """Return the signer of codes of issued coupons, None if there is no key."""
    own = settings.coupon_key
    key = own.get_secret_value() if own is not None else _derive_key(settings, b"floodgate-coupon ")
    return IssuedCodes(key) if key else None


def article_voter_key(settings: AuthSettings) -> str | None:
    """Return the key that hashes those who rate articles, None if there is none."""
    return _derive_key(settings, b"floodgate-voter ") or room_ticket_key(settings)


def _derive_key(settings: AuthSettings, purpose: bytes) -> str | None:
    """Derive the key of a purpose from the first HS256 key of tokens."""
    for key in settings.keys:
        if key.algorithm == "HS256":
            return sha256(purpose + key.secret.get_secret_value().encode()).hexdigest()
    return None
