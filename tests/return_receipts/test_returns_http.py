"""Returns over HTTP, from the tracking number to money and stock, and with commands."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from config.settings import Settings
from ops.services import CliServices
from tests.support.case_shop import CaseShop, open_case_shop
from tests.support.commands import Command, make_command
from tests.support.gateway import bearer
from tests.support.processes import Processes
from tests.support.sales import ADDRESS
from tests.support.shipping_gateway import ShippingGateway, open_shipping_gateway


@pytest.fixture
async def shipping_gateway(shop: CliServices, make_settings: Callable[..., Settings]) -> AsyncIterator[ShippingGateway]:
    async with open_shipping_gateway(shop, make_settings) as gateway:
        yield gateway


@pytest.fixture
def command(settings: Settings, tmp_path: Path) -> Command:
    return make_command(Processes(settings, tmp_path).environment())


async def _approved_case(cases: CaseShop, units: int, user: str = "u1") -> tuple[UUID, UUID]:
    """Deliver an order to `user` and approve the return of all its units. Returns the order and the case."""
    order_id = await cases.add_delivered(("a", units, 0), user=user, ship_to=(ADDRESS,))
    case_id = await cases.request(order_id, user=user)
    await cases.approve(case_id)
    return order_id, case_id


async def _version(cases: CaseShop, case_id: UUID) -> int:
    return (await cases.get(case_id)).case.version


async def test_return_goes_from_tracking_number_to_money_and_stock(shipping_gateway: ShippingGateway) -> None:
    gateway, ship = shipping_gateway.gateway, shipping_gateway.ship
    cases = open_case_shop(ship)
    order_id, case_id = await _approved_case(cases, 3)
    path = f"/v1/returns/{case_id}"
    tracking = {"carrier": "zto", "tracking_no": " zt 4711 "}
    answer = await gateway.call("POST", f"{path}/tracking", user="u1", json=tracking)
    assert (answer.status, answer.body["shipments"][0]["tracking_no"]) == (200, "ZT4711")
    stranger = await gateway.call("POST", f"{path}/tracking", user="mallory", json=tracking)
    assert stranger.status == 404
    listed = await gateway.call("GET", f"{path}/shipments", user="u1")
    assert listed.body["shipments"] == answer.body["shipments"]

    body = {"warehouse": "hz", "tracking_no": "ZT4711", "version": await _version(cases, case_id), "lines": {"0": 3}}
    headers = {"Idempotency-Key": "receipt-1"}
    first = await shipping_gateway.call_as_staff("POST", "/return-receipts", json=body, headers=headers)
    again = await shipping_gateway.call_as_staff("POST", "/return-receipts", json=body, headers=headers)
    assert (first.status, first.body) == (again.status, again.body)
    assert (first.status, first.body["case"]["status"]) == (201, "received")
    stale = await shipping_gateway.call_as_staff("POST", "/return-receipts", json=body)
    assert (stale.status, stale.body["code"]) == (409, "version_conflict")

    results = {"0": {"resellable": 1, "damaged": 1, "rejected": 1, "note": "scratched"}}
    inspection = {"version": await _version(cases, case_id), "lines": results}
    answer = await shipping_gateway.call_as_staff("POST", f"/cases/{case_id}/inspect", json=inspection)
    assert (answer.status, answer.body["status"]) == (200, "inspected")
    resolution = {"version": await _version(cases, case_id), "reason": "as inspected"}
    answer = await shipping_gateway.call_as_staff("POST", f"/cases/{case_id}/resolve", role="support", json=resolution)
    assert answer.status == 200, answer.text
    assert answer.body["case"]["amount"] == 200, "rejected units get no money"
    [release] = await ship.fetch_rows("SELECT part_of, units, written_off FROM releases")
    assert tuple(release) == (order_id, '{"a": 2}', '{"a": 1}')
    assert await ship.fetch_value("SELECT returned FROM fulfilment_lines WHERE order_id = $1", order_id) == 2

    shown = await shipping_gateway.call_as_staff("GET", f"/cases/{case_id}/return", role="support")
    [send_back] = shown.body["send_backs"]
    assert send_back["quantity"] == 1
    correction = inspection | {"version": await _version(cases, case_id)}
    answer = await shipping_gateway.call_as_staff("POST", f"/cases/{case_id}/inspect", json=correction)
    assert (answer.status, answer.body["code"]) == (409, "case_status")
    end = f"/send-backs/{send_back['send_back_id']}/end"
    answer = await shipping_gateway.call_as_staff("POST", end, json={"outcome": "handed_out"})
    assert (answer.status, answer.body["outcome"]) == (200, "handed_out")
    counts = await shipping_gateway.call_as_staff("GET", "/return-worklists")
    assert set(counts.body.values()) == {0}
    answer = await gateway.call("GET", f"/v1/orders/{order_id}", user="u1")
    assert answer.status == 200


async def test_staff_have_return_collected_and_cancel_it(shipping_gateway: ShippingGateway) -> None:
    cases = open_case_shop(shipping_gateway.ship)
    _, case_id = await _approved_case(cases, 1)
    body = {"version": await _version(cases, case_id)}
    answer = await shipping_gateway.call_as_staff("POST", f"/cases/{case_id}/shipments", json=body)
    assert (answer.status, answer.body["job_kind"]) == (201, "return_shipment.book")
    assert answer.body["shipment"]["carrier"] == "sf_express"
    id_ = answer.body["shipment"]["return_shipment_id"]
    answer = await shipping_gateway.call_as_staff("GET", "/return-shipments?worklist=expected&warehouse=hz")
    assert [item["shipment"]["return_shipment_id"] for item in answer.body["items"]] == [id_]
    cancel = {"reason": "keeps it"}
    answer = await shipping_gateway.call_as_staff("POST", f"/return-shipments/{id_}/cancel", json=cancel)
    assert (answer.status, answer.body["shipment"]["is_cancelling"]) == (200, True)
    unknown = await shipping_gateway.call_as_staff("POST", f"/return-shipments/{case_id}/cancel", json=cancel)
    assert unknown.status == 404
    forbidden = await shipping_gateway.call_as_staff("GET", "/return-worklists", role="sales")
    assert forbidden.status == 403


async def test_label_is_printed_for_its_customer_and_staff(
    shipping_gateway: ShippingGateway, command: Command, tmp_path: Path
) -> None:
    gateway, cases = shipping_gateway.gateway, open_case_shop(shipping_gateway.ship)
    _, case_id = await _approved_case(cases, 1)
    body = {"version": await _version(cases, case_id)}
    answer = await shipping_gateway.call_as_staff("POST", f"/cases/{case_id}/shipments", json=body)
    id_ = answer.body["shipment"]["return_shipment_id"]
    path = f"/v1/return-shipments/{id_}/label"
    early = await gateway.call("GET", path, user="u1")
    assert (early.status, early.body["code"]) == (409, "no_label")
    await shipping_gateway.ship.fetch_rows(
        "UPDATE return_shipments SET status = 'booked', tracking_no = 'SF1', booked_at = now()"
    )
    staff_path = f"/v1/admin/return-shipments/{id_}/label"
    labels = set()
    for url, user, roles in ((path, "u1", []), (staff_path, "ann", ["warehouse"]), (staff_path, "joe", ["support"])):
        headers = bearer(gateway.settings, user, roles=roles)
        async with gateway.client.get(f"{gateway.base}{url}", headers=headers) as printed:
            assert (printed.status, printed.headers["Content-Type"], printed.headers["Cache-Control"]) == (
                *(200, "application/pdf", "no-store"),
            )
            labels.add(await printed.read())
    [content] = labels
    assert content.startswith(b"%PDF-")
    assert (await gateway.call("GET", path, user="mallory")).status == 404
    file = tmp_path / "label.pdf"
    status, _ = await command("returns", "label", id_, "--out", file)
    assert (status, file.read_bytes()) == (0, content)
    status, text = await command("returns", "label", case_id, "--out", file)
    assert (status, "no return shipment" in text) == (1, True)


async def test_return_with_commands(ship: Any, command: Command) -> None:
    """Received in parts with surplus, inspected, corrected, and listed."""
    cases = open_case_shop(ship)
    _, case_id = await _approved_case(cases, 3)
    status, text = await command(
        "returns", "receive", case_id, "--warehouse", "hz", "--line", "0=2", "--surplus", "b=1"
    )
    assert (status, "2 units of the case" in text, "1 b" in text) == (0, True, True)
    status, text = await command("returns", "inspect", case_id, "--line", "0=1/1/0")
    assert (status, "received" in text) == (0, True)
    status, text = await command("returns", "inspect", case_id, "--line", "0=2/0/0", "--nothing-more")
    assert (status, "is inspected" in text) == (0, True)
    status, text = await command("returns", "show", case_id)
    assert (status, "waits for staff" in text) == (0, True)
    status, text = await command("returns", "worklists")
    assert (status, "surplus" in text) == (0, True)
    surplus_id = await ship.fetch_value("SELECT surplus_id FROM return_surplus")
    status, _ = await command("returns", "decide", surplus_id, "--decision", "send_back", "--reason", "not ours")
    assert status == 0
    send_back_id = await ship.fetch_value("SELECT send_back_id FROM return_send_backs")
    status, _ = await command("returns", "sent-back", send_back_id, "--carrier", "zto", "--tracking-no", "ZT-9999")
    assert status == 0
    status, text = await command("returns", "receive", "NOBODY-1", "--warehouse", "hz", "--other", "a scarf=1")
    assert (status, "has no case" in text) == (0, True)
    status, text = await command("returns", "receive", "NOBODY-1", "--warehouse", "hz", "--line", "nonsense")
    assert (status, "such as 0=2" in text) == (1, True)


async def test_lost_collection_refunds_customer_and_own_number_asks_staff(
    shipping_gateway: ShippingGateway,
) -> None:
    """Customers are refunded if the shop's carrier loses a return, and wait for staff if their own does."""
    gateway, ship = shipping_gateway.gateway, shipping_gateway.ship
    cases = open_case_shop(ship)
    _, collected = await _approved_case(cases, 1)
    _, own = await _approved_case(cases, 1, user="u2")
    body = {"version": await _version(cases, collected)}
    answer = await shipping_gateway.call_as_staff("POST", f"/cases/{collected}/shipments", json=body)
    id_ = answer.body["shipment"]["return_shipment_id"]
    await ship.fetch_rows(
        "UPDATE return_shipments SET status = 'booked', tracking_no = 'SF1', booked_at = now() "
        "WHERE carrier = 'sf_express'"
    )
    tracking = {"carrier": "village_post", "tracking_no": "VP-4711"}
    answer = await gateway.call("POST", f"/v1/returns/{own}/tracking", user="u2", json=tracking)
    own_id = answer.body["shipments"][0]["return_shipment_id"]
    lost = {"status": "lost", "reason": "the carrier says so"}
    for return_shipment_id in (id_, own_id):
        answer = await shipping_gateway.call_as_staff(
            "POST", f"/return-shipments/{return_shipment_id}/outcome", json=lost
        )
        assert answer.status == 200, answer.text
    assert (await cases.get(collected)).case.status == "resolved"
    assert (await cases.get(collected)).case.amount == 100
    assert await cases.state(own) == ("in_transit", "fixed", "staff")
    assert await ship.fetch_value("SELECT count(*) FROM releases") == 0, "what is lost is no stock"
