"""Rounds of drand from relays that are right, wrong, slow, early or unavailable."""

from __future__ import annotations

import asyncio
import hashlib
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from functools import partial
from typing import Any, cast

import pytest
from aiohttp import web
from py_arkworks_bls12381 import G1Point, G2Point, Scalar

from commerce.kernel.clock import from_ms
from commerce.kernel.errors import NotReady
from commerce.kernel.http_client import open_transport
from commerce.waiting_rooms.drand import QUICKNET_PUBLIC_KEY, SIGNATURE_DOMAIN, DrandRelays, verify_signature
from commerce.waiting_rooms.draw import QUICKNET, QUICKNET_FIRST_AT, QUICKNET_PERIOD_S, check_draw
from commerce.waiting_rooms.keeper import RoomKeeper
from commerce.waiting_rooms.model import Room
from config.settings import Settings
from config.waiting_rooms import WaitingRoomSettings
from ops.services import CliServices
from tests.support.gateway import run_workers
from tests.support.rooms import TestRoom, open_room
from tests.support.sales import eventually

ROUND_1000 = bytes.fromhex(
    "b44679b9a59af2ec876b1a6b1ad52ea9b1615fc3982b19576350f93447cb1125e342b73a8dd2bacbe47e4b6b63ed5e39"
)
RANDOMNESS_1000 = "fe290beca10872ef2fb164d2aa4442de4566183ec51c56ff3cd603d930e54fdd"
SECRET = Scalar(0x5EC2E7)
PUBLIC_KEY = (G2Point() * SECRET).to_compressed_bytes()
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def sign_round(round_no: int, secret: Scalar = SECRET) -> bytes:
    """Sign a round as drand does, by a key of the tests."""
    message = hashlib.sha256(round_no.to_bytes(8, "big")).digest()
    return (G1Point.hash_to_curve(message, SIGNATURE_DOMAIN) * secret).to_compressed_bytes()


def make_beacon(round_no: int, signature: bytes) -> dict[str, Any]:
    return {"round": round_no, "randomness": hashlib.sha256(signature).hexdigest(), "signature": signature.hex()}


async def answer_rightly(request: web.Request) -> web.Response:
    round_no = int(request.match_info["round"])
    return web.json_response(make_beacon(round_no, sign_round(round_no)))


async def answer_another_round(request: web.Request) -> web.Response:
    round_no = int(request.match_info["round"]) - 1
    return web.json_response(make_beacon(round_no, sign_round(round_no)))


async def answer_another_round_as_this(request: web.Request) -> web.Response:
    round_no = int(request.match_info["round"])
    return web.json_response(make_beacon(round_no, sign_round(round_no - 1)))


async def answer_by_another_key(request: web.Request) -> web.Response:
    round_no = int(request.match_info["round"])
    return web.json_response(make_beacon(round_no, sign_round(round_no, Scalar(7))))


async def answer_another_randomness(request: web.Request) -> web.Response:
    beacon = make_beacon(round_no := int(request.match_info["round"]), sign_round(round_no))
    return web.json_response({**beacon, "randomness": "00" * 32})


async def answer_nonsense(_request: web.Request) -> web.Response:
    return web.json_response({"round": "a", "signature": 5})


async def answer_deeply(_request: web.Request) -> web.Response:
    return web.Response(body=b'{"more":' + b"[" * 3_000)


async def answer_at_length(_request: web.Request) -> web.Response:
    return web.Response(body=b"x" * 100_000)


async def answer_too_early(_request: web.Request) -> web.Response:
    return web.Response(status=425)


async def answer_elsewhere(_request: web.Request) -> web.Response:
    raise web.HTTPFound("http://127.0.0.1:1/")


async def answer_never(_request: web.Request) -> web.Response:
    await asyncio.sleep(3_600)
    raise AssertionError


LIARS = [
    answer_another_round,
    answer_another_round_as_this,
    answer_by_another_key,
    answer_another_randomness,
    answer_nonsense,
    answer_deeply,
    answer_at_length,
    answer_too_early,
    answer_elsewhere,
    answer_never,
]


@asynccontextmanager
async def run_relays(*handlers: Handler) -> AsyncIterator[list[str]]:
    """Run a relay for each handler at drand's path. Yields their URLs."""
    async with AsyncExitStack() as stack:
        urls = []
        for handler in handlers:
            app = web.Application()
            app.router.add_get(f"/{QUICKNET}/public/{{round}}", handler)
            runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            urls.append(f"http://127.0.0.1:{runner.addresses[0][1]}")
        yield urls


@asynccontextmanager
async def open_relays(urls: list[str], timeout_s: float = 0.5) -> AsyncIterator[DrandRelays]:
    async with open_transport(timeout_s=timeout_s, connections=10, max_response_bytes=4_096) as transport:
        yield DrandRelays(transport, urls, PUBLIC_KEY)


def source_of(round_no: int) -> str:
    return f"drand:{QUICKNET}:{round_no}"


def test_published_round_of_quicknet_verifies_and_others_do_not() -> None:
    assert hashlib.sha256(ROUND_1000).hexdigest() == RANDOMNESS_1000
    assert verify_signature(QUICKNET_PUBLIC_KEY, 1_000, ROUND_1000)
    assert not verify_signature(QUICKNET_PUBLIC_KEY, 1_001, ROUND_1000)
    assert not verify_signature(PUBLIC_KEY, 1_000, ROUND_1000)
    for position in range(len(ROUND_1000)):
        changed = bytearray(ROUND_1000)
        changed[position] ^= 1
        assert not verify_signature(QUICKNET_PUBLIC_KEY, 1_000, bytes(changed)), position
    for other in (b"", ROUND_1000[:47], ROUND_1000 + b"\0", b"\xc0" + bytes(47), b"\xff" * 48):
        assert not verify_signature(QUICKNET_PUBLIC_KEY, 1_000, other), other


@pytest.mark.parametrize("liar", LIARS)
async def test_wrong_or_missing_answer_is_no_randomness(liar: Handler) -> None:
    async with run_relays(liar) as urls, open_relays(urls) as relays:
        with pytest.raises(NotReady, match="cannot fetch drand"):
            await relays.fetch_randomness(source_of(5_000))


async def test_one_right_relay_among_all_wrong_ones_is_enough_and_is_not_waited_for_others() -> None:
    async with (
        run_relays(*LIARS, answer_rightly) as urls,
        open_relays([*urls, "http://127.0.0.1:1"], timeout_s=60) as relays,
        asyncio.timeout(20),
    ):
        assert await relays.fetch_randomness(source_of(5_000)) == hashlib.sha256(sign_round(5_000)).hexdigest()


def test_relays_without_library_are_not_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "py_arkworks_bls12381", cast("Any", None))
    with pytest.raises(NotReady, match=r"install floodgate\[drand\]"):
        DrandRelays(cast("Any", None), ["https://relay.example"])


@pytest.mark.parametrize("url", ["http://api.drand.sh", "ftp://a", "https://a b", "http://127.0.0.1.example.com"])
def test_relay_without_https_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="drand_relays"):
        WaitingRoomSettings(drand_relays=(url,))


async def name_round(room: TestRoom) -> int:
    """Name a round that is public seconds after the list closes. Returns its number."""
    closes_at = (await room.read()).list_closes_at
    round_no = (closes_at + timedelta(seconds=5) - QUICKNET_FIRST_AT) // timedelta(seconds=QUICKNET_PERIOD_S) + 1
    await room.shop.rooms.name_source(room.sale_id, source_of(round_no), None, "test")
    return round_no


async def close_list(room: TestRoom, relays: DrandRelays) -> RoomKeeper:
    """Let people join, close the list, and go to the moment of the round. Returns a keeper with relays."""
    await room.join([f"user-{number}" for number in range(20)])
    room.move_to((await room.read()).list_closes_at)
    await room.step()
    keeper = RoomKeeper(room.shop.db, room.shop.redis, room.clock, room.shop.settings.rooms, relays)
    for _ in range(5):
        await keeper.step(await room.read())
    assert (await room.read()).randomness is None, "nothing is fetched before the round's time"
    public_at = (await room.read()).randomness_at
    assert public_at is not None
    room.move_to(public_at)
    return keeper


async def step_until(room: TestRoom, keeper: RoomKeeper, is_reached: Callable[[Room], bool]) -> Room:
    async def step() -> Room | None:
        await keeper.step(stored := await room.read())
        return stored if is_reached(stored) else None

    return cast(Room, await eventually(step))


async def test_keeper_fetches_named_round_through_outage_and_lies_and_draws(shop: CliServices, sale_id: str) -> None:
    room = await open_room(shop, sale_id, fallback_after_s=600)
    round_no = await name_round(room)
    requests = 0

    async def answer_late(request: web.Request) -> web.StreamResponse:
        nonlocal requests
        requests += 1
        return await (answer_rightly if requests > 3 else answer_too_early)(request)

    async with run_relays(answer_late, answer_by_another_key, answer_never) as urls, open_relays(urls, 0.2) as relays:
        keeper = await close_list(room, relays)
        drawn = await step_until(room, keeper, lambda stored: stored.state == "serving")
    assert requests > 3
    assert drawn.source == source_of(round_no)
    assert drawn.randomness == hashlib.sha256(sign_round(round_no)).hexdigest()
    lines = b"".join([part async for part in shop.rooms.draw_file(sale_id)]).decode().splitlines(keepends=True)
    assert check_draw(lines).is_confirmed
    async with shop.db.connection() as connection:
        actors = await connection.fetch(
            "SELECT actor FROM sale_log WHERE sale_id = $1 AND action = 'room_draw'", sale_id
        )
    assert [row["actor"] for row in actors] == ["room_keeper"]


async def test_relays_that_only_lie_leave_the_fallback_at_its_time(shop: CliServices, sale_id: str) -> None:
    room = await open_room(shop, sale_id, fallback_after_s=60)
    await name_round(room)
    async with run_relays(answer_by_another_key, answer_another_round_as_this) as urls, open_relays(urls) as relays:
        keeper = await close_list(room, relays)
        for _ in range(20):
            await keeper.step(await room.read())
            await asyncio.sleep(0.01)
        assert (await room.read()).randomness is None
        room.clock.shift_ms += 61_000
        drawn = await step_until(room, keeper, lambda stored: stored.state == "serving")
    assert drawn.source == "delay:1"


@pytest.mark.parametrize("answer", [answer_never, answer_too_early])
async def test_sale_closed_during_draw_leaves_no_fetch(shop: CliServices, sale_id: str, answer: Handler) -> None:
    room = await open_room(shop, sale_id, fallback_after_s=600)
    await name_round(room)
    async with run_relays(answer) as urls, open_relays(urls, 60) as relays:
        keeper = await close_list(room, relays)
        await keeper.step(await room.read())
        fetch = keeper._fetches[sale_id]
        if answer is answer_too_early:
            await asyncio.wait([fetch])
        await shop.sales.close(sale_id, "test")
        await keeper.step(await room.read())
        await asyncio.wait([fetch])
        assert not keeper._fetches
        assert not fetch._log_traceback  # type: ignore[attr-defined]  # asyncio would log it as a bug


async def test_staff_may_give_the_value_while_relays_are_gone(shop: CliServices, sale_id: str) -> None:
    room = await open_room(shop, sale_id, fallback_after_s=600)
    round_no = await name_round(room)
    async with run_relays(answer_never) as urls, open_relays(urls, 60) as relays:
        keeper = await close_list(room, relays)
        await keeper.step(await room.read())
        value = hashlib.sha256(sign_round(round_no)).hexdigest()
        rooms = type(shop.rooms)(shop.db, shop.sales, room.clock)
        await rooms.set_randomness(sale_id, value, "staff")
        drawn = await step_until(room, keeper, lambda stored: stored.state == "serving")
        assert drawn.randomness == value
        keeper.close()


async def test_two_keepers_fetch_and_one_value_is_stored_once(shop: CliServices, sale_id: str) -> None:
    room = await open_room(shop, sale_id, fallback_after_s=600)
    await name_round(room)
    async with run_relays(answer_rightly) as urls, open_relays(urls, 5) as relays:
        first = await close_list(room, relays)
        second = RoomKeeper(shop.db, shop.redis, room.clock, shop.settings.rooms, relays)

        async def both() -> bool:
            stored = await room.read()
            await asyncio.gather(first.step(stored), second.step(stored))
            return stored.state == "serving"

        await eventually(both)
    async with shop.db.connection() as connection:
        logged = await connection.fetchval(
            "SELECT count(*) FROM sale_log WHERE sale_id = $1 AND action = 'room_draw'", sale_id
        )
    assert logged == 1


async def test_worker_fetches_from_relays_of_the_settings(
    shop: CliServices,
    make_settings: Callable[..., Settings],
    sale_id: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The worker asks a relay on this machine, by quicknet's path, for a round that is public now."""
    monkeypatch.setattr("workers.room_keeper.DrandRelays", partial(DrandRelays, public_key=PUBLIC_KEY))
    room = await open_room(shop, sale_id, fallback_after_s=3_600)
    await room.join(["ann", "ben"])
    closes_at = from_ms(shop.clock.now_ms()) + timedelta(seconds=1)
    async with shop.db.connection() as connection:
        await connection.execute("UPDATE waiting_rooms SET list_closes_at = $2 WHERE sale_id = $1", sale_id, closes_at)
    round_no = await name_round(room)
    async with run_relays(answer_rightly) as urls:
        settings = make_settings(rooms={"drand_relays": urls})
        async with run_workers(settings, "room_keeper"):

            async def is_drawn() -> bool:
                return (await room.read()).drawn_at is not None

            await eventually(is_drawn, 30)
    drawn = await room.read()
    assert drawn.source == drawn.named_source
    assert drawn.randomness == hashlib.sha256(sign_round(round_no)).hexdigest()
