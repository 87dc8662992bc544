"""The fast path and PyJWT agree about every token, and the fast path decides the common ones."""

from __future__ import annotations

from collections import Counter

import jwt
import pytest

from gateway import fast_tokens
from gateway.auth import Audience, Authenticator, Identity
from gateway.problems import Unauthorized
from tests.support.token_forms import TokenForms
from tests.unit.test_auth import clock as clock  # noqa: PLC0414  # a fixture
from tests.unit.test_kernel import FakeClock

_VALID, _OTHERS = 2_400, 600
_COSTLY = dict.fromkeys(("valid ES256", "valid EdDSA", "signature of ES256 or EdDSA changed"), 200) | dict.fromkeys(
    ("valid RS256", "signature of RS256 changed"), 20
)


class _RecordedAuthenticator(Authenticator):
    """Counts the tokens that PyJWT has to judge."""

    judged_by_library = 0

    def _verify_with_library(self, token: str, audience: Audience) -> Identity:
        self.judged_by_library += 1
        return super()._verify_with_library(token, audience)


def _judge(auth: Authenticator, token: str, *, by_library: bool) -> Identity | str:
    """Return the identity, or the text of the refusal."""
    verify = auth._verify_with_library if by_library else auth._verify
    try:
        return verify(token, "floodgate")
    except Unauthorized as error:
        return str(error)


def _is_decided_fast(auth: Authenticator, token: str) -> bool:
    try:
        return auth._fast_path.verify(token, "floodgate") is not None
    except jwt.InvalidSignatureError:
        return True


@pytest.mark.parametrize("seed", range(4))
def test_fast_path_and_library_agree_about_every_token(clock: FakeClock, seed: int) -> None:
    """Each seed brings over 25,000 tokens."""
    forms = TokenForms(seed)
    auth = _RecordedAuthenticator(forms.settings, clock)
    accepted, refused, fast = Counter[str](), Counter[str](), Counter[str]()
    numbers = dict.fromkeys(forms.valid, _VALID) | dict.fromkeys(forms.others, _OTHERS) | _COSTLY
    kinds = forms.valid | forms.others
    order = [kind for kind, number in numbers.items() for _ in range(number)]
    forms.random.shuffle(order)  # headers are learned in any order
    for number, kind in enumerate(order):
        token = kinds[kind]()
        is_fast = _is_decided_fast(auth, token)
        expected = _judge(auth, token, by_library=True)
        if is_fast or number % 8 == 0:  # otherwise PyJWT would be asked the same again
            assert _judge(auth, token, by_library=False) == expected, f"{kind}: {token}"
        (accepted if isinstance(expected, Identity) else refused)[kind] += 1
        fast[kind] += is_fast
    for kind in kinds:
        print(f"{kind}: {accepted[kind]} accepted, {refused[kind]} refused, {fast[kind]} of them on the fast path")
    assert accepted.total() >= 9_000
    assert refused.total() >= 11_000
    assert accepted.total() + refused.total() >= 25_000
    for kind in forms.valid:
        assert refused[kind] == 0
        assert fast[kind] >= 0.9 * accepted[kind], kind
    assert fast["signature changed"] >= 0.9 * refused["signature changed"]
    assert fast["unknown claim"] == fast["crit and b64"] == 0
    assert all(refused[kind] for kind in forms.others)


def test_headers_that_differ_in_each_token_take_bounded_memory(clock: FakeClock) -> None:
    forms = TokenForms(seed=2)
    auth = _RecordedAuthenticator(forms.settings, clock)
    for number in range(fast_tokens._MAX_HEADERS * 3):
        token = forms.create(header={"alg": "HS256", "kid": "h1", "nonce": number})
        assert isinstance(_judge(auth, token, by_library=False), Identity)
    assert len(auth._fast_path._checks) == fast_tokens._MAX_HEADERS
    judged = auth.judged_by_library
    assert isinstance(_judge(auth, token, by_library=False), Identity)
    assert auth.judged_by_library == judged


def test_header_of_refused_token_is_not_learned(clock: FakeClock) -> None:
    forms = TokenForms(seed=3)
    auth = _RecordedAuthenticator(forms.settings, clock)
    for _ in range(2):
        _judge(auth, forms.others["signature changed"](), by_library=False)
    assert not auth._fast_path._checks
    assert auth.judged_by_library == 2


@pytest.mark.parametrize("exp", [10**400, 1 << 1_024], ids=["digits", "bits"])
def test_token_with_exp_beyond_floats_is_refused(clock: FakeClock, exp: int) -> None:
    forms = TokenForms(seed=4)
    auth = Authenticator(forms.settings, clock)
    assert isinstance(_judge(auth, forms.create(), by_library=False), Identity)
    with pytest.raises(Unauthorized, match="not valid here"):
        auth.identify_customer(f"Bearer {forms.create(exp=exp)}")


def test_loaded_key_is_taken_by_pyjwt_unchanged(clock: FakeClock) -> None:
    """PyJWT may be given a key that it has prepared before: it takes it as it is."""
    forms = TokenForms(seed=5)
    for key in forms.settings.keys:
        algorithm = jwt.get_algorithm_by_name(key.algorithm)
        prepared = algorithm.prepare_key(key.secret.get_secret_value())
        assert algorithm.prepare_key(prepared) == prepared
