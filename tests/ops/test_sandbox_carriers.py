"""Simulated carriers without faults: journeys from booking to delivery, and refused requests."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from commerce.kernel.clock import from_ms
from ops.sandbox.faults import CarrierFaults, FaultRegistry
from ops.sandbox.webhook_sender import MAX_ATTEMPTS
from tests.ops.carrier_kit import IDS, ORDERS, CarrierKit, FakeCarrierClock, WebhookReceiver, open_carrier_kit

LIFE_HOURS = 100.0


@pytest.fixture
async def kit() -> AsyncIterator[CarrierKit]:
    async with WebhookReceiver().listen() as receiver, open_carrier_kit(receiver) as opened_kit:
        yield opened_kit


async def test_sf_shipment_is_tracked_until_delivered(kit: CarrierKit) -> None:
    tracking_no = await kit.sf.book()
    booking = await kit.sf.call("SEARCH_ORDER_RESP", orderId=ORDERS[0])
    assert booking["msgData"]["waybillNoInfoList"][0]["waybillNo"] == tracking_no
    assert booking["msgData"]["routeLabelInfo"][0]["routeLabelData"]["destRouteLabel"]
    assert await kit.sf.fetch_routes(tracking_no) == []
    assert kit.receiver.received == []
    webhooks = await kit.run_to_end()
    codes = kit.receiver.list_codes()
    assert codes[0] == "50"
    assert codes[1:-2] in (["30", "31"], ["30", "31"] * 2, ["30", "31"] * 3)
    assert codes[-2:] == ["44", "80"]
    assert all(webhook.is_genuine for webhook in webhooks)
    assert {(webhook.route["mailno"], webhook.route["orderid"]) for webhook in webhooks} == {(tracking_no, ORDERS[0])}
    assert len({webhook.route["id"] for webhook in webhooks}) == len(webhooks)
    members = ("acceptTime", "acceptAddress", "remark", "opCode", "reasonCode")
    routes = [{name: webhook.route[name] for name in members} for webhook in webhooks]
    assert await kit.sf.fetch_routes(tracking_no) == routes
    times = [webhook.route["acceptTime"] for webhook in webhooks]
    assert all(earlier < later for earlier, later in pairwise(times))
    assert (webhooks[0].route["acceptAddress"], webhooks[-1].route["acceptAddress"]) == ("杭州市", "上海市")
    zeros = dict.fromkeys(("booked_more_than_once", "refused", "cancelled", "returned", "lost", "open_webhooks"), 0)
    async with kit.http.get("/totals") as response:
        assert (await response.json())["sf_express"] == {"shipments": 1, "delivered": 1, **zeros}


async def test_sf_order_number_is_booked_once(kit: CarrierKit) -> None:
    tracking_no = await kit.sf.book()
    for _ in range(2):
        repeated = await kit.sf.call("CREATE_ORDER", **kit.sf.build_order(ORDERS[0]))
        assert (repeated["success"], repeated["errorCode"], repeated["msgData"]) == (False, "8016", None)
        assert (await kit.sf.call("UPDATE_ORDER", orderId=ORDERS[0], dealType=2))["errorCode"] in ("S0000", "8037")
    assert await kit.sf.book(ORDERS[1]) != tracking_no
    assert kit.totals("sf_express")["booked_more_than_once"] == 0


async def test_totals_count_two_numbers_of_one_order(kit: CarrierKit) -> None:
    """The count covers stored rows, so it finds a double booking that the checks missed."""
    shipment = kit.carriers.shipment_store.get(await kit.sf.book())
    kit.carriers.shipment_store.update(replace(shipment, tracking_no="SF7000000000000"))
    assert kit.totals("sf_express")["booked_more_than_once"] == 1


async def test_sf_request_of_other_customer_is_refused(kit: CarrierKit) -> None:
    good = kit.sf.build_form("EXP_RECE_SEARCH_ORDER_RESP", {"orderId": ORDERS[0]})
    assert (await kit.sf.send(good))["apiResultCode"] == "A1000"
    for code, changes in (
        ("A1006", {"msgDigest": "AAAA"}),
        ("A1006", {"msgData": good["msgData"] + " "}),
        ("A1006", {"timestamp": "1800000000001"}),
        ("A1006", {"partnerID": "SOMEBODY"}),
        ("A1001", {"msgDigest": ""}),
        ("A1001", {"timestamp": "yesterday"}),
    ):
        result = await kit.sf.send(good | changes)
        assert (result["apiResultCode"], result["apiResultData"]) == (code, None), changes
    unknown_service = await kit.sf.send(kit.sf.build_form("EXP_RECE_DO_MAGIC", {}))
    assert unknown_service["apiResultCode"] == "A1004"


async def test_sf_invalid_order_is_refused(kit: CarrierKit) -> None:
    good = kit.sf.build_order(ORDERS[0])
    sender, receiver = good["contactInfoList"]
    for code, changes in (
        ("6118", {"orderId": ""}),
        ("9003", {"orderId": "茶"}),
        ("20052", {"monthlyCard": "1"}),
        ("8039", {"contactInfoList": [receiver]}),
        ("8040", {"contactInfoList": [sender, {**receiver, "mobile": ""}]}),
        ("4002", {"cargoDetails": []}),
        ("4002", {"orderId": 7}),
    ):
        result = await kit.sf.call("CREATE_ORDER", **good | changes)
        assert (result["success"], result["errorCode"]) == (False, code), changes
    assert kit.totals("sf_express")["shipments"] == 0
    assert (await kit.sf.call("SEARCH_ORDER_RESP", orderId=ORDERS[0]))["errorCode"] == "8024"


async def test_sf_booking_is_cancelled_until_pickup(kit: CarrierKit) -> None:
    assert (await kit.sf.call("UPDATE_ORDER", orderId=ORDERS[0], dealType=2))["errorCode"] == "8024"
    tracking_no = await kit.sf.book(ORDERS[0])
    result = await kit.sf.call("UPDATE_ORDER", orderId=ORDERS[0], dealType=2)
    assert (result["success"], result["msgData"]["resStatus"]) == (True, 2)
    assert (await kit.sf.call("UPDATE_ORDER", orderId=ORDERS[0], dealType=2))["errorCode"] == "8037"
    other = await kit.sf.book(ORDERS[1])
    kit.advance(LIFE_HOURS)
    await kit.wait_for_state(other, "delivered")
    assert (await kit.sf.call("UPDATE_ORDER", orderId=ORDERS[1], dealType=2))["errorCode"] == "8044"
    assert (kit.list_steps(tracking_no), kit.totals("sf_express")["cancelled"]) == ([], 1)
    assert (await kit.sf.call("UPDATE_ORDER", orderId=ORDERS[1], dealType=1))["errorCode"] == "8252"


async def test_sf_routes_are_found_by_order_and_telephone(kit: CarrierKit) -> None:
    tracking_no = await kit.sf.book()
    await kit.http.post(f"/shipments/{tracking_no}/move")
    result = await kit.sf.call("SEARCH_ROUTES", trackingType="2", trackingNumber=[ORDERS[0], ORDERS[1]])
    first, second = result["msgData"]["routeResps"]
    assert (first["mailNo"], len(first["routes"]), second["routes"]) == (tracking_no, 1, [])
    assert len(await kit.sf.fetch_routes(tracking_no, checkPhoneNo="2784")) == 1
    assert await kit.sf.fetch_routes(tracking_no, checkPhoneNo="0000") == []


async def test_kuaidi100_shipment_is_tracked_until_delivered(kit: CarrierKit) -> None:
    assert (await kit.kuaidi100.query("YT0001"))["returnCode"] == "500"
    assert await kit.kuaidi100.subscribe("YT0001") == {"result": True, "returnCode": "200", "message": "提交成功"}
    assert (await kit.kuaidi100.subscribe("YT0001"))["returnCode"] == "501"
    webhooks = await kit.run_to_end()
    assert all(webhook.is_genuine for webhook in webhooks)
    states = [webhook.param["lastResult"]["state"] for webhook in webhooks]
    assert (states[0], states[-2:]) == ("103", ["5", "301"])
    assert set(states[1:-2]) == {"1001", "1002"}
    assert [webhook.param["status"] for webhook in webhooks] == ["polling"] * (len(webhooks) - 1) + ["shutdown"]
    last = webhooks[-1].param["lastResult"]
    assert (last["nu"], last["com"], last["ischeck"], len(last["data"])) == ("YT0001", "yuantong", "1", len(webhooks))
    assert (last["data"][0]["statusCode"], last["data"][0]["status"]) == ("301", "签收")
    assert await kit.kuaidi100.query("YT0001") == last
    plain = await kit.kuaidi100.query("YT0001", resultv2="")
    assert (plain["state"], "statusCode" in plain["data"][0]) == ("3", False)
    assert kit.totals("kuaidi100")["delivered"] == 1


async def test_kuaidi100_subscription_sends_past_events_at_once(kit: CarrierKit) -> None:
    await kit.kuaidi100.query("YT0001")
    await kit.http.post("/shipments/YT0001/move?to=out")
    assert kit.receiver.received == []
    await kit.kuaidi100.subscribe("YT0001")
    [webhook] = await kit.wait_until_sent()
    assert webhook.param["lastResult"]["state"] == "5"


async def test_kuaidi100_invalid_request_is_refused(kit: CarrierKit) -> None:
    for code, changes in (
        ("600", {"key": "other"}),
        ("700", {"company": "pigeons"}),
        ("702", {"number": "no number"}),
    ):
        fields = {"number": "YT0001", **changes}
        assert (await kit.kuaidi100.subscribe(**fields))["returnCode"] == code
    async with kit.http.post("/kuaidi100/poll", data={"schema": "json", "param": "{"}) as response:
        assert (await response.json())["returnCode"] == "400"
    assert (await kit.kuaidi100.query("YT0001", sign="0" * 32))["returnCode"] == "503"
    assert (await kit.kuaidi100.query("YT0001", com="pigeons"))["returnCode"] == "400"
    assert kit.totals("kuaidi100")["shipments"] == 0


async def test_refused_webhook_is_sent_until_accepted(kit: CarrierKit) -> None:
    kit.receiver.refusals = iter(range(3))
    tracking_no = await kit.sf.book()
    await kit.http.post(f"/shipments/{tracking_no}/move")
    webhooks = await kit.wait_until_sent()
    assert len(webhooks) == 4
    assert len({webhook.body for webhook in webhooks}) == 1
    await kit.kuaidi100.subscribe("YT0001")
    kit.receiver.refusals = iter(range(MAX_ATTEMPTS))
    await kit.http.post("/shipments/YT0001/move")
    assert len(await kit.wait_until_sent()) == 4 + MAX_ATTEMPTS


async def test_webhook_to_other_host_is_not_sent() -> None:
    async with (
        WebhookReceiver().listen() as receiver,
        open_carrier_kit(receiver, hosts=frozenset({"shop.test"})) as kit,
    ):
        tracking_no = await kit.sf.book()
        await kit.http.post(f"/shipments/{tracking_no}/move")
        assert await kit.wait_until_sent() == []


async def test_person_moves_shipments_on_page(kit: CarrierKit) -> None:
    numbers = [await kit.sf.book(order_no) for order_no in ORDERS[:4]]
    async with kit.http.get("/") as response:
        page = await response.text()
    assert all(f'href="/shipments/{tracking_no}"' in page for tracking_no in numbers)
    assert page.count("Return</button>") == 4
    async with kit.http.post(f"/shipments/{numbers[0]}/move", headers={"Accept": "text/html"}) as response:
        assert (response.status, response.url.path) == (200, "/")
    assert kit.list_steps(numbers[0]) == ["picked_up"]
    for tracking_no, target in zip(numbers, ("delivered", "returned", "lost", "failed"), strict=True):
        async with kit.http.post(f"/shipments/{tracking_no}/move?to={target}") as response:
            result = await response.json()
        assert result["state"] == {"failed": "in_transit"}.get(target, target)
        assert [event["step"] for event in result["events"]] == kit.list_steps(tracking_no)
    assert kit.list_steps(numbers[1]) == ["picked_up", "departed", "arrived", "turned_back", "returned"]
    assert kit.list_steps(numbers[2]) == ["picked_up", "departed", "arrived", "lost"]
    assert kit.list_steps(numbers[3])[-2:] == ["out", "failed"]
    kit.advance(LIFE_HOURS)
    await kit.wait_for_state(numbers[3], "delivered")
    for path, status in (
        (f"{numbers[0]}/move", 409),
        (f"{numbers[0]}/move?to=lost", 409),
        ("none/move", 404),
        (f"{numbers[0]}/move?to=mars", 400),
    ):
        async with kit.http.post(f"/shipments/{path}") as response:
            assert response.status == status, path
    async with kit.http.get(f"/shipments/{numbers[0]}") as response:
        assert (await response.json())["order_no"] == ORDERS[0]
    async with kit.http.get("/shipments/none") as response:
        assert response.status == 404


async def test_move_to_passed_step_is_refused(kit: CarrierKit) -> None:
    tracking_no = await kit.sf.book()
    for target, status in (("out", 200), ("picked_up", 409), ("out", 409), ("returned", 200)):
        async with kit.http.post(f"/shipments/{tracking_no}/move?to={target}") as response:
            assert response.status == status, target


async def test_restart_continues_shipments_and_webhooks(tmp_path: Path) -> None:
    """Shipments keep their timetable while the sandbox is stopped, and unsent webhooks are sent."""
    store_file, clock, receiver = tmp_path / "shipments.sqlite", FakeCarrierClock(), WebhookReceiver()
    receiver.url = "http://127.0.0.1:1"
    fault_registry = FaultRegistry(CarrierFaults, file=tmp_path / "faults.json")
    async with open_carrier_kit(receiver, store_file, fault_registry, clock) as first:
        first.set_faults(webhook_delay_ms=360_000_000)
        tracking_no = await first.sf.book()
        first.advance(6)
        await first.wait_for_state(tracking_no, "in_transit")
        steps_before = first.list_steps(tracking_no)
    clock.ms += 400 * 3_600_000
    fault_registry = FaultRegistry(CarrierFaults, file=tmp_path / "faults.json")
    assert fault_registry.get("sf_express").webhook_delay_ms == 360_000_000
    async with receiver.listen(), open_carrier_kit(receiver, store_file, fault_registry, clock) as second:
        await second.wait_for_state(tracking_no, "delivered")
        webhooks = await second.wait_until_sent()
        assert second.list_steps(tracking_no)[: len(steps_before)] == steps_before
        assert (
            len({webhook.route["id"] for webhook in webhooks}) == len(webhooks) == len(second.list_steps(tracking_no))
        )
        ended_ms = second.carriers.shipment_store.list_events("sf_express", tracking_no)[-1].at_ms
        assert ended_ms < clock.ms - 300 * 3_600_000, from_ms(ended_ms)


async def test_journeys_with_equal_seed_are_equal() -> None:
    async def list_journeys(seed: int) -> list[str]:
        fault_registry = FaultRegistry(CarrierFaults, seed)
        async with (
            WebhookReceiver().listen() as receiver,
            open_carrier_kit(receiver, fault_registry=fault_registry) as kit,
        ):
            tracking_no = await kit.sf.book()
            await kit.kuaidi100.subscribe("YT0001")
            await kit.run_to_end()
            store = kit.carriers.shipment_store
            events = [*store.list_events("sf_express", tracking_no), *store.list_events("kuaidi100", "YT0001")]
            return [f"{event.tracking_no} {event.step} {event.at_ms}" for event in events]

    assert await list_journeys(1) == await list_journeys(1) != await list_journeys(2)


async def test_pages_show_no_secrets(kit: CarrierKit) -> None:
    tracking_no = await kit.sf.book()
    for path in ("/", "/totals", f"/shipments/{tracking_no}", "/faults/sf_express"):
        async with kit.http.get(path) as response:
            text = await response.text()
        assert json.dumps(IDS.sf_express_webhook_key)[1:-1] not in text
        assert IDS.sf_express_check_word not in text
