"""Orders that support finds and reads whole, over HTTP and by commands."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from commerce.order_search.service import index_contacts
from config.settings import Settings
from ops.services import CliServices
from tests.support.case_shop import CLAIM, CaseShop, open_case_shop
from tests.support.commands import Command, make_command
from tests.support.gateway import GatewayResponse, TestGateway, run_workers
from tests.support.processes import Processes
from tests.support.sales import ADDRESS, eventually, make_sale, order_body
from tests.support.shipping_shop import ShippingShop
from tests.support.staff_refunds import refund_as_staff

ORDERS = "/v1/admin/orders"
LI_SI = {**ADDRESS, "name": "Li Si", "phone": "+86 139 1234 5678"}


@pytest.fixture
def cases(ship: ShippingShop) -> CaseShop:
    return open_case_shop(ship)


@pytest.fixture
def floodgate(settings: Settings, tmp_path: Path) -> Command:
    return make_command(Processes(settings, tmp_path).environment())


async def get(gateway: TestGateway, path: str, role: str = "support_read", **params: str) -> GatewayResponse:
    return await gateway.call("GET", path, user="rea", roles=[role], params=params)


async def search(gateway: TestGateway, **body: Any) -> GatewayResponse:
    return await gateway.call("POST", f"{ORDERS}/search", user="rea", roles=["support_read"], json=body)


def ids(answer: GatewayResponse) -> list[str]:
    assert answer.status == 200, answer.text
    return [match["order_id"] for match in answer.body["items"]]


async def test_order_is_read_whole(cases: CaseShop, gateway: TestGateway) -> None:
    order_id = await cases.add_delivered(("a", 2, 0), ("b", 1, 0))
    case_id = await cases.request(order_id, 1, kind=CLAIM, reason="damaged_or_defective")
    await cases.approve(case_id)
    await cases.act("resolve", case_id)
    await refund_as_staff(cases.ship.shop, order_id, amount=30)
    answer = await get(gateway, f"{ORDERS}/{order_id}")
    assert answer.status == 200, answer.text
    whole = answer.body
    assert (whole["user_id"], whole["order"]["order_id"]) == ("user", str(order_id))
    assert whole["contacts"] == [{"ship_to": 0, "name": ADDRESS["name"], "phone": ADDRESS["phone"]}]
    assert [grant["amount"] for grant in whole["grants"]] == [100, 30]
    assert [grant["actor"] for grant in whole["grants"]] == ["staff sue", "staff sam"]
    refunds = [refund["amount"] for payment in whole["payments"]["payments"] for refund in payment["refunds"]]
    assert sum(refunds) == 130
    assert {item["payment_id"] for item in whole["transactions"]} == {
        payment["payment_id"] for payment in whole["payments"]["payments"]
    }
    assert whole["postings"]
    assert all(sum(posting["entries"].values()) == 0 for posting in whole["postings"])
    assert [shipment["status"] for shipment in whole["shipments"]["shipments"]] == ["delivered"]
    assert [case["case_id"] for case in whole["cases"]] == [str(case_id)]
    assert [conversation["case_id"] for conversation in whole["conversations"]] == [str(case_id)]
    assert (whole["return_shipments"], whole["cancellations"]) == ([], [])
    story = whole["story"]
    moments = [datetime.fromisoformat(entry["at"]) for entry in story]
    assert moments == sorted(moments)
    subjects = [entry["subject"] for entry in story]
    assert subjects.count("order") == len(whole["events"])
    shipments = whole["shipments"]["shipments"]
    assert subjects.count("shipment") == sum(len(shipment["events"]) for shipment in shipments) > 0
    assert {"case", "refund"} <= {entry["kind"] for entry in story}


async def test_return_shipment_is_in_the_whole_order(cases: CaseShop, gateway: TestGateway) -> None:
    order_id = await cases.add_delivered(("a", 1, 0))
    case_id = await cases.request(order_id, 1)
    await cases.approve(case_id)
    tracking = {"carrier": "zto", "tracking_no": "ZT12345678"}
    entered = await gateway.call("POST", f"/v1/returns/{case_id}/tracking", user="user", json=tracking)
    assert entered.status == 200, entered.text
    whole = (await get(gateway, f"{ORDERS}/{order_id}")).body
    assert [details["shipment"]["tracking_no"] for details in whole["return_shipments"]] == ["ZT12345678"]
    assert "return_shipment" in {entry["subject"] for entry in whole["story"]}
    assert ids(await get(gateway, ORDERS, tracking_no="ZT12345678")) == [str(order_id)]


async def test_views_of_an_order_are_recorded(cases: CaseShop, gateway: TestGateway) -> None:
    order_id, unknown = await cases.add_delivered(("a", 1, 0)), uuid4()
    for role in ("support_read", "operator"):
        assert (await get(gateway, f"{ORDERS}/{order_id}", role=role)).status == 200
    assert (await get(gateway, f"{ORDERS}/{unknown}")).status == 404
    assert (await get(gateway, f"{ORDERS}/{order_id}/views")).code == "forbidden"
    views = (await get(gateway, f"{ORDERS}/{order_id}/views", role="support_lead")).body["items"]
    assert [view["actor"] for view in views] == ["staff rea"] * 2
    assert (await get(gateway, f"{ORDERS}/{unknown}/views", role="support_lead")).body["items"] == []


async def test_accepted_order_that_is_not_stored_is_shown(
    shop: CliServices, gateway: TestGateway, sale_id: str
) -> None:
    await make_sale(shop, sale_id, {"a": (5, 100, None)})
    await gateway.services.snapshots.refresh()
    placed = await gateway.order(order_body(sale_id, ("a", 1)))
    whole = await get(gateway, f"{ORDERS}/{placed.body['order_id']}")
    assert (whole.status, whole.body["order"]["status"]) == (200, "accepted")
    assert (whole.body["payments"], whole.body["shipments"], whole.body["grants"]) == (None, None, [])


async def test_recipients_of_a_stored_order_are_found_by_phone_and_name(
    shop: CliServices, settings: Settings, gateway: TestGateway, floodgate: Command, sale_id: str
) -> None:
    await make_sale(shop, sale_id, {"a": (5, 100, None)})
    await gateway.services.snapshots.refresh()
    placed = await gateway.order(order_body(sale_id, ("a", 1), ship_to=[LI_SI]), user="li")
    order_id = placed.body["order_id"]

    async def is_indexed() -> bool:
        return ids(await search(gateway, phone="13912345678")) == [order_id]

    async with run_workers(settings, "order_writer", "aftersales_worker"):
        await eventually(is_indexed)
    for conditions in (
        {"phone_end": "5678"},
        {"name": "LI SI"},
        {"name": "li si", "phone": "+86 13912345678", "user_id": "li", "order": order_id[:8]},
    ):
        assert ids(await search(gateway, **conditions)) == [order_id], conditions
    for conditions in ({"phone_end": "0000"}, {"name": "Li"}, {"name": "Li Si", "user_id": "zhang"}):
        assert ids(await search(gateway, **conditions)) == [], conditions
    match = (await search(gateway, name="Li Si")).body["items"][0]
    assert (match["user_id"], match["recipients"], match["status"]) == ("li", ["Li Si"], "awaiting_payment")
    for option, value in (("--phone", "13912345678"), ("--user", "li"), ("--name", "Li Si")):
        status, text = await floodgate("order", "find", option, value, "--json")
        assert (status, [match["order_id"] for match in json.loads(text)["items"]]) == (0, [order_id])
    status, text = await floodgate("order", "find", "--status", "paid")
    assert (status, "add order, user_id" in text) == (1, True), text


async def test_pages_of_a_customers_orders_follow_each_other(ship: ShippingShop, gateway: TestGateway) -> None:
    orders = [str(await ship.add_order(("a", 1, 0), user="li")) for _ in range(5)]
    await ship.add_order(("a", 1, 0), user="zhang")
    orders_of_pages, cursor = list[str](), ""
    for _ in range(3):
        page = await get(gateway, ORDERS, user_id="li", limit="2", **({"cursor": cursor} if cursor else {}))
        orders_of_pages += ids(page)
        cursor = page.body["next"]
    assert (orders_of_pages, cursor) == (orders[::-1], None)
    await index_contacts(ship.shop.db, 100)
    by_name = await search(gateway, name=ADDRESS["name"], user_id="li", limit=4)
    assert ids(by_name) == orders[:0:-1]
    assert ids(await search(gateway, name=ADDRESS["name"], user_id="li", cursor=by_name.body["next"])) == orders[:1]


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, ""),
        ({"status": "paid"}, "/status"),
        ({"status": "accepted"}, "/status"),
        ({"order": "01a2"}, "/order"),
        ({"order": "zzzzzzzz"}, "/order"),
        ({"phone": "call me"}, "/phone"),
        ({"phone": "1" * 40}, "/phone"),
        ({"phone_end": "12345"}, "/phone_end"),
        ({"name": "\u200b"}, "/name"),
        ({"name": "x" * 10_000}, "/name"),
        ({"name": "a\nb"}, "/name"),
        ({"tracking_no": "'; --"}, "/tracking_no"),
        ({"transaction_no": "\x00\x00\x00\x00"}, "/transaction_no"),
        ({"first_day": "0001-01-01"}, ""),
        ({"first_day": "tomorrow"}, "/first_day"),
        ({"user_id": "li", "limit": 0}, "/limit"),
        ({"user_id": "li", "cursor": "x"}, "/cursor"),
        ({"user": "li"}, ""),
    ],
)
async def test_bad_search_is_refused_with_its_place(gateway: TestGateway, body: dict[str, Any], pointer: str) -> None:
    answer = await search(gateway, **body)
    assert (answer.status, answer.code) == (422, "invalid"), answer.text
    assert answer.body["errors"][0]["pointer"] == pointer, answer.text


async def test_emoji_and_one_character_are_searched_like_others(gateway: TestGateway) -> None:
    for name in ("李", "🙂a", "%", "_"):
        answer = await search(gateway, name=name)
        assert answer.status == (422 if name in "%_" else 200), name


async def test_order_show_prints_the_whole_order(cases: CaseShop, floodgate: Command) -> None:
    order_id = await cases.add_delivered(("a", 1, 0))
    await cases.request(order_id, 1)
    status, printed = await floodgate("order", "show", order_id)
    assert status == 0, printed
    for text in (str(order_id), "recipient 0", ADDRESS["name"], "payment by", "posting", "shipment 1", "case return"):
        assert text in printed, text
    views = await cases.ship.fetch_rows("SELECT actor FROM order_views WHERE order_id = $1", order_id)
    assert [row["actor"].split()[0] for row in views] == ["cli"]
