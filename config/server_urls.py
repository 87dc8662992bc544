"""Checks of `REDIS_URL` and `DATABASE_URL`, because errors of their clients quote the password."""

from __future__ import annotations

import re
from typing import Annotated
from urllib.parse import unquote, urlsplit

from pydantic import AfterValidator, SecretStr

_REDIS_SCHEMES = ("redis", "rediss", "unix")
_POSTGRES_SCHEMES = ("postgresql", "postgres")
_REDIS_OPTIONS = {
    *("db", "username", "password", "ssl_ca_certs", "ssl_ca_path", "ssl_cert_reqs", "ssl_certfile"),
    *("ssl_check_hostname", "ssl_ciphers", "ssl_keyfile", "ssl_min_version", "ssl_password"),
}
_POSTGRES_OPTIONS = {
    *("host", "port", "dbname", "database", "user", "password", "passfile", "service", "target_session_attrs"),
    *("sslmode", "sslcert", "sslkey", "sslrootcert", "sslcrl", "sslpassword", "sslnegotiation"),
    *("ssl_min_protocol_version", "ssl_max_protocol_version", "krbsrvname", "gsslib"),
}
_REDIS_VALUES = {
    "db": (r"\d{1,9}", "a number"),
    "ssl_cert_reqs": ("none|optional|required", "none, optional or required"),
    "ssl_check_hostname": ("true|false|yes|no|1|0", "true or false"),
    "ssl_min_version": ("77[12]", "771 (TLS 1.2) or 772 (TLS 1.3)"),
}
_POSTGRES_VALUES = {"port": (r"\d{1,9}(,\d{1,9})*", "a number")}
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_NOT_PRINTABLE = re.compile(r"[\x00-\x20\x7f]")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_HOST = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[^\[\]:@]*)(?::(?P<port>\d{1,5}))?")
_ENCODE = "write special characters of the user and the password as escapes (@ %40, / %2F, ? %3F, # %23, % %25)"


def _check_redis_url(url: SecretStr) -> SecretStr:
    """Return the URL. Raises `ValueError` with what to do, never with a part of the URL."""
    query = _check(url.get_secret_value(), _REDIS_SCHEMES, "redis://USER:PASSWORD@HOST:6379/0")
    names = _check_options(query, _REDIS_OPTIONS, _REDIS_VALUES)
    if not url.get_secret_value().startswith("rediss:") and any(name.startswith("ssl_") for name in names):
        raise ValueError("its options ssl_… need TLS; write rediss:// instead, or remove them")
    if "ssl_keyfile" in names and "ssl_certfile" not in names:
        raise ValueError("its option ssl_keyfile needs the certificate of that key; add ssl_certfile")
    return url


def _check_database_url(url: SecretStr) -> SecretStr:
    """Return the URL. Raises `ValueError` with what to do, never with a part of the URL."""
    query = _check(url.get_secret_value(), _POSTGRES_SCHEMES, "postgresql://USER:PASSWORD@HOST:5432/NAME")
    _check_options(query, _POSTGRES_OPTIONS, _POSTGRES_VALUES)
    return url


def _check(url: str, schemes: tuple[str, ...], example: str) -> str:
    """Check everything but the options, and return these as they are written."""
    if not url.strip():
        raise ValueError(f"it is empty; set it as in {example}, or unset it")
    scheme, separator, rest = url.partition("://")
    if not separator or scheme not in schemes:
        raise ValueError(f"it must begin with {' or '.join(f'{name}://' for name in schemes)}, as in {example}")
    if _NOT_PRINTABLE.search(rest) or _CONTROL.search(unquote(rest)):  # %20 is a blank that is meant
        raise ValueError("it contains a blank or a control character; remove it")
    if _BAD_ESCAPE.search(rest):
        raise ValueError(f"it has a % that begins no escape; {_ENCODE}")
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    path, _, query = rest[len(authority) :].partition("?")
    user, _, hosts = authority.rpartition("@")
    is_cut = authority and "@" not in authority and "@" in path  # by a / of the password
    if "#" in rest or "@" in user or "[" in user or "]" in user or is_cut or not _is_parsed(url):
        raise ValueError(f"it cannot be divided into user, password and host; {_ENCODE}")
    for host in hosts.split(","):
        match = _HOST.fullmatch(host)
        if match is None or (match["port"] is not None and not 1 <= int(match["port"]) <= 65_535):
            raise ValueError(f"its port must be a number from 1 to 65535, as in {example}; {_ENCODE}")
    _check_path(scheme, path)
    return query


def _is_parsed(url: str) -> bool:
    try:
        urlsplit(url)
    except ValueError:  # its text quotes the password
        return False
    return True


def _check_path(scheme: str, path: str) -> None:
    if scheme == "unix" and path in ("", "/"):
        raise ValueError("it names no socket; set it as in unix:///run/redis/redis.sock")
    if scheme in ("redis", "rediss") and not re.fullmatch(r"/?\d*", path):
        raise ValueError(f"its database must be a number, as in redis://HOST:6379/0; {_ENCODE}")


def _check_options(query: str, options: set[str], values: dict[str, tuple[str, str]]) -> set[str]:
    """Return the names of the options.

    `values` has a pattern, and what it means, for options of which the client accepts few values.
    """
    names = set()
    for option in query.split("&") if query else ():
        encoded, separator, value = option.partition("=")
        name = unquote(encoded)
        if not separator or name not in options:
            raise ValueError(f"it has an unknown option after the ?; known are {', '.join(sorted(options))}; {_ENCODE}")
        pattern, expected = values.get(name, (".*", ""))
        if not re.fullmatch(pattern, unquote(value)):
            raise ValueError(f"its option {name} must be {expected}")
        names.add(name)
    return names


RedisUrl = Annotated[SecretStr, AfterValidator(_check_redis_url)]
DatabaseUrl = Annotated[SecretStr, AfterValidator(_check_database_url)]
