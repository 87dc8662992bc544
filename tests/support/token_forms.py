"""Tokens of every form that a gateway may be sent: valid, expired, forged, malformed, confused."""

from __future__ import annotations

import json
from base64 import urlsafe_b64encode
from collections.abc import Callable, Sequence
from functools import partial
from hmac import digest
from random import Random
from string import ascii_lowercase, ascii_uppercase, digits
from typing import Any

import jwt

from config.auth import AuthSettings
from tests.unit.test_auth import NOW_MS, create_pem_pair, settings

NOW_S = NOW_MS // 1_000
LEEWAY_S = 5
_BASE64URL = ascii_uppercase + ascii_lowercase + digits + "-_"
_CLAIMS = ("sub", "aud", "iss", "exp", "iat", "nbf", "jti", "roles", "account_created_at")
_ODD_NUMBERS = (
    "0",
    "-1",
    "-0",
    "1.0",
    "1e3",
    "1.5",
    "1e400",
    "-1e400",
    "NaN",
    "Infinity",
    "01",
    "9" * 30,
    "-" + "9" * 400,
)
_ODD_MOMENTS = (
    f"{NOW_S + 60}.0",
    f"{NOW_S + 60}.9",
    f'"{NOW_S + 60}"',
    f'" {NOW_S + 60} "',
    f"{NOW_S}e0",
    str(1 << 40),
)
_ODD_TEXTS = (
    '""',
    '" "',
    r'"zo\u00e9"',
    r'"\ud800"',
    r'"z\u006fe"',
    '"zoé"',
    r'"zoe\n"',
    '"zoe\n"',
    r'"\x"',
    f'"{"x" * 65}"',
)
_ODD_LISTS = (
    "[]",
    "{}",
    "[[]]",
    "[null]",
    '["a",1]',
    '{"a":{}}',
    '["floodgate"]',
    '["other","floodgate"]',
    "[" * 600 + "]" * 600,
)
_ODD_JSON = ("null", "true", "false", '"floodgate"', *_ODD_NUMBERS, *_ODD_MOMENTS, *_ODD_TEXTS, *_ODD_LISTS)
_SUBJECTS = ("", "a b", "-a", "x" * 65, "zoé", "a\n", "用户", "a\ud800")
_TRAILERS = (b"x", b" ", b"\n", b"\0", b"{}", b",", b"\xa0")
_HEADERS = ({"kid": "h1", "alg": "HS256"}, {"typ": "at+jwt"}, {"x5t": "a"}, {"cty": "é"}, {"typ": None})
_CRITICAL_HEADERS: tuple[dict[str, Any], ...] = (
    {"crit": ["b64"], "b64": True},
    {"crit": ["b64"], "b64": False},
    {"crit": ["b64"]},
    {"crit": ["exp"], "exp": 1},
    {"crit": "b64", "b64": True},
    {"crit": []},
    {"b64": True},
    {"b64": False},
)
_Forms = dict[str, Callable[[], str]]


def _sign_hmac(secret: bytes, signed: bytes) -> bytes:
    return digest(secret, signed, "sha256")


def encode_segment(content: bytes) -> str:
    """Encode a part of a token."""
    return urlsafe_b64encode(content).rstrip(b"=").decode()


class TokenForms:
    """Creates tokens of each kind, the same ones for the same seed.

    Keys are `h1` and `h2` (HS256), `es`, `ed` and `rs`."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.secrets = {kid: f"the secret of {kid}, long enough for HS256" for kid in ("h1", "h2")}
        self._sign: dict[str, Callable[[bytes], bytes]] = {
            kid: partial(_sign_hmac, secret.encode()) for kid, secret in self.secrets.items()
        }
        self._algorithms = {"h1": "HS256", "h2": "HS256"}
        keys = [{"kid": kid, "secret": secret} for kid, secret in self.secrets.items()]
        for kid, name in (("es", "ES256"), ("ed", "EdDSA"), ("rs", "RS256")):
            private, public = create_pem_pair(name)
            self.secrets[kid], self._algorithms[kid] = public, name
            algorithm = jwt.get_algorithm_by_name(name)
            private_key = algorithm.prepare_key(private)
            self._sign[kid] = partial(algorithm.sign, key=private_key)
            keys.append({"kid": kid, "algorithm": name, "secret": public})
        self.settings: AuthSettings = settings(*keys, clock_leeway_s=LEEWAY_S)
        self.valid: _Forms = {
            "valid customer": self.create,
            "valid, other forms of header": lambda: self._with_header(_HEADERS),
            "valid, claims in any order and spacing": self._vary_payload,
            "valid ES256": lambda: self.create("es"),
            "valid EdDSA": lambda: self.create("ed"),
            "valid RS256": lambda: self.create("rs"),
        }
        self.others = self._list_moments() | self._list_claims() | self._list_segments() | self._list_headers()

    def _list_moments(self) -> _Forms:
        choose, between = self.random.choice, self.random.randint
        return {
            "exp around now": lambda: self.create(exp=NOW_S + between(-9, 3)),
            "expired": lambda: self.create(exp=NOW_S - between(6, 10**6)),
            "iat around now": lambda: self.create(iat=NOW_S + between(-3, 9)),
            "nbf around now": lambda: self.create(nbf=NOW_S + between(-3, 9)),
            "from the future": lambda: self._with_member(choose(("iat", "nbf")), str(NOW_S + between(6, 10**9))),
        }

    def _list_claims(self) -> _Forms:
        choose = self.random.choice
        audiences: tuple[list[Any], ...] = (["floodgate"], ["a", "floodgate"], ["a"], [], [1])
        return {
            "other issuer": lambda: self.create(iss=choose(("other", "Floodgate", "", "floodgate ", "floodgate\0"))),
            "other audience": lambda: self.create(aud=choose(("other", "floodgate-admin", "", "Floodgate"))),
            "list of audiences": lambda: self.create(aud=choose(audiences)),
            "other subject": lambda: self.create(sub=choose(_SUBJECTS)),
            "roles": lambda: self.create(roles=choose((["sales"], ["support_answer", "x"], [], "sales", [1], None))),
            "claim missing": self._omit_claim,
            "odd claim": lambda: self._with_member(choose(_CLAIMS), choose(_ODD_JSON)),
            "unknown claim": lambda: self._with_member(choose(("scope", "exp ", "Exp", "")), choose(_ODD_JSON)),
            "duplicate member": self._duplicate_member,
            "bytes of the payload changed, signed": lambda: self._create_raw(self._damage(self._encode_claims())),
            "other encoding": self._encode_otherwise,
            "trailing data": lambda: self._create_raw(self._encode_claims() + choose(_TRAILERS)),
        }

    def _list_segments(self) -> _Forms:
        return {
            "signature changed": self._flip_signature,
            "signature of another token": self._take_other_signature,
            "other length of signature": self._change_signature_length,
            "signature of ES256 or EdDSA changed": lambda: self._flip_signature(self.random.choice(("es", "ed"))),
            "signature of RS256 changed": lambda: self._flip_signature("rs"),
            "segment in another base64": self._encode_segment_otherwise,
            "characters changed": lambda: self._damage_text(self.create()),
            "other number of segments": self._change_segments,
        }

    def _list_headers(self) -> _Forms:
        choose = self.random.choice
        algorithms: tuple[Any, ...] = ("HS384", "HS512", "ES256", "hs256", 1, [])
        other_keys = tuple({"kid": kid} for kid in ("h2", "es", "h3", 1, None))
        return {
            "algorithm none": lambda: self._confuse(choose(("none", "None", "NONE", "", None)), "h1", b""),
            "other algorithm of the header": lambda: self._confuse(choose(algorithms), "h1"),
            "signed with the public key": self._sign_with_public_key,
            "kid of another key": lambda: self._with_header(other_keys, choose(("h1", "h2"))),
            "crit and b64": lambda: self._with_header(_CRITICAL_HEADERS),
            "header changed, signed": self._damage_header,
        }

    def create(self, kid: str = "h1", *, header: dict[str, Any] | None = None, **claims: Any) -> str:
        """Create a token, valid but for the given claims and header."""
        payload = json.dumps(self._claims() | claims, separators=(",", ":")).encode()
        return self._create_raw(payload, kid, header)

    def _claims(self) -> dict[str, Any]:
        number = self.random.randrange(10**6)
        claims: dict[str, Any] = {
            "sub": self.random.choice(("u-{}", "U{}", "{}@example.com", "a.b_c+{}")).format(number),
            "aud": "floodgate",
            "iss": "floodgate",
            "iat": NOW_S - number,
            "exp": NOW_S + 1 + number,
        }
        if number % 4 == 0:
            claims |= {"account_created_at": NOW_S - number * 7, "jti": str(number), "nbf": NOW_S - number % 9}
        if number % 16 == 0:
            claims["roles"] = ["sales", "support_answer"]
        return claims

    def _encode_claims(self) -> bytes:
        return json.dumps(self._claims(), separators=(",", ":")).encode()

    def _create_raw(self, payload: bytes, kid: str = "h1", header: dict[str, Any] | None = None) -> str:
        shown = {"alg": self._algorithms[kid], "kid": kid, "typ": "JWT"} if header is None else header
        return self._seal(json.dumps(shown, separators=(",", ":")).encode(), payload, kid)

    def _seal(self, header: bytes, payload: bytes, kid: str = "h1") -> str:
        return self._seal_text(f"{encode_segment(header)}.{encode_segment(payload)}", kid)

    def _seal_text(self, signed: str, kid: str = "h1") -> str:
        return f"{signed}.{encode_segment(self._sign[kid](signed.encode()))}"

    def _with_header(self, forms: Sequence[dict[str, Any]], kid: str = "h1") -> str:
        return self.create(kid, header={"alg": "HS256", "kid": "h1", **self.random.choice(forms)})

    def _vary_payload(self) -> str:
        members = list(self._claims().items())
        self.random.shuffle(members)
        separators = self.random.choice(((",", ":"), (", ", ": "), (" ,\n", "\t:\r")))
        payload = json.dumps(dict(members), separators=separators)
        return self._create_raw(
            self.random.choice((payload, f" {payload}\n", payload.replace("exp", "e\\u0078p"))).encode()
        )

    def _omit_claim(self) -> str:
        claims = self._claims()
        claims.pop(self.random.choice(_CLAIMS), None)
        return self._create_raw(json.dumps(claims).encode())

    def _with_member(self, name: str, value: str) -> str:
        claims = self._claims()
        claims.pop(name, None)
        return self._create_raw(f'{json.dumps(claims)[:-1]},"{name}":{value}}}'.encode())

    def _duplicate_member(self) -> str:
        name, value = self.random.choice(_CLAIMS), self.random.choice(_ODD_JSON)
        claims = self._claims()
        shown = json.dumps(claims.get(name, value))
        first, last = self.random.choice(((value, shown), (shown, value), (shown, shown)))
        claims.pop(name, None)
        return self._create_raw(f'{{"{name}":{first},{json.dumps(claims)[1:-1]},"{name}":{last}}}'.encode())

    def _encode_otherwise(self) -> str:
        encoding = self.random.choice(("utf-8-sig", "utf-16", "utf-32-le", "utf-16-be"))
        text = json.dumps(self._claims())
        sub_member = self.random.choice(
            (b'"sub":"zo\xe9"', b'"sub":"a\xed\xa0\x80"', b'"jti":"\xff"', b'"jti":"\xc3\xa9"')
        )
        return self._create_raw(
            self.random.choice((text.encode(encoding), text[:-1].encode() + b"," + sub_member + b"}"))
        )

    def _damage(self, content: bytes) -> bytes:
        damaged = bytearray(content)
        for _ in range(self.random.randint(1, 2)):
            place = self.random.randrange(len(damaged))
            noise = self.random.choice((self.random.randbytes(1), b'"', b",", b"0", b"9", b"\\", b"}", b" ", b"."))
            damaged[place : place + self.random.randint(0, 1)] = noise
        return bytes(damaged)

    def _damage_text(self, token: str) -> str:
        place = self.random.randrange(len(token))
        noise: str = self.random.choice((*_BASE64URL, *"+/=. \n\té\0", ""))
        return token[:place] + noise + token[place + self.random.randint(0, 1) :]

    def _flip_signature(self, kid: str = "h1") -> str:
        signed = self.create(kid).rpartition(".")[0]
        signature = bytearray(self._sign[kid](signed.encode()))
        signature[self.random.randrange(len(signature))] ^= 1 << self.random.randrange(8)
        return f"{signed}.{encode_segment(bytes(signature))}"

    def _take_other_signature(self) -> str:
        return f"{self.create().rpartition('.')[0]}.{self.create().rpartition('.')[2]}"

    def _change_signature_length(self) -> str:
        kid = self.random.choice(("h1", "h1", "h1", "es"))
        signed = self.create(kid).rpartition(".")[0]
        signature = self._sign[kid](signed.encode())
        cut = self.random.randrange(len(signature))
        return (
            f"{signed}.{encode_segment(self.random.choice((signature[:cut], signature + signature[:cut], bytes(cut))))}"
        )

    def _encode_segment_otherwise(self) -> str:
        """Write a segment as no encoder does, signed as it is written."""
        changes: list[Callable[[str], str]] = [_add_padding, _set_unused_bits, self._insert, _use_standard_alphabet]
        change = self.random.choice(changes)
        segments = self.create(jti=f"{self.random.random()}~~>>??").split(".")
        place = self.random.randrange(3)
        if place == 2:
            return f"{segments[0]}.{segments[1]}.{change(segments[2])}"
        segments[place] = change(segments[place])
        return self._seal_text(".".join(segments[:2]))

    def _insert(self, text: str) -> str:
        place = self.random.randint(0, len(text))
        return text[:place] + self.random.choice(("\n", " ", "=", "é", "%", "\0", "==", "!")) + text[place:]

    def _change_segments(self) -> str:
        header, payload, signature = self.create().split(".")
        order = [header, payload, signature, "", payload]
        self.random.shuffle(order)
        forms = (f"{header}.{payload}", f"{header}.{payload}.{signature}.", f"{header}.{payload}.", ".".join(order))
        return self.random.choice((*forms, f"{header}..{signature}", f".{payload}.{signature}", ".."))

    def _confuse(self, algorithm: Any, kid: str, signature: bytes | None = None) -> str:
        header = json.dumps({"alg": algorithm, "kid": kid} if algorithm is not None else {"kid": kid}).encode()
        signed = f"{encode_segment(header)}.{encode_segment(self._encode_claims())}"
        hash_name = {"HS384": "sha384", "HS512": "sha512"}.get(str(algorithm), "sha256")
        sealed = digest(self.secrets[kid].encode(), signed.encode(), hash_name) if signature is None else signature
        return f"{signed}.{encode_segment(sealed)}"

    def _sign_with_public_key(self) -> str:
        kid = self.random.choice(("es", "ed", "rs"))
        return self._confuse(self.random.choice(("HS256", self._algorithms[kid])), kid)

    def _damage_header(self) -> str:
        return self._seal(self._damage(b'{"alg":"HS256","kid":"h1"}'), self._encode_claims())


def _add_padding(text: str) -> str:
    return text + "=" * (-len(text) % 4 or 1)


def _set_unused_bits(text: str) -> str:
    """Change the last character in bits that decoding drops, where it has any."""
    unused = (1, 1, 15, 3)[len(text) % 4]
    return text[:-1] + _BASE64URL[_BASE64URL.index(text[-1]) ^ unused]


def _use_standard_alphabet(text: str) -> str:
    return text.replace("-", "+").replace("_", "/")
