"""The part `tokens`: processor time of a token's first check, against PyJWT and the signature alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from secrets import token_hex
from statistics import median
from time import process_time
from typing import Any, TypeVar

import jwt
import msgspec
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from commerce.kernel.clock import SystemClock
from config.auth import AuthSettings
from gateway.auth import Authenticator
from ops.commands.console import print_line, print_table
from ops.commands.safe_console import Table

_TOKENS, _LIFETIME_S = 1_000, 3_600
_CREATE_PRIVATE_KEY: dict[str, Callable[[], Any]] = {
    "HS256": lambda: token_hex(32),
    "EdDSA": ed25519.Ed25519PrivateKey.generate,
    "ES256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "RS256": lambda: rsa.generate_private_key(65_537, 2_048),
}
_Item = TypeVar("_Item")


class TokenTimes(msgspec.Struct, frozen=True):
    """Processor time per token in microseconds.

    Of the gateway's first check, of PyJWT with the key as text, of the signature with a loaded key."""

    first_check: float
    pyjwt: float
    signature: float


class TokenFigures(msgspec.Struct):
    """All measurements of the part by algorithm, and when and where they were made."""

    at: datetime | None = None
    machine: dict[str, str | int] = {}
    options: dict[str, float] = {}
    times: dict[str, list[TokenTimes]] = {}
    ratios: dict[str, float] = {}

    def compute_ratios(self) -> dict[str, float]:
        """Return the medians of PyJWT by first check, and of first check by signature."""
        ratios = {}
        for algorithm, measured in self.times.items():
            ratios[f"{algorithm}_pyjwt_vs_first_check"] = median(times.pyjwt / times.first_check for times in measured)
            ratios[f"{algorithm}_vs_signature"] = median(times.first_check / times.signature for times in measured)
        return {name: round(ratio, 3) for name, ratio in ratios.items()}


def measure_tokens(figures: TokenFigures, repeats: int, *, tokens: int = _TOKENS) -> None:
    """Check so many tokens, none of which was checked before, of each algorithm, in each repeat."""
    for algorithm in _CREATE_PRIVATE_KEY:
        figures.times[algorithm] = _measure(algorithm, repeats, tokens)
    figures.ratios = figures.compute_ratios()


def _measure(algorithm: str, repeats: int, count: int) -> list[TokenTimes]:
    private_key = _CREATE_PRIVATE_KEY[algorithm]()
    public_key = private_key
    if not isinstance(private_key, str):
        public_key = private_key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    key = {"kid": "bench", "algorithm": algorithm, "secret": public_key}
    settings, clock = AuthSettings.model_validate({"keys": [key]}), SystemClock()
    library = jwt.get_algorithm_by_name(algorithm)
    loaded_key = library.prepare_key(public_key)
    now_s = clock.now_ms() // 1_000
    claims = {"aud": "floodgate", "iss": settings.issuer, "iat": now_s, "exp": now_s + _LIFETIME_S}
    tokens = [
        jwt.encode({"sub": f"user-{number}", **claims}, private_key, algorithm, headers={"kid": "bench"})
        for number in range(count + 1)
    ]
    parts = [token.rpartition(".")[::2] for token in tokens[1:]]
    signatures = [(signed.encode(), jwt.utils.base64url_decode(signature)) for signed, signature in parts]

    def check_by_pyjwt(token: str) -> None:
        jwt.get_unverified_header(token)
        jwt.decode(token, public_key, [algorithm], audience="floodgate", issuer=settings.issuer)

    measured = []
    for _ in range(repeats):
        auth = Authenticator(settings, clock)
        auth.identify_customer(f"Bearer {tokens[0]}")  # the first of a header is PyJWT's
        headers = [f"Bearer {token}".encode() for token in tokens[1:]]
        first_check = _measure_us(auth.identify_customer, headers)
        pyjwt = _measure_us(check_by_pyjwt, tokens[1:])
        signature = _measure_us(lambda pair: library.verify(pair[0], loaded_key, pair[1]), signatures)
        measured.append(TokenTimes(first_check, pyjwt, signature))
    return measured


def _measure_us(check: Callable[[_Item], object], items: Sequence[_Item]) -> float:
    """Return the processor time of a check, in microseconds."""
    started = process_time()
    for item in items:
        check(item)
    return (process_time() - started) / len(items) * 1e6


def show_tokens(tokens: TokenFigures) -> None:
    """Print the measurements."""
    table = Table("algorithm", "first check µs", "PyJWT alone µs", "signature alone µs", title="First checks of tokens")
    for algorithm, measured in tokens.times.items():
        table.add_row(
            algorithm,
            _format_median(times.first_check for times in measured),
            _format_median(times.pyjwt for times in measured),
            _format_median(times.signature for times in measured),
        )
    print_table(table)
    print_line(f"tokens: {tokens.ratios}")


def _format_median(values: Iterable[float]) -> str:
    return f"{median(values):.1f}"
