"""Each thing that the sandbox's carriers can be told to do wrong, by HTTP and by a scenario."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path

import aiohttp
import pytest

from ops.sandbox.carriers import CARRIERS
from ops.sandbox.faults import CarrierFaults, FaultRegistry, ProviderFaults, read_scenario
from tests.ops.carrier_kit import HOUR_MS, ORDERS, CarrierKit, WebhookReceiver, open_carrier_kit
from tests.support.sales import eventually


@pytest.fixture
async def kit() -> AsyncIterator[CarrierKit]:
    async with WebhookReceiver().listening() as receiver, open_carrier_kit(receiver) as made:
        yield made


async def put(kit: CarrierKit, carrier: str, **switches: object) -> int:
    async with kit.http.put(f"/switches/{carrier}", json=switches) as answer:
        return answer.status


async def test_switches_by_http(kit: CarrierKit) -> None:
    assert await put(kit, "sf_express", lost_share=0.5, speed=60) == 200
    async with kit.http.get("/switches/sf_express") as answer:
        told = await answer.json()
    assert (told["lost_share"], told["speed"], told["push_ms"]) == (0.5, 60, 200)
    async with kit.http.get("/") as answer:
        assert "sf_express: lost_share = 0.5, speed = 60" in await answer.text()
    assert kit.carriers.board.of("kuaidi100") == CarrierFaults(push_ms=0)
    assert await put(kit, "sf_express") == 200
    assert kit.carriers.board.of("sf_express") == CarrierFaults()
    for bad in ({"lost_share": 1.1}, {"push_ms": -1}, {"speed": 0}, {"approve": "auto"}):
        assert await put(kit, "sf_express", **bad) == 400, bad
    assert await put(kit, "pigeons") == 404


async def test_bookings_that_sf_refuses(kit: CarrierKit) -> None:
    kit.switch(refused_share=0.5)
    outcomes = Counter[int]()
    for order_no in ORDERS[:12]:
        told = await kit.sf.call("CREATE_ORDER", **kit.sf.order(order_no))
        assert told["success"]
        outcomes[told["msgData"]["filterResult"]] += 1
        assert (told["msgData"]["filterResult"] == 3) == (told["msgData"]["waybillNoInfoList"] is None)
        again = await kit.sf.call("SEARCH_ORDER_RESP", orderId=order_no)
        assert again["msgData"] == told["msgData"]
    assert set(outcomes) == {2, 3}
    books = kit.books("sf_express")
    assert (books["refused"], books["parcels"]) == (outcomes[3], outcomes[2])
    await kit.live()
    assert kit.books("sf_express")["delivered"] == outcomes[2]


async def test_numbers_that_kuaidi100_refuses(kit: CarrierKit) -> None:
    kit.switch(refused_share=1)
    assert (await kit.kuaidi100.follow("YT0001"))["returnCode"] == "701"
    kit.switch()
    assert (await kit.kuaidi100.follow("YT0001"))["returnCode"] == "200"


@pytest.mark.parametrize(
    ("switches", "ends", "state"),
    [
        ({"failed_share": 1}, ["out", "failed", "out", "delivered"], "delivered"),
        ({"returned_share": 1}, ["out", "failed", "turned", "returned"], "returned"),
        ({"lost_share": 1}, ["left", "lost"], "lost"),
    ],
)
async def test_parcels_that_do_not_simply_arrive(
    kit: CarrierKit, switches: dict[str, float], ends: list[str], state: str
) -> None:
    kit.switch(**switches)
    number = await kit.sf.book()
    await kit.kuaidi100.follow("YT0001")
    got = await kit.live()
    for each in (number, "YT0001"):
        assert kit.steps(each)[-len(ends) :] == ends
        assert kit.carriers.depot.find(each).state == state
    assert len(got) == len(kit.steps(number)) + len(kit.steps("YT0001"))
    assert [kit.books(name)[state] for name in CARRIERS] == [1, 1]
    shown = [push.told["status"] for push in got if push.carrier == "kuaidi100"]
    assert shown[-1] == ("abort" if state == "lost" else "shutdown")
    told = await kit.sf.tracked(number)
    last = {"delivered": ("80", ""), "returned": ("631", ""), "lost": ("8000", "6")}
    assert (told[-1]["opCode"], told[-1]["reasonCode"]) == last[state]


async def test_what_is_settled_stays(kit: CarrierKit) -> None:
    """A switch does not change the road of parcels that were booked before."""
    number = await kit.sf.book()
    kit.switch(lost_share=1, returned_share=1)
    await kit.live()
    assert kit.steps(number)[-1] == "delivered"


async def test_a_code_that_nobody_knows(kit: CarrierKit) -> None:
    kit.switch(unknown_code_share=1)
    await kit.sf.book()
    await kit.kuaidi100.follow("YT0001")
    got = await kit.live()
    assert [push.route["opCode"] for push in got if push.carrier == "sf_express"].count("9901") == 1
    assert [push.told["lastResult"]["state"] for push in got if push.carrier == "kuaidi100"].count("7701") == 1
    assert [kit.books(name)["delivered"] for name in CARRIERS] == [1, 1]


async def test_twice(kit: CarrierKit) -> None:
    kit.switch(twice_share=1)
    number = await kit.sf.book()
    await kit.live()
    kit.jump(1)
    got = await kit.all_sent()
    counts = Counter(push.body for push in got)
    assert set(counts.values()) == {3}
    assert len(counts) == len(kit.steps(number))


async def test_never(kit: CarrierKit) -> None:
    kit.switch(never_share=1)
    number = await kit.sf.book()
    assert await kit.live() == []
    assert len(await kit.sf.tracked(number)) == len(kit.steps(number))


async def test_late(kit: CarrierKit) -> None:
    kit.switch(late_share=1, late_ms=500 * HOUR_MS)
    number = await kit.sf.book()
    for _ in range(8):
        kit.jump(24)
        await kit.settled()
    await kit.state(number, "delivered")
    assert kit.receiver.got == []
    kit.jump(500)
    assert len(await kit.all_sent()) == len(kit.steps(number))


async def test_shuffled(kit: CarrierKit) -> None:
    kit.switch(shuffled_share=1, late_ms=30 * HOUR_MS)
    number = await kit.sf.book()
    while kit.carriers.depot.find(number).open or kit.books("sf_express")["open_pushes"]:
        kit.jump(1)
        await kit.settled()
    times = [push.route["acceptTime"] for push in kit.receiver.got]
    assert any(first > then for first, then in pairwise(times)), times
    assert sorted(times) == [route["acceptTime"] for route in await kit.sf.tracked(number)]


async def test_wrong_signatures(kit: CarrierKit) -> None:
    kit.switch(wrong_signature_share=0.5)
    kit.receiver.refusals = iter(range(8))
    for order_no in ORDERS[:4]:
        await kit.sf.book(order_no)
    for number in range(4):
        await kit.kuaidi100.follow(f"YT000{number}")
    got = await kit.live()
    for carrier in CARRIERS:
        assert {push.is_genuine for push in got if push.carrier == carrier} == {True, False}
    assert len({push.body for push in got}) < len(got)
    genuine = {push.body: push.is_genuine for push in got}
    assert all(genuine[push.body] == push.is_genuine for push in got)  # each time it is sent


async def test_down_and_up_again(kit: CarrierKit) -> None:
    number = await kit.sf.book()
    kit.switch(down=True, down_until_ms=kit.clock.ms + 100 * HOUR_MS)
    seen = Counter[str]()
    for _ in range(30):
        try:
            async with kit.http.post("/sf_express/std/service", data={}) as answer:
                seen[str(answer.status)] += 1
        except aiohttp.ClientConnectionError:
            seen["closed"] += 1
    assert set(seen) == {"503", "closed"}
    await kit.live()  # parcels and pushes go on
    assert kit.steps(number)[-1] == "delivered"
    kit.jump(100)
    assert len(await kit.sf.tracked(number)) == len(kit.steps(number))


async def test_what_is_slow_is_done(kit: CarrierKit) -> None:
    kit.switch(slow_share=1, slow_ms=60_000)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await kit.sf.book()
    kit.switch()
    assert (await kit.sf.call("CREATE_ORDER", **kit.sf.order(ORDERS[0])))["errorCode"] == "8016"


async def test_another_speed_is_that_of_parcels_on_the_move(kit: CarrierKit) -> None:
    number = await kit.sf.book()
    kit.jump(0.2)
    await kit.settled()
    assert kit.steps(number) == []
    kit.switch(speed=1_000)
    await kit.settled()
    assert kit.steps(number) == []
    kit.jump(0.2)
    await kit.settled()
    assert kit.steps(number)[-1] == "delivered"


async def test_a_scenario_switches_carriers_too(tmp_path: Path) -> None:
    file = tmp_path / "scenario.toml"
    file.write_text(
        '[[step]]\nafter_s = 0\nprovider = "kuaidi100"\nswitches = {speed = 7}\n'
        '[[step]]\nafter_s = 0\nprovider = "alipay"\nswitches = {approve = "auto"}\n'
    )
    steps = read_scenario(file, ["alipay"], CARRIERS)
    assert [step.switches for step in steps] == [CarrierFaults(speed=7), ProviderFaults(approve="auto")]
    with pytest.raises(ValueError, match="approve"):
        read_scenario(file, [], [*CARRIERS, "alipay"])
    async with WebhookReceiver().listening() as receiver, open_carrier_kit(receiver, scenario=steps[:1]) as kit:

        async def look() -> bool:
            return kit.carriers.board.of("kuaidi100").speed == 7

        await eventually(look)


def test_switches_are_kept_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "switches.json"
    FaultRegistry(CarrierFaults, file=file).set("sf_express", CarrierFaults(lost_share=0.1))
    assert FaultRegistry(CarrierFaults, file=file).of("sf_express") == CarrierFaults(lost_share=0.1)
    file.write_text('{"sf_express": {"approve": "auto"}}')
    with pytest.raises(ValueError, match=r"switches\.json.*approve"):
        FaultRegistry(CarrierFaults, file=file)
