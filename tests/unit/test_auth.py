"""Tokens: every algorithm that can be set, key rotation, and the cache."""

from __future__ import annotations

import json

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from config.settings import AuthSettings
from gateway.auth import Authenticator, sign_token
from gateway.problems import Forbidden, Unauthorized
from tests.unit.test_kernel import FakeClock

SECRET = "a secret that is long enough for HS256"
NOW_MS = 1_800_000_000_000


def pem_pair(algorithm: str) -> tuple[str, str]:
    """(private, public)"""
    key = {
        "EdDSA": ed25519.Ed25519PrivateKey.generate,
        "ES256": lambda: ec.generate_private_key(ec.SECP256R1()),
        "RS256": lambda: rsa.generate_private_key(65_537, 2_048),
    }[algorithm]()
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return private.decode(), public.decode()


def settings(*keys: dict[str, str], **more: int) -> AuthSettings:
    return AuthSettings.model_validate({"keys": list(keys), **more})


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    made = FakeClock(NOW_MS)

    class Now(jwt.api_jwt.datetime):  # type: ignore[misc, name-defined]
        @classmethod
        def now(cls, tz=None):  # type: ignore[no-untyped-def]
            return cls.fromtimestamp(made.ms / 1000, tz)

    monkeypatch.setattr(jwt.api_jwt, "datetime", Now)
    return made


@pytest.mark.parametrize("algorithm", ["EdDSA", "ES256", "RS256"])
def test_tokens_of_an_identity_service(clock: FakeClock, algorithm: str) -> None:
    private, public = pem_pair(algorithm)
    signing = settings({"kid": "a", "algorithm": algorithm, "secret": public, "sign_with": private})
    checking = settings({"kid": "a", "algorithm": algorithm, "secret": public})
    made = sign_token(signing, clock, "zoe", "floodgate", (), 60)
    assert Authenticator(checking, clock).identify_customer(f"Bearer {made}").subject == "zoe"
    with pytest.raises(ValueError, match="no key in"):
        sign_token(checking, clock, "zoe", "floodgate", (), 60)


def test_a_public_key_is_not_a_shared_secret(clock: FakeClock) -> None:
    """The classic confusion: a token that is signed with the public key as if it were an HS256 secret."""
    _, public = pem_pair("RS256")
    auth = Authenticator(settings({"kid": "a", "algorithm": "RS256", "secret": public}), clock)
    claims = {"sub": "zoe", "aud": "floodgate", "iss": "floodgate", "exp": NOW_MS // 1000 + 60}
    key = jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256)
    header = jwt.utils.base64url_encode(b'{"alg":"HS256","kid":"a"}')
    body = jwt.utils.base64url_encode(json.dumps(claims).encode())
    signature = jwt.utils.base64url_encode(key.sign(header + b"." + body, public.encode()))
    with pytest.raises(Unauthorized):
        auth.identify_customer(f"Bearer {(header + b'.' + body + b'.' + signature).decode()}")


def test_keys_can_be_replaced_without_a_stop(clock: FakeClock) -> None:
    old, new = {"kid": "old", "secret": SECRET}, {"kid": "new", "secret": SECRET[::-1]}
    made_old = sign_token(settings(old), clock, "zoe", "floodgate", (), 60)
    both = Authenticator(settings(new, old), clock)
    made_new = sign_token(settings(new, old), clock, "zoe", "floodgate", (), 60)
    assert both.identify_customer(f"Bearer {made_old}").subject == both.identify_customer(f"Bearer {made_new}").subject == "zoe"
    with pytest.raises(Unauthorized, match="not known"):
        Authenticator(settings(new), clock).identify_customer(f"Bearer {made_old}")


def test_what_was_checked_once_still_expires(clock: FakeClock) -> None:
    auth = Authenticator(settings({"kid": "a", "secret": SECRET}, clock_leeway_s=5), clock)
    made = f"Bearer {sign_token(settings({'kid': 'a', 'secret': SECRET}), clock, 'zoe', 'floodgate', (), 60)}"
    assert auth.identify_customer(made) is auth.identify_customer(made)
    clock.ms += 64_000
    assert auth.identify_customer(made).subject == "zoe"
    clock.ms += 2_000
    with pytest.raises(Unauthorized, match="expired"):
        auth.identify_customer(made)


def test_the_cache_has_a_limit(clock: FakeClock) -> None:
    keys = settings({"kid": "a", "secret": SECRET}, token_cache=3)
    auth = Authenticator(keys, clock)
    for number in range(10):
        auth.identify_customer(f"Bearer {sign_token(keys, clock, f'u{number}', 'floodgate', (), 60)}")
    assert len(auth._known["floodgate"]) == 3


def test_a_shoppers_token_opens_no_staff_door_even_if_cached(clock: FakeClock) -> None:
    keys = settings({"kid": "a", "secret": SECRET})
    auth = Authenticator(keys, clock)
    shopper = f"Bearer {sign_token(keys, clock, 'zoe', 'floodgate', (), 60)}"
    staff = f"Bearer {sign_token(keys, clock, 'ann', 'floodgate-admin', ('sales',), 60)}"
    auth.identify_customer(shopper)
    auth.identify_staff(staff, "sales")
    with pytest.raises(Unauthorized):
        auth.identify_staff(shopper, "sales")
    with pytest.raises(Unauthorized):
        auth.identify_customer(staff)
    with pytest.raises(Forbidden, match="needs the role 'support'; the token has sales"):
        auth.identify_staff(staff, "support")


@pytest.mark.parametrize("name", ["", "a b", "x" * 65, "-dash", "a\n"])
def test_names_that_are_none(clock: FakeClock, name: str) -> None:
    with pytest.raises(ValueError, match="not a user id"):
        sign_token(settings({"kid": "a", "secret": SECRET}), clock, name, "floodgate", (), 60)
