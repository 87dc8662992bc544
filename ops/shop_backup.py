"""Backups of a shop: orders that wait in Redis, then Postgres.

The sequence matters. An order leaves Redis once it is in Postgres: what is read from Redis first is in the backup in
any case, and an order that is in both is stored once. The other way round, an order that moved in between would be in
neither. Stock, limits and keys are not copied: a restore computes them from the orders.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from urllib.parse import unquote, urlsplit
from uuid import UUID

import msgspec
from redis.asyncio import Redis

from commerce.kernel.clock import from_ms
from commerce.kernel.durable_files import replace_file, sync_directory
from commerce.kernel.errors import NotReady
from commerce.kernel.migrations import read_applied
from commerce.kernel.postgres import connect
from commerce.kernel.stream_payload import StreamedOrder, decode_accepted
from commerce.orders.persistence import FailedOrder, SalePersistence
from commerce.sales.loading import load_sale
from lua import EntryId, SaleKeys, iter_stream
from ops.local.embedded_servers import list_postgres_installs
from ops.services import CliServices

_ORDERS, _DUMP, _SUMMARY = "waiting-orders.jsonl", "postgres.dump", "backup.json"
_ORDERS_PER_BATCH = 1_000
_CONNECT_TIMEOUT_S, _TIMEOUT_S = 10, 6 * 3_600


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
    url = shop.settings.database()
    await _run_tool("pg_dump", url, ["--format=custom", "--no-owner", f"--file={unfinished / _DUMP}"])
    summary = BackupSummary(created_at, len(sales), count)
    replace_file(unfinished / _SUMMARY, msgspec.json.encode(summary))
    unfinished.rename(directory)
    sync_directory(directory.parent)
    return summary


async def _iter_waiting(redis: Redis, sale_id: str) -> AsyncIterator[WaitingOrder]:
    async for entry in iter_stream(redis, SaleKeys(sale_id)):
        for order_id, payload in entry.orders:
            yield WaitingOrder(sale_id, str(entry.id), UUID(bytes=order_id), payload)


async def restore_database(directory: Path, url: str) -> BackupSummary:
    """Restore the dump into an empty database.

    Raises `NotReady` if it is not empty or the backup is incomplete.
    """
    try:
        summary = msgspec.json.decode((directory / _SUMMARY).read_bytes(), type=BackupSummary)
    except (OSError, msgspec.MsgspecError):
        raise NotReady(f"cannot restore {directory}: it is no complete backup; name another") from None
    connection = await connect(url, name="restore", timeout_s=_CONNECT_TIMEOUT_S)
    try:
        if await read_applied(connection):
            raise NotReady("cannot restore: the database of DATABASE_URL is not empty; create a new one and name it")
    finally:
        await connection.close()
    options = ["--exit-on-error", "--single-transaction", "--no-owner", str(directory / _DUMP)]
    await _run_tool("pg_restore", url, options)
    return summary


async def restore_redis(shop: CliServices, directory: Path) -> int:
    """Store the orders that waited, load every sale into Redis, and return the number of sales."""
    persistence: dict[str, SalePersistence] = {}
    for sale_id, orders in _read_waiting(directory):
        now = from_ms(shop.clock.now_ms())
        batch: list[StreamedOrder] = []
        unreadable: list[FailedOrder] = []
        for order in orders:
            entry = EntryId.parse(order.entry.encode())
            try:
                batch.append(StreamedOrder(decode_accepted(order.payload), entry, order.payload))
            except ValueError as error:
                unreadable.append(FailedOrder.unreadable(order.order_id, sale_id, order.payload, entry, str(error)))
        async with shop.db.connection() as connection:
            stored = persistence.setdefault(sale_id, SalePersistence())
            await stored.persist(connection, batch, now, unreadable=unreadable)
    sales = await shop.sales.list_opened()
    for sale in sales:
        await load_sale(shop.db, shop.redis, shop.clock, sale.sale_id)
    return len(sales)


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


async def _run_tool(tool: str, url: str, options: Sequence[str]) -> None:
    """Run a program of Postgres on a database. The password is in the environment, not in `ps`."""
    program = _find_tool(tool)
    parts = urlsplit(url)
    env: Mapping[str, str] = {**os.environ, **({"PGPASSWORD": unquote(parts.password)} if parts.password else {})}
    user, _, address = parts.netloc.rpartition("@")
    netloc = f"{user.partition(':')[0]}@{address}" if user else address
    process = await asyncio.create_subprocess_exec(
        str(program),
        f"--dbname={parts._replace(netloc=netloc).geturl()}",
        *options,
        env=env,
        stdin=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        _, errors = await asyncio.wait_for(process.communicate(), _TIMEOUT_S)
    finally:
        if process.returncode is None:
            process.kill()
    if process.returncode != 0:
        raise NotReady(f"cannot run {tool}: {errors.decode(errors='replace').strip()[-500:]}")


def _find_tool(tool: str) -> Path:
    folders = [shutil.which(tool), *(str(folder / tool) for folder in list_postgres_installs())]
    program = next((Path(folder) for folder in folders if folder and Path(folder).exists()), None)
    if program is None:
        raise NotReady(f"cannot find {tool}: install Postgres's client programs, so that it is on the PATH")
    return program
