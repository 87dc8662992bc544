"""Unix sockets of the embedded servers, and their paths in URLs and lists."""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
from pathlib import Path
from urllib.parse import quote

from ops.local.subprocesses import ProcessFailed

POSTGRES_SOCKET = ".s.PGSQL.5432"
REDIS_SOCKET = "redis.sock"
_MAX_SOCKET_PATH_BYTES = 100  # the system's limit is 107 bytes, on macOS 103


def find_socket_dir(data_dir: Path, server: str) -> Path:
    """Return the folder of a server's socket: `DATA_DIR/SERVER`, or one below the temporary directory.

    The latter is used if the path is too long for a socket or has a comma, which divides hosts in a Postgres URL.
    """
    folder = data_dir / server
    if len(os.fsencode(folder / POSTGRES_SOCKET)) <= _MAX_SOCKET_PATH_BYTES and "," not in str(folder):
        return folder
    digest = hashlib.sha256(os.fsencode(data_dir)).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"floodgate-{digest}" / server


def make_socket_dir(data_dir: Path, server: str, owner: int | None) -> Path:
    """Create the folder of a server's socket, for the uid `owner`, and return it.

    Raises `ProcessFailed` if the folder is too deep or belongs to another user, who could listen in our server's place.
    """
    folder = find_socket_dir(data_dir, server)
    if len(os.fsencode(folder / POSTGRES_SOCKET)) > _MAX_SOCKET_PATH_BYTES:
        raise ProcessFailed(f"cannot use {folder} for a Unix socket: the path is too long; set a shorter TMPDIR")
    if folder.parent == data_dir:
        return folder
    folder.parent.mkdir(exist_ok=True)
    status = folder.parent.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
        raise ProcessFailed(
            f"cannot use {folder.parent} for sockets: it belongs to another user; remove it, or set "
            "FLOODGATE_DATA_DIR to a short path without a comma"
        )
    folder.parent.chmod(0o711)  # Postgres's user passes through
    folder.mkdir(exist_ok=True, mode=0o700)
    if owner is not None:
        os.chown(folder, owner, owner)
    return folder


def redis_socket_url(socket: Path) -> str:
    """Build the URL of a Redis that listens on a Unix socket."""
    return f"unix://{quote(str(socket))}"


def postgres_socket_url(folder: Path, database: str) -> str:
    """Build the URL of a database of a Postgres that listens on a Unix socket in the folder."""
    return f"postgresql://floodgate@/{database}?host={quote(str(folder))}"


def postgres_socket_list(folder: Path) -> str:
    """Build the value of `unix_socket_directories`, a list divided by commas."""
    escaped = str(folder).replace('"', '""')
    return f'"{escaped}"'
