"""Redis's append-only file: the version that reads it, and the commands in it that emptied the server."""

from __future__ import annotations

import mmap
import os
import re
import shlex
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from commerce.kernel.errors import NotReady
from ops.redis_versions import MULTIPART, RedisVersion, parse_snapshot_version

_SERVERS = ("redis", "valkey")
"""beginnings of the names of processes that may use the files"""
_FLUSHES = (b"FLUSHALL", b"FLUSHDB")
_MAX_WORD_BYTES = 512 * 1024 * 1024
_END_OF_SNAPSHOT = re.compile(rb"\xff.{8}(?=\*2\r\n\$6\r\nSELECT\r\n)", re.DOTALL)
"""end mark and checksum of a snapshot at the beginning of an append-only file"""


@dataclass(frozen=True, slots=True)
class Flush:
    """A command that emptied Redis: its file, its first byte, and the number of commands after it."""

    file: Path
    offset: int
    command: str
    later_commands: int


def find_writer(directory: Path) -> RedisVersion | None:
    """Return the oldest version that writes such files as are in the `dir` of a Redis, None if any does."""
    manifest = _find_manifest(directory)
    if manifest is None:
        return None
    for file in _list_parts(manifest, "b", ""):
        with suppress(FileNotFoundError), file.open("rb") as opened:
            return parse_snapshot_version(opened.read(16)) or MULTIPART
    return MULTIPART


def _find_manifest(directory: Path) -> Path | None:
    return next(iter(sorted(directory.glob("*/*.manifest"))), None)


def list_command_files(directory: Path) -> list[Path]:
    """Return the files with commands that Redis reads, oldest first. Raises `NotReady` if there are none."""
    manifest = _find_manifest(directory)
    files = _list_parts(manifest, "bi") if manifest else sorted(directory.glob("*.aof"))
    if not files:
        raise NotReady(f"cannot read {directory}: it has no append-only file; name the `dir` of redis.conf")
    return files


def _list_parts(manifest: Path, types: str, suffix: str = ".aof") -> list[Path]:
    """Return a manifest's files of `types`: b base, i incremental, h history.

    Those with commands end in `.aof`.

    Redis keeps a history file after a rewrite until it is deleted, and never reads it.
    """
    lines = [shlex.split(line) for line in manifest.read_text().splitlines() if line.startswith("file ")]
    parts = [dict(zip(words[::2], words[1::2], strict=False)) for words in lines]
    parts = [part for part in parts if part["type"] in types and part["file"].endswith(suffix)]
    parts.sort(key=lambda part: (types.index(part["type"]), int(part["seq"])))
    return [manifest.with_name(part["file"]) for part in parts]


def find_flushes(directory: Path) -> list[Flush]:
    """Return the commands that emptied Redis, oldest first. Raises `NotReady` as `list_command_files`."""
    return _find_flushes(list_command_files(directory))


def is_flush_rewritten(directory: Path) -> bool:
    """Check whether a rewrite came after a flush: no file that Redis reads holds the lost data."""
    manifest = _find_manifest(directory)
    history = _list_parts(manifest, "h") if manifest else []
    return bool(_find_flushes([file for file in history if file.exists()]))


def _find_flushes(files: Sequence[Path]) -> list[Flush]:
    flushes: list[tuple[Path, int, str, int]] = []
    count = 0
    for file in files:
        transaction_start: int | None = None
        for offset, name in _iter_commands(file):
            count += 1
            if name == b"MULTI":
                transaction_start = offset
            elif name == b"EXEC":
                transaction_start = None
            elif name in _FLUSHES:
                start = offset if transaction_start is None else transaction_start
                flushes.append((file, start, name.decode(), count))
    return [Flush(file, offset, name, count - number) for file, offset, name, number in flushes]


def cut_off(directory: Path, flush: Flush) -> None:
    """Remove a command and everything after it from the append-only file.

    Raises `NotReady` as `require_stopped`.
    """
    require_stopped(directory)
    files = list_command_files(directory)
    later = files[files.index(flush.file) + 1 :]
    for file, size in ((flush.file, flush.offset), *((file, 0) for file in later)):
        with file.open("r+b") as opened:
            opened.truncate(size)
            os.fsync(opened.fileno())


def require_stopped(directory: Path) -> None:
    """Check that no process has a file open.

    Raises `NotReady` if one has, or if a Redis cannot be examined.
    """
    files = {(state.st_dev, state.st_ino) for state in map(Path.stat, list_command_files(directory))}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            is_open = any(_identify(opened) in files for opened in (process / "fd").iterdir())
        except PermissionError:
            if _read_name(process).startswith(_SERVERS):
                raise NotReady(
                    f"cannot see whether process {process.name}, a Redis, uses {directory}; run this as root"
                ) from None
        except OSError:
            continue  # it has ended
        else:
            if is_open:
                raise NotReady(f"cannot change {directory}: process {process.name} uses it; stop Redis first")


def _identify(opened: Path) -> tuple[int, int] | None:
    """Return device and inode, which do not depend on a container's paths."""
    with suppress(OSError):  # closed since
        state = opened.stat()
        return state.st_dev, state.st_ino
    return None


def _read_name(process: Path) -> str:
    with suppress(OSError):
        return (process / "comm").read_text()
    return ""


def _iter_commands(file: Path) -> Iterator[tuple[int, bytes]]:
    """Yield offset and upper-case name of each complete command in a file."""
    if file.stat().st_size == 0:
        return
    with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as content:
        for start in _find_starts(content):
            offset = start
            with suppress(ValueError):  # the end of the file, or no command here
                while offset < len(content):
                    if content[offset : offset + 1] == b"#":  # a timestamp
                        offset = _find_end(content, b"\n", offset, len(content))
                        continue
                    name, end = _read_command(content, offset)
                    yield offset, name.upper()
                    offset = end
            if offset > start:
                return


def _find_starts(content: mmap.mmap) -> Sequence[int]:
    """Return where the first command may begin: after a snapshot, if the file begins with one."""
    if content[:5] != b"REDIS":
        return [0]
    return [match.end() for match in _END_OF_SNAPSHOT.finditer(content)]


def _read_command(content: mmap.mmap, offset: int) -> tuple[bytes, int]:
    """Return the first word of a command and its end. Raises `ValueError` if it is incomplete or none."""
    count, offset = _read_length(content, offset, b"*")
    name = b""
    for number in range(count):
        length, offset = _read_length(content, offset, b"$")
        if number == 0:
            name = content[offset : offset + min(length, 64)]
        offset += length + 2
        if content[offset - 2 : offset] != b"\r\n":
            raise ValueError("incomplete command")
    return name, offset


def _read_length(content: mmap.mmap, offset: int, mark: bytes) -> tuple[int, int]:
    end = _find_end(content, b"\r\n", offset, offset + 32)
    if content[offset : offset + 1] != mark:
        raise ValueError("not a command")
    length = int(content[offset + 1 : end - 2])
    if not 0 <= length <= _MAX_WORD_BYTES:
        raise ValueError("not a length")
    return length, end


def _find_end(content: mmap.mmap, mark: bytes, start: int, stop: int) -> int:
    """Return where the next mark ends. Raises `ValueError` if there is none."""
    position = content.find(mark, start, stop)
    if position < 0:
        raise ValueError("incomplete line")
    return position + len(mark)
