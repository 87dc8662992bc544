"""Pictures of customers: uploaded for an order, then used by a request or added to a case."""

from __future__ import annotations

import asyncio
from datetime import datetime
from pathlib import Path
from typing import Protocol
from uuid import UUID

from commerce.aftersales import store
from commerce.aftersales.errors import NoSuchEvidence, TooManyPictures
from commerce.aftersales.model import Evidence
from commerce.kernel.clock import Clock, from_ms
from commerce.kernel.file_store_port import FileFolder, FileStore
from commerce.kernel.ids import IdGenerator
from commerce.kernel.pictures import rewrite_picture
from commerce.kernel.postgres import Connection, Database
from commerce.orders import store as orders
from commerce.orders.errors import NoSuchOrder

MEDIA_TYPE = "image/jpeg"
"""of every stored picture"""


class EvidencePolicy(Protocol):
    """The part of the section `aftersales` of the settings that is about pictures."""

    @property
    def evidence_dir(self) -> Path | None: ...
    @property
    def evidence_pixels(self) -> int: ...
    @property
    def evidence_side_px(self) -> int: ...
    @property
    def evidence_per_order(self) -> int: ...


def open_evidence_folder(policy: EvidencePolicy, data_dir: Path) -> FileFolder:
    """Return the folder of pictures: `policy.evidence_dir`, or else `evidence` in `data_dir`."""
    return FileFolder(policy.evidence_dir or data_dir / "evidence")


class CaseEvidence:
    """Stores and reads pictures. Only their customer and staff read them.

    Without `files` they are in the folder of the settings."""

    def __init__(
        self,
        db: Database,
        clock: Clock,
        ids: IdGenerator,
        policy: EvidencePolicy,
        data_dir: Path,
        files: FileStore | None = None,
    ) -> None:
        self._db = db
        self._clock = clock
        self._ids = ids
        self._policy = policy
        self._files = files or open_evidence_folder(policy, data_dir)

    async def check_upload(self, order_id: UUID, user_id: str) -> None:
        """Check before an upload is read that it may be stored. Raises `NoSuchOrder`, `TooManyPictures`."""
        async with self._db.connection() as connection:
            await self._check(connection, order_id, user_id)

    async def _check(self, connection: Connection, order_id: UUID, user_id: str) -> None:
        order = await orders.read_order_header(connection, order_id)
        if order is None or order.user_id != user_id:
            raise NoSuchOrder(f"there is no stored order {order_id}, or it is not yours")
        if await store.count_free_evidence(connection, order_id) >= self._policy.evidence_per_order:
            limit = self._policy.evidence_per_order
            raise TooManyPictures(f"the order has {limit} pictures that no case uses: use them first")

    async def upload(self, order_id: UUID, user_id: str, content: bytes) -> Evidence:
        """Store a picture for an order. Raises `NotAPicture`, and as `check_upload` does.

        The file is stored before its row, so that no row lacks a file."""
        limits = (self._policy.evidence_pixels, self._policy.evidence_side_px)
        picture = await asyncio.to_thread(rewrite_picture, content, *limits)
        await asyncio.to_thread(self._files.put, picture.sha256, picture.content)
        evidence = Evidence(
            evidence_id=self._ids.new(),
            order_id=order_id,
            case_id=None,
            media_type=MEDIA_TYPE,
            size_bytes=len(picture.content),
            width_px=picture.width_px,
            height_px=picture.height_px,
            created_at=from_ms(self._clock.now_ms()),
        )
        async with self._db.transaction() as connection:
            await orders.lock_order(connection, order_id)  # uploads of an order are counted one after another
            await self._check(connection, order_id, user_id)
            await store.insert_evidence(connection, evidence, user_id, picture.sha256)
        return evidence

    async def read(self, evidence_id: UUID, user_id: str | None) -> bytes:
        """Read a picture as JPEG; for staff (`user_id` None) that of any customer. Raises `NoSuchEvidence`."""
        async with self._db.connection() as connection:
            stored = await store.find_evidence_file(connection, evidence_id)
        content = None
        if stored is not None and user_id in (None, stored[0]):
            content = await asyncio.to_thread(self._files.get, stored[1])
        if content is None:
            raise NoSuchEvidence(f"there is no picture {evidence_id}")
        return content

    async def delete_unused(self, before: datetime, count: int) -> int:
        """Delete up to `count` old pictures that no case uses. Returns how many.

        A file stays while another picture has the same content. Rows go after their files: a file that could not be
        deleted is not forgotten."""
        async with self._db.transaction() as connection:
            deleted = await store.delete_unused_evidence(connection, before, count)
            for sha256 in await store.list_unused_files(connection, deleted):
                await asyncio.to_thread(self._files.delete, sha256)
        return len(deleted)
