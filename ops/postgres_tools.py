"""Postgres's own programs, such as pg_dump, run on the database of a URL."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import parse_qsl, quote, unquote, urlencode

from commerce.kernel.errors import NotReady
from commerce.kernel.postgres import connect
from ops.local.embedded_servers import list_postgres_installs, read_postgres_major

_CONNECT_TIMEOUT_S = 10
_TIMEOUT_S = 6 * 3_600


async def run_postgres_tool(tool: str, url: str, options: Sequence[str]) -> None:
    """Run a program on a database. Raises `NotReady` with its output if it fails."""
    connection = await connect(url, name=tool, timeout_s=_CONNECT_TIMEOUT_S)
    try:
        server_major = connection.get_server_version().major
    finally:
        await connection.close()
    program = await asyncio.to_thread(find_tool, tool, server_major)
    address, password = split_password(url)
    process = await asyncio.create_subprocess_exec(
        str(program),
        f"--dbname={address}",
        *options,
        env={**os.environ, **({"PGPASSWORD": password} if password else {})},
        stdin=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        _, errors = await asyncio.wait_for(process.communicate(), _TIMEOUT_S)
    finally:
        if process.returncode is None:
            process.kill()
    if process.returncode != 0:
        raise NotReady(f"cannot run {tool}: {errors.decode(errors='replace').strip()[-500:]}")


def split_password(url: str) -> tuple[str, str | None]:
    """Return a URL of asyncpg as one of libpq without password, which `ps` would show, and the password.

    In asyncpg what stands before the `?` wins, in libpq what stands behind it.
    Raises `NotReady` if the URL has an `sslpassword`, which libpq takes from nowhere else.
    """
    scheme, _, rest = url.partition("://")
    location, _, query = rest.partition("?")
    authority, slash, name = location.partition("/")
    login, _, hosts = authority.rpartition("@")
    user, _, password = login.partition(":")
    options = dict(parse_qsl(query))
    if "sslpassword" in options:
        raise NotReady(
            "cannot give sslpassword of DATABASE_URL to Postgres's programs, since ps would show it; name a key "
            "without a password"
        )
    password = unquote(password) or options.pop("password", "")
    options.pop("password", None)
    database = options.pop("database", None)
    if database is not None:
        options.setdefault("dbname", database)
    before_query = {"user": user, "host": hosts, "dbname": name}
    options = {key: value for key, value in options.items() if not before_query.get(key)}
    if ":" in hosts.rpartition("]")[2]:
        options.pop("port", None)
    address = f"{scheme}://{f'{user}@' if user else ''}{hosts}{slash}{name}"
    return address + (f"?{urlencode(options, quote_via=quote)}" if options else ""), password or None


def find_tool(tool: str, server_major: int) -> Path:
    """Return the program that fits a server best: of its version, else of the next newer one.

    Those on the PATH come before the wheel's, which cannot use TLS. An older pg_dump refuses a newer server, while an
    older pg_restore writes what it can read. Raises `NotReady` if there is no program that fits.
    """
    folders = [Path(program).parent] if (program := shutil.which(tool)) else []
    programs = [folder / tool for folder in (*folders, *list_postgres_installs()) if (folder / tool).exists()]
    majors = {program: read_postgres_major(program) for program in programs}
    programs.sort(key=lambda program: (majors[program] < server_major, abs(majors[program] - server_major)))
    if not programs:
        raise NotReady(f"cannot find {tool}: install Postgres's client programs, so that it is on the PATH")
    best = programs[0]
    if tool == "pg_dump" and majors[best] < server_major:
        raise NotReady(
            f"cannot run {best}: it is of Postgres {majors[best]} and the server of {server_major}; install the client "
            f"programs of Postgres {server_major}, so that they are on the PATH"
        )
    return best
