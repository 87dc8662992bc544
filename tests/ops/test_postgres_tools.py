"""URLs of the database as Postgres's programs read them, without the password."""

from __future__ import annotations

from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

import asyncpg
import pytest

from commerce.kernel.errors import NotReady
from config.settings import Settings
from ops import postgres_tools

PASSWORD = "s3cret/ü+"
ESCAPED = "s3cret%2F%C3%BC%2B"
URLS = {
    "password before the host": (f"postgresql://u:{ESCAPED}@h:5433/d", "postgresql://u@h:5433/d", PASSWORD),
    "password as an option": (f"postgresql://u@h/d?password={ESCAPED}", "postgresql://u@h/d", PASSWORD),
    "password twice": (f"postgresql://u:{ESCAPED}@h/d?password=x", "postgresql://u@h/d", PASSWORD),
    "no password": ("postgresql://u@h/d", "postgresql://u@h/d", None),
    "no host": ("postgresql:///d?host=/run/pg", "postgresql:///d?host=%2Frun%2Fpg", None),
    "no host but a user": ("postgresql://u@/d?host=/run", "postgresql://u@/d?host=%2Frun", None),
    "no name": ("postgres://h", "postgres://h", None),
    "name as asyncpg's option": ("postgresql://h?database=d&user=u", "postgresql://h?user=u&dbname=d", None),
    "name as an option": ("postgresql://h/?dbname=d", "postgresql://h/?dbname=d", None),
    "name twice": ("postgresql://h/d?database=x", "postgresql://h/d", None),
    "host, port and user twice": ("postgresql://u@h:1/d?host=x&port=2&user=y", "postgresql://u@h:1/d", None),
    "port as an option": ("postgresql://h/d?port=2", "postgresql://h/d?port=2", None),
    "several hosts": ("postgresql://h:1,[::1]:2/d", "postgresql://h:1,[::1]:2/d", None),
    "blank as plus": ("postgresql:///d?sslcert=/a+b", "postgresql:///d?sslcert=%2Fa%20b", None),
}


@pytest.mark.parametrize("name", URLS)
def test_address_for_programs_has_no_password(name: str) -> None:
    url, address, password = URLS[name]
    assert postgres_tools.split_password(url) == (address, password)


def test_sslpassword_is_refused_without_its_text() -> None:
    with pytest.raises(NotReady, match="sslpassword") as refused:
        postgres_tools.split_password("postgresql://u@h/d?sslpassword=s3cret")
    assert "s3cret" not in str(refused.value)


async def test_program_connects_with_options_of_asyncpg(settings: Settings) -> None:
    parts = urlsplit(settings.database())
    host = unquote(parts.hostname or "") or dict(parse_qsl(parts.query)).get("host")
    options = {"host": host, "port": parts.port, "user": parts.username, "password": parts.password or "s3cret"}
    options_with_value = {name: value for name, value in options.items() if value}
    url = f"postgresql:///?{urlencode(options_with_value)}&database={parts.path[1:]}"
    await (await asyncpg.connect(url, timeout=10)).close()
    await postgres_tools.run_postgres_tool("pg_dump", url, ["--schema-only", "--table=orders", "--file=/dev/null"])
