"""Wait-lists over HTTP: the public page, joins, places, and orders of what is offered."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from prometheus_client import REGISTRY

from commerce.kernel.clock import from_ms
from commerce.screening.errors import RefusedByScreening
from commerce.wait_lists.model import WaitListSettings
from commerce.waiting_rooms.model import RoomSettings
from config.settings import Settings
from gateway.auth import room_ticket_key
from gateway.wait_list_entrance import WaitListEntrance
from ops.services import CliServices
from tests.support.gateway import GatewayResponse, TestGateway, open_gateway
from tests.support.sales import make_sale, order_body
from tests.support.wait_lists import SKU, TestWaitList, open_wait_list


async def _join(gateway: TestGateway, sale_id: str, user: str, sku: str = SKU, quantity: int = 1) -> GatewayResponse:
    body = {"sku": sku, "quantity": quantity}
    return await gateway.call("POST", f"/v1/sales/{sale_id}/wait-list", user=user, json=body)


async def _place(gateway: TestGateway, sale_id: str, user: str) -> GatewayResponse:
    return await gateway.call("GET", f"/v1/sales/{sale_id}/wait-list/{SKU}", user=user)


async def _open(gateway: TestGateway, shop: CliServices, sale_id: str) -> TestWaitList:
    wait_list = await open_wait_list(shop, sale_id)
    await gateway.services.wait_lists.status.refresh()
    await gateway.services.snapshots.refresh()
    return wait_list


def count_reserved_orders(*gateways: TestGateway) -> int:
    """Count the calls of reserve.lua that the metrics buffers hold."""
    return sum(sum(gateway.services.metrics_buffer.reserve_batch_orders._counts) for gateway in gateways)


async def test_joins_of_one_iteration_share_a_transaction(
    gateway: TestGateway, shop: CliServices, sale_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await _open(gateway, shop, sale_id)
    batches: list[int] = []
    original = gateway.services.wait_lists.service.join

    async def count(wait_list, requests):  # type: ignore[no-untyped-def]
        batches.append(len(requests))
        return await original(wait_list, requests)

    monkeypatch.setattr(type(gateway.services.wait_lists.service), "join", lambda self, *arguments: count(*arguments))
    answers = await asyncio.gather(*(_join(gateway, sale_id, f"u{number % 40}") for number in range(80)))
    assert [answer.status for answer in answers] == [200] * 80
    assert sorted({answer.body["number"] for answer in answers}) == list(range(1, 41))
    assert sum(batches) == 80
    assert len(batches) < 40


async def test_place_and_page_follow_the_offer(gateway: TestGateway, shop: CliServices, sale_id: str) -> None:
    wait_list = await _open(gateway, shop, sale_id)
    joined = [await _join(gateway, sale_id, user) for user in ("ann", "ben", "cyd", "ann")]
    assert [(answer.body["number"], answer.body["ahead"]) for answer in joined] == [(1, 0), (2, 1), (3, 2), (1, 0)]
    await wait_list.return_units(1)
    await wait_list.step()
    await gateway.services.wait_lists.status.refresh()
    pages = [await gateway.call("GET", f"/v1/sales/{sale_id}/wait-list", user=user) for user in ("ann", None)]
    assert pages[0].text == pages[1].text
    counts = {"sku": SKU, "offered_number": 1, "last_number": 3, "waiting": 2, "offered_units": 1}
    assert pages[0].body["skus"] == [counts]
    cached = await gateway.call(
        "GET", f"/v1/sales/{sale_id}/wait-list", headers={"If-None-Match": pages[0].headers["ETag"]}
    )
    assert cached.status == 304
    offered, waiting = [(await _place(gateway, sale_id, user)).body for user in ("ann", "ben")]
    assert (offered["state"], offered["offered_units"], offered["ahead"]) == ("offered", 1, None)
    assert offered["accept_by"] is not None
    assert (waiting["state"], waiting["ahead"], waiting["accept_by"]) == ("waiting", 0, None)
    left = await gateway.call("DELETE", f"/v1/sales/{sale_id}/wait-list/{SKU}", user="ben")
    assert left.status == 204
    assert (await _place(gateway, sale_id, "ben")).body["state"] == "left"
    assert (await _place(gateway, sale_id, "dan")).status == 404


async def test_ticket_proves_the_place_of_one_customer(
    gateway: TestGateway, shop: CliServices, settings: Settings, sale_id: str
) -> None:
    await _open(gateway, shop, sale_id)
    ticket = (await _join(gateway, sale_id, "ann")).body["ticket"]
    tickets, now_s = gateway.services.room_status.tickets, shop.clock.now_ms() / 1000
    assert room_ticket_key(settings.auth)
    assert tickets.verify(sale_id, "ann", ticket, now_s, SKU) == 1
    for sale, user, sku in (
        (sale_id, "ben", SKU),
        (sale_id, "ann", "B"),
        ("other", "ann", SKU),
        (sale_id, "ann", None),
    ):
        assert tickets.verify(sale, user, ticket, now_s, sku) is None
    room_ticket = tickets.sign(sale_id, "ann", 1, int(now_s) + 60)
    assert tickets.verify(sale_id, "ann", room_ticket, now_s, SKU) is None


async def test_refused_joins_have_reasons(gateway: TestGateway, shop: CliServices, sale_id: str) -> None:
    await make_sale(shop, sale_id, {SKU: (1, 100, 2)})
    await gateway.services.snapshots.refresh()
    assert (await _join(gateway, sale_id, "ann")).code == "not_found"
    assert (await gateway.call("GET", f"/v1/sales/{sale_id}/wait-list")).code == "not_found"
    await shop.wait_lists.put(sale_id, WaitListSettings(), "test")
    await gateway.services.wait_lists.status.refresh()
    await gateway.services.snapshots.refresh()
    available = await _join(gateway, sale_id, "ann")
    assert (available.status, available.code, available.body["sku"]) == (409, "still_available", SKU)
    assert (await gateway.order(order_body(sale_id, (SKU, 1)), user="ann")).status == 202
    assert (await _join(gateway, sale_id, "ann", quantity=2)).code == "over_limit"
    assert (await _join(gateway, sale_id, "ann", sku="missing")).code == "not_found"
    invalid = await _join(gateway, sale_id, "ann", quantity=0)
    assert (invalid.status, invalid.body["errors"][0]["pointer"]) == (422, "/quantity")
    await shop.wait_lists.put(sale_id, WaitListSettings("off"), "test")
    await gateway.services.wait_lists.status.refresh()
    assert (await _join(gateway, sale_id, "ann")).code == "wait_list_ended"


async def test_holder_of_an_offer_is_never_refused_from_the_cheap_path(
    gateway: TestGateway, shop: CliServices, sale_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two gateways know the SKU as sold out. Strangers are refused there; the holder gets his unit, once."""
    monkeypatch.setattr("gateway.metrics_buffer.MetricsBuffer.flush", lambda self: None)
    wait_list = await _open(gateway, shop, sale_id)
    users = ["ann", "ben"]
    for user in users:
        await _join(gateway, sale_id, user)
    async with open_gateway(gateway.settings) as other:
        for part in (gateway, other):
            for _ in range(2):
                refused = await part.order(order_body(sale_id, (SKU, 1)), user="stranger")
                assert refused.code == "sold_out"
            assert part.services.expected_refusals.is_active
        await wait_list.return_units(2)
        before = await other.order(order_body(sale_id, (SKU, 1)), user="ben")
        assert before.code == "sold_out", "a unit that is held back is nobody's"
        await wait_list.step()
        body = order_body(sale_id, (SKU, 1))
        reserved = count_reserved_orders(gateway, other)
        answers = await asyncio.gather(
            gateway.order(body, user="ann", key="k"),
            other.order(body, user="ben"),
            *(part.order(body, user=f"s{number}") for number in range(20) for part in (gateway, other)),
        )
        assert [answer.status for answer in answers] == [202, 202] + [409] * 40
        assert count_reserved_orders(gateway, other) == reserved + 2, "those without an offer are refused by a recheck"
        again = await other.order(body, user="ann", key="k")
        assert (again.status, again.body["order_id"]) == (200, answers[0].body["order_id"])
        assert (await gateway.order(body, user="ann")).code == "sold_out"
    assert await wait_list.units() == (0, 0, 0)


@pytest.mark.parametrize("fast_path", [True, False])
async def test_holder_of_an_offer_needs_no_turn_of_the_waiting_room(
    settings: Settings, shop: CliServices, sale_id: str, fast_path: bool
) -> None:
    wait_list = await open_wait_list(shop, sale_id)
    now = from_ms(shop.clock.now_ms())
    room = RoomSettings("on", now - timedelta(minutes=1), now)
    await shop.rooms.put(sale_id, room, "test")
    await wait_list.join(["ann"])
    await wait_list.return_units(1)
    await wait_list.step()
    async with open_gateway(settings, fast_path=fast_path) as gateway:
        body = order_body(sale_id, (SKU, 1))
        assert (await gateway.order(body, user="ben")).code == "not_your_turn"
        assert (await gateway.order(body, user="ann")).status == 202
        assert (await gateway.order(body, user="ann")).code == "not_your_turn"


async def test_staff_set_up_and_read_the_list(gateway: TestGateway, shop: CliServices, sale_id: str) -> None:
    await make_sale(shop, sale_id, {SKU: (1, 100, None)})
    path = f"/v1/admin/sales/{sale_id}/wait-list"
    put = await gateway.call("PUT", path, user="kim", roles=("sales",), json={"accept_s": 60})
    assert (put.status, put.body["mode"], put.body["accept_s"]) == (200, "on", 60)
    shown = await gateway.call("GET", path, user="kim", roles=("sales",))
    assert shown.body == put.body
    wrong = await gateway.call("PUT", path, user="kim", roles=("sales",), json={"accept_s": 1})
    assert (wrong.status, wrong.body["errors"][0]["pointer"]) == (422, "/accept_s")
    async with shop.db.connection() as connection:
        row = await connection.fetchrow("SELECT actor, action FROM sale_log ORDER BY log_id DESC LIMIT 1")
    assert (row["actor"], row["action"]) == ("staff kim", "wait_list")
    assert (await shop.sales.get(sale_id)).has_wait_list


async def test_patch_of_the_list_leaves_absent_members(gateway: TestGateway, shop: CliServices, sale_id: str) -> None:
    await make_sale(shop, sale_id, {SKU: (1, 100, None)})
    path = f"/v1/admin/sales/{sale_id}/wait-list"

    async def staff(method: str, body: dict[str, Any]) -> Any:
        return await gateway.call(method, path, user="kim", roles=("sales",), json=body)

    assert (await staff("PATCH", {"accept_s": 60})).status == 404
    await staff("PUT", {"mode": "off", "accept_s": 60, "max_people_per_sku": 7})
    for body, expected in (
        ({"accept_s": 90}, ("off", 90, 7)),
        ({}, ("off", 90, 7)),
        ({"mode": "on"}, ("on", 90, 7)),
        ({"max_people_per_sku": 8}, ("on", 90, 8)),
    ):
        changed = await staff("PATCH", body)
        actual = changed.body["mode"], changed.body["accept_s"], changed.body["max_people_per_sku"]
        assert (changed.status, actual) == (200, expected), body
        assert (await shop.sales.get(sale_id)).has_wait_list is (expected[0] == "on")
    for body in ({"mode": None}, {"accept_s": 1}, {"unknown": 1}):
        assert (await staff("PATCH", body)).status == 422, body
    await shop.sales.close(sale_id, "test")
    assert (await staff("PATCH", {"accept_s": 60})).status == 409


async def test_list_without_keeper_is_stalled(gateway: TestGateway, shop: CliServices, sale_id: str) -> None:
    await open_wait_list(shop, sale_id)
    opens_at = from_ms(shop.clock.now_ms()) - timedelta(seconds=31)
    async with shop.db.connection() as connection:
        await connection.execute("UPDATE sales SET opens_at = $2 WHERE sale_id = $1", sale_id, opens_at)
    await gateway.services.wait_lists.status.refresh()
    assert REGISTRY.get_sample_value("floodgate_wait_list_stalled", {"sale": sale_id}) == 1


async def test_too_many_joins_at_once_are_refused(gateway: TestGateway, shop: CliServices, sale_id: str) -> None:
    await _open(gateway, shop, sale_id)
    services = gateway.services
    entrance = WaitListEntrance(
        services.wait_lists.service, services.wait_lists.status, services.snapshots, services.clock, None, 0
    )
    object.__setattr__(services, "wait_lists", entrance)
    assert (await _join(gateway, sale_id, "ann")).code == "overloaded"


async def test_customer_refused_by_screening_cannot_join(
    gateway: TestGateway, shop: CliServices, sale_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await _open(gateway, shop, sale_id)
    refusal = RefusedByScreening("the shop takes no orders of yours in this sale")
    actions = type(gateway.services.screening_actions)
    monkeypatch.setattr(actions, "check_order", lambda self, sale_id, user_id: refusal if user_id == "ann" else None)
    assert (await _join(gateway, sale_id, "ann")).code == "refused_by_screening"
    assert (await _join(gateway, sale_id, "ben")).body["number"] == 1
