"""Pictures of customers in a backup: one archive of the files that Postgres names."""

from __future__ import annotations

import asyncio
import os
import tarfile
from collections.abc import Sequence
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

from commerce.aftersales import store
from commerce.aftersales.case_evidence import open_evidence_folder
from commerce.kernel.errors import NotReady
from commerce.kernel.file_store_port import FileFolder
from ops.services import CliServices

_PICTURES_PER_PAGE = 100


class PictureCounts(NamedTuple):
    """Numbers of pictures in a backup, and of those whose file is missing or damaged."""

    stored: int
    missing: int


async def back_up_pictures(shop: CliServices, file: Path) -> PictureCounts:
    """Write all pictures into an archive.

    Call after the dump, so that none that it names is left out: files are stored before their rows."""
    folder, counts, last = _open_folder(shop), PictureCounts(0, 0), b""
    with file.open("wb") as opened:
        with tarfile.open(fileobj=opened, mode="w") as archive:
            while True:
                async with shop.db.connection() as connection:
                    digests = await store.list_evidence_files(connection, last, _PICTURES_PER_PAGE)
                if not digests:
                    break
                added, last = await asyncio.to_thread(_add, archive, folder, digests), digests[-1]
                counts = PictureCounts(counts.stored + added, counts.missing + len(digests) - added)
        opened.flush()
        os.fsync(opened.fileno())
    return counts


def _open_folder(shop: CliServices) -> FileFolder:
    return open_evidence_folder(shop.settings.aftersales, shop.settings.data_dir)


def _add(archive: tarfile.TarFile, folder: FileFolder, digests: Sequence[bytes]) -> int:
    """Add pictures to an archive. Returns how many: those that are missing or damaged are left out."""
    added = 0
    for digest in digests:
        content = folder.get(digest)
        if content is not None and sha256(content).digest() == digest:
            member = tarfile.TarInfo(digest.hex())
            member.size = len(content)
            archive.addfile(member, BytesIO(content))
            added += 1
    return added


async def restore_pictures(shop: CliServices, file: Path) -> int:
    """Store the pictures of an archive, and return how many there are. A repeat changes nothing.

    Returns 0 without an archive: backups of older versions have none. Raises `NotReady` if a file cannot be stored."""
    folder = _open_folder(shop)

    def restore() -> int:
        count = 0
        with tarfile.open(file, "r:") as archive:
            for member in archive:
                opened = archive.extractfile(member)
                content = opened.read() if opened else b""
                folder.put(sha256(content).digest(), content)  # never by the name in the archive
                count += 1
        return count

    try:
        return await asyncio.to_thread(restore) if file.exists() else 0
    except (OSError, tarfile.TarError) as error:
        raise NotReady(f"cannot restore the pictures of {file}: {error}; set aftersales.evidence_dir") from None
