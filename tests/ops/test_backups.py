"""A backup, a wipe of both databases and a restore: every order accepted before it is there."""

from __future__ import annotations

import asyncio
import hashlib
import stat
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from uuid import UUID, uuid4

import asyncpg
import msgspec
import pytest
from PIL import Image
from pydantic import SecretStr
from typer.testing import CliRunner

from commerce.aftersales.case_evidence import CaseEvidence
from commerce.aftersales.errors import NoSuchEvidence
from commerce.conversations.message_files import MessageFiles
from commerce.kernel.errors import NotReady
from commerce.kernel.stream_payload import decode_accepted, encode_accepted
from config.aftersales import AftersalesSettings
from config.settings import Settings
from lua import SaleKeys
from ops import shop_backup
from ops.cli import app
from ops.services import CliServices, open_cli_services
from ops.shop_backup import BackupSummary
from tests.support.gateway import run_workers
from tests.support.sales import eventually, make_sale, reservation, reserve
from tests.support.servers import Servers
from tests.support.shipping_shop import ShippingShop


async def test_restore_after_wipe_has_every_order_of_the_backup(
    shop: CliServices, settings: Settings, servers: Servers, sale_id: str, tmp_path: Path
) -> None:
    keys = await make_sale(shop, sale_id, {"A": (100, 500, 50)})
    stored = [reservation(shop.ids.new, sale_id, {"A": 2}, user=f"stored-{number}", price=500) for number in range(5)]
    waiting = [reservation(shop.ids.new, sale_id, {"A": 3}, user=f"waits-{number}", price=500) for number in range(4)]
    await reserve(shop.redis, keys, *stored)
    async with run_workers(settings, "order_writer"):
        await eventually(lambda: _count(shop, 5))
    await reserve(shop.redis, keys, *waiting)

    directory = tmp_path / "backup"
    env = {"REDIS_URL": settings.redis(), "DATABASE_URL": settings.database()}
    async with _role_with_rights(shop):
        result = await _invoke("backup", str(directory), env)
    assert result[0] == 0, result[1]
    assert "4 orders of 1 sales" in result[1]
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert (await _invoke("backup", str(directory), env))[0] == 1  # never over an older one
    assert (await _invoke("restore", str(directory), env))[0] == 1  # the database is not empty

    names = [name async for name in shop.redis.scan_iter(match=f"{{sale:{sale_id}}}:*")]
    await shop.redis.delete(*names)
    async with _new_database(servers) as url:
        env["DATABASE_URL"] = url
        result = await _invoke("restore", str(directory), env)
        assert result[0] == 0, result[1]
        restored = settings.model_copy(update={"database_url": SecretStr(env["DATABASE_URL"])})
        async with open_cli_services(restored) as new_shop:
            assert await _count(new_shop, 9)
            assert await new_shop.redis.hget(SaleKeys(sale_id).stock, "A") == b"78"
            audit = await new_shop.audit.audit_sale(sale_id)
            assert audit.clean
            assert audit.total.difference == 0


async def test_restore_that_failed_after_postgres_is_repeated(
    shop: CliServices,
    settings: Settings,
    servers: Servers,
    sale_id: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No order of a sale can be stored, which an order writer would put down to the program."""
    other_keys = await make_sale(shop, f"{sale_id}-b", {"B": (100, 500, 50)})
    await reserve(shop.redis, other_keys, reservation(shop.ids.new, f"{sale_id}-b", {"B": 1}, user="other", price=500))
    keys = await make_sale(shop, sale_id, {"A": (100, 500, 50)})
    for number in range(2):
        order = decode_accepted(reservation(shop.ids.new, sale_id, {"A": 3}, user=f"user-{number}", price=500).payload)
        payload = encode_accepted(msgspec.structs.replace(order, currency="yuan"))
        await shop.redis.xadd(keys.orders, {order.order_id.bytes: payload})
    await shop.redis.xadd(keys.orders, {b"foreign": b"1"})
    await shop.redis.xadd(keys.orders, {uuid4().bytes: b"not an order"})
    env = {"REDIS_URL": settings.redis(), "DATABASE_URL": settings.database()}
    result = await _invoke("backup", str(tmp_path / "backup"), env)
    assert result[0] == 0, result[1]
    await shop.redis.delete(*[name async for name in shop.redis.scan_iter(match=f"{{sale:{sale_id}}}:*")])
    async with _new_database(servers) as url:
        env["DATABASE_URL"] = url
        unreachable = {**env, "REDIS_URL": f"unix://{tmp_path}/none.sock"}
        assert (await _invoke("restore", str(tmp_path / "backup"), unreachable))[0] == 1
        with monkeypatch.context() as patch:
            patch.setattr(shop_backup, "load_sale", _fail)
            result = await _invoke("restore", str(tmp_path / "backup"), env)
            assert result[0] == 1
            assert "no memory" in result[1]
        result = await _invoke("restore", str(tmp_path / "backup"), env)
        assert result[0] == 0, result[1]
        assert "4 of the orders that waited are dead letters" in result[1]
        assert (await _invoke("restore", str(tmp_path / "backup"), env))[0] == 1  # it is finished
        connection = await asyncpg.connect(url)
        try:
            assert await connection.fetchval("SELECT count(*) FROM dead_letters") == 4
            assert await connection.fetchval("SELECT count(*) FROM orders") == 1
            assert await connection.fetchval("SELECT to_regclass('restore_progress')") is None
        finally:
            await connection.close()
        assert await shop.redis.hget(keys.stock, "A") == b"94"  # dead letters hold their units


async def test_pictures_of_customers_are_restored_and_those_without_file_are_counted(
    ship: ShippingShop, settings: Settings, servers: Servers, tmp_path: Path
) -> None:
    """Those of a case, unused ones, one that two orders share, and one that is an attachment, too."""
    shop = ship.shop
    evidence = CaseEvidence(shop.db, shop.clock, shop.ids, AftersalesSettings(), tmp_path)
    ids = list[UUID]()
    for color in ("red", "green", "blue", "green"):
        order_id, _ = await ship.add_booked_order()
        content = BytesIO()
        Image.new("RGB", (40, 30), color).save(content, "JPEG")
        ids.append((await evidence.upload(order_id, "user", content.getvalue())).evidence_id)
    red, green, blue, _ = [await evidence.read(id_, None) for id_ in ids]
    policies = settings.conversations, AftersalesSettings()
    sent = (await MessageFiles(shop.db, shop.clock, shop.ids, *policies, tmp_path).upload("user", red)).attachment_id
    folder = tmp_path / "evidence"
    digest = hashlib.sha256(blue).hexdigest()
    (folder / digest[:2] / digest).write_bytes(b"not blue")
    env = {"REDIS_URL": settings.redis(), "DATABASE_URL": settings.database(), "FLOODGATE_DATA_DIR": str(tmp_path)}
    status, output = await _invoke("backup", str(tmp_path / "backup"), env)
    assert status == 0, output
    assert "and 3 pictures" in output
    assert "1 pictures are not in the backup" in output

    async with _new_database(servers) as url:
        new_folder = tmp_path / "new" / "pictures"
        env |= {"DATABASE_URL": url, "FLOODGATE_AFTERSALES__EVIDENCE_DIR": str(tmp_path / "backup" / "backup.json")}
        status, output = await _invoke("restore", str(tmp_path / "backup"), env)
        assert (status, "set aftersales.evidence_dir" in output) == (1, True)
        env["FLOODGATE_AFTERSALES__EVIDENCE_DIR"] = str(new_folder)
        status, output = await _invoke("restore", str(tmp_path / "backup"), env)
        assert status == 0, output
        assert "3 pictures are stored" in output
        restored = settings.model_copy(update={"database_url": SecretStr(url)})
        async with open_cli_services(restored) as new_shop:
            policy = AftersalesSettings(evidence_dir=new_folder)
            moved = CaseEvidence(new_shop.db, new_shop.clock, new_shop.ids, policy, tmp_path)
            assert [await moved.read(ids[place], "user") for place in (0, 1, 3)] == [red, green, green]
            with pytest.raises(NoSuchEvidence):
                await moved.read(ids[2], "user")
            files = MessageFiles(new_shop.db, new_shop.clock, new_shop.ids, settings.conversations, policy, tmp_path)
            assert (await files.read_of_staff(sent)).media_type == "image/jpeg"
    assert len([file for file in new_folder.rglob("*") if file.is_file()]) == 3


NOW = datetime(2026, 11, 11, tzinfo=UTC)
LINE = msgspec.json.encode(shop_backup.WaitingOrder("sale", "1-0", UUID(int=1), b"payload")) + b"\n"
DAMAGES: dict[str, Callable[[Path], object]] = {
    "orders cut within a line": lambda folder: _cut(folder / "waiting-orders.jsonl", 5),
    "orders cut after a line": lambda folder: _cut(folder / "waiting-orders.jsonl", len(LINE)),
    "no orders": lambda folder: (folder / "waiting-orders.jsonl").unlink(),
    "dump cut": lambda folder: _cut(folder / "postgres.dump", 1),
    "no dump": lambda folder: (folder / "postgres.dump").unlink(),
    "summary cut": lambda folder: _cut(folder / "backup.json", 1),
    "pictures cut": lambda folder: _cut(folder / "pictures.tar", 1),
    "no pictures": lambda folder: (folder / "pictures.tar").unlink(),
    "another number of orders, without digests": lambda folder: (folder / "backup.json").write_bytes(
        msgspec.json.encode(BackupSummary(NOW, 1, 3))
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
async def test_damaged_backup_is_refused_before_anything_is_restored(damage: str, tmp_path: Path) -> None:
    (tmp_path / "waiting-orders.jsonl").write_bytes(LINE * 2)
    (tmp_path / "postgres.dump").write_bytes(b"dump")
    (tmp_path / "pictures.tar").write_bytes(b"pictures")
    digests = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in tmp_path.iterdir()}
    (tmp_path / "backup.json").write_bytes(msgspec.json.encode(BackupSummary(NOW, 1, 2, digests)))
    unreachable = f"postgresql://user@/shop?host={tmp_path}"
    with pytest.raises(NotReady, match="cannot use Postgres"):  # the backup itself is complete
        await shop_backup.restore_database(tmp_path, unreachable)
    DAMAGES[damage](tmp_path)
    with pytest.raises(NotReady, match=r"is damaged|no complete backup"):
        await shop_backup.restore_database(tmp_path, unreachable)


async def test_incomplete_backup_is_refused(settings: Settings, tmp_path: Path) -> None:
    env = {"REDIS_URL": settings.redis(), "DATABASE_URL": settings.database()}
    status, output = await _invoke("restore", str(tmp_path), env)
    assert status == 1
    assert "no complete backup" in output


@asynccontextmanager
async def _new_database(servers: Servers) -> AsyncIterator[str]:
    """Create a database and yield its URL."""
    name = f"restored_{uuid4().hex}"
    admin = await asyncpg.connect(servers.database_url.format("postgres"))
    try:
        await admin.execute(f"CREATE DATABASE {name}")
        try:
            yield servers.database_url.format(name)
        finally:
            await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
    finally:
        await admin.close()


@asynccontextmanager
async def _role_with_rights(shop: CliServices) -> AsyncIterator[None]:
    """Give a role rights, and drop it afterwards: the server that is restored to has no such role."""
    name = f"reader_{uuid4().hex}"
    async with shop.db.connection() as connection:
        await connection.execute(f"CREATE ROLE {name}; GRANT SELECT ON orders TO {name}")
        try:
            yield
        finally:
            await connection.execute(f"DROP OWNED BY {name}; DROP ROLE {name}")


async def _fail(*_: object) -> None:
    raise NotReady("no memory")


def _cut(file: Path, size: int) -> None:
    file.write_bytes(file.read_bytes()[:-size])


async def _invoke(command: str, directory: str, env: dict[str, str]) -> tuple[int, str]:
    result = await asyncio.to_thread(CliRunner().invoke, app, [command, directory], env=env)
    return result.exit_code, " ".join(result.output.split())


async def _count(shop: CliServices, orders: int) -> bool:
    async with shop.db.connection() as connection:
        return bool(await connection.fetchval("SELECT count(*) FROM orders") == orders)
