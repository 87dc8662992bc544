"""Files in a backup: one archive of the pictures and attachments that Postgres names."""

from __future__ import annotations

import asyncio
import os
import tarfile
from collections.abc import Awaitable, Callable, Sequence
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

from commerce.aftersales import store as cases
from commerce.aftersales.case_evidence import open_evidence_folder
from commerce.conversations import store as conversations
from commerce.conversations.message_files import open_attachment_folder
from commerce.kernel.errors import NotReady
from commerce.kernel.file_store_port import FileStore
from commerce.kernel.postgres import Connection
from commerce.pictures import store as pictures
from commerce.pictures.picture_policy import open_picture_files
from ops.services import CliServices

_PICTURES_PER_PAGE = 100


_ListFiles = Callable[[Connection, bytes, int], Awaitable[list[bytes]]]
_LISTS: dict[str, _ListFiles] = {
    "evidence": cases.list_evidence_files,
    "attachments": conversations.list_attachment_files,
    "pictures": pictures.list_picture_files,
}


class PictureCounts(NamedTuple):
    """Numbers of files in a backup, and of those that are missing or damaged."""

    stored: int
    missing: int


async def back_up_pictures(shop: CliServices, file: Path) -> PictureCounts:
    """Write all files into an archive, under the name of their folder.

    Call after the dump, so that none that it names is left out: files are stored before their rows."""
    counts = PictureCounts(0, 0)
    with file.open("wb") as opened:
        with tarfile.open(fileobj=opened, mode="w") as archive:
            for name, folder in _open_folders(shop).items():
                last = b""
                while True:
                    async with shop.db.connection() as connection:
                        digests = await _LISTS[name](connection, last, _PICTURES_PER_PAGE)
                    if not digests:
                        break
                    added, last = await asyncio.to_thread(_add, archive, name, folder, digests), digests[-1]
                    counts = PictureCounts(counts.stored + added, counts.missing + len(digests) - added)
        opened.flush()
        os.fsync(opened.fileno())
    return counts


def _open_folders(shop: CliServices) -> dict[str, FileStore]:
    policy, data_dir = shop.settings.aftersales, shop.settings.data_dir
    return {
        "evidence": open_evidence_folder(policy, data_dir),
        "attachments": open_attachment_folder(policy, data_dir),
        "pictures": open_picture_files(shop.settings.pictures, data_dir),
    }


def _add(archive: tarfile.TarFile, name: str, folder: FileStore, digests: Sequence[bytes]) -> int:
    """Add files of a folder to an archive, and return how many. Missing and damaged ones are left out."""
    added = 0
    for digest in digests:
        content = folder.get(digest)
        if content is not None and sha256(content).digest() == digest:
            member = tarfile.TarInfo(f"{name}/{digest.hex()}")
            member.size = len(content)
            archive.addfile(member, BytesIO(content))
            added += 1
    return added


async def restore_pictures(shop: CliServices, file: Path) -> int:
    """Store the files of an archive, and return how many there are. A repeat changes nothing.

    Returns 0 without an archive: backups of older versions have none. Raises `NotReady` if a file cannot be stored."""
    folders = _open_folders(shop)

    def restore() -> int:
        count = 0
        with tarfile.open(file, "r:") as archive:
            for member in archive:
                opened = archive.extractfile(member)
                content = opened.read() if opened else b""
                folder = folders[member.name.partition("/")[0]]
                folder.put(sha256(content).digest(), content)  # never by the name in the archive
                count += 1
        return count

    try:
        return await asyncio.to_thread(restore) if file.exists() else 0
    except KeyError as error:
        raise NotReady(f"cannot restore the pictures of {file}: it has an unknown folder {error}") from None
    except (OSError, tarfile.TarError) as error:
        raise NotReady(
            f"cannot restore the pictures of {file}: {error}; set aftersales.evidence_dir and pictures.folder"
        ) from None
