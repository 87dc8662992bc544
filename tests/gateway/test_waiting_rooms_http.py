"""Waiting rooms over HTTP: joins, the public page, the draw's file, tickets of orders."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import ExitStack
from datetime import timedelta
from typing import Any

import pytest
from aiohttp import ClientError, web
from prometheus_client import REGISTRY

import lua
from commerce.kernel.clock import SystemClock, from_ms
from commerce.waiting_rooms import draw
from commerce.waiting_rooms.errors import InvalidRoomState
from commerce.waiting_rooms.model import RoomSettings
from gateway.auth import sign_token
from gateway.client_addresses import Client
from gateway.endpoints import waiting_rooms
from ops.services import CliServices
from tests.support.gateway import GatewayResponse, TestGateway, open_gateway
from tests.support.rooms import SKU, TestRoom, open_room, open_serving_room
from tests.support.sales import order_body, reservation, reserve

pytestmark = pytest.mark.usefixtures("short_delay")


@pytest.fixture
def short_delay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(draw, "DELAY_ITERATIONS", 10)


async def _join(gateway: TestGateway, sale_id: str, user: str, **headers: str) -> GatewayResponse:
    return await gateway.call("POST", f"/v1/sales/{sale_id}/room", user=user, headers=headers)


async def _order(gateway: TestGateway, sale_id: str, user: str, ticket: str | None) -> GatewayResponse:
    more = {"Room-Ticket": ticket} if ticket is not None else {}
    headers = {"Idempotency-Key": f"{user}-{ticket}", **more}
    return await gateway.call("POST", "/v1/orders", user=user, headers=headers, json=order_body(sale_id, (SKU, 1)))


async def _open_sale_in_redis(room: TestRoom) -> None:
    """Let Redis take orders at once; the sale opens in two hours by its row."""
    await room.shop.redis.hset(room.keys.meta, "opens_ms", 0)


async def test_join_repeated_on_two_gateways_gets_one_place(
    gateway: TestGateway, shop: CliServices, sale_id: str
) -> None:
    room = await open_room(shop, sale_id)
    async with open_gateway(gateway.settings) as other:
        await gateway.services.room_status.refresh()
        first, second = await _join(gateway, sale_id, "ann"), await _join(other, sale_id, "ann")
        assert (first.status, first.body["number"], first.body["state"]) == (200, None, "waiting")
        assert first.body["ticket_hash"] == second.body["ticket_hash"]
        nonce = bytes.fromhex(first.body["nonce"])
        assert draw.ticket_hash(sale_id, "ann", nonce).hex() == first.body["ticket_hash"]
        await _join(other, sale_id, "ben")
        room.move_to((await room.read()).list_closes_at)
        await room.step_until("serving")
        await room.step()
        for part in (gateway, other):
            await part.services.room_status.refresh()
        numbers = {(await _join(part, sale_id, "ann")).body["number"] for part in (gateway, other)}
        assert len(numbers) == 1
        assert numbers < {1, 2}
        late = await _join(gateway, sale_id, "cyd")
        assert (late.body["number"], late.body["ahead"]) == (3, 2)
        slow = await _join(other, sale_id, "cyd", TE="trailers")  # aiohttp answers this head
        assert {**slow.body, "ticket": ""} == {**late.body, "ticket": ""}
        assert slow.headers["Cache-Control"] == late.headers["Cache-Control"] == "no-store"
    await shop.redis.delete(room.keys.room, room.keys.room_meta)
    await room.step()
    shown = await _join(gateway, sale_id, "cyd", **{"Room-Ticket": late.body["ticket"]})
    assert shown.body["number"] == 3, "the ticket restores the place in a Redis that has lost it"


@pytest.mark.parametrize("fast_path", [True, False])
async def test_order_with_ticket_of_served_number_is_accepted_and_others_refused(
    shop: CliServices, sale_id: str, fast_path: bool
) -> None:
    room, users = await open_serving_room(shop, sale_id, 5, max_pace_per_s=2, served_valid_s=60)
    await _open_sale_in_redis(room)
    room.move_to((await room.read()).opens_at)
    assert (await room.step()).served == 2
    async with open_gateway(shop.settings, fast_path=fast_path) as gateway:
        tickets = {user: (await _join(gateway, sale_id, user)).body["ticket"] for user in users}
        assert (await _order(gateway, sale_id, users[0], tickets[users[0]])).status == 202
        waits = await _order(gateway, sale_id, users[2], tickets[users[2]])
        assert (waits.status, waits.code, waits.body["number"], waits.body["served"]) == (403, "not_your_turn", 3, 2)
        assert [int(value) for value in waits.headers.getall("Retry-After")] == [2]
        without = await _order(gateway, sale_id, users[1], None)
        assert (without.status, without.code) == (403, "not_your_turn")
        tickets_of_others = [
            tickets[users[0]],
            tickets[users[1]].upper().replace("R1", "r1"),
            "r1.1.9999999999." + "A" * 22,
            "x",
        ]
        for ticket in tickets_of_others:
            refused = await _order(gateway, sale_id, users[1], ticket)
            assert (refused.status, refused.code) == (403, "ticket_invalid"), ticket
        signer = gateway.services.room_status.tickets
        for forged in (signer.sign("another", users[1], 1, 1 << 33), signer.sign(sale_id, users[1], 1, 1)):
            assert (await _order(gateway, sale_id, users[1], forged)).code == "ticket_invalid"
        await room.let_pass(62)
        await gateway.services.room_status.refresh()
        missed = await _order(gateway, sale_id, users[1], tickets[users[1]])
        assert (missed.status, missed.code) == (403, "turn_missed")
        assert (await _join(gateway, sale_id, users[1])).body["number"] == 6


async def test_ticket_of_served_number_comes_first_under_overload(shop: CliServices, sale_id: str) -> None:
    room, users = await open_serving_room(shop, sale_id, 5, max_pace_per_s=2, served_valid_s=60)
    room.move_to((await room.read()).opens_at)
    assert (await room.step()).served == 2
    async with open_gateway(shop.settings) as gateway:
        tickets = [(await _join(gateway, sale_id, user)).body["ticket"] for user in users]
        shedder, verified = gateway.services.shedder, gateway.services.auth._verified_customers
        tokens = {identity.subject: token for token, identity in verified.items()}

        def refuses(user: int, ticket: int) -> bool:
            return shedder.refuses(2.0, tokens[users[user]], b"new", tickets[ticket])

        assert [refuses(0, 0), refuses(1, 1), refuses(2, 2), refuses(2, 0)] == [False, False, True, True]
        assert shedder.refuses(3.0, tokens[users[0]], b"new", tickets[0])


async def test_sale_without_room_needs_no_ticket(gateway: TestGateway, shop: CliServices, sale_id: str) -> None:
    room = await open_room(shop, sale_id)
    await _open_sale_in_redis(room)
    stored = await room.read()
    off = RoomSettings("off", stored.join_opens_at, stored.list_closes_at, fallback_rounds=1)
    await shop.rooms.put(sale_id, off, "test")
    await gateway.services.room_status.refresh()
    assert (await _order(gateway, sale_id, "ann", None)).status == 202
    assert (await _join(gateway, sale_id, "ann")).status == 404
    assert (await gateway.call("GET", f"/v1/sales/{sale_id}/room", user=None)).status == 404


async def test_page_is_the_same_for_everybody_and_tells_of_the_end(
    gateway: TestGateway, shop: CliServices, sale_id: str
) -> None:
    room, users = await open_serving_room(shop, sale_id, 10, units=3)
    await _open_sale_in_redis(room)
    room.move_to((await room.read()).opens_at)
    await room.step()
    await gateway.services.room_status.refresh()
    path = f"/v1/sales/{sale_id}/room"
    page = await gateway.call("GET", path, user=None)
    assert page.headers["Cache-Control"] == "public, max-age=1"
    assert (page.body["state"], page.body["served"], page.body["last_number"]) == ("serving", 6, 10)
    assert (await gateway.call("GET", path, user="ann")).text == page.text
    slow = await gateway.call("GET", path, user=None, headers={"TE": "trailers"})  # aiohttp answers this head
    assert (slow.text, slow.headers["ETag"]) == (page.text, page.headers["ETag"])
    unchanged = await gateway.call("GET", path, user=None, headers={"If-None-Match": page.headers["ETag"]})
    assert unchanged.status == 304
    file = await gateway.call("GET", page.body["draw"]["file"], user=None)
    assert draw.check_draw(file.text.splitlines(keepends=True)).list_digest == page.body["draw"]["list_digest"]
    await reserve(shop.redis, room.keys, reservation(shop.ids.new, sale_id, {SKU: 3}))
    await room.step()
    await room.let_pass(2)
    await gateway.services.room_status.refresh()
    end = await gateway.call("GET", path, user=None)
    assert (end.body["state"], end.body["sold_out"]) == ("ended", [SKU])
    assert (await _join(gateway, sale_id, "new")).code == "room_ended"
    assert (await _order(gateway, sale_id, users[9], None)).code == "sold_out", "nobody waits any more"


async def test_leaving_repeated_changes_nothing_and_joining_again_restores_the_number(
    gateway: TestGateway, shop: CliServices, sale_id: str
) -> None:
    room, users = await open_serving_room(shop, sale_id, 3)
    await gateway.services.room_status.refresh()
    path = f"/v1/sales/{sale_id}/room"
    assert [(await gateway.call("DELETE", path, user=users[0])).status for _ in range(2)] == [204, 204]
    assert await lua.count_left(shop.redis, room.keys, 0, 3) == 1
    assert (await _join(gateway, sale_id, users[0])).body["number"] == 1
    assert await lua.count_left(shop.redis, room.keys, 0, 3) == 0


async def test_new_accounts_and_early_joins_are_refused(gateway: TestGateway, shop: CliServices, sale_id: str) -> None:
    room = await open_room(shop, sale_id, min_account_age_s=86_400)
    await gateway.services.room_status.refresh()
    path = f"/v1/sales/{sale_id}/room"
    for headers in ({}, {"TE": "trailers"}):
        missing = await _join(gateway, sale_id, "ann", **headers)
        assert (missing.status, missing.code) == (403, "account_too_new")
        assert "account_created_at" in missing.body["detail"]
    assert (await gateway.call("POST", path, user=None)).status == 401
    assert (await _join(gateway, sale_id, "ann", **{"Room-Ticket": "x" * 81})).status == 422
    stored = await room.read()
    newest_s = int((stored.list_closes_at - timedelta(days=1)).timestamp())
    for created_s, status in ((newest_s + 1, 403), (newest_s, 200)):
        answer = await gateway.call("POST", path, user=None, headers=_token(gateway, created_s))
        assert answer.status == status
    wrong = await gateway.call("POST", path, user=None, headers=_token(gateway, "yesterday"))
    assert wrong.status == 401
    now = from_ms(shop.clock.now_ms())
    later = RoomSettings("on", now + timedelta(minutes=5), stored.list_closes_at, fallback_rounds=1)
    await shop.rooms.put(sale_id, later, "test")
    await gateway.services.room_status.refresh()
    early = await _join(gateway, sale_id, "ann")
    assert (early.status, early.code) == (403, "room_not_open")
    assert early.body["opens_at"]


def _token(gateway: TestGateway, created_s: Any) -> dict[str, str]:
    auth = gateway.settings.auth
    return {
        "Authorization": "Bearer "
        + sign_token(auth, SystemClock(), "old", "floodgate", (), 60, account_created_s=created_s)
    }


async def test_room_that_lets_nobody_in_is_stalled_until_it_is_off(
    gateway: TestGateway, shop: CliServices, sale_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    room, _ = await open_serving_room(shop, sale_id, 3)
    status = gateway.services.room_status
    stored = await room.read()
    room.move_to(stored.opens_at + timedelta(seconds=5))
    monkeypatch.setattr(status, "_clock", room.clock)

    async def is_stalled() -> float | None:
        await status.refresh()
        assert REGISTRY.get_sample_value("floodgate_room_waiting_people", {"sale": sale_id}) in (0, 3)
        return REGISTRY.get_sample_value("floodgate_room_stalled", {"sale": sale_id})

    assert await is_stalled() == 0
    room.clock.shift_ms += 10_000
    assert await is_stalled() == 1
    off = RoomSettings("off", stored.join_opens_at, stored.list_closes_at, fallback_rounds=1)
    await shop.rooms.put(sale_id, off, "test")
    assert await is_stalled() == 0


async def test_downloads_of_a_draw_are_limited(
    gateway: TestGateway, shop: CliServices, sale_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await open_serving_room(shop, sale_id, 3)
    path = f"/v1/sales/{sale_id}/room/draw"
    gateway.services.room_status._downloads_left = 0
    assert (await gateway.call("GET", path, user=None)).code == "overloaded"
    gateway.services.room_status._downloads_left = 1
    assert [(await gateway.call("GET", path, user=None)).status for _ in range(2)] == [200, 200]
    assert (await gateway.call("GET", f"/v1/sales/{sale_id}x/room/draw", user=None)).status == 404
    status = gateway.services.room_status
    status._downloads_left = 20
    monkeypatch.setattr(gateway.services.client_addresses, "find", lambda _: Client(address="203.0.113.7"))
    with ExitStack() as downloads:
        for address in ("203.0.113.7", "203.0.113.7", "203.0.113.8", None, None, None):
            downloads.enter_context(status.draw_download(address))
        refused = await gateway.call("GET", path, user=None)
        assert (refused.status, refused.code) == (429, "too_many_requests")
        downloads.enter_context(status.draw_download("203.0.113.8"))
    assert (await gateway.call("GET", path, user=None)).status == 200
    assert not status._downloads_by_address


@pytest.mark.parametrize("cause", ["drawn meanwhile", "slow client"])
async def test_download_that_cannot_end_breaks_off(
    gateway: TestGateway, shop: CliServices, sale_id: str, monkeypatch: pytest.MonkeyPatch, cause: str
) -> None:
    """A client must not take a part of a file, or a mixture, for the whole."""
    await open_serving_room(shop, sale_id, 3)

    async def parts(_: str) -> AsyncIterator[bytes]:
        yield b"first\n"
        if cause == "drawn meanwhile":
            raise InvalidRoomState("drawn during the download")
        yield b"second\n"

    write = web.StreamResponse.write

    async def write_slowly(response: web.StreamResponse, data: bytes) -> None:
        await write(response, data)
        if data == b"second\n":
            await asyncio.Event().wait()

    monkeypatch.setattr(gateway.services.rooms, "draw_file", parts)
    monkeypatch.setattr(web.StreamResponse, "write", write_slowly)
    monkeypatch.setattr(waiting_rooms, "_PART_TIMEOUT_S", 0.05)
    with pytest.raises(ClientError):
        await gateway.call("GET", f"/v1/sales/{sale_id}/room/draw", user=None)
    assert gateway.services.room_status._downloads_left == gateway.settings.limits.concurrent_draw_downloads
