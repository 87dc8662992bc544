"""Files that a crash or a full disk leaves as they were before or as they should be, and never cut."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def replace_file(file: Path, content: bytes, mode: int = 0o644) -> None:
    """Replace a file atomically and durably. Raises `OSError` that names the file."""
    with _new_file(file, content, mode) as new_file:
        new_file.replace(file)


def create_file(file: Path, content: bytes, mode: int = 0o644) -> None:
    """Write a new file atomically and durably. If another process was first, its file is kept.

    Raises `OSError` that names the file.
    """
    with _new_file(file, content, mode) as new_file:
        try:
            file.hardlink_to(new_file)
        except FileExistsError:
            return


def sync_directory(directory: Path) -> None:
    """Write the names of a directory's files to the disk."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _new_file(file: Path, content: bytes, mode: int) -> Iterator[Path]:
    """Yield a complete file beside the named one, and remove it afterwards."""
    new_file = file.with_name(f".{file.name}.{secrets.token_hex(8)}")
    try:
        with os.fdopen(os.open(new_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as opened:
            opened.write(content)
            opened.flush()
            os.fsync(opened.fileno())
        yield new_file
        sync_directory(file.parent)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(file)) from error
    finally:
        new_file.unlink(missing_ok=True)
