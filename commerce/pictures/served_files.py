"""Files of pictures as everybody reads them: from memory while they are asked for often."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import NamedTuple

from commerce.kernel.errors import Overloaded
from commerce.kernel.file_store_port import FileStore
from commerce.kernel.postgres import Database
from commerce.pictures import store
from commerce.pictures.errors import NoSuchPicture
from commerce.pictures.picture_policy import PicturePolicy

_WAITING_PER_READ = 20
_ROW_BYTES = 500
"""of an entry, beside its content"""


class ServedFile(NamedTuple):
    """A file and its ETag. Both never change under the name of the file."""

    content: bytes
    tag: str


class ServedFiles:
    """Reads files by the digest of their picture and their size.

    At most `policy.concurrent_reads` are read at once, and some of the others wait: whatever the storage does, orders
    have the process to themselves. The files read last stay in memory, up to `policy.cache_bytes`."""

    def __init__(self, db: Database, policy: PicturePolicy, files: FileStore) -> None:
        self._db = db
        self._policy = policy
        self._files = files
        self._cache: OrderedDict[tuple[str, int], ServedFile] = OrderedDict()
        self.cached_bytes = 0
        """in memory now"""
        self._reads = asyncio.Semaphore(policy.concurrent_reads)
        self._waiting = 0

    async def read(self, digest: str, size: int) -> ServedFile:
        """Read a file. Raises `NoSuchPicture`, `Overloaded`, and `NotReady` if the storage cannot be reached."""
        key = (digest, size)
        cached = self._find(key)
        if cached is not None:
            return cached
        if self._waiting >= self._policy.concurrent_reads * _WAITING_PER_READ:
            raise Overloaded("too many pictures are being read: repeat the request")
        self._waiting += 1
        try:
            async with self._reads:
                return self._find(key) or await self._load(key)
        finally:
            self._waiting -= 1

    def _find(self, key: tuple[str, int]) -> ServedFile | None:
        if key in self._cache:
            self._cache.move_to_end(key)
        return self._cache.get(key)

    async def _load(self, key: tuple[str, int]) -> ServedFile:
        async with self._db.connection() as connection:
            sha256 = await store.find_file(connection, *key)
        content = None if sha256 is None else await asyncio.to_thread(self._files.get, sha256)
        if sha256 is None or content is None:
            raise NoSuchPicture(f"there is no picture {key[0]} of size {key[1]}")
        served = ServedFile(content, f'"{sha256.hex()[:32]}"')
        if key not in self._cache:
            self._cache[key] = served
            self.cached_bytes += len(content) + _ROW_BYTES
        while self.cached_bytes > self._policy.cache_bytes:
            _, dropped = self._cache.popitem(last=False)
            self.cached_bytes -= len(dropped.content) + _ROW_BYTES
        return served
