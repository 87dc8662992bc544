"""A backup, a wipe of both databases and a restore: every order accepted before it is there."""

from __future__ import annotations

import asyncio
import stat
from pathlib import Path
from uuid import uuid4

import asyncpg
from pydantic import SecretStr
from typer.testing import CliRunner

from config.settings import Settings
from lua import SaleKeys
from ops.cli import app
from ops.services import CliServices, open_cli_services
from tests.support.gateway import run_workers
from tests.support.sales import eventually, make_sale, reservation, reserve
from tests.support.servers import Servers


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
    result = await _invoke("backup", str(directory), env)
    assert result[0] == 0, result[1]
    assert "4 orders of 1 sales" in result[1]
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert (await _invoke("backup", str(directory), env))[0] == 1  # never over an older one
    assert (await _invoke("restore", str(directory), env))[0] == 1  # the database is not empty

    names = [name async for name in shop.redis.scan_iter(match=f"{{sale:{sale_id}}}:*")]
    await shop.redis.delete(*names)
    name = f"restored_{uuid4().hex}"
    admin = await asyncpg.connect(servers.database_url.format("postgres"))
    await admin.execute(f"CREATE DATABASE {name}")
    try:
        env["DATABASE_URL"] = servers.database_url.format(name)
        result = await _invoke("restore", str(directory), env)
        assert result[0] == 0, result[1]
        restored = settings.model_copy(update={"database_url": SecretStr(env["DATABASE_URL"])})
        async with open_cli_services(restored) as new_shop:
            assert await _count(new_shop, 9)
            assert await new_shop.redis.hget(SaleKeys(sale_id).stock, "A") == b"78"
            audit = await new_shop.audit.audit_sale(sale_id)
            assert audit.clean
            assert audit.total.difference == 0
    finally:
        await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
        await admin.close()


async def test_incomplete_backup_is_refused(settings: Settings, tmp_path: Path) -> None:
    env = {"REDIS_URL": settings.redis(), "DATABASE_URL": settings.database()}
    status, output = await _invoke("restore", str(tmp_path), env)
    assert status == 1
    assert "no complete backup" in output


async def _invoke(command: str, directory: str, env: dict[str, str]) -> tuple[int, str]:
    result = await asyncio.to_thread(CliRunner().invoke, app, [command, directory], env=env)
    return result.exit_code, " ".join(result.output.split())


async def _count(shop: CliServices, orders: int) -> bool:
    async with shop.db.connection() as connection:
        return bool(await connection.fetchval("SELECT count(*) FROM orders") == orders)
