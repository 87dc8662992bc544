"""REDIS_URL and DATABASE_URL: an error is one line and contains no part of the password."""

from __future__ import annotations

import os
import subprocess
import sys
from inspect import signature
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from asyncpg import connect_utils
from redis.asyncio.connection import parse_url
from typer.testing import CliRunner

from config.settings import SettingsError, load
from ops.cli import app

SECRET = "hunter2"
REDIS, POSTGRES = "redis://shop:{}@127.0.0.1:1/0", "postgresql://shop:{}@127.0.0.1:1/shop"
URLS = {"REDIS_URL": REDIS, "DATABASE_URL": POSTGRES}
BAD_PASSWORDS = {
    "a slash": f"{SECRET}/x",
    "a question mark": f"{SECRET}?x",
    "a number sign": f"{SECRET}#x",
    "an at sign": f"{SECRET}@x",
    "a bracket": f"{SECRET}[x",
    "a bracket at the end": f"[{SECRET}]",
    "a percent sign": f"{SECRET}%zz",
    "a percent sign at the end": f"{SECRET}%",
    "a blank": f"{SECRET} x",
    "a line end": f"{SECRET}%0Ax",
    "a NUL": f"{SECRET}%00",
    "a character that NFKC makes a slash": f"{SECRET}\u2100x",
}
BAD_URLS = {
    "REDIS_URL": {
        "empty": "",
        "blank": "  ",
        "no scheme": f"shop:{SECRET}@127.0.0.1:6379",
        "another scheme": f"postgresql://shop:{SECRET}@127.0.0.1/0",
        "a misspelt scheme": f"reddis://shop:{SECRET}@127.0.0.1/0",
        "an unknown option": f"redis://shop:{SECRET}@127.0.0.1/0?{SECRET}=1",
        "an option without a value": f"redis://shop:{SECRET}@127.0.0.1/0?{SECRET}",
        "an option that is no number": f"redis://shop:{SECRET}@127.0.0.1/?db={SECRET}",
        "two databases": f"redis://shop:{SECRET}@127.0.0.1/?db=1,2",
        "TLS without its scheme": f"redis://shop:{SECRET}@127.0.0.1/0?ssl_cert_reqs=none",
        "TLS on a socket": f"unix://shop:{SECRET}@/run/redis.sock?ssl_ca_certs=/ca.pem",
        "an unknown check of certificates": f"rediss://shop@127.0.0.1/0?ssl_cert_reqs={SECRET}",
        "an unknown check of host names": f"rediss://shop@127.0.0.1/0?ssl_check_hostname={SECRET}",
        "an unknown version of TLS": f"rediss://shop:{SECRET}@127.0.0.1/0?ssl_min_version=5",
        "two versions of TLS": f"rediss://shop:{SECRET}@127.0.0.1/0?ssl_min_version=771,772",
        "a key without its certificate": f"rediss://shop:{SECRET}@127.0.0.1/0?ssl_keyfile=/key.pem",
        "a certificate in one line": f"rediss://shop:{SECRET}@127.0.0.1/0?ssl_ca_data=x",
        "a port that is no number": f"redis://shop@127.0.0.1:{SECRET}/0",
        "a port out of range": f"redis://shop:{SECRET}@127.0.0.1:70000/0",
        "port 0": f"redis://shop:{SECRET}@127.0.0.1:0/0",
        "a database that is no number": f"redis://shop:x@127.0.0.1/{SECRET}",
        "no socket": f"unix://shop:{SECRET}@",
        "a user's bad escape": f"redis://sh%op:{SECRET}@127.0.0.1/0",
    },
    "DATABASE_URL": {
        "empty": "",
        "blank": "  ",
        "no scheme": f"shop:{SECRET}@127.0.0.1/shop",
        "another scheme": f"redis://shop:{SECRET}@127.0.0.1/shop",
        "a driver's scheme": f"postgresql+asyncpg://shop:{SECRET}@127.0.0.1/shop",
        "an unknown option": f"postgresql://shop:{SECRET}@127.0.0.1/shop?{SECRET}=1",
        "an option without a value": f"postgresql://shop:{SECRET}@127.0.0.1/shop?{SECRET}",
        "an option that is no number": f"postgresql://shop@127.0.0.1/shop?port={SECRET}",
        "a port that is no number": f"postgresql://shop@127.0.0.1:{SECRET}/shop",
        "a port out of range": f"postgresql://shop:{SECRET}@127.0.0.1:70000/shop",
        "a bad port of the second host": f"postgresql://shop:{SECRET}@a:1,b:{SECRET}/shop",
        "half an IPv6 address": f"postgresql://shop:{SECRET}@[::1/shop",
        "a database's bad escape": f"postgresql://shop:{SECRET}@127.0.0.1/%x",
    },
}
CASES = [
    *((variable, url) for variable, urls in BAD_URLS.items() for url in urls.values()),
    *((variable, url.format(password)) for variable, url in URLS.items() for password in BAD_PASSWORDS.values()),
]
COMMANDS = (
    "gateway",
    "worker observer",
    "migrate",
    "sale list",
    "dead-letters list",
    "audit",
    "settings",
    "up",
    "rebuild x",
)


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FLOODGATE_DATA_DIR", str(tmp_path))
    for variable, url in URLS.items():
        monkeypatch.setenv(variable, url.format("x"))


@pytest.mark.parametrize(("variable", "url"), CASES)
def test_url_that_cannot_be_used_is_refused_in_one_line_without_its_password(
    variable: str, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, url)
    with pytest.raises(SettingsError) as error:
        load()
    text = str(error.value)
    assert text.startswith(f"cannot use the settings: {variable.lower()}: it"), text
    assert "\n" not in text
    assert SECRET not in text
    assert error.value.__cause__ is None
    assert error.value.__suppress_context__


@pytest.mark.parametrize("password", ["p%40ss", "a%2Fb%3Fc%23d%25e", "p:w!$&'()*+,;=-._~", "%E5%AF%86", "å", "p%5B%5D"])
def test_escaped_password_reaches_both_clients(password: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable, url in URLS.items():
        monkeypatch.setenv(variable, url.format(password))
    settings = load()
    assert parse_url(settings.redis())["password"] == unquote(password)
    parse: Any = connect_utils._parse_connect_arguments  # type: ignore[attr-defined]  # not in the stubs
    arguments = dict.fromkeys(signature(parse).parameters)
    numbers = dict.fromkeys((name for name in arguments if "statement" in name), 0)
    _, parameters, _ = parse(**{**arguments, **numbers, "dsn": settings.database()})
    assert parameters.password == unquote(password)


@pytest.mark.parametrize(
    ("variable", "url"),
    [
        ("REDIS_URL", "redis://localhost"),
        ("REDIS_URL", "redis://:secret@[::1]:6379/2"),
        ("REDIS_URL", "rediss://a.example:6380/0?ssl_ca_certs=/etc/ca.pem&ssl_cert_reqs=required"),
        ("REDIS_URL", "rediss://a/0?ssl_min_version=772&ssl_check_hostname=false&ssl_cert_reqs=none"),
        ("REDIS_URL", "rediss://a/0?ssl_certfile=/c.pem&ssl_keyfile=/k.pem"),
        ("REDIS_URL", "unix:///run/a@b/redis.sock?db=1"),
        ("DATABASE_URL", "postgresql:///shop"),
        ("DATABASE_URL", "postgres://shop@a.example:5432,b.example:5433/shop?target_session_attrs=read-write"),
        ("DATABASE_URL", "postgresql://floodgate@/floodgate?host=/tmp/fg-x/postgres"),
        ("DATABASE_URL", "postgresql://shop@[::1]:5432/shop?sslmode=verify-full&sslrootcert=/etc/ca.pem"),
    ],
)
def test_url_in_a_documented_form_is_accepted(variable: str, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, url)
    settings = load()
    assert url in (settings.redis(), settings.database())


@pytest.mark.parametrize("variable", URLS)
@pytest.mark.parametrize("command", [*COMMANDS, "--help"])
def test_command_with_unusable_url_prints_one_line_without_its_password(
    command: str, variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, URLS[variable].format(f"{SECRET}?{SECRET}"))
    result = CliRunner().invoke(app, command.split())
    assert SECRET not in result.output
    assert SECRET not in repr(result.exception)
    if command != "--help":
        assert result.exit_code == 1, result.output
        assert result.stderr.count("\n") == 1, result.stderr


@pytest.mark.parametrize("module", ["gateway", "workers observer"])
def test_process_with_unusable_or_unreachable_server_prints_one_line_without_the_password(module: str) -> None:
    for password in (f"{SECRET}/{SECRET}", SECRET):  # not usable; usable, and nobody answers
        process = subprocess.run(
            [sys.executable, "-m", *module.split()],
            env={**os.environ, "DATABASE_URL": POSTGRES.format(password), "REDIS_URL": REDIS.format(SECRET)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert process.returncode == 1, process.stderr
        assert process.stderr.startswith("error: cannot "), process.stderr
        assert process.stderr.count("\n") == 1, process.stderr
        assert SECRET not in process.stderr + process.stdout
