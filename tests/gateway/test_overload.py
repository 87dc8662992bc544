"""P10: an overloaded gateway refuses cheaply, by user, and does not read refused clients."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from unittest.mock import Mock

import pytest

import lua
from config.settings import LimitSettings, Settings
from gateway.admission import Admission
from gateway.fast_path import FastPathConnection
from gateway.known_keys import KnownKeys
from gateway.order_turns import OrderTurns
from gateway.resting_connections import RestingConnections
from lua import SaleKeys
from ops.services import CliServices
from tests.gateway.test_slow_clients import build_order_request, connect, tracked_connections
from tests.support.gateway import GatewayResponse, TestGateway, open_gateway, token
from tests.support.proxy import open_redis_proxy
from tests.support.raw_http import split_replies
from tests.support.sales import eventually, make_sale, order_body
from tests.support.servers import Servers
from tests.unit.test_kernel import FakeClock

LIMITS = {"batch_orders": 3, "concurrent_reserve_calls": 1, "order_wait_target_ms": 5, "redis_call_timeout_ms": 5_000}
DIRECT = {"proxy_networks": []}


def create_admission(clock: FakeClock, **limits: int) -> Admission:
    return Admission(LimitSettings(**limits), clock)


def test_pressure_follows_wait_of_oldest_order() -> None:
    admission = create_admission(FakeClock(0), batch_orders=10, order_wait_target_ms=20)
    admission.waiting, admission.waiting_since = 9, 0.0
    assert admission.pressure(60.0) < 0  # one call carries them, however long it takes
    admission.waiting = 10
    assert [round(admission.pressure(now), 6) for now in (0.0, 0.02, 0.03, 0.04)] == [-1, 0, 0.5, 1]
    for backlog in ((10_000_000, 0, 0.0), (0, 1 << 40, 0.0), (0, 0, 3_600.0)):
        admission.report_backlog(*backlog)
        assert admission.pressure(0.0) == float("inf")
        assert "stored" in admission.refusal().detail
    admission.report_backlog(1, 1, 1.0)
    assert admission.pressure(0.0) == -1
    assert "waiting" in admission.refusal().detail


def test_rank_is_the_same_at_all_gateways_and_changes_after_ten_seconds() -> None:
    clock = FakeClock(1_000_000_000_000)
    first, second = create_admission(clock), create_admission(clock)
    users = [zlib.crc32(b"user %d" % number) for number in range(4_000)]

    def admitted(admission: Admission, pressure: float) -> set[int]:
        return {user for user in users if admission.admits(pressure, user)}

    early = {pressure: admitted(first, pressure) for pressure in (0.1, 0.5, 0.9, 1.0)}
    assert all(admitted(second, pressure) == users for pressure, users in early.items())
    assert early[0.9] < early[0.5] < early[0.1]
    assert early[1.0] == set()
    assert all(abs(len(early[pressure]) / len(users) - (1 - pressure)) < 0.03 for pressure in (0.1, 0.5, 0.9))
    clock.ms += 9_999
    assert admitted(first, 0.5) == early[0.5]  # who asks again at once is refused again
    clock.ms += 1
    later = admitted(first, 0.5)
    assert abs(len(later & early[0.5]) / len(users) - 0.25) < 0.03  # and has another chance afterwards


def test_known_keys_are_found_until_newer_ones_take_their_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.known_keys._SLOTS", 64)
    monkeypatch.setattr("gateway.known_keys._SLOT_MASK", 63)
    keys = KnownKeys()
    for number in range(1_000):
        keys.add(b"token", b"key %d" % number)
        assert keys.has(b"token", b"key %d" % number)
    assert sum(keys.has(b"token", b"key %d" % number) for number in range(1_000)) < 100
    assert sum(keys.has(b"other", b"key %d" % number) for number in range(1_000)) < 50


_USE_KNOWN_KEYS = """
import sys
from pathlib import Path
from gateway.known_keys import KnownKeys
from gateway.order_turns import OrderTurns
from gateway.resting_connections import RestingConnections
keys = KnownKeys(Path(sys.argv[1]))
print(keys.has(b"token", b"old"), keys.has(b"token", b"new"))
keys.add(b"token", sys.argv[2].encode())
"""


@pytest.mark.parametrize(
    ("seeds", "printed"),
    [
        ((7, 7, 7), ["False False", "True False", "True True"]),
        ((7, 8, 9), ["False False"] * 3),
        (("random", 8, 8), ["False False", "False False", "False True"]),  # the seed is set later, or changed
        ((7, "random", 7), ["False False", "False False", "True False"]),
    ],
)
def test_known_keys_are_shared_by_processes_with_one_hash_seed(
    tmp_path: Path, seeds: tuple[int | str, ...], printed: list[str]
) -> None:
    outputs = [
        subprocess.run(
            [sys.executable, "-c", _USE_KNOWN_KEYS, str(tmp_path), key],
            env=os.environ | {"PYTHONHASHSEED": str(seed)},
            capture_output=True,
            check=True,
            text=True,
            timeout=60,
        ).stdout.strip()
        for seed, key in zip(seeds, ("old", "new", "old"), strict=True)
    ]
    assert outputs == printed


def test_known_keys_do_without_a_directory_that_cannot_be_used(tmp_path: Path) -> None:
    keys = KnownKeys(tmp_path / "missing")
    keys.add(b"token", b"key")
    assert keys.has(b"token", b"key")


class DeferringConnection:
    """A connection with an order, which it takes or leaves to a later turn."""

    def __init__(self, turns: OrderTurns, taken: list[int], iteration: Callable[[], int], error: bool) -> None:
        self._turns, self._taken, self._iteration, self._error = turns, taken, iteration, error
        self.aborted = False

    def take_deferred(self) -> None:
        if self._error:
            raise RuntimeError("broken")
        if self._turns.left <= 0:
            self._turns.defer(self, 0.0)
            return
        self._turns.count()
        self._taken.append(self._iteration())

    def abort(self) -> None:
        self.aborted = True


async def test_crowd_leaves_room_for_others_in_each_iteration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.order_turns._ORDERS_PER_TURN", 64)
    admission, iteration, taken = create_admission(FakeClock(0)), 0, list[int]()
    turns = OrderTurns(admission)
    connections = [DeferringConnection(turns, taken, lambda: iteration, number == 100) for number in range(1_000)]
    for connection in connections:
        if connection is connections[100]:
            turns.defer(connection, 0.0)
        else:
            connection.take_deferred()
    while admission.deferred:
        iteration += 1
        await asyncio.sleep(0)
        assert iteration < 100
    assert len(taken) == 999
    assert max(Counter(taken).values()) <= 64
    assert admission.deferred_since == float("inf")
    assert [connection.aborted for connection in connections].count(True) == 1


def test_deferred_orders_count_as_waiting() -> None:
    admission = create_admission(FakeClock(0), batch_orders=10, order_wait_target_ms=20)
    admission.deferred, admission.deferred_since = 10, 0.0
    assert [round(admission.pressure(now), 6) for now in (0.0, 0.02, 0.03)] == [-1, 0, 0.5]
    admission.waiting, admission.waiting_since = 1, 0.01
    assert admission.pressure(0.03) == pytest.approx(0.5)


async def wait_for_overload(gateway: TestGateway, sale_id: str) -> list[asyncio.Task[GatewayResponse]]:
    """Fill the queue while Redis is held: one call in flight, and a full batch that has waited too long."""
    admission, intake, loop = gateway.services.admission, gateway.services.intake, asyncio.get_running_loop()

    def order(number: int) -> asyncio.Task[GatewayResponse]:
        return asyncio.create_task(gateway.order(order_body(sale_id, ("a", 1)), user=f"user-{number}"))

    async def is_sent() -> bool:
        return bool(intake._calls)

    async def is_overloaded() -> bool:
        return admission.waiting == 3 and admission.pressure(loop.time()) > 1

    calls = [order(0)]
    await eventually(is_sent)
    calls += [order(number) for number in (1, 2, 3)]
    await eventually(is_overloaded)
    return calls


@pytest.mark.parametrize("direct", [True, False], ids=["direct", "proxy"])
async def test_refused_connection_is_not_read_before_retry_after(
    make_settings: Callable[..., Settings],
    servers: Servers,
    tmp_path: Path,
    shop: CliServices,
    sale_id: str,
    direct: bool,
) -> None:
    """A proxy's connection is read: it brings the requests of others too."""
    keys = await make_sale(shop, sale_id, {"a": (50, 100, None)})
    loop = asyncio.get_running_loop()
    async with open_redis_proxy(servers.redis_url, tmp_path) as (proxy, url):
        settings = make_settings(redis_url=url, limits=LIMITS, http=DIRECT if direct else {})
        async with open_gateway(settings) as gateway:
            proxy.hold.clear()
            calls = await wait_for_overload(gateway, sale_id)
            client = await connect(gateway)
            try:
                started = loop.time()
                await loop.sock_sendall(client, build_order_request(gateway, sale_id, 1, key="mine"))
                [refusal] = split_replies(await loop.sock_recv(client, 65_536))[0]
                assert (refusal.status, refusal.header("x-request-id")) == (503, "r-1")
                assert b'"code":"overloaded"' in refusal.body
                assert b'"request_id":"r-1"' in refusal.body
                retry_after_s = int(refusal.header("retry-after") or 0)
                assert 1 <= retry_after_s <= 2
                assert gateway.services.resting.count == direct
                await loop.sock_sendall(client, build_order_request(gateway, sale_id, 2, key="mine"))
                if not direct:
                    assert (await loop.sock_recv(client, 65_536)).startswith(b"HTTP/1.1 503")
            finally:
                proxy.hold.set()
            assert {answer.status for answer in await asyncio.gather(*calls)} == {202}
            if direct:
                async with asyncio.timeout(10):
                    assert (await loop.sock_recv(client, 65_536)).startswith(b"HTTP/1.1 202")
                assert loop.time() - started >= retry_after_s
            client.close()
    assert await count_sold(shop, keys) == 4 + direct


async def count_sold(shop: CliServices, keys: SaleKeys) -> int:
    return 50 - (await lua.cut(shop.redis, keys)).stock["a"]


@pytest.mark.parametrize("fast_path", [True, False])
async def test_repeat_of_accepted_order_comes_before_new_ones(
    make_settings: Callable[..., Settings], shop: CliServices, sale_id: str, tmp_path: Path, fast_path: bool
) -> None:
    """Also at another gateway of the machine, which has not seen the token."""
    await make_sale(shop, sale_id, {"a": (50, 100, None)})
    settings = make_settings(metrics_dir=tmp_path)
    async with open_gateway(settings, fast_path=fast_path) as gateway, open_gateway(settings) as other:
        sent = f"Bearer {token(settings)}"
        headers = {"Authorization": sent, "Idempotency-Key": "mine"}
        body = order_body(sale_id, ("a", 1))
        assert (await gateway.call("POST", "/v1/orders", headers=headers, json=body)).status == 202
        for authorization in (sent, sent.encode()):
            for shedder in (gateway.services.shedder, other.services.shedder):
                assert not shedder.refuses(2.0, authorization, b"mine")
                assert shedder.refuses(2.0, authorization, b"new")
                assert shedder.refuses(2.0, b"Bearer of another", b"mine")
                assert shedder.refuses(3.0, authorization, b"mine")
                assert not shedder.refuses(-1.0, None, None)


async def test_client_that_leaves_a_resting_connection_is_noticed(make_settings: Callable[..., Settings]) -> None:
    """Also if it has pressed again, which stops the reading: then when its rest is over."""
    async with open_gateway(make_settings(http=DIRECT)) as gateway:
        for sent, rest_s in ((b"", 30.0), (b"GET /health/live HTTP/1.1\r\n", 0.2)):
            client = await connect(gateway)
            await eventually(lambda: has_connections(gateway, 1))
            [connection] = tracked_connections(gateway)
            assert isinstance(connection, FastPathConnection)
            connection._rest(rest_s)
            assert gateway.services.resting.count == 1
            if sent:
                await asyncio.get_running_loop().sock_sendall(client, sent)
            client.close()
            await eventually(lambda: has_connections(gateway, 0))
            assert gateway.services.resting.count == 0


async def test_connection_that_cannot_be_resumed_harms_no_other(make_settings: Callable[..., Settings]) -> None:
    async with open_gateway(make_settings(http=DIRECT)) as gateway:
        for broken in (resting_connection(resume=Mock(side_effect=ValueError)), resting_connection()):
            gateway.services.resting.add(broken, 0.0)
            await eventually(lambda: is_nobody_resting(gateway))
        broken.resume.assert_called_once()


async def test_impatient_client_rests_on_while_others_are_refused() -> None:
    """A patient one is read again at once, an impatient one when there is capacity, the oldest first."""
    overloaded = True
    resting = RestingConnections(lambda: overloaded)
    resumed: list[str] = []
    for name, is_impatient in (("first", True), ("patient", False), ("second", True)):
        resume = Mock(side_effect=lambda name=name: resumed.append(name))
        resting.add(resting_connection(is_impatient=is_impatient, resume=resume), 0.0)
    task = asyncio.create_task(resting.resume_forever())
    try:
        await eventually(lambda: has_length(resumed, 1))
        assert (resumed, resting.count) == (["patient"], 2)
        overloaded = False
        await eventually(lambda: has_length(resumed, 3))
        assert (resumed, resting.count) == (["patient", "first", "second"], 0)
    finally:
        task.cancel()


async def test_second_rest_ends_however_long_the_overload(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.resting_connections._IMPATIENT_REST_S", 0)
    resting, resumed = RestingConnections(lambda: True), list[str]()
    resting.add(resting_connection(is_impatient=True, resume=Mock(side_effect=lambda: resumed.append("it"))), 0.0)
    task = asyncio.create_task(resting.resume_forever())
    try:
        await eventually(lambda: has_length(resumed, 1))
    finally:
        task.cancel()


def resting_connection(*, is_impatient: bool = False, resume: Mock | None = None) -> Mock:
    resume = resume or Mock(return_value=None)
    return Mock(is_resting=True, is_impatient=is_impatient, resume=resume, abort=Mock(return_value=None))


async def has_length(values: Sequence[str], count: int) -> bool:
    return len(values) == count


async def has_connections(gateway: TestGateway, count: int) -> bool:
    return gateway.connections.open_count == count


async def is_nobody_resting(gateway: TestGateway) -> bool:
    return gateway.services.resting.count == 0
