"""Rows of pictures, of their files and their imports."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

import msgspec

from commerce.kernel.postgres import Connection
from commerce.kernel.sql import load_queries
from commerce.pictures.model import (
    AltTexts,
    PictureFile,
    PictureImport,
    ProductPicture,
    Rendered,
    file_url,
)

queries = load_queries(__package__, picture_imports=PictureImport.__struct_fields__)


class NewImport(NamedTuple):
    """An import to insert. One without a `url` was uploaded."""

    import_id: UUID
    product_id: str
    url: str | None
    digest: bytes | None
    alt_texts: AltTexts
    actor: str


async def lock_product(connection: Connection, product_id: str) -> bool:
    """Lock a product until the end of the transaction.

    So its pictures are counted and ordered one after another. Returns False if there is none."""
    return bool(await connection.fetchval(queries.lock_product, product_id))


async def count_pictures(connection: Connection, product_id: str) -> int | None:
    """Count the pictures of a product with those that are imported; None if there is no such product."""
    count = await connection.fetchval(queries.count_pictures, product_id)
    return None if count is None else int(count)


async def lock_files(connection: Connection, *, to_delete: bool) -> None:
    """Wait until no other transaction deletes files; with `to_delete` until none stores any, either.

    So a file is never deleted between the time it is stored and the time a row names it."""
    await connection.execute(queries.lock_files if to_delete else queries.lock_files_shared)


async def insert_import(connection: Connection, new: NewImport, now: datetime, *, is_stored: bool) -> None:
    status, ended_at = ("stored", now) if is_stored else ("pending", None)
    await connection.execute(
        queries.insert_import,
        *(new.import_id, new.product_id, new.url, new.digest, _encode(new.alt_texts)),
        *(status, now, new.actor, ended_at),
    )


async def find_import(connection: Connection, import_id: UUID) -> PictureImport | None:
    row = await connection.fetchrow(queries.find_import, import_id)
    return _read_import(row) if row else None


async def end_import(
    connection: Connection,
    import_id: UUID,
    now: datetime,
    *,
    digest: bytes | None = None,
    reason: str | None = None,
    detail: str | None = None,
) -> bool:
    """End an import as stored, or with a reason as refused. Returns False if it has ended before."""
    status = "stored" if reason is None else "refused"
    row = await connection.fetchval(queries.end_import, import_id, status, digest, reason, detail, now)
    return bool(row)


async def list_open_imports(connection: Connection, product_id: str, count: int) -> list[PictureImport]:
    """List imports of a product that have not ended or were refused, newest first."""
    return [_read_import(row) for row in await connection.fetch(queries.list_open_imports, product_id, count)]


async def insert_picture(connection: Connection, digest: bytes, files: Sequence[Rendered], now: datetime) -> None:
    """Insert a picture with its files, unless it is there."""
    await connection.execute(queries.insert_picture, digest, now)
    await connection.execute(
        queries.insert_files,
        digest,
        [file.size for file in files],
        [file.sha256 for file in files],
        [len(file.content) for file in files],
        [file.width_px for file in files],
        [file.height_px for file in files],
    )


async def lock_picture(connection: Connection, digest: bytes) -> bool:
    """Lock a picture and mark it as used, so that it stays. Returns False if there is none."""
    return bool(await connection.fetchval(queries.lock_picture, digest))


async def attach(connection: Connection, import_id: UUID, digest: bytes, now: datetime) -> None:
    """Give a picture to the product of an import, at its place. Call with `lock_picture` held."""
    await connection.execute(queries.attach, import_id, digest, now)


async def list_of_products(connection: Connection, product_ids: Sequence[str]) -> dict[str, list[ProductPicture]]:
    """List the pictures of products, in their order. A product without any is left out."""
    return _group_by_product(await connection.fetch(queries.list_of_products, product_ids))


async def list_covers(connection: Connection, product_ids: Sequence[str]) -> dict[str, list[ProductPicture]]:
    """List the first picture of each product. A product without any is left out."""
    return _group_by_product(await connection.fetch(queries.list_covers, product_ids))


def _group_by_product(rows: Iterable[Any]) -> dict[str, list[ProductPicture]]:
    """Return pictures by product in the order of the rows, of which each is a file."""
    pictures: dict[str, dict[str, ProductPicture]] = {}
    for row in rows:
        digest = row["digest"].hex()
        of_product = pictures.setdefault(row["product_id"], {})
        if digest not in of_product:
            of_product[digest] = ProductPicture(digest, msgspec.json.decode(row["alt_texts"]), [])
        file = PictureFile(row["size"], file_url(digest, row["size"]), row["width_px"], row["height_px"])
        of_product[digest].files.append(file)
    return {product_id: list(of_product.values()) for product_id, of_product in pictures.items()}


async def list_positions(connection: Connection, product_id: str) -> dict[str, int]:
    """Return the places of a product's pictures by digest, in their order."""
    rows = await connection.fetch(queries.list_digests, product_id)
    return {row["digest"].hex(): row["position"] for row in rows}


async def set_positions(connection: Connection, product_id: str, positions: dict[str, int]) -> None:
    digests = [bytes.fromhex(digest) for digest in positions]
    await connection.execute(queries.set_positions, product_id, digests, list(positions.values()))


async def set_alt_texts(connection: Connection, product_id: str, digest: str, alt_texts: AltTexts) -> bool:
    return bool(await connection.fetchval(queries.set_alt_texts, product_id, bytes.fromhex(digest), _encode(alt_texts)))


async def detach(connection: Connection, product_id: str, digest: str, now: datetime) -> bool:
    """Take a picture from a product. If no other product has it, it counts as unused from now on."""
    is_gone = bool(await connection.fetchval(queries.detach, product_id, bytes.fromhex(digest)))
    await connection.execute(queries.mark_unused, bytes.fromhex(digest), now)
    return is_gone


async def find_file(connection: Connection, digest: str, size: int) -> bytes | None:
    """Find the digest under which a file is stored."""
    return await connection.fetchval(queries.find_file, bytes.fromhex(digest), size)  # type: ignore[no-any-return]


async def delete_unused(connection: Connection, before: datetime, count: int) -> tuple[int, list[bytes]]:
    """Delete pictures that no product has had since a moment.

    Returns how many, and the digests of their files."""
    row = await connection.fetchrow(queries.delete_unused, before, count)
    assert row is not None
    return row["pictures"], row["files"]


async def list_unused_files(connection: Connection, digests: Sequence[bytes]) -> list[bytes]:
    """Of these files, list those that nothing needs. Call with `lock_files` held."""
    return [row["sha256"] for row in await connection.fetch(queries.list_unused_files, digests)]


async def list_picture_files(connection: Connection, after: bytes, count: int) -> list[bytes]:
    """List digests of files that a backup needs, in ascending order."""
    return [row["sha256"] for row in await connection.fetch(queries.list_files, after, count)]


async def sum_bytes(connection: Connection) -> int:
    """Return the size of all files of pictures."""
    return int(await connection.fetchval(queries.sum_bytes))


def _encode(alt_texts: AltTexts) -> str:
    return msgspec.json.encode(alt_texts).decode()


def _read_import(row: Any) -> PictureImport:
    fields = {name: row[name] for name in PictureImport.__struct_fields__}
    digest = fields.pop("digest")
    return PictureImport(**fields, digest=None if digest is None else digest.hex())
