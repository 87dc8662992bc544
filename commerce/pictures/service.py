"""Pictures of products: uploads, imports by URL, sequence, texts, deletion."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime
from hashlib import sha256
from uuid import UUID

from commerce.jobs import store as jobs
from commerce.jobs.model import INTERNAL_SYSTEM, NewJob
from commerce.kernel.clock import Clock, from_ms
from commerce.kernel.errors import NotFound
from commerce.kernel.file_store_port import FileStore
from commerce.kernel.ids import IdGenerator
from commerce.kernel.picture_containers import check_container
from commerce.kernel.postgres import Connection, Database
from commerce.kernel.public_http import check_public_url
from commerce.pictures import store
from commerce.pictures.errors import NoSuchPicture, OtherPictures, TooManyProductPictures
from commerce.pictures.model import AltTexts, PictureImport, PicturesOfProduct, PictureSource
from commerce.pictures.picture_policy import PicturePolicy
from commerce.pictures.store import NewImport

QUEUE, RENDER, FETCH = "pictures", "picture.render", "picture.fetch"
_SHOWN_IMPORTS = 50


class ProductPictures:
    """The pictures of products. A new one is rendered by a job, and its product has it after that.

    Changes take the lock of the product, so that those of one product are made one after another."""

    def __init__(self, db: Database, clock: Clock, ids: IdGenerator, policy: PicturePolicy, files: FileStore) -> None:
        self._db = db
        self._clock = clock
        self._ids = ids
        self._policy = policy
        self._files = files

    async def check_upload(self, product_id: str) -> None:
        """Check before an upload is read that it may be stored. Raises `NotFound`, `TooManyProductPictures`."""
        async with self._db.connection() as connection:
            await self._check_room(connection, product_id)

    async def upload(
        self, product_id: str, content: bytes, actor: str, alt_texts: AltTexts | None = None
    ) -> PictureImport:
        """Import a file. One that was imported before, for any product, is there at once.

        Raises `NotAPicture` for what its structure shows to be none, and as `check_upload` does."""
        await asyncio.to_thread(check_container, content, self._policy.max_pixels)
        digest = sha256(content).digest()
        new = NewImport(self._ids.new(), product_id, None, digest, alt_texts or {}, actor)
        async with self._db.transaction() as connection:
            await self._lock(connection, product_id)
            await store.lock_files(connection, to_delete=False)
            is_known = await self._add(connection, new)
            if not is_known:
                await asyncio.to_thread(self._files.put, digest, content)
        return await self.get_import(new.import_id)

    async def add_by_url(self, product_id: str, source: PictureSource, actor: str) -> PictureImport:
        """Import a file that a job fetches.

        Raises `Invalid` for a URL that is not public, and as `check_upload` does. A name is resolved by the job
        only."""
        check_public_url(source.url, self._policy.fetch_ports, self._policy.fetch_networks)
        new = NewImport(self._ids.new(), product_id, source.url, None, source.alt_texts, actor)
        async with self._db.transaction() as connection:
            await self._lock(connection, product_id)
            await self._add(connection, new)
        return await self.get_import(new.import_id)

    async def _add(self, connection: Connection, new: NewImport) -> bool:
        """Insert an import, and its job unless the picture is there already. Returns whether it is."""
        await self._check_room(connection, new.product_id)
        now = self._now()
        is_known = new.digest is not None and await store.lock_picture(connection, new.digest)
        await store.insert_import(connection, new, now, is_stored=is_known)
        if is_known and new.digest is not None:
            await store.attach(connection, new.import_id, new.digest, now)
        else:
            kind = FETCH if new.url is not None else RENDER
            await jobs.put(connection, QUEUE, [NewJob(new.import_id, kind, INTERNAL_SYSTEM, now)], now)
        return is_known

    async def get_import(self, import_id: UUID) -> PictureImport:
        """Read an import. Raises `NotFound`; ended ones are forgotten after some weeks."""
        async with self._db.connection() as connection:
            item = await store.find_import(connection, import_id)
        if item is None:
            raise NotFound(f"there is no import {import_id} of a picture")
        return item

    async def list_of_product(self, product_id: str) -> PicturesOfProduct:
        """List all pictures of a product, with open and refused imports. Raises `NotFound`."""
        async with self._db.snapshot() as connection:
            if await store.count_pictures(connection, product_id) is None:
                raise _no_product(product_id)
            pictures = await store.list_of_products(connection, [product_id])
            imports = await store.list_open_imports(connection, product_id, _SHOWN_IMPORTS)
        return PicturesOfProduct(pictures.get(product_id, []), imports)

    async def reorder(self, product_id: str, digests: Sequence[str]) -> None:
        """Put the pictures of a product into a sequence that names each once.

        Raises `NotFound`, `OtherPictures`."""
        async with self._db.transaction() as connection:
            await self._lock(connection, product_id)
            positions = await store.list_positions(connection, product_id)
            if sorted(digests) != sorted(positions):
                raise OtherPictures("name each picture of the product once: read them again, then order them")
            await store.set_positions(connection, product_id, dict(zip(digests, positions.values(), strict=True)))

    async def set_alt_texts(self, product_id: str, digest: str, alt_texts: AltTexts) -> None:
        """Replace the texts of a product's picture. Raises `NoSuchPicture`."""
        async with self._db.connection() as connection:
            if not await store.set_alt_texts(connection, product_id, digest, alt_texts):
                raise NoSuchPicture(f"product {product_id} has no picture {digest}")

    async def remove(self, product_id: str, digest: str) -> None:
        """Take a picture from a product. Its files are deleted later if no other product has it.

        Raises `NotFound`, `NoSuchPicture`."""
        async with self._db.transaction() as connection:
            await self._lock(connection, product_id)
            if not await store.detach(connection, product_id, digest, self._now()):
                raise NoSuchPicture(f"product {product_id} has no picture {digest}")

    async def delete_unused(self, before: datetime, count: int) -> int:
        """Delete up to `count` pictures that no product has had since `before`. Returns how many.

        Rows go after their files: a file that could not be deleted is not forgotten."""
        async with self._db.transaction() as connection:
            await store.lock_files(connection, to_delete=True)
            deleted, digests = await store.delete_unused(connection, before, count)
            for digest in await store.list_unused_files(connection, digests):
                await asyncio.to_thread(self._files.delete, digest)
        return deleted

    async def _lock(self, connection: Connection, product_id: str) -> None:
        if not await store.lock_product(connection, product_id):
            raise _no_product(product_id)

    async def _check_room(self, connection: Connection, product_id: str) -> None:
        count = await store.count_pictures(connection, product_id)
        if count is None:
            raise _no_product(product_id)
        if count >= self._policy.per_product:
            raise TooManyProductPictures(
                f"product {product_id} has {count} pictures with those that are being imported, which is the limit: "
                "delete one first"
            )

    def _now(self) -> datetime:
        return from_ms(self._clock.now_ms())


def _no_product(product_id: str) -> NotFound:
    return NotFound(f"there is no product {product_id}")
