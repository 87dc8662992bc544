"""The place where files of customers are stored, each under the digest of its content."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from commerce.kernel.durable_files import create_file, sync_directory


class FileStore(Protocol):
    """Stores files by SHA-256. Storing one again changes nothing. Methods block."""

    def put(self, sha256: bytes, content: bytes) -> None: ...
    def get(self, sha256: bytes) -> bytes | None:
        """Return a file's content, None if there is none."""
        ...

    def delete(self, sha256: bytes) -> None: ...


class FileFolder:
    """Files in a folder that all gateways share, in folders by their first two digits."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def put(self, sha256: bytes, content: bytes) -> None:
        file = self._file(sha256)
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            create_file(file, content, 0o640)
            sync_directory(file.parent.parent)

    def get(self, sha256: bytes) -> bytes | None:
        try:
            return self._file(sha256).read_bytes()
        except FileNotFoundError:
            return None

    def delete(self, sha256: bytes) -> None:
        self._file(sha256).unlink(missing_ok=True)

    def _file(self, sha256: bytes) -> Path:
        name = sha256.hex()
        return self._folder / name[:2] / name
