"""Attachments of messages: pictures, which are written again, and PDF files as they are.

The type is judged by content. A PDF file is never opened here, and sent so that a browser stores it.
"""

from __future__ import annotations

import asyncio
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple
from uuid import UUID

from commerce.conversations import store
from commerce.conversations.conversation_policy import ConversationPolicy, UploadPolicy
from commerce.conversations.errors import NoSuchAttachment, NotAnAttachment, TooManyAttachments
from commerce.conversations.model import Attachment
from commerce.kernel.clock import Clock, from_ms
from commerce.kernel.errors import NotAPicture
from commerce.kernel.file_store_port import FileFolder
from commerce.kernel.ids import IdGenerator
from commerce.kernel.pictures import rewrite_picture
from commerce.kernel.postgres import Connection, Database

JPEG, PDF = "image/jpeg", "application/pdf"
_PDF_START, _PDF_END, _PDF_TAIL_BYTES = b"%PDF-", b"%%EOF", 1_024


class FileContent(NamedTuple):
    """The file of an attachment to send."""

    media_type: str
    content: bytes


def open_attachment_folder(uploads: UploadPolicy, data_dir: Path) -> FileFolder:
    """Return the folder of attachments: `attachments` beside the pictures of cases."""
    return FileFolder((uploads.evidence_dir or data_dir / "evidence") / "attachments")


class MessageFiles:
    """Stores and reads attachments. An upload belongs to its `actor` until it is sent with a message."""

    def __init__(
        self,
        db: Database,
        clock: Clock,
        ids: IdGenerator,
        policy: ConversationPolicy,
        uploads: UploadPolicy,
        data_dir: Path,
    ) -> None:
        self._db = db
        self._clock = clock
        self._ids = ids
        self._policy = policy
        self._uploads = uploads
        self._files = open_attachment_folder(uploads, data_dir)

    async def check_upload(self, actor: str) -> None:
        """Check before an upload is read that it may be stored. Raises `TooManyAttachments`."""
        async with self._db.connection() as connection:
            await self._check(connection, actor)

    async def _check(self, connection: Connection, actor: str) -> None:
        if await store.count_unsent(connection, actor) >= self._policy.unsent_attachments:
            limit = self._policy.unsent_attachments
            raise TooManyAttachments(f"you have {limit} attachments that no message has: send them first")

    async def upload(self, actor: str, content: bytes) -> Attachment:
        """Store an attachment. Raises `NotAnAttachment`, `TooManyAttachments`.

        The file is stored before its row, so that no row lacks a file."""
        attachment_id, now = self._ids.new(), from_ms(self._clock.now_ms())
        width_px: int | None = None
        height_px: int | None = None
        if content.startswith(_PDF_START):
            if _PDF_END not in content[-_PDF_TAIL_BYTES:]:
                raise NotAnAttachment("cannot store the PDF file: its end is missing; send it again")
            media_type = PDF
        else:
            limits = (self._uploads.evidence_pixels, self._uploads.evidence_side_px)
            try:
                picture = await asyncio.to_thread(rewrite_picture, content, *limits)
            except NotAPicture as error:
                raise NotAnAttachment(f"{error.detail}; other than pictures, only PDF files can be sent") from error
            media_type, content = JPEG, picture.content
            width_px, height_px = picture.width_px, picture.height_px
        digest = sha256(content).digest()
        await asyncio.to_thread(self._files.put, digest, content)
        attachment = Attachment(
            attachment_id=attachment_id,
            media_type=media_type,
            size_bytes=len(content),
            width_px=width_px,
            height_px=height_px,
            created_at=now,
        )
        async with self._db.transaction() as connection:
            await self._check(connection, actor)
            await store.insert_attachment(connection, attachment, actor, digest)
        return attachment

    async def read_of_customer(self, attachment_id: UUID, user_id: str) -> FileContent:
        """Read an attachment that a customer uploaded, or that is in one of his conversations.

        Raises `NoSuchAttachment`."""
        async with self._db.connection() as connection:
            stored = await store.find_attachment_file(connection, attachment_id)
        is_own = stored is not None and (
            stored.uploaded_by == f"customer {user_id}" or (stored.user_id == user_id and not stored.is_internal)
        )
        return await self._read(attachment_id, stored if is_own else None)

    async def read_of_staff(self, attachment_id: UUID) -> FileContent:
        """Read any attachment. Raises `NoSuchAttachment`."""
        async with self._db.connection() as connection:
            stored = await store.find_attachment_file(connection, attachment_id)
        return await self._read(attachment_id, stored)

    async def _read(self, attachment_id: UUID, stored: store.StoredFile | None) -> FileContent:
        content = await asyncio.to_thread(self._files.get, stored.sha256) if stored else None
        if stored is None or content is None:
            raise NoSuchAttachment(f"there is no attachment {attachment_id}")
        return FileContent(stored.media_type, content)

    async def delete_unused(self, before: datetime, count: int) -> int:
        """Delete up to `count` old attachments that were never sent. Returns how many.

        A file stays while another attachment has the same content."""
        async with self._db.connection() as connection:
            deleted = await store.delete_unused_attachments(connection, before, count)
            unused = await store.list_unused_files(connection, deleted)
        for digest in unused:
            await asyncio.to_thread(self._files.delete, digest)
        return len(deleted)
