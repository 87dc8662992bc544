"""What the sandbox's carriers do when they behave well: whole lives of parcels, and what they refuse."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from commerce.kernel.clock import from_ms
from ops.sandbox.faults import CarrierFaults, FaultRegistry
from ops.sandbox.webhook_sender import ATTEMPTS
from tests.ops.carrier_kit import IDS, ORDERS, CarrierKit, FakeCarrierClock, WebhookReceiver, open_carrier_kit

LIFE_HOURS = 100.0


@pytest.fixture
async def kit() -> AsyncIterator[CarrierKit]:
    async with WebhookReceiver().listening() as receiver, open_carrier_kit(receiver) as made:
        yield made


async def test_a_parcel_of_sf_arrives(kit: CarrierKit) -> None:
    number = await kit.sf.book()
    found = await kit.sf.call("SEARCH_ORDER_RESP", orderId=ORDERS[0])
    assert found["msgData"]["waybillNoInfoList"][0]["waybillNo"] == number
    assert found["msgData"]["routeLabelInfo"][0]["routeLabelData"]["destRouteLabel"]
    assert await kit.sf.tracked(number) == []
    assert kit.receiver.got == []
    got = await kit.live()
    codes = kit.receiver.codes()
    assert codes[0] == "50"
    assert codes[1:-2] in (["30", "31"], ["30", "31"] * 2, ["30", "31"] * 3)
    assert codes[-2:] == ["44", "80"]
    assert all(push.is_genuine for push in got)
    assert {(push.route["mailno"], push.route["orderid"]) for push in got} == {(number, ORDERS[0])}
    assert len({push.route["id"] for push in got}) == len(got)
    shown = ("acceptTime", "acceptAddress", "remark", "opCode", "reasonCode")
    assert await kit.sf.tracked(number) == [{name: push.route[name] for name in shown} for push in got]
    times = [push.route["acceptTime"] for push in got]
    assert all(first < then for first, then in pairwise(times))
    assert (got[0].route["acceptAddress"], got[-1].route["acceptAddress"]) == ("杭州市", "上海市")
    none = dict.fromkeys(("booked_more_than_once", "refused", "cancelled", "returned", "lost", "open_pushes"), 0)
    async with kit.http.get("/books") as answer:
        assert (await answer.json())["sf_express"] == {"parcels": 1, "delivered": 1, **none}


async def test_an_order_number_is_used_once(kit: CarrierKit) -> None:
    number = await kit.sf.book()
    for _ in range(2):
        again = await kit.sf.call("CREATE_ORDER", **kit.sf.order(ORDERS[0]))
        assert (again["success"], again["errorCode"], again["msgData"]) == (False, "8016", None)
        assert (await kit.sf.call("UPDATE_ORDER", orderId=ORDERS[0], dealType=2))["errorCode"] in ("S0000", "8037")
    assert await kit.sf.book(ORDERS[1]) != number
    assert kit.books("sf_express")["booked_more_than_once"] == 0


async def test_two_numbers_for_one_order_are_counted(kit: CarrierKit) -> None:
    """The books count what is there, whatever was checked."""
    parcel = kit.carriers.depot.find(await kit.sf.book())
    kit.carriers.depot.change(replace(parcel, number="SF7000000000000"))
    assert kit.books("sf_express")["booked_more_than_once"] == 1


async def test_sf_refuses_what_is_not_its_customers(kit: CarrierKit) -> None:
    good = kit.sf.form("EXP_RECE_SEARCH_ORDER_RESP", {"orderId": ORDERS[0]})
    assert (await kit.sf.send(good))["apiResultCode"] == "A1000"
    for code, changed in (
        ("A1006", {"msgDigest": "AAAA"}),
        ("A1006", {"msgData": good["msgData"] + " "}),
        ("A1006", {"timestamp": "1800000000001"}),
        ("A1006", {"partnerID": "SOMEBODY"}),
        ("A1001", {"msgDigest": ""}),
        ("A1001", {"timestamp": "yesterday"}),
    ):
        told = await kit.sf.send(good | changed)
        assert (told["apiResultCode"], told["apiResultData"]) == (code, None), changed
    strange = await kit.sf.send(kit.sf.form("EXP_RECE_DO_MAGIC", {}))
    assert strange["apiResultCode"] == "A1004"


async def test_sf_refuses_orders_that_cannot_be(kit: CarrierKit) -> None:
    good = kit.sf.order(ORDERS[0])
    sender, receiver = good["contactInfoList"]
    for code, changed in (
        ("6118", {"orderId": ""}),
        ("9003", {"orderId": "茶"}),
        ("20052", {"monthlyCard": "1"}),
        ("8039", {"contactInfoList": [receiver]}),
        ("8040", {"contactInfoList": [sender, {**receiver, "mobile": ""}]}),
        ("4002", {"cargoDetails": []}),
        ("4002", {"orderId": 7}),
    ):
        told = await kit.sf.call("CREATE_ORDER", **good | changed)
        assert (told["success"], told["errorCode"]) == (False, code), changed
    assert kit.books("sf_express")["parcels"] == 0
    assert (await kit.sf.call("SEARCH_ORDER_RESP", orderId=ORDERS[0]))["errorCode"] == "8024"


async def test_sf_cancels_until_the_parcel_is_picked_up(kit: CarrierKit) -> None:
    assert (await kit.sf.call("UPDATE_ORDER", orderId=ORDERS[0], dealType=2))["errorCode"] == "8024"
    number = await kit.sf.book(ORDERS[0])
    told = await kit.sf.call("UPDATE_ORDER", orderId=ORDERS[0], dealType=2)
    assert (told["success"], told["msgData"]["resStatus"]) == (True, 2)
    assert (await kit.sf.call("UPDATE_ORDER", orderId=ORDERS[0], dealType=2))["errorCode"] == "8037"
    other = await kit.sf.book(ORDERS[1])
    kit.jump(LIFE_HOURS)
    await kit.state(other, "delivered")
    assert (await kit.sf.call("UPDATE_ORDER", orderId=ORDERS[1], dealType=2))["errorCode"] == "8044"
    assert (kit.steps(number), kit.books("sf_express")["cancelled"]) == ([], 1)
    assert (await kit.sf.call("UPDATE_ORDER", orderId=ORDERS[1], dealType=1))["errorCode"] == "8252"


async def test_sf_tells_routes_by_order_and_to_who_knows_the_telephone(kit: CarrierKit) -> None:
    number = await kit.sf.book()
    await kit.http.post(f"/parcels/{number}/move")
    told = await kit.sf.call("SEARCH_ROUTES", trackingType="2", trackingNumber=[ORDERS[0], ORDERS[1]])
    first, second = told["msgData"]["routeResps"]
    assert (first["mailNo"], len(first["routes"]), second["routes"]) == (number, 1, [])
    assert len(await kit.sf.tracked(number, checkPhoneNo="2784")) == 1
    assert await kit.sf.tracked(number, checkPhoneNo="0000") == []


async def test_a_parcel_that_kuaidi100_follows(kit: CarrierKit) -> None:
    assert (await kit.kuaidi100.query("YT0001"))["returnCode"] == "500"
    assert await kit.kuaidi100.follow("YT0001") == {"result": True, "returnCode": "200", "message": "提交成功"}
    assert (await kit.kuaidi100.follow("YT0001"))["returnCode"] == "501"
    got = await kit.live()
    assert all(push.is_genuine for push in got)
    states = [push.told["lastResult"]["state"] for push in got]
    assert (states[0], states[-2:]) == ("103", ["5", "301"])
    assert set(states[1:-2]) == {"1001", "1002"}
    assert [push.told["status"] for push in got] == ["polling"] * (len(got) - 1) + ["shutdown"]
    last = got[-1].told["lastResult"]
    assert (last["nu"], last["com"], last["ischeck"], len(last["data"])) == ("YT0001", "yuantong", "1", len(got))
    assert (last["data"][0]["statusCode"], last["data"][0]["status"]) == ("301", "签收")
    assert await kit.kuaidi100.query("YT0001") == last
    plain = await kit.kuaidi100.query("YT0001", resultv2="")
    assert (plain["state"], "statusCode" in plain["data"][0]) == ("3", False)
    assert kit.books("kuaidi100")["delivered"] == 1


async def test_kuaidi100_tells_at_once_what_it_knows(kit: CarrierKit) -> None:
    await kit.kuaidi100.query("YT0001")
    await kit.http.post("/parcels/YT0001/move?to=out")
    assert kit.receiver.got == []
    await kit.kuaidi100.follow("YT0001")
    [push] = await kit.all_sent()
    assert push.told["lastResult"]["state"] == "5"


async def test_kuaidi100_refuses(kit: CarrierKit) -> None:
    for code, more in (
        ("600", {"key": "other"}),
        ("700", {"company": "pigeons"}),
        ("702", {"number": "no number"}),
    ):
        asked = {"number": "YT0001", **more}
        assert (await kit.kuaidi100.follow(**asked))["returnCode"] == code
    async with kit.http.post("/kuaidi100/poll", data={"schema": "json", "param": "{"}) as answer:
        assert (await answer.json())["returnCode"] == "400"
    assert (await kit.kuaidi100.query("YT0001", sign="0" * 32))["returnCode"] == "503"
    assert (await kit.kuaidi100.query("YT0001", com="pigeons"))["returnCode"] == "400"
    assert kit.books("kuaidi100")["parcels"] == 0


async def test_a_push_is_repeated_until_it_is_accepted(kit: CarrierKit) -> None:
    kit.receiver.refusals = iter(range(3))
    number = await kit.sf.book()
    await kit.http.post(f"/parcels/{number}/move")
    got = await kit.all_sent()
    assert len(got) == 4
    assert len({push.body for push in got}) == 1
    await kit.kuaidi100.follow("YT0001")
    kit.receiver.refusals = iter(range(ATTEMPTS))
    await kit.http.post("/parcels/YT0001/move")
    assert len(await kit.all_sent()) == 4 + ATTEMPTS


async def test_pushes_stay_on_this_machine() -> None:
    async with (
        WebhookReceiver().listening() as receiver,
        open_carrier_kit(receiver, hosts=frozenset({"shop.test"})) as kit,
    ):
        number = await kit.sf.book()
        await kit.http.post(f"/parcels/{number}/move")
        assert await kit.all_sent() == []


async def test_a_person_moves_parcels(kit: CarrierKit) -> None:
    numbers = [await kit.sf.book(order_no) for order_no in ORDERS[:4]]
    async with kit.http.get("/") as answer:
        page = await answer.text()
    assert all(f'href="/parcels/{number}"' in page for number in numbers)
    assert page.count("Send back</button>") == 4
    async with kit.http.post(f"/parcels/{numbers[0]}/move", headers={"Accept": "text/html"}) as answer:
        assert (answer.status, answer.url.path) == (200, "/")
    assert kit.steps(numbers[0]) == ["picked_up"]
    for number, target in zip(numbers, ("delivered", "returned", "lost", "failed"), strict=True):
        async with kit.http.post(f"/parcels/{number}/move?to={target}") as answer:
            told = await answer.json()
        assert told["state"] == {"failed": "on_the_way"}.get(target, target)
        assert [event["step"] for event in told["events"]] == kit.steps(number)
    assert kit.steps(numbers[1]) == ["picked_up", "left", "arrived", "turned", "returned"]
    assert kit.steps(numbers[2]) == ["picked_up", "left", "arrived", "lost"]
    assert kit.steps(numbers[3])[-2:] == ["out", "failed"]
    kit.jump(LIFE_HOURS)
    await kit.state(numbers[3], "delivered")
    for path, status in (
        (f"{numbers[0]}/move", 409),
        (f"{numbers[0]}/move?to=lost", 409),
        ("none/move", 404),
        (f"{numbers[0]}/move?to=mars", 400),
    ):
        async with kit.http.post(f"/parcels/{path}") as answer:
            assert answer.status == status, path
    async with kit.http.get(f"/parcels/{numbers[0]}") as answer:
        assert (await answer.json())["order_no"] == ORDERS[0]
    async with kit.http.get("/parcels/none") as answer:
        assert answer.status == 404


async def test_a_parcel_is_not_taken_back_where_it_was(kit: CarrierKit) -> None:
    number = await kit.sf.book()
    for target, status in (("out", 200), ("picked_up", 409), ("out", 409), ("returned", 200)):
        async with kit.http.post(f"/parcels/{number}/move?to={target}") as answer:
            assert answer.status == status, target


async def test_a_restart_goes_on_where_it_was(tmp_path: Path) -> None:
    """Parcels on the move, one that the shop did not hear of, and a timetable that is kept meanwhile."""
    books, clock, receiver = tmp_path / "books.sqlite", FakeCarrierClock(), WebhookReceiver()
    receiver.url = "http://127.0.0.1:1"
    board = FaultRegistry(CarrierFaults, file=tmp_path / "switches.json")
    async with open_carrier_kit(receiver, books, board, clock) as first:
        first.switch(push_ms=360_000_000)
        number = await first.sf.book()
        first.jump(6)
        await first.state(number, "on_the_way")
        begun = first.steps(number)
    clock.ms += 400 * 3_600_000
    board = FaultRegistry(CarrierFaults, file=tmp_path / "switches.json")
    assert board.of("sf_express").push_ms == 360_000_000
    async with receiver.listening(), open_carrier_kit(receiver, books, board, clock) as second:
        await second.state(number, "delivered")
        got = await second.all_sent()
        assert second.steps(number)[: len(begun)] == begun
        assert len({push.route["id"] for push in got}) == len(got) == len(second.steps(number))
        ended = second.carriers.depot.events("sf_express", number)[-1].at_ms
        assert ended < clock.ms - 300 * 3_600_000, from_ms(ended)


async def test_the_same_seed_gives_the_same_roads() -> None:
    async def roads(seed: int) -> list[str]:
        board = FaultRegistry(CarrierFaults, seed)
        async with WebhookReceiver().listening() as receiver, open_carrier_kit(receiver, board=board) as kit:
            number = await kit.sf.book()
            await kit.kuaidi100.follow("YT0001")
            await kit.live()
            depot = kit.carriers.depot
            events = [*depot.events("sf_express", number), *depot.events("kuaidi100", "YT0001")]
            return [f"{event.number} {event.step} {event.at_ms}" for event in events]

    assert await roads(1) == await roads(1) != await roads(2)


async def test_secrets_are_not_shown(kit: CarrierKit) -> None:
    number = await kit.sf.book()
    for path in ("/", "/books", f"/parcels/{number}", "/switches/sf_express"):
        async with kit.http.get(path) as answer:
            shown = await answer.text()
        assert json.dumps(IDS.sf_express_webhook_key)[1:-1] not in shown
        assert IDS.sf_express_check_word not in shown
