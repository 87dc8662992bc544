"""Backups of a shop: orders that wait in Redis, then Postgres, then the pictures of cases.

The sequence matters. An order leaves Redis once it is in Postgres: what is read from Redis first is in the backup in
any case, and an order that is in both is stored once. The other way round, an order that moved in between would be in
neither. Stock, limits and keys are not copied: a restore computes them from the orders.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import NamedTuple
from uuid import UUID

import msgspec
from redis.asyncio import Redis

from commerce.kernel.clock import from_ms
from commerce.kernel.durable_files import replace_file, sync_directory
from commerce.kernel.errors import NotReady
from commerce.kernel.failures import Failures
from commerce.kernel.migrations import migrate, read_applied
from commerce.kernel.postgres import Connection, connect
from commerce.kernel.redis_client import open_redis
from commerce.kernel.stream_payload import StreamedOrder, decode_accepted
from commerce.orders.errors import OrdersNotStorable
from commerce.orders.persistence import FailedOrder, SalePersistence, insert_dead_letter
from commerce.sales.loading import load_sale
from config.settings import Settings
from lua import EntryId, SaleKeys, check_writable, iter_stream
from ops.picture_backup import back_up_pictures, restore_pictures
from ops.postgres_tools import run_postgres_tool
from ops.services import CliServices, open_cli_services

_ORDERS, _DUMP, _SUMMARY = "waiting-orders.jsonl", "postgres.dump", "backup.json"
PICTURES = "pictures.tar"
_ORDERS_PER_BATCH = 1_000
_CONNECT_TIMEOUT_S = 10
_MIGRATION_TIMEOUT_S = 6 * 3_600
_PORTABLE = ("--no-owner", "--no-privileges", "--no-tablespaces", "--no-publications", "--no-subscriptions")
"""options of both programs: another server has not the same roles, disks and replicas"""


class WaitingOrder(msgspec.Struct, frozen=True):
    """An accepted order that was in the stream, with its entry's id."""

    sale_id: str
    entry: str
    order_id: UUID
    payload: bytes


class BackupSummary(msgspec.Struct, frozen=True):
    """Content of a backup. It is written last: a backup without it is incomplete."""

    created_at: datetime
    sales: int
    waiting_orders: int
    digests: dict[str, str] = {}
    """SHA-256 of the other files by name"""
    pictures: int = 0
    missing_pictures: int = 0
    """pictures that Postgres names, whose files were not in the folder or damaged"""


class RestoreReport(NamedTuple):
    """Numbers of loaded sales, and of orders that became dead letters."""

    sales: int
    dead_letters: int


async def create_backup(shop: CliServices, directory: Path) -> BackupSummary:
    """Write a backup into a new directory, which holds customers' addresses. Works while orders flow.

    Raises `NotReady` if the directory exists or pg_dump fails.
    """
    if directory.exists():
        raise NotReady(f"cannot back up into {directory}: it exists; name a new directory")
    unfinished = directory.with_name(f"{directory.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True, mode=0o700)
    sales = await shop.sales.list_opened()
    created_at = from_ms(shop.clock.now_ms())
    count = 0
    with (unfinished / _ORDERS).open("wb") as file:
        for sale in sales:
            async for order in _iter_waiting(shop.redis, sale.sale_id):
                file.write(msgspec.json.encode(order) + b"\n")
                count += 1
        file.flush()
        os.fsync(file.fileno())
    options = ["--format=custom", *_PORTABLE, "--exclude-table=restore_progress", f"--file={unfinished / _DUMP}"]
    await run_postgres_tool("pg_dump", shop.settings.database(), options)
    pictures = await back_up_pictures(shop, unfinished / PICTURES)
    names = (_ORDERS, _DUMP, PICTURES)
    digests = {name: await asyncio.to_thread(_compute_digest, unfinished / name) for name in names}
    summary = BackupSummary(created_at, len(sales), count, digests, pictures.stored, pictures.missing)
    replace_file(unfinished / _SUMMARY, msgspec.json.encode(summary))
    unfinished.rename(directory)
    sync_directory(directory.parent)
    return summary


async def _iter_waiting(redis: Redis, sale_id: str) -> AsyncIterator[WaitingOrder]:
    async for entry in iter_stream(redis, SaleKeys(sale_id)):
        for field, payload in entry.orders:
            # An entry that no gateway wrote has the id of the dead letter that the order writer makes of it.
            order_id = UUID(bytes=field) if len(field) == 16 else UUID(int=entry.id.ms << 64 | entry.id.seq)
            yield WaitingOrder(sale_id, str(entry.id), order_id, payload)


def _compute_digest(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


async def restore_shop(directory: Path, settings: Settings) -> list[str]:
    """Restore a backup into an empty database, and load every sale into Redis. Returns what to print.

    Raises `NotReady` as `restore_database`, or if Redis takes no writes, before anything is changed.
    """
    await _check_redis(settings)
    summary = await restore_database(directory, settings.database())
    connection = await connect(settings.database(), name="migrate", timeout_s=_MIGRATION_TIMEOUT_S)
    try:
        await migrate(connection)
    finally:
        await connection.close()
    async with open_cli_services(settings) as shop:
        pictures = await restore_pictures(shop, directory / PICTURES)
        report = await restore_redis(shop, directory)
    lines = [
        f"restored the state of {summary.created_at:%Y-%m-%d %H:%M:%S} UTC: {report.sales} sales are loaded, "
        f"{pictures} pictures are stored; now audit"
    ]
    if report.dead_letters:
        lines.append(f"{report.dead_letters} of the orders that waited are dead letters; retry or discard them")
    return lines


async def _check_redis(settings: Settings) -> None:
    """Check that Redis takes writes, before anything is restored."""
    timeout_ms = settings.limits.redis_call_timeout_ms
    redis = open_redis(settings.redis(), timeout_ms=timeout_ms, connections=1, name="restore")
    try:
        await check_writable(redis)
    finally:
        await redis.aclose()


async def restore_database(directory: Path, url: str) -> BackupSummary:
    """Restore the dump into an empty database, or into none if an earlier restore of this backup did.

    Raises `NotReady` if the database has other content or the backup is incomplete or damaged; nothing is changed then.
    """
    summary = await asyncio.to_thread(_check_backup, directory)
    mark = _compute_digest(directory / _SUMMARY)
    connection = await connect(url, name="restore", timeout_s=_CONNECT_TIMEOUT_S)
    try:
        if await read_applied(connection):
            if await _read_mark(connection) == mark:
                return summary
            raise NotReady("cannot restore: the database of DATABASE_URL is not empty; create a new one and name it")
        async with connection.transaction():  # the last step of the restore drops the table
            await connection.execute("CREATE TABLE IF NOT EXISTS restore_progress (backup text NOT NULL)")
            await connection.execute("DELETE FROM restore_progress")
            await connection.execute("INSERT INTO restore_progress VALUES ($1)", mark)
    finally:
        await connection.close()
    options = ["--exit-on-error", "--single-transaction", *_PORTABLE, str(directory / _DUMP)]
    await run_postgres_tool("pg_restore", url, options)
    return summary


async def _read_mark(connection: Connection) -> str | None:
    if not await connection.fetchval("SELECT to_regclass('restore_progress') IS NOT NULL"):
        return None
    mark: str | None = await connection.fetchval("SELECT backup FROM restore_progress")
    return mark


def _check_backup(directory: Path) -> BackupSummary:
    """Read the whole backup but the content of the dump. Raises `NotReady` if it is not as it was written."""
    try:
        summary = msgspec.json.decode((directory / _SUMMARY).read_bytes(), type=BackupSummary)
        damaged = [name for name, digest in summary.digests.items() if _compute_digest(directory / name) != digest]
        count = sum(len(orders) for _, orders in _read_waiting(directory))
    except (OSError, msgspec.MsgspecError):
        raise NotReady(f"cannot restore {directory}: it is no complete backup; name another") from None
    if count != summary.waiting_orders:
        damaged.append(f"{_ORDERS} ({count} of {summary.waiting_orders} orders)")
    if damaged:
        raise NotReady(f"cannot restore {directory}: {', '.join(damaged)} is damaged; copy it again or name another")
    return summary


async def restore_redis(shop: CliServices, directory: Path) -> RestoreReport:
    """Store the orders that waited, then load every sale into Redis. A repeat stores nothing twice.

    Raises `SomeFailed` with what cannot be stored or loaded.
    """
    persistence: dict[str, SalePersistence] = {}
    dead = 0
    failures = Failures("store the orders of a sale")
    for sale_id, orders in _read_waiting(directory):
        with failures.catch(sale_id=sale_id):
            async with shop.db.connection() as connection:
                stored = persistence.setdefault(sale_id, SalePersistence())
                dead += await _store(connection, stored, orders, from_ms(shop.clock.now_ms()))
    failures.raise_any()  # a sale that is loaded without its orders sells their units again
    failures = Failures("load a sale")
    sales = await shop.sales.list_opened()
    for sale in sales:
        with failures.catch(sale_id=sale.sale_id):
            await load_sale(shop.db, shop.redis, shop.clock, sale.sale_id)
    failures.raise_any()
    async with shop.db.connection() as connection:
        await connection.execute("DROP TABLE IF EXISTS restore_progress")
    return RestoreReport(len(sales), dead)


async def _store(
    connection: Connection, persistence: SalePersistence, orders: Sequence[WaitingOrder], now: datetime
) -> int:
    """Store orders of one sale and return how many became dead letters.

    The order writer waits for evidence against an order that it cannot store. A restore cannot wait.
    """
    batch: list[StreamedOrder] = []
    unreadable: list[FailedOrder] = []
    for order in orders:
        entry = EntryId.parse(order.entry.encode())
        try:
            accepted = decode_accepted(order.payload)
            if accepted.order_id != order.order_id:
                raise ValueError("its order id is not the one that the entry names")
            batch.append(StreamedOrder(accepted, entry, order.payload))
        except ValueError as error:
            unreadable.append(FailedOrder.unreadable(order.order_id, order.sale_id, order.payload, entry, str(error)))
    try:
        result = await persistence.persist(connection, batch, now, unreadable=unreadable)
        return len(result.dead_lettered)
    except OrdersNotStorable:
        failed = [*unreadable, *(await _store_each(connection, batch, now))]
    for suspect in failed:
        await insert_dead_letter(connection, suspect, now)
    return len(failed)


async def _store_each(connection: Connection, batch: Sequence[StreamedOrder], now: datetime) -> list[FailedOrder]:
    """Store each order alone and return those that cannot be stored."""
    failed: list[FailedOrder] = []
    for item in batch:
        order = item.order
        try:
            result = await SalePersistence().persist(connection, [item], now)
            error = result.dead_lettered.get(order.order_id)
        except OrdersNotStorable as suspect:
            error = str(suspect)
        if error is not None:
            failed.append(FailedOrder(order.order_id, order.sale_id, order, item.payload, item.entry, "", error))
    return failed


def _read_waiting(directory: Path) -> Iterator[tuple[str, list[WaitingOrder]]]:
    """Yield the orders of the file in batches of one sale each."""
    batch: list[WaitingOrder] = []
    with (directory / _ORDERS).open("rb") as file:
        for line in file:
            order = msgspec.json.decode(line, type=WaitingOrder)
            if batch and (batch[0].sale_id != order.sale_id or len(batch) >= _ORDERS_PER_BATCH):
                yield batch[0].sale_id, batch
                batch = []
            batch.append(order)
    if batch:
        yield batch[0].sale_id, batch
