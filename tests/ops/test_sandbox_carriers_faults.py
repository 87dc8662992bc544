"""Faults of simulated carriers, set by HTTP and by a scenario."""

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
    async with WebhookReceiver().listen() as receiver, open_carrier_kit(receiver) as opened_kit:
        yield opened_kit


async def put_faults(kit: CarrierKit, carrier: str, **faults: object) -> int:
    async with kit.http.put(f"/faults/{carrier}", json=faults) as response:
        return response.status


async def test_faults_are_replaced_by_http(kit: CarrierKit) -> None:
    assert await put_faults(kit, "sf_express", lost_share=0.5, time_factor=60) == 200
    async with kit.http.get("/faults/sf_express") as response:
        faults = await response.json()
    assert (faults["lost_share"], faults["time_factor"], faults["webhook_delay_ms"]) == (0.5, 60, 200)
    async with kit.http.get("/") as response:
        assert "sf_express: lost_share = 0.5, time_factor = 60" in await response.text()
    assert kit.carriers.faults.get("kuaidi100") == CarrierFaults(webhook_delay_ms=0)
    assert await put_faults(kit, "sf_express") == 200
    assert kit.carriers.faults.get("sf_express") == CarrierFaults()
    for bad in ({"lost_share": 1.1}, {"webhook_delay_ms": -1}, {"time_factor": 0}, {"approve": "auto"}):
        assert await put_faults(kit, "sf_express", **bad) == 400, bad
    assert await put_faults(kit, "pigeons") == 404


async def test_refused_share_refuses_sf_bookings(kit: CarrierKit) -> None:
    kit.set_faults(refused_share=0.5)
    outcomes = Counter[int]()
    for order_no in ORDERS[:12]:
        result = await kit.sf.call("CREATE_ORDER", **kit.sf.build_order(order_no))
        assert result["success"]
        outcomes[result["msgData"]["filterResult"]] += 1
        assert (result["msgData"]["filterResult"] == 3) == (result["msgData"]["waybillNoInfoList"] is None)
        repeated = await kit.sf.call("SEARCH_ORDER_RESP", orderId=order_no)
        assert repeated["msgData"] == result["msgData"]
    assert set(outcomes) == {2, 3}
    totals = kit.totals("sf_express")
    assert (totals["refused"], totals["shipments"]) == (outcomes[3], outcomes[2])
    await kit.run_to_end()
    assert kit.totals("sf_express")["delivered"] == outcomes[2]


async def test_refused_share_refuses_kuaidi100_subscriptions(kit: CarrierKit) -> None:
    kit.set_faults(refused_share=1)
    assert (await kit.kuaidi100.subscribe("YT0001"))["returnCode"] == "701"
    kit.set_faults()
    assert (await kit.kuaidi100.subscribe("YT0001"))["returnCode"] == "200"


@pytest.mark.parametrize(
    ("faults", "last_steps", "state"),
    [
        ({"failed_share": 1}, ["out", "failed", "out", "delivered"], "delivered"),
        ({"returned_share": 1}, ["out", "failed", "turned_back", "returned"], "returned"),
        ({"lost_share": 1}, ["departed", "lost"], "lost"),
    ],
)
async def test_journey_with_fault_ends_as_expected(
    kit: CarrierKit, faults: dict[str, float], last_steps: list[str], state: str
) -> None:
    kit.set_faults(**faults)
    tracking_no = await kit.sf.book()
    await kit.kuaidi100.subscribe("YT0001")
    webhooks = await kit.run_to_end()
    for tracked_no in (tracking_no, "YT0001"):
        assert kit.list_steps(tracked_no)[-len(last_steps) :] == last_steps
        assert kit.carriers.shipment_store.get(tracked_no).state == state
    assert len(webhooks) == len(kit.list_steps(tracking_no)) + len(kit.list_steps("YT0001"))
    assert [kit.totals(name)[state] for name in CARRIERS] == [1, 1]
    statuses = [webhook.param["status"] for webhook in webhooks if webhook.carrier == "kuaidi100"]
    assert statuses[-1] == ("abort" if state == "lost" else "shutdown")
    routes = await kit.sf.fetch_routes(tracking_no)
    last_codes = {"delivered": ("80", ""), "returned": ("631", ""), "lost": ("8000", "6")}
    assert (routes[-1]["opCode"], routes[-1]["reasonCode"]) == last_codes[state]


async def test_faults_set_after_booking_do_not_change_journey(kit: CarrierKit) -> None:
    tracking_no = await kit.sf.book()
    kit.set_faults(lost_share=1, returned_share=1)
    await kit.run_to_end()
    assert kit.list_steps(tracking_no)[-1] == "delivered"


async def test_unknown_code_share_adds_one_unknown_event(kit: CarrierKit) -> None:
    kit.set_faults(unknown_code_share=1)
    await kit.sf.book()
    await kit.kuaidi100.subscribe("YT0001")
    webhooks = await kit.run_to_end()
    assert [webhook.route["opCode"] for webhook in webhooks if webhook.carrier == "sf_express"].count("9901") == 1
    results = [webhook.param["lastResult"] for webhook in webhooks if webhook.carrier == "kuaidi100"]
    assert [result["state"] for result in results].count("7701") == 1
    assert [kit.totals(name)["delivered"] for name in CARRIERS] == [1, 1]


async def test_duplicate_share_sends_webhook_three_times(kit: CarrierKit) -> None:
    kit.set_faults(duplicate_share=1)
    tracking_no = await kit.sf.book()
    await kit.run_to_end()
    kit.advance(1)
    webhooks = await kit.wait_until_sent()
    counts = Counter(webhook.body for webhook in webhooks)
    assert set(counts.values()) == {3}
    assert len(counts) == len(kit.list_steps(tracking_no))


async def test_dropped_share_sends_no_webhook(kit: CarrierKit) -> None:
    kit.set_faults(dropped_share=1)
    tracking_no = await kit.sf.book()
    assert await kit.run_to_end() == []
    assert len(await kit.sf.fetch_routes(tracking_no)) == len(kit.list_steps(tracking_no))


async def test_delayed_share_sends_webhooks_later(kit: CarrierKit) -> None:
    kit.set_faults(delayed_share=1, extra_delay_ms=500 * HOUR_MS)
    tracking_no = await kit.sf.book()
    for _ in range(8):
        kit.advance(24)
        await kit.wait_until_idle()
    await kit.wait_for_state(tracking_no, "delivered")
    assert kit.receiver.received == []
    kit.advance(500)
    assert len(await kit.wait_until_sent()) == len(kit.list_steps(tracking_no))


async def test_reordered_share_sends_webhooks_out_of_order(kit: CarrierKit) -> None:
    kit.set_faults(reordered_share=1, extra_delay_ms=30 * HOUR_MS)
    tracking_no = await kit.sf.book()
    while kit.carriers.shipment_store.get(tracking_no).is_open or kit.totals("sf_express")["open_webhooks"]:
        kit.advance(1)
        await kit.wait_until_idle()
    times = [webhook.route["acceptTime"] for webhook in kit.receiver.received]
    assert any(earlier > later for earlier, later in pairwise(times)), times
    assert sorted(times) == [route["acceptTime"] for route in await kit.sf.fetch_routes(tracking_no)]


async def test_wrong_signature_share_is_kept_at_each_attempt(kit: CarrierKit) -> None:
    kit.set_faults(wrong_signature_share=0.5)
    kit.receiver.refusals = iter(range(8))
    for order_no in ORDERS[:4]:
        await kit.sf.book(order_no)
    for number in range(4):
        await kit.kuaidi100.subscribe(f"YT000{number}")
    webhooks = await kit.run_to_end()
    for carrier in CARRIERS:
        assert {webhook.is_genuine for webhook in webhooks if webhook.carrier == carrier} == {True, False}
    assert len({webhook.body for webhook in webhooks}) < len(webhooks)
    genuine = {webhook.body: webhook.is_genuine for webhook in webhooks}
    assert all(genuine[webhook.body] == webhook.is_genuine for webhook in webhooks)  # at every attempt


async def test_down_carrier_refuses_requests_and_moves_shipments(kit: CarrierKit) -> None:
    tracking_no = await kit.sf.book()
    kit.set_faults(down=True, down_until_ms=kit.clock.ms + 100 * HOUR_MS)
    outcomes = Counter[str]()
    for _ in range(30):
        try:
            async with kit.http.post("/sf_express/std/service", data={}) as response:
                outcomes[str(response.status)] += 1
        except aiohttp.ClientConnectionError:
            outcomes["closed"] += 1
    assert set(outcomes) == {"503", "closed"}
    await kit.run_to_end()  # shipments and webhooks continue
    assert kit.list_steps(tracking_no)[-1] == "delivered"
    kit.advance(100)
    assert len(await kit.sf.fetch_routes(tracking_no)) == len(kit.list_steps(tracking_no))


async def test_slow_request_is_carried_out(kit: CarrierKit) -> None:
    kit.set_faults(slow_share=1, slow_ms=60_000)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await kit.sf.book()
    kit.set_faults()
    assert (await kit.sf.call("CREATE_ORDER", **kit.sf.build_order(ORDERS[0])))["errorCode"] == "8016"


async def test_time_factor_applies_to_open_shipments(kit: CarrierKit) -> None:
    tracking_no = await kit.sf.book()
    kit.advance(0.2)
    await kit.wait_until_idle()
    assert kit.list_steps(tracking_no) == []
    kit.set_faults(time_factor=1_000)
    await kit.wait_until_idle()
    assert kit.list_steps(tracking_no) == []
    kit.advance(0.2)
    await kit.wait_until_idle()
    assert kit.list_steps(tracking_no)[-1] == "delivered"


async def test_scenario_sets_faults_of_carriers(tmp_path: Path) -> None:
    file = tmp_path / "scenario.toml"
    file.write_text(
        '[[step]]\nafter_s = 0\nsystem = "kuaidi100"\nfaults = {time_factor = 7}\n'
        '[[step]]\nafter_s = 0\nsystem = "alipay"\nfaults = {approve = "auto"}\n'
    )
    steps = read_scenario(file, ["alipay"], CARRIERS)
    assert [step.faults for step in steps] == [CarrierFaults(time_factor=7), ProviderFaults(approve="auto")]
    with pytest.raises(ValueError, match="approve"):
        read_scenario(file, [], [*CARRIERS, "alipay"])
    async with WebhookReceiver().listen() as receiver, open_carrier_kit(receiver, scenario=steps[:1]) as kit:

        async def is_reached() -> bool:
            return kit.carriers.faults.get("kuaidi100").time_factor == 7

        await eventually(is_reached)


def test_faults_are_kept_in_file(tmp_path: Path) -> None:
    file = tmp_path / "faults.json"
    FaultRegistry(CarrierFaults, file=file).set("sf_express", CarrierFaults(lost_share=0.1))
    assert FaultRegistry(CarrierFaults, file=file).get("sf_express") == CarrierFaults(lost_share=0.1)
    file.write_text('{"sf_express": {"approve": "auto"}}')
    with pytest.raises(ValueError, match=r"faults\.json.*approve"):
        FaultRegistry(CarrierFaults, file=file)
