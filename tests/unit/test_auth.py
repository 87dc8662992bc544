"""Tokens: every algorithm of the settings, key rotation, and the cache."""

from __future__ import annotations

import json

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from config.auth import AuthSettings
from gateway.auth import Audience, Authenticator, Identity, sign_token
from gateway.problems import Forbidden, Unauthorized
from tests.unit.test_kernel import FakeClock

SECRET = "a secret that is long enough for HS256"
NOW_MS = 1_800_000_000_000


def create_pem_pair(algorithm: str) -> tuple[str, str]:
    """Create a key pair. Returns (private, public)."""
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
    fake_clock = FakeClock(NOW_MS)

    class Now(jwt.api_jwt.datetime):  # type: ignore[misc, name-defined]
        @classmethod
        def now(cls, tz=None):  # type: ignore[no-untyped-def]
            return cls.fromtimestamp(fake_clock.ms / 1000, tz)

    monkeypatch.setattr(jwt.api_jwt, "datetime", Now)
    return fake_clock


@pytest.mark.parametrize("algorithm", ["EdDSA", "ES256", "RS256"])
def test_token_signed_with_private_key_is_verified_with_public_key(clock: FakeClock, algorithm: str) -> None:
    private, public = create_pem_pair(algorithm)
    signing = settings({"kid": "a", "algorithm": algorithm, "secret": public, "sign_with": private})
    checking = settings({"kid": "a", "algorithm": algorithm, "secret": public})
    signed = sign_token(signing, clock, "zoe", "floodgate", (), 60)
    assert Authenticator(checking, clock).identify_customer(f"Bearer {signed}").subject == "zoe"
    with pytest.raises(ValueError, match="no key in"):
        sign_token(checking, clock, "zoe", "floodgate", (), 60)


def test_token_signed_with_public_key_as_secret_is_refused(clock: FakeClock) -> None:
    """Algorithm confusion: the public key is used as if it were an HS256 secret."""
    _, public = create_pem_pair("RS256")
    auth = Authenticator(settings({"kid": "a", "algorithm": "RS256", "secret": public}), clock)
    claims = {"sub": "zoe", "aud": "floodgate", "iss": "floodgate", "exp": NOW_MS // 1000 + 60}
    key = jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256)
    header = jwt.utils.base64url_encode(b'{"alg":"HS256","kid":"a"}')
    body = jwt.utils.base64url_encode(json.dumps(claims).encode())
    signature = jwt.utils.base64url_encode(key.sign(header + b"." + body, public.encode()))
    with pytest.raises(Unauthorized):
        auth.identify_customer(f"Bearer {(header + b'.' + body + b'.' + signature).decode()}")


def test_keys_rotate_while_old_tokens_are_valid(clock: FakeClock) -> None:
    old, new = {"kid": "old", "secret": SECRET}, {"kid": "new", "secret": SECRET[::-1]}
    old_token = sign_token(settings(old), clock, "zoe", "floodgate", (), 60)
    both = Authenticator(settings(new, old), clock)
    new_token = sign_token(settings(new, old), clock, "zoe", "floodgate", (), 60)
    assert (
        both.identify_customer(f"Bearer {old_token}").subject
        == both.identify_customer(f"Bearer {new_token}").subject
        == "zoe"
    )
    with pytest.raises(Unauthorized, match=r"not in auth\.keys"):
        Authenticator(settings(new), clock).identify_customer(f"Bearer {old_token}")


def test_cached_token_expires(clock: FakeClock) -> None:
    auth = Authenticator(settings({"kid": "a", "secret": SECRET}, clock_leeway_s=5), clock)
    header = f"Bearer {sign_token(settings({'kid': 'a', 'secret': SECRET}), clock, 'zoe', 'floodgate', (), 60)}"
    assert auth.identify_customer(header) is auth.identify_customer(header)
    clock.ms += 64_000
    assert auth.identify_customer(header).subject == "zoe"
    clock.ms += 2_000
    with pytest.raises(Unauthorized, match="expired"):
        auth.identify_customer(header)


def test_token_cache_is_bounded(clock: FakeClock) -> None:
    keys = settings({"kid": "a", "secret": SECRET}, token_cache=3)
    auth = Authenticator(keys, clock)
    for number in range(10):
        auth.identify_customer(f"Bearer {sign_token(keys, clock, f'u{number}', 'floodgate', (), 60)}")
    assert len(auth._verified["floodgate"]) + len(auth._verified_earlier["floodgate"]) <= 4


def test_token_cache_keeps_tokens_in_use(clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many tokens that are used once do not take the place of the one in use."""
    keys = settings({"kid": "a", "secret": SECRET}, token_cache=4)
    auth = Authenticator(keys, clock)
    busy = f"Bearer {sign_token(keys, clock, 'zoe', 'floodgate', (), 60)}"
    auth.identify_customer(busy)
    others = [f"Bearer {sign_token(keys, clock, f'u{number}', 'floodgate', (), 60)}" for number in range(20)]
    verified: list[str] = []
    verify = auth._verify

    def record(token: str, audience: Audience) -> Identity:
        verified.append(token)
        return verify(token, audience)

    monkeypatch.setattr(auth, "_verify", record)
    for other in others:
        auth.identify_customer(other)
        assert auth.identify_customer(busy).subject == "zoe"
    assert [f"Bearer {token}" for token in verified] == others


@pytest.mark.parametrize("claim", ["iat", "nbf"])
@pytest.mark.parametrize("is_staff", [False, True], ids=["customer", "staff"])
def test_token_from_the_near_future_is_valid_within_leeway(clock: FakeClock, claim: str, is_staff: bool) -> None:
    """The clock of the identity service may be ahead. Text is what aiohttp passes, bytes the fast path."""
    keys = settings({"kid": "a", "secret": SECRET}, clock_leeway_s=5)
    audience = "floodgate-admin" if is_staff else "floodgate"
    claims = {"sub": "zoe", "aud": audience, "iss": "floodgate", "exp": NOW_MS // 1_000 + 60, "roles": ["sales"]}

    def identify(seconds_ahead: float) -> list[str]:
        auth = Authenticator(keys, clock)
        signed = jwt.encode({**claims, claim: NOW_MS / 1_000 + seconds_ahead}, SECRET, headers={"kid": "a"})
        if is_staff:
            return [auth.identify_staff(f"Bearer {signed}", "sales").subject]
        return [auth.identify_customer(header).subject for header in (f"Bearer {signed}", f"Bearer {signed}".encode())]

    assert set(identify(4)) == {"zoe"}
    with pytest.raises(Unauthorized, match="more than 5 s in the future"):
        identify(7)


@pytest.mark.parametrize("claim", ["iat", "nbf", "exp"])
@pytest.mark.parametrize("value", ["1e400", "-1e400", "NaN", '"soon"', "null", "[]", "{}"])
def test_token_with_impossible_moment_is_refused(clock: FakeClock, claim: str, value: str) -> None:
    keys = settings({"kid": "a", "secret": SECRET})
    moment = json.loads(value)
    claims = {"sub": "zoe", "aud": "floodgate", "iss": "floodgate", "exp": NOW_MS // 1_000 + 60, claim: moment}
    signed = jwt.api_jws.encode(json.dumps(claims).encode(), SECRET, "HS256", headers={"kid": "a"})
    with pytest.raises(Unauthorized):
        Authenticator(keys, clock).identify_customer(f"Bearer {signed}")


def test_cached_customer_token_does_not_identify_staff(clock: FakeClock) -> None:
    keys = settings({"kid": "a", "secret": SECRET})
    auth = Authenticator(keys, clock)
    customer = f"Bearer {sign_token(keys, clock, 'zoe', 'floodgate', (), 60)}"
    staff = f"Bearer {sign_token(keys, clock, 'ann', 'floodgate-admin', ('sales',), 60)}"
    auth.identify_customer(customer)
    auth.identify_staff(staff, "sales")
    with pytest.raises(Unauthorized):
        auth.identify_staff(customer, "sales")
    with pytest.raises(Unauthorized):
        auth.identify_customer(staff)
    with pytest.raises(Forbidden, match="needs the role 'support'; the token has sales"):
        auth.identify_staff(staff, "support")


@pytest.mark.parametrize("name", ["", "a b", "x" * 65, "-dash", "a\n"])
def test_signing_for_malformed_user_id_is_refused(clock: FakeClock, name: str) -> None:
    with pytest.raises(ValueError, match="not a user id"):
        sign_token(settings({"kid": "a", "secret": SECRET}), clock, name, "floodgate", (), 60)
