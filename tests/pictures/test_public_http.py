"""URLs that people name: nothing inside is reached, however it is named."""

from __future__ import annotations

import asyncio
import gzip
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from ipaddress import ip_network

import pytest
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult
from hypothesis import given
from hypothesis import strategies as st

from commerce.kernel.errors import AddressNotPublic, Invalid
from commerce.kernel.external import AnswerTooLong, ExternalOutcomeUnknown
from commerce.kernel.public_http import (
    PublicTransport,
    check_public_url,
    is_public,
    open_public_transport,
)

LOOPBACK = [ip_network("127.0.0.0/8")]
PUBLIC = "93.184.216.34"
NOT_PUBLIC = [
    *("127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1"),
    *("255.255.255.255", "192.0.2.1", "198.18.0.1", "240.0.0.1", "192.88.99.1", "::1", "::", "fe80::1", "fc00::1"),
    *("fe80::1%eth0", "ff02::1", "fec0::1", "2001:db8::1", "::ffff:127.0.0.1", "::ffff:169.254.169.254"),
    *("::ffff:10.0.0.1", "::127.0.0.1", "2002:7f00:1::", "2002:a00:1::1", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe"),
    *("64:ff9b:1::7f00:1", "2001:0:4136:e378:8000:63bf:80ff:fffe", "not an address", ""),
]
IS_PUBLIC = [PUBLIC, "8.8.8.8", "2606:2800:220:1:248:1893:25c8:1946", "::ffff:8.8.8.8", "64:ff9b::808:808"]


@pytest.mark.parametrize("address", NOT_PUBLIC)
def test_address_inside_is_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", IS_PUBLIC)
def test_address_of_the_internet_is_public(address: str) -> None:
    assert is_public(address)


@given(st.integers(0, 2**32 - 1))
def test_wrapped_address_is_public_only_if_the_address_itself_is(number: int) -> None:
    address = socket.inet_ntoa(number.to_bytes(4, "big"))
    first, second = f"{number >> 16:x}", f"{number & 0xFFFF:x}"
    assert is_public(f"::ffff:{first}:{second}") == is_public(address)
    assert is_public(f"64:ff9b::{first}:{second}") == is_public(address)
    assert not is_public(f"2002:{first}:{second}::1") or is_public(address)


@pytest.mark.parametrize(
    "url",
    [
        *("http://127.0.0.1/a.png", "http://127.1/", "http://2130706433/", "http://0177.0.0.1/", "http://0x7f000001/"),
        *("http://0x7f.1/", "http://127.0.0.1./", "http://[::1]/", "http://[::ffff:127.0.0.1]/", "http://0/"),
        *("http://[::ffff:7f00:1]/", "http://[fe80::1%25eth0]/", "http://169.254.169.254/latest/meta-data"),
        *("http://user@example.com/", "http://user:pass@example.com/", "http://example.com@127.0.0.1/"),
        *(
            "http://127.0.0.1#@example.com/",
            "http://example.com:8080/",
            "https://example.com:22/",
            "http://127.0.0.1:80",
        ),
        *(
            "ftp://example.com/",
            "file:///etc/passwd",
            "gopher://127.0.0.1/",
            "data:image/png;base64,AA",
            "//example.com",
        ),
        *("http://", "http:///a", "example.com/a.png", "http://exa mple.com/", "http://example.com\\@127.0.0.1/"),
        *("http://ex\u00e4mple.com/", "http://\uff11\uff12\uff17.0.0.1/", "http://%31%32%37.0.0.1/", "http://a%2eb/"),
        *("http://example.com/\r\nHost: inside", "http://[::1", "http://example.com:99999/", "http://example.com:x/"),
        "http://example.com/" + "a" * 2_000,
    ],
)
async def test_url_that_leads_inside_or_is_none_is_refused_before_anything_is_sent(url: str) -> None:
    with pytest.raises(Invalid):
        check_public_url(url, (80, 443))


@pytest.mark.parametrize(
    "url",
    ["http://example.com/a.png?b=c", "https://example.com:443/%E8%8C%B6.jpg", f"http://{PUBLIC}/", "http://8.8.8.8"],
)
def test_url_of_the_internet_is_accepted(url: str) -> None:
    check_public_url(url, (80, 443))


class FakeResolver(AbstractResolver):
    """Answers with the next list of addresses, the last one for ever."""

    def __init__(self, *answers: Sequence[str]) -> None:
        self.answers = list(answers)
        self.calls = 0

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        self.calls += 1
        addresses = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
            for address in addresses
        ]

    async def close(self) -> None:
        pass


class InsideServer:
    """A server on this machine, which stands for one inside. Counts its requests."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.requests = list[str]()


@pytest.fixture
async def inside() -> AsyncIterator[InsideServer]:
    server = InsideServer(0)

    async def answer(request: web.Request) -> web.StreamResponse:
        server.requests.append(request.path)
        match request.path:
            case "/redirect":
                raise web.HTTPFound(f"http://127.0.0.1:{server.port}/secret")
            case "/gzip":
                body = gzip.compress(bytes(10_000_000))
                return web.Response(body=body, headers={"Content-Encoding": "gzip"})
            case "/long":
                return web.Response(body=bytes(200_000))
            case "/slow":
                await asyncio.sleep(60)
        return web.Response(body=b"content")

    runner = web.ServerRunner(web.Server(answer), shutdown_timeout=0.1)  # type: ignore[arg-type]
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    server.port = runner.addresses[0][1]
    yield server
    await runner.cleanup()


@asynccontextmanager
async def open_transport(
    inside: InsideServer, resolver: AbstractResolver | None = None, *, is_allowed: bool = False, timeout_s: float = 30
) -> AsyncIterator[PublicTransport]:
    async with open_public_transport(
        timeout_s=timeout_s,
        connections=2,
        max_response_bytes=100_000,
        ports=(80, inside.port),
        allowed=LOOPBACK if is_allowed else (),
        resolver=resolver,
    ) as transport:
        yield transport


@pytest.mark.parametrize(
    "answers",
    [[["127.0.0.1"]], [["::1"]], [[PUBLIC, "127.0.0.1"]], [["127.0.0.1", PUBLIC]], [["::ffff:127.0.0.1"]], [[]]],
    ids=["private", "IPv6", "mixed", "mixed, first", "mapped", "none"],
)
async def test_name_with_an_address_inside_is_refused(inside: InsideServer, answers: list[list[str]]) -> None:
    async with open_transport(inside, FakeResolver(*answers)) as transport:
        with pytest.raises(AddressNotPublic):
            await transport.send("GET", f"http://shop.example:{inside.port}/", {})
    assert inside.requests == []


async def test_real_name_of_this_machine_is_refused(inside: InsideServer) -> None:
    async with open_transport(inside) as transport:
        with pytest.raises(AddressNotPublic):
            await transport.send("GET", f"http://localhost:{inside.port}/", {})
    assert inside.requests == []


async def test_name_that_resolves_again_is_checked_each_time(inside: InsideServer) -> None:
    """Rebinding: the first answer is checked and used; a later one that leads inside is refused."""
    resolver = FakeResolver(["127.0.0.1"], ["10.0.0.1"])
    async with open_transport(inside, resolver, is_allowed=True) as transport:
        assert (await transport.send("GET", f"http://shop.example:{inside.port}/", {})).status == 200
        assert resolver.calls == 1, "the address that was checked is the one that was used"
        with pytest.raises(AddressNotPublic):
            await transport.send("GET", f"http://shop.example:{inside.port}/", {})
    assert inside.requests == ["/"]


async def test_redirect_is_not_followed(inside: InsideServer) -> None:
    async with open_transport(inside, FakeResolver(["127.0.0.1"]), is_allowed=True) as transport:
        answer = await transport.send("GET", f"http://shop.example:{inside.port}/redirect", {})
    assert (answer.status, inside.requests) == (302, ["/redirect"])


async def test_proxy_of_the_environment_is_not_used(inside: InsideServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{inside.port}")
    async with open_transport(inside, FakeResolver(["127.0.0.1"])) as transport:
        with pytest.raises(AddressNotPublic):
            await transport.send("GET", "http://shop.example/", {})
    assert inside.requests == []


async def test_long_slow_and_packed_answers_are_bounded(inside: InsideServer) -> None:
    resolver, host = FakeResolver(["127.0.0.1"]), f"http://shop.example:{inside.port}"
    async with open_transport(inside, resolver, is_allowed=True) as transport:
        with pytest.raises(AnswerTooLong):
            await transport.send("GET", f"{host}/long", {})
        assert len((await transport.send("GET", f"{host}/gzip", {})).body) < 20_000, "it stays packed"
    async with open_transport(inside, resolver, is_allowed=True, timeout_s=0.2) as transport:
        with pytest.raises(ExternalOutcomeUnknown):
            await transport.send("GET", f"{host}/slow", {})
