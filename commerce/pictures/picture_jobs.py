"""Jobs that import pictures: fetched from a URL or uploaded, rendered, then stored."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime
from hashlib import sha256

from commerce.jobs.model import Job, JobHandler, JobResult, finished
from commerce.jobs.service import JobQueue
from commerce.kernel.clock import Clock, from_ms
from commerce.kernel.errors import AddressNotPublic, Invalid, NotAPicture
from commerce.kernel.external import AnswerTooLong, ExternalOutcomeUnknown
from commerce.kernel.file_store_port import FileStore
from commerce.kernel.jobs import RetryPolicy
from commerce.kernel.postgres import Connection, Database
from commerce.kernel.public_http import PublicTransport
from commerce.pictures import store
from commerce.pictures.model import PictureImport
from commerce.pictures.picture_policy import PicturePolicy
from commerce.pictures.picture_rendering import render
from commerce.pictures.service import FETCH, QUEUE, RENDER

_FETCH_ATTEMPTS = 5
_BUSY = (408, 425, 429)
_MAX_DETAIL_CHARS = 500
_HEADERS = {"Accept": "image/webp, image/png, image/jpeg", "User-Agent": "floodgate"}


class PictureJobs:
    """Works on imports. A job that is repeated changes nothing.

    `count_refused` is called with the reason of each refusal."""

    def __init__(
        self,
        db: Database,
        clock: Clock,
        policy: PicturePolicy,
        files: FileStore,
        transport: PublicTransport,
        retries: RetryPolicy,
        max_attempts: int,
        count_refused: Callable[[str], None],
    ) -> None:
        self._db = db
        self._clock = clock
        self._policy = policy
        self._files = files
        self._transport = transport
        self._count_refused = count_refused
        handler = JobHandler(self._work, max_attempts=max_attempts)
        self.queue = JobQueue(QUEUE, {RENDER: handler, FETCH: handler}, db, clock, retries)

    async def _work(self, jobs: Sequence[Job]) -> list[JobResult]:
        (job,) = jobs
        async with self._db.connection() as connection:
            item = await store.find_import(connection, job.subject)
        if item is None or item.status != "pending":
            if item is not None:
                await self._delete_upload(item)  # a worker may have died before
            return [finished("unchanged")]
        try:
            word = await self._store(item, await self._read(item, job.attempts))
        except NotAPicture as error:
            word = await self._refuse(item, error)
        return [finished(word)]

    async def _read(self, item: PictureImport, attempts: int) -> bytes:
        """Read the file of an import. Raises `NotAPicture`; and `ExternalOutcomeUnknown`: try again."""
        if item.url is None:
            assert item.digest is not None
            content = await asyncio.to_thread(self._files.get, bytes.fromhex(item.digest))
            if content is None:
                raise NotAPicture("cannot store the picture: the uploaded file is gone; send it again", "file_missing")
            return content
        return await self._fetch(item.url, attempts)

    async def _fetch(self, url: str, attempts: int) -> bytes:
        try:
            answer = await self._transport.send("GET", url, _HEADERS)
            if answer.status >= 500 or answer.status in _BUSY:
                raise ExternalOutcomeUnknown(f"the server answers with status {answer.status}")
        except AddressNotPublic as error:
            raise NotAPicture(error.detail, "address_not_public") from None
        except Invalid as error:
            raise NotAPicture(error.detail, "bad_url") from None
        except AnswerTooLong:
            limit = self._policy.max_bytes
            raise NotAPicture(f"the file is larger than {limit} bytes; name a smaller one", "too_large") from None
        except ExternalOutcomeUnknown as error:
            if attempts < _FETCH_ATTEMPTS:
                raise
            raise NotAPicture(f"the file cannot be fetched: {error}", "no_answer") from None
        if 300 <= answer.status < 400:
            raise NotAPicture("the URL leads to another one, which is not followed; name that one", "redirect")
        if answer.status != 200:
            raise NotAPicture(f"the server answers with status {answer.status}; check the URL", "not_found")
        return answer.body

    async def _store(self, item: PictureImport, content: bytes) -> str:
        """Render a file, unless there is its picture, and give it to the product. Returns the result word."""
        digest = sha256(content).digest()
        async with self._db.transaction() as connection:
            is_known = await self._attach(connection, item, digest)
        if not is_known:
            rendered = await render(content, self._policy)
            async with self._db.transaction() as connection:
                await store.lock_files(connection, to_delete=False)
                for file in rendered:
                    await asyncio.to_thread(self._files.put, file.sha256, file.content)
                await store.insert_picture(connection, digest, rendered, self._now())
                await self._attach(connection, item, digest)
        await self._delete_upload(item)
        return "stored"

    async def _attach(self, connection: Connection, item: PictureImport, digest: bytes) -> bool:
        """Give a picture to the product, and end the import, if the picture is there."""
        if not await store.lock_picture(connection, digest):
            return False
        await store.attach(connection, item.import_id, digest, self._now())
        await store.end_import(connection, item.import_id, self._now(), digest=digest)
        return True

    async def _refuse(self, item: PictureImport, refusal: NotAPicture) -> str:
        async with self._db.connection() as connection:
            detail = refusal.detail[:_MAX_DETAIL_CHARS]
            is_new = await store.end_import(
                connection, item.import_id, self._now(), reason=refusal.reason, detail=detail
            )
        if is_new:
            self._count_refused(refusal.reason)
        await self._delete_upload(item)
        return "refused"

    async def _delete_upload(self, item: PictureImport) -> None:
        """Delete the file that was uploaded, unless another import needs it."""
        if item.url is None and item.digest is not None:
            async with self._db.transaction() as connection:
                await store.lock_files(connection, to_delete=True)
                for digest in await store.list_unused_files(connection, [bytes.fromhex(item.digest)]):
                    await asyncio.to_thread(self._files.delete, digest)

    def _now(self) -> datetime:
        return from_ms(self._clock.now_ms())
