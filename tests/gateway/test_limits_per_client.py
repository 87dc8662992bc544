"""Limits of one client: no token and no address takes all, and no stranger fills a cache."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from ipaddress import ip_network
from unittest.mock import MagicMock, Mock
from uuid import UUID, uuid4

import orjson
import pytest

from commerce.kernel.errors import Overloaded
from config.settings import HttpSettings, LimitSettings, Settings
from gateway import rate_limits
from gateway.change_watcher import ChangeWatcher
from gateway.client_addresses import ClientAddresses
from gateway.problems import TooManyRequests
from gateway.rate_limits import TokenBuckets
from ops.services import CliServices
from tests.gateway.test_slow_clients import build_order_request, connect, read_all, tracked_connections
from tests.support.gateway import TestGateway, bearer, open_gateway
from tests.support.sales import eventually, make_sale, order_body
from tests.unit.test_kernel import FakeClock
from workers import runtime


@pytest.mark.parametrize("fast_path", [True, False])
async def test_connections_of_one_address_over_limit_are_refused(
    make_settings: Callable[..., Settings], fast_path: bool
) -> None:
    settings = make_settings(http={"proxy_networks": []}, limits={"connections_per_address": 3})
    async with open_gateway(settings, fast_path=fast_path) as gateway:
        clients = [await connect(gateway) for _ in range(3)]
        await eventually(lambda: _has_connections(gateway, 3))
        late = await connect(gateway)
        [refusal] = await read_all(late)
        assert (refusal.status, orjson.loads(refusal.body)["code"]) == (503, "overloaded")
        assert b"from your address" in refusal.body
        clients.pop().close()
        await eventually(lambda: _has_connections(gateway, 2))
        assert (await gateway.call("GET", "/health/live", user=None)).status == 200
        for client in (*clients, late):
            client.close()
        await gateway.client.close()
        await eventually(lambda: _has_connections(gateway, 0))
        assert not gateway.connections._counts


async def _has_connections(gateway: TestGateway, count: int) -> bool:
    return gateway.connections.open_count == count


async def test_connections_of_a_proxy_are_not_limited(make_settings: Callable[..., Settings]) -> None:
    """By default private addresses are taken for proxies."""
    async with open_gateway(make_settings(limits={"connections_per_address": 1})) as gateway:
        clients = [await connect(gateway) for _ in range(3)]
        await eventually(lambda: _has_connections(gateway, 3))
        for client in clients:
            client.close()


@pytest.mark.parametrize(
    ("peer", "expected"),
    [
        (("203.0.113.7", 1), "203.0.113.7"),
        (("::ffff:203.0.113.7", 1, 0, 0), "203.0.113.7"),
        (("2001:db8:1:2:3:4:5:6", 1, 0, 0), "2001:db8:1:2::/64"),
        (("fe80::1%eth0", 1, 0, 2), "fe80::/64"),
        (("10.1.2.3", 1), None),
        (("127.0.0.1", 1), None),
        (("::ffff:192.168.0.1", 1, 0, 0), None),
        (("::1", 1, 0, 0), None),
        ("", None),
        (None, None),
    ],
)
def test_client_address_of_peer_is_found(peer: object, expected: str | None) -> None:
    transport = Mock(get_extra_info=Mock(return_value=peer))
    buckets = TokenBuckets("address", 1, 1, FakeClock(0))
    client = ClientAddresses(HttpSettings(), buckets).find_peer(transport)
    assert client.address == expected
    assert client.bucket is (None if expected is None else buckets.find(expected))
    everywhere = HttpSettings(proxy_networks=(ip_network("0.0.0.0/0"), ip_network("::/0")))
    assert ClientAddresses(everywhere, buckets).find_peer(transport).address is None


async def test_event_streams_of_one_user_or_address_over_limit_are_refused() -> None:
    limits = LimitSettings(
        concurrent_event_streams=6, concurrent_event_streams_per_user=2, concurrent_event_streams_per_address=4
    )
    watcher = ChangeWatcher({"order": Mock()}, MagicMock(), FakeClock(0), limits)
    order_id: UUID = uuid4()
    opened = []

    def open_stream(user_id: str, address: str | None) -> None:
        stream = watcher.subscribe("order", order_id, user_id=user_id, address=address)
        stream.__enter__()
        opened.append(stream)

    for user_id in ("a", "a", "b", "b"):
        open_stream(user_id, "203.0.113.7")
    with pytest.raises(TooManyRequests, match="2 event streams of this user"):
        open_stream("a", "203.0.113.8")
    with pytest.raises(TooManyRequests, match="4 event streams of this address"):
        open_stream("c", "203.0.113.7")
    open_stream("c", None)
    open_stream("d", None)
    with pytest.raises(Overloaded, match="6 event streams of this gateway"):
        open_stream("e", None)
    opened.pop(0).__exit__(None, None, None)
    open_stream("a", "203.0.113.7")
    for stream in opened:
        stream.__exit__(None, None, None)
    assert not watcher._streams
    assert not watcher._watched["order"]


async def test_second_event_stream_of_user_over_limit_gets_429(
    make_settings: Callable[..., Settings], shop: CliServices, sale_id: str
) -> None:
    await make_sale(shop, sale_id, {"a": (5, 100, None)})
    async with open_gateway(make_settings(limits={"concurrent_event_streams_per_user": 1})) as gateway:
        paths = {}
        for user in ("zoe", "max"):
            order = await gateway.order(order_body(sale_id, ("a", 1)), user=user)
            paths[user] = order.headers["Location"] + "/events"
        with gateway.services.watcher.subscribe("order", uuid4(), user_id="zoe"):
            refused = await gateway.call("GET", paths["zoe"], user="zoe")
            assert (refused.status, refused.code, refused.headers["Retry-After"]) == (429, "too_many_requests", "1")
            headers = bearer(gateway.settings, "max")
            async with gateway.client.get(gateway.base + paths["max"], headers=headers) as stream:
                assert stream.status == 200


@pytest.mark.parametrize("kind", ["user", "address", "device"])
def test_active_name_keeps_bucket_in_a_crowd(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """A client over the limit does not get a new bucket because many others order."""
    monkeypatch.setattr(rate_limits, "_MAX_NAMES", 20)
    buckets = TokenBuckets(kind, 0.001, 2, FakeClock(0))
    buckets.take("greedy")
    buckets.take("greedy")
    for number in range(500):
        buckets.take(f"other {number}")
        with pytest.raises(TooManyRequests):
            buckets.take("greedy")
        assert len(buckets.recent) + len(buckets._earlier) <= 21


def test_bucket_in_use_outlives_a_crowd(monkeypatch: pytest.MonkeyPatch) -> None:
    """A quiet connection keeps the bucket of its address, so that another one cannot get a full bucket."""
    monkeypatch.setattr(rate_limits, "_MAX_NAMES", 20)
    buckets = TokenBuckets("address", 0.001, 1, FakeClock(0))
    held = buckets.hold("203.0.113.7")
    for number in range(500):
        buckets.take(f"other {number}")
    assert buckets.find("203.0.113.7") is held
    del held
    for number in range(500):
        buckets.take(f"third {number}")
    assert len(buckets._held) == 0


@pytest.fixture
async def gateway(
    make_settings: Callable[..., Settings], shop: CliServices, sale_id: str
) -> AsyncIterator[TestGateway]:
    await make_sale(shop, sale_id, {"a": (50, 100, None)})
    async with open_gateway(make_settings(limits={"waiting_bytes": 1_000})) as test_gateway:
        yield test_gateway


async def test_only_accepted_orders_teach_patterns(gateway: TestGateway, sale_id: str) -> None:
    """Heads of strangers are not kept; a customer's head is recognised after one order."""
    parser = gateway.services.head_parser
    order = build_order_request(gateway, sale_id, 1)
    client = await connect(gateway)
    loop = asyncio.get_running_loop()
    for number in range(30):
        stranger = order.replace(b"Bearer ", b"Bearer no").replace(b"Host: x\r\n", b"Host: x\r\nX-%d: 1\r\n" % number)
        await loop.sock_sendall(client, stranger)
        assert (await loop.sock_recv(client, 4_096)).startswith(b"HTTP/1.1 401")
    assert parser._patterns == {}
    await loop.sock_sendall(client, order)
    assert (await loop.sock_recv(client, 4_096)).startswith(b"HTTP/1.1 202")
    assert len(parser._patterns) == 1
    [connection] = tracked_connections(gateway)
    assert connection._match_previous_head(order) is not None  # type: ignore[attr-defined]
    client.close()


async def test_waiting_bytes_over_limit_are_refused(shop: CliServices, gateway: TestGateway, sale_id: str) -> None:
    """A few large orders weigh as much as many small ones."""
    body = order_body(sale_id, ("a", 1))
    admission = gateway.services.admission
    await shop.redis.client_pause(400)
    calls = [asyncio.create_task(gateway.order(body)) for _ in range(40)]
    answers = await asyncio.gather(*calls)
    counts = {status: sum(answer.status == status for answer in answers) for status in (202, 503)}
    assert counts[202] + counts[503] == 40
    assert counts[202] > 0
    assert counts[503] > 0
    assert {answer.code for answer in answers if answer.status == 503} == {"overloaded"}
    assert (admission.waiting, admission.waiting_bytes) == (0, 0)


async def test_backlog_bytes_over_limit_are_refused(
    make_settings: Callable[..., Settings], shop: CliServices, sale_id: str
) -> None:
    await make_sale(shop, sale_id, {"a": (50, 100, None)})
    async with open_gateway(make_settings(limits={"backlog_bytes": 1})) as gateway:
        assert (await gateway.order(order_body(sale_id, ("a", 1)))).status == 202

        async def is_full() -> bool:
            return gateway.services.admission.pressure(0) > 0

        await eventually(is_full)
        refused = await gateway.order(order_body(sale_id, ("a", 1)))
        assert (refused.status, refused.code) == (503, "overloaded")


async def test_worker_metrics_listen_on_loopback_by_default(
    make_settings: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[tuple[object, ...]] = []
    monkeypatch.setattr(runtime, "start_http_server", lambda *arguments: started.append(arguments))
    for host in (None, "10.0.0.1"):
        observer = {"worker_metrics_port": 9_100, **({"worker_metrics_host": host} if host else {})}
        await runtime.run(make_settings(observer=observer), [], "test")
    assert started == [(9_100, "127.0.0.1"), (9_100, "10.0.0.1")]
