"""The settings of pictures, and the place of their files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from commerce.kernel.external import CredentialSource
from commerce.kernel.file_store_port import FileFolder, FileStore
from commerce.kernel.postgres import Database
from commerce.kernel.public_http import Network
from commerce.kernel.s3_files import S3Account, open_s3_files
from commerce.pictures import store


class PicturePolicy(Protocol):
    """The section `pictures` of the settings."""

    @property
    def folder(self) -> Path | None: ...
    @property
    def s3(self) -> CredentialSource | None: ...
    @property
    def max_bytes(self) -> int: ...
    @property
    def max_pixels(self) -> int: ...
    @property
    def per_product(self) -> int: ...
    @property
    def render_cpu_s(self) -> int: ...
    @property
    def render_timeout_s(self) -> float: ...
    @property
    def render_memory_bytes(self) -> int: ...
    @property
    def fetch_timeout_s(self) -> float: ...
    @property
    def fetch_ports(self) -> Sequence[int]: ...
    @property
    def fetch_networks(self) -> Sequence[Network]: ...
    @property
    def cache_bytes(self) -> int: ...
    @property
    def concurrent_reads(self) -> int: ...


def open_picture_files(policy: PicturePolicy, data_dir: Path) -> FileStore:
    """Return the place of files of pictures.

    It is the bucket of the settings, or `policy.folder`, or `pictures` in `data_dir`. Raises `NotReady` if there is a
    bucket and its library is not installed."""
    if policy.s3 is not None:
        return open_s3_files(S3Account(**policy.s3.as_strings()))
    return FileFolder(policy.folder or data_dir / "pictures")


async def measure_stored_bytes(db: Database) -> int:
    """Return the size of all files of pictures."""
    async with db.connection() as connection:
        return await store.sum_bytes(connection)
