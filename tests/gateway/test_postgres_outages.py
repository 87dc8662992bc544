"""Postgres is unavailable in many ways: gateways answer 503, workers wait, and both recover."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit
from uuid import uuid4

import asyncpg
import pytest

from commerce.kernel.errors import NotReady
from commerce.kernel.postgres import connect
from commerce.kernel.tasks import cancel_and_wait
from config.settings import Settings
from gateway import server_sent_events
from gateway.app import ADMIN, PUBLIC
from gateway.operations import Operation
from ops.services import open_cli_services
from tests.support.gateway import GatewayResponse, TestGateway, bearer, open_gateway, run_workers
from tests.support.sales import eventually, make_sale, order_body
from tests.support.servers import Servers
from workers.registry import NAMES

ROLES = ("catalog", "sales", "support_lead", "warehouse")
TABLES = "ALL TABLES IN SCHEMA public"
PATH_VALUES = {"seq": "1", "provider": "alipay", "system": "kuaidi100", "token": "nobody's"}
BODIES: dict[str, object] = {
    "put_product": {"name": "A mug", "price_minor": 100, "currency": "CNY"},
    "create_sale": {"sale_id": "other", "title": "Other", "currency": "CNY", "opens_at": "2030-01-01T00:00:00Z"},
    "change_stock": {"units": 1, "reason": "found"},
    "cancel_order_as_staff": {"reason": "on the phone"},
    "hold_shipment": {"reason": "on the phone"},
    "split_shipment": {"lines": [{"line_no": 0, "quantity": 1}]},
    "create_wave": {"warehouse": "w"},
}


@dataclass
class Outage:
    """SQL by which a superuser brings Postgres into a state and out of it.

    `{db}` and `{role}` are the shop's. `in_database` is run in the shop's database. With `lock` all its tables are
    locked meanwhile. With `cut` the shop's connections are ended again and again, otherwise once at the beginning.
    """

    enter: str = ""
    leave: str = ""
    in_database: bool = False
    lock: bool = False
    cut: bool = False


FREE = "ALTER ROLE {role} CONNECTION LIMIT -1"
OUTAGES = {
    "read_only": Outage("ALTER ROLE {role} SET default_transaction_read_only = on", "ALTER ROLE {role} RESET ALL"),
    "login_refused": Outage("ALTER ROLE {role} NOLOGIN", "ALTER ROLE {role} LOGIN"),
    "database_gone": Outage(
        "UPDATE pg_database SET datname = '{db}_gone' WHERE datname = '{db}'",
        "UPDATE pg_database SET datname = '{db}' WHERE datname = '{db}_gone'",
    ),
    "connections_refused": Outage(
        "ALTER DATABASE {db} ALLOW_CONNECTIONS false", "ALTER DATABASE {db} ALLOW_CONNECTIONS true"
    ),
    "too_many_connections": Outage(leave=FREE),
    "missing_rights": Outage(
        f"REVOKE ALL ON {TABLES} FROM {{role}}", f"GRANT ALL ON {TABLES} TO {{role}}", in_database=True
    ),
    "schema_gone": Outage("ALTER SCHEMA public RENAME TO gone", "ALTER SCHEMA gone RENAME TO public", in_database=True),
    "lock_timeout": Outage("ALTER ROLE {role} SET lock_timeout = '20ms'", "ALTER ROLE {role} RESET ALL", lock=True),
    "statement_timeout": Outage(lock=True),
    "admin_shutdown": Outage(cut=True),
}
REFUSED_AT_CONNECT = {"login_refused", "database_gone", "connections_refused", "too_many_connections"}


@dataclass
class Postgres:
    """A database of the shop's own user, and a superuser who brings it into a state."""

    admin: asyncpg.Connection[asyncpg.Record]
    owner: asyncpg.Connection[asyncpg.Record]
    url: str
    db: str
    role: str

    async def end_connections(self) -> None:
        await self.admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1", self.role)

    @asynccontextmanager
    async def outage(self, outage: Outage) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            await self._run("ALTER ROLE {role} CONNECTION LIMIT 0", False)  # nobody waits for a lock or holds one
            await eventually(self._has_no_connections)
            if outage.lock:
                await stack.enter_async_context(self._locked())
            await self._run(outage.enter, outage.in_database)
            if outage.leave != FREE:
                await self._run(FREE, False)
            cutting = asyncio.create_task(self._cut_forever()) if outage.cut else None
            yield
            if cutting is not None:
                await cancel_and_wait(cutting)
            await self._run(outage.leave, outage.in_database)
        await self.end_connections()

    async def _has_no_connections(self) -> bool:
        await self.end_connections()
        return not await self.admin.fetchval("SELECT count(*) FROM pg_stat_activity WHERE usename = $1", self.role)

    async def _run(self, sql: str, in_database: bool) -> None:
        connection = self.owner if in_database else self.admin
        if sql:
            await connection.execute(sql.format(db=self.db, role=self.role))

    @asynccontextmanager
    async def _locked(self) -> AsyncIterator[None]:
        tables = await self.owner.fetchval(
            "SELECT string_agg(tablename, ', ') FROM pg_tables WHERE schemaname = 'public'"
        )
        async with self.owner.transaction():
            await self.owner.execute(f"LOCK TABLE {tables} IN ACCESS EXCLUSIVE MODE")
            yield

    async def _cut_forever(self) -> None:
        while True:
            await self.end_connections()
            await asyncio.sleep(0.001)


@pytest.fixture
async def postgres(servers: Servers, database_url: str) -> AsyncIterator[Postgres]:
    db, role = urlsplit(database_url).path[1:], f"shop_{uuid4().hex[:12]}"
    admin = await asyncpg.connect(servers.database_url.format("postgres"))
    await admin.execute(f"CREATE ROLE {role} LOGIN")
    owner = await asyncpg.connect(database_url)
    await owner.execute(f"GRANT ALL ON {TABLES} TO {role}; GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO {role}")
    postgres = Postgres(admin, owner, database_url.replace("//floodgate@", f"//{role}@"), db, role)
    yield postgres
    await postgres.end_connections()
    await owner.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")
    await owner.close()
    await admin.close()


@pytest.fixture
def own_settings(make_settings: Callable[..., Settings], postgres: Postgres) -> Settings:
    return make_settings(
        database_url=postgres.url,
        limits={"database_timeout_s": 0.5, "event_stream_max_s": 2},
        observer={"gauges_every_s": 0.05},
    )


@pytest.mark.parametrize("name", OUTAGES)
async def test_every_endpoint_and_worker_in_outage_waits_and_recovers(
    own_settings: Settings, postgres: Postgres, sale_id: str, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_cli_services(own_settings) as shop:
        await make_sale(shop, sale_id, {"a": (50, 100, None)})
    async with open_gateway(own_settings) as gateway, run_workers(own_settings, *NAMES):
        before = (await gateway.order(order_body(sale_id, ("a", 1)))).body["order_id"]
        await _wait_until_stored(gateway, before)
        caplog.clear()
        async with postgres.outage(OUTAGES[name]):
            answers = await _call_every_operation(gateway, sale_id, before)
            placed = await gateway.order(order_body(sale_id, ("a", 1)))
            if name in REFUSED_AT_CONNECT:
                for opening in (
                    open_cli_services(own_settings).__aenter__(),
                    connect(postgres.url, name="x", timeout_s=1),
                ):
                    with pytest.raises(NotReady, match=r"\Acannot use Postgres: [^\n]+ \(SQLSTATE \w{5}\); [^\n]+\Z"):
                        await opening
        assert placed.status == 202, placed.text
        refused = 0
        for operation, answer in answers:
            assert answer.status != 500, (operation.id, answer.text)
            if answer.status == 503 and operation.id != "ready":
                refused += 1
                assert answer.headers.get("Retry-After"), operation.id
                assert answer.code in ("not_ready", "overloaded", "outcome_unknown"), (operation.id, answer.text)
        assert refused >= (5 if name in ("read_only", "admin_shutdown") else 30)
        await _wait_until_stored(gateway, placed.body["order_id"])
        await eventually(lambda: _has_status(gateway, "/v1/admin/jobs", 200))
    assert any(record.levelno >= logging.WARNING for record in caplog.records)
    assert not [record.getMessage() for record in caplog.records if record.exc_info and record.name != "asyncio"]


async def _call_every_operation(
    gateway: TestGateway, sale_id: str, order_id: str
) -> list[tuple[Operation, GatewayResponse]]:
    slots = asyncio.Semaphore(40)  # all at once would wait longer than a gateway keeps slow clients on a slow machine

    async def call(operation: Operation) -> tuple[Operation, GatewayResponse]:
        path = operation.path
        for parameter in operation.parameters:
            if parameter.location == "path":
                value = {"sale_id": sale_id, "sku": "a", **PATH_VALUES}.get(parameter.name, order_id)
                path = path.replace(f"{{{parameter.name}}}", value)
        roles = ROLES if operation.access not in ("anyone", "customer") else ()
        async with slots:
            return operation, await gateway.call(
                operation.method,
                path,
                roles=roles,
                headers={"Idempotency-Key": f"key-{uuid4()}"},
                params={"day": "2030-01-01"} if operation.id == "list_routes" else None,
                json=BODIES.get(operation.id),
            )

    operations = {(operation.method, operation.path): operation for operation in (*PUBLIC, *ADMIN)}
    return await asyncio.gather(*map(call, operations.values()))


async def _wait_until_stored(gateway: TestGateway, order_id: str) -> None:
    await eventually(lambda: _has_status(gateway, f"/v1/orders/{order_id}", 200))


async def _has_status(gateway: TestGateway, path: str, status: int) -> bool:
    roles = ROLES if "/admin/" in path else ()
    return (await gateway.call("GET", path, roles=roles)).status == status


async def test_event_stream_during_outage_ends_and_is_continued(
    own_settings: Settings, postgres: Postgres, sale_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_sent_events, "_HEARTBEAT_S", 0.05)
    async with open_cli_services(own_settings) as shop:
        await make_sale(shop, sale_id, {"a": (50, 100, None)})
    async with open_gateway(own_settings) as gateway, run_workers(own_settings, "order_writer"):
        order_id = (await gateway.order(order_body(sale_id, ("a", 1)))).body["order_id"]
        await _wait_until_stored(gateway, order_id)
        path, headers = f"/v1/orders/{order_id}/events", bearer(own_settings)
        async with gateway.client.get(gateway.base + path, headers=headers) as stream:
            await stream.content.readuntil(b"id: 1\n")
            async with postgres.outage(OUTAGES["missing_rights"]):
                rest = await stream.text()
        assert "HTTP/1.1" not in rest
        assert "problem" not in rest
        async with gateway.client.get(gateway.base + path, headers=headers) as stream:
            await stream.content.readuntil(b"id: 1\n")
