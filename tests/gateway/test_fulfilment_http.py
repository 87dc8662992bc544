"""Fulfilment over HTTP: every staff operation on shipments, and its refusals."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any
from uuid import UUID, uuid4

import pytest

from config.settings import Settings
from gateway.endpoints import fulfilment
from ops.services import CliServices
from tests.support.fake_carrier import refusal
from tests.support.gateway import GatewayResponse, bearer
from tests.support.sales import ADDRESS
from tests.support.shipping_gateway import ShippingGateway, open_shipping_gateway
from tests.support.shipping_shop import SHANGHAI, tracking_event


@pytest.fixture
async def shipping_gateway(shop: CliServices, make_settings: Callable[..., Settings]) -> AsyncIterator[ShippingGateway]:
    async with open_shipping_gateway(shop, make_settings) as gateway:
        yield gateway


async def list_worklist(shipping_gateway: ShippingGateway, worklist: str, **query: Any) -> list[dict[str, Any]]:
    answer = await shipping_gateway.call_as_staff("GET", "/shipments", params={"worklist": worklist, **query})
    assert answer.status == 200, answer.text
    if worklist != "all" and not query:
        counts = (await shipping_gateway.call_as_staff("GET", "/worklists")).body
        assert counts[worklist] == len(answer.body["items"])
    return list(answer.body["items"])


def is_problem(answer: GatewayResponse, status: int, code: str) -> bool:
    assert (answer.status, answer.code) == (status, code), answer.text
    return True


async def pdf(shipping_gateway: ShippingGateway, path: str) -> bytes:
    async with shipping_gateway.gateway.client.get(
        f"{shipping_gateway.gateway.base}/v1/admin{path}",
        headers=bearer(shipping_gateway.gateway.settings, "ann", roles=["warehouse"]),
    ) as answer:
        assert (answer.status, answer.headers["Content-Type"]) == (200, "application/pdf"), await answer.text()
        assert answer.headers["X-Request-Id"]
        content = await answer.read()
    assert content.startswith(b"%PDF-")
    assert content.rstrip().endswith(b"%%EOF")
    return content


async def test_wave_from_worklist_to_packed_shipments(shipping_gateway: ShippingGateway) -> None:
    """A wave with its documents; the worker books one shipment, staff the other."""
    _, [shipment] = await shipping_gateway.ship.add_booked_order(("a", 2, 0))
    _, [two] = await shipping_gateway.ship.add_booked_order(("b", 1, 0), ship_to=(SHANGHAI,))
    items = await list_worklist(shipping_gateway, "to_pack")
    assert [item["shipment"]["shipment_id"] for item in items] == [str(shipment.shipment_id), str(two.shipment_id)]
    assert items[0]["lines"] == [{"line_no": 0, "sku": "a", "quantity": 2}]
    first = await shipping_gateway.call_as_staff("GET", "/shipments", params={"limit": 1})
    assert (len(first.body["items"]), first.body["next"]) == (1, str(shipment.shipment_id))
    rest = await shipping_gateway.call_as_staff("GET", "/shipments", params={"limit": 1, "cursor": first.body["next"]})
    assert [item["shipment"]["shipment_id"] for item in rest.body["items"]] == [str(two.shipment_id)]
    assert rest.body["next"] is None
    assert await list_worklist(shipping_gateway, "to_pack", warehouse="sh") == []
    wave = await shipping_gateway.call_as_staff("POST", "/waves", json={"warehouse_id": "hz"})
    assert wave.status == 201, wave.text
    assert wave.body["shipments"] == [str(shipment.shipment_id), str(two.shipment_id)]
    assert wave.body["picks"][0] == {
        "shelf": "A-01",
        "sku": "a",
        "name": "thing a",
        "quantity": 2,
        "shipments": {"1": 2},
    }
    path = f"/waves/{wave.body['wave_id']}"
    assert (await shipping_gateway.call_as_staff("GET", path)).body == wave.body
    await pdf(shipping_gateway, f"{path}/pick-list")
    labels = await pdf(shipping_gateway, f"{path}/labels")
    assert is_problem(
        await shipping_gateway.call_as_staff("GET", f"/shipments/{two.shipment_id}/label"), 409, "no_label"
    )
    assert await pdf(shipping_gateway, f"/shipments/{shipment.shipment_id}/label") == labels, (
        "only the first shipment is booked"
    )
    await pdf(shipping_gateway, f"/shipments/{two.shipment_id}/packing-list")
    for _ in range(2):
        done = await shipping_gateway.post_action(shipment.shipment_id, "pack", tracking_no=shipment.tracking_no)
        assert (done.status, done.body["shipment"]["packed_by"]) == (200, "staff ann")
    assert is_problem(
        await shipping_gateway.post_action(shipment.shipment_id, "pack", tracking_no="SF0000"),
        409,
        "invalid_shipment_state",
    )
    none = await shipping_gateway.call_as_staff("POST", f"/shipments/{two.shipment_id}/pack", json={})
    assert is_problem(none, 422, "invalid")
    assert "tracking_no" in none.body["detail"]
    packed = await shipping_gateway.post_action(two.shipment_id, "pack", tracking_no="ZTO-1")
    assert packed.body["shipment"]["status"] == "booked"
    await pdf(shipping_gateway, f"/shipments/{two.shipment_id}/label")
    _, [three] = await shipping_gateway.ship.add_booked_order(("b", 1, 0), ship_to=(SHANGHAI,))
    duplicate = await shipping_gateway.post_action(three.shipment_id, "pack", tracking_no="ZTO-1")
    assert is_problem(duplicate, 409, "invalid_shipment_state")
    assert await list_worklist(shipping_gateway, "to_pack", warehouse="hz") == await list_worklist(
        shipping_gateway, "to_pack"
    )
    assert (
        await shipping_gateway.call_as_staff("POST", "/waves", json={"warehouse_id": "hz", "max_shipments": 1})
    ).status == 201
    assert is_problem(
        await shipping_gateway.call_as_staff("POST", "/waves", json={"warehouse_id": "hz"}),
        409,
        "invalid_shipment_state",
    )
    assert is_problem(
        await shipping_gateway.call_as_staff("POST", "/waves", json={"warehouse_id": "nowhere"}), 422, "invalid"
    )
    choice = (await shipping_gateway.call_as_staff("GET", f"/shipments/{shipment.shipment_id}/carrier-choice")).body
    assert (choice["carrier"], len(choice["candidates"])) == ("sf_express", 3)
    details = (await shipping_gateway.call_as_staff("GET", f"/shipments/{shipment.shipment_id}")).body
    assert [event["text"] for event in details["events"]][-1] == "it is packed"
    await shipping_gateway.ship.check_records()


async def test_shipment_hold_resume_redirect_and_cancel(shipping_gateway: ShippingGateway) -> None:
    _, [shipment] = await shipping_gateway.ship.add_booked_order()
    id_ = shipment.shipment_id
    held = await shipping_gateway.post_action(id_, "hold", reason="the customer calls back")
    assert (held.status, held.body["shipment"]["held_reason"]) == (200, "the customer calls back")
    assert [item["reason"] for item in await list_worklist(shipping_gateway, "on_hold")] == ["the customer calls back"]
    assert is_problem(
        await shipping_gateway.call_as_staff("POST", f"/shipments/{id_}/pack", json={}), 409, "invalid_shipment_state"
    )
    held_label = await pdf(shipping_gateway, f"/shipments/{id_}/label")
    for _ in range(2):
        assert (await shipping_gateway.post_action(id_, "resume")).body["shipment"]["held_reason"] is None
    assert await pdf(shipping_gateway, f"/shipments/{id_}/label") != held_label, "the label of a held shipment says so"
    moved = await shipping_gateway.post_action(id_, "redirect", address=SHANGHAI, reason="she moved")
    assert (moved.status, moved.body["job"]["kind"]) == (200, "shipment.cancel")
    await shipping_gateway.ship.work_until_idle()
    again = (await shipping_gateway.call_as_staff("GET", f"/shipments/{id_}")).body["shipment"]
    assert (again["status"], again["carrier"], again["address"]) == ("planned", "zto", {**again["address"], **SHANGHAI})
    window = {"deliver_from": "18:00:00", "deliver_to": "20:00:00", "latitude": 31.2, "longitude": 121.5}
    appointed = (await shipping_gateway.post_action(id_, "appointment", **window)).body["shipment"]
    assert {name: appointed[name] for name in window} == window
    for _ in range(2):
        gone = await shipping_gateway.post_action(id_, "cancel", reason="not wanted")
        assert gone.body["shipment"]["status"] == "cancelled"
    assert is_problem(await shipping_gateway.post_action(id_, "hold", reason="x"), 409, "invalid_shipment_state")
    assert is_problem(
        await shipping_gateway.post_action(id_, "redirect", address=ADDRESS, reason="x"), 409, "invalid_shipment_state"
    )
    assert is_problem(await shipping_gateway.post_action(id_, "appointment", **window), 409, "invalid_shipment_state")
    await shipping_gateway.ship.check_records()


async def test_retry_of_parked_shipment_and_unplanned_order_succeeds(shipping_gateway: ShippingGateway) -> None:
    """A shipment that every carrier refused, and an order that could not be planned."""
    shipping_gateway.ship.carriers["sf_express"].next_outcomes = [refusal(), refusal()]
    _, [shipment] = await shipping_gateway.ship.add_booked_order()
    [item] = await list_worklist(shipping_gateway, "parked")
    assert "sf_express" in item["reason"]
    assert is_problem(
        await shipping_gateway.call_as_staff("GET", f"/shipments/{shipment.shipment_id}/label"), 409, "no_label"
    )
    shipping_gateway.ship.carriers["sf_express"].next_outcomes = []
    retried = await shipping_gateway.call_as_staff("POST", f"/jobs/shipments/{shipment.shipment_id}/retry")
    assert (retried.body["state"], retried.body["order_id"]) == ("due", str(shipment.order_id))
    await shipping_gateway.ship.work_until_idle()
    assert (await shipping_gateway.ship.get_shipment(shipment.shipment_id)).status == "booked"
    [kept] = await shipping_gateway.ship.fetch_rows("DELETE FROM product_logistics WHERE sku = 'c' RETURNING *")
    order_id = await shipping_gateway.ship.add_order(("c", 1, 0))
    await shipping_gateway.ship.work_until_idle()
    [order] = (await shipping_gateway.call_as_staff("GET", "/unplanned-orders")).body["items"]
    assert order["order_id"] == str(order_id)
    assert "import the product logistics" in order["reason"]
    assert (await shipping_gateway.call_as_staff("GET", "/worklists")).body["unplanned"] == 1
    await shipping_gateway.ship.fetch_rows("INSERT INTO product_logistics VALUES ($1, $2, $3)", *kept)
    replanned = await shipping_gateway.call_as_staff("POST", f"/orders/{order_id}/replan")
    assert is_problem(replanned, 409, "not_to_be_planned")
    assert (await shipping_gateway.call_as_staff("POST", f"/jobs/fulfilments/{order_id}/retry")).status == 200
    await shipping_gateway.ship.work_until_idle()
    assert (await shipping_gateway.call_as_staff("GET", f"/orders/{order_id}/shipments")).body["unplanned_units"] == 0
    await shipping_gateway.ship.check_records()


async def test_split_merge_reship_and_resolve_move_units_once(shipping_gateway: ShippingGateway) -> None:
    """Shipments are split, merged, lost, sent again and resolved."""
    order_id, [shipment] = await shipping_gateway.ship.add_booked_order(("a", 3, 0), ship_to=(SHANGHAI,))
    split = await shipping_gateway.post_action(shipment.shipment_id, "split", lines={"0": 1})
    assert split.status == 200, split.text
    first, second = split.body["shipments"]
    shown = (await shipping_gateway.call_as_staff("GET", f"/orders/{order_id}/shipments")).body["shipments"]
    assert [shipment["lines"][0]["quantity"] for shipment in shown] == [2, 1]
    for lines in ({"0": 2}, {"0": 3}, {"7": 1}, {str(2**70): 1}):
        assert is_problem(await shipping_gateway.post_action(first, "split", lines=lines), 422, "invalid")
    merged = await shipping_gateway.post_action(first, "merge", shipments=[second])
    assert (merged.status, merged.body) == (200, {"shipments": [first]})
    again = await shipping_gateway.post_action(first, "merge", shipments=[second])
    assert is_problem(again, 409, "invalid_shipment_state")
    for others in ([first], [str(uuid4())]):
        assert is_problem(await shipping_gateway.post_action(first, "merge", shipments=others), 422, "invalid")
    assert is_problem(await shipping_gateway.post_action(first, "reship", reason="lost"), 409, "invalid_shipment_state")
    await shipping_gateway.post_action(first, "pack", tracking_no="ZTO-77")
    await shipping_gateway.ship.apply_events(UUID(first), tracking_event("lost"))
    assert is_problem(await shipping_gateway.post_action(first, "split", lines={"0": 1}), 409, "invalid_shipment_state")
    [lost] = await list_worklist(shipping_gateway, "undelivered")
    assert lost["reason"] == "lost"
    replaced = await shipping_gateway.post_action(first, "reship", reason="nobody finds it")
    assert (replaced.status, len(replaced.body["shipments"])) == (200, 1)
    assert is_problem(
        await shipping_gateway.post_action(first, "reship", reason="twice"), 409, "invalid_shipment_state"
    )
    assert await list_worklist(shipping_gateway, "undelivered") == []
    other, [anomalous] = await shipping_gateway.ship.add_booked_order()
    await shipping_gateway.ship.apply_events(
        anomalous.shipment_id, tracking_event(None, code="?", text="what is this", is_unknown_code=True)
    )
    assert [item["reason"] for item in await list_worklist(shipping_gateway, "anomalies")] == ["what is this"]
    resolved = await shipping_gateway.post_action(anomalous.shipment_id, "resolve", reason="asked the carrier")
    assert resolved.body["shipment"]["resolution"] == "asked the carrier"
    assert await list_worklist(shipping_gateway, "anomalies") == []
    assert other != order_id
    for worklist in ("overdue", "stalled", "no_first_scan"):
        assert await list_worklist(shipping_gateway, worklist) == []
    assert len(await list_worklist(shipping_gateway, "all")) == 4
    await shipping_gateway.ship.check_records()


async def test_label_with_unprintable_letters_is_refused(shipping_gateway: ShippingGateway) -> None:
    thai = {**SHANGHAI, "name": "สมชาย"}
    _, [shipment] = await shipping_gateway.ship.add_booked_order(ship_to=(thai,))
    await shipping_gateway.post_action(shipment.shipment_id, "pack", tracking_no="ZTO-9")
    refused = await shipping_gateway.call_as_staff("GET", f"/shipments/{shipment.shipment_id}/label")
    assert is_problem(refused, 409, "no_label")
    assert "the receiver's name has letters that cannot be printed (U+0E2A" in refused.body["detail"]


INVALID_INPUTS: list[tuple[str, dict[str, Any]]] = [
    *((action, body) for action in ("hold", "cancel", "resolve", "reship") for body in ({}, {"reason": ""})),
    *(("hold", {"reason": text}) for text in ("nul \0", "two\nlines", "x" * 201, 7)),
    ("hold", {"reason": "x", "more": 1}),
    *(
        ("pack", {"tracking_no": number})
        for number in ("", "abc", "a b c", "----", " - - - -", "x" * 65, "x" * 64 + "-", "SF00\n", 1234)
    ),
    *(("merge", {"shipments": others}) for others in ([], [str(uuid4())] * 51, ["x"])),
    *(("split", {"lines": lines}) for lines in ({"": 1}, {"0": 0}, {"x": 1}, {"0": 1_000_001})),
    ("redirect", {"reason": "x"}),
    ("redirect", {"address": {**ADDRESS, "line": "nul \0"}, "reason": "x"}),
    ("redirect", {"address": {**ADDRESS, "phone": "call me"}, "reason": "x"}),
    ("redirect", {"address": {**ADDRESS, "country": "China"}, "reason": "x"}),
    ("redirect", {"address": {**ADDRESS, "province": ""}, "reason": "x"}),
    ("redirect", {"address": {**ADDRESS, "door": "3"}, "reason": "x"}),
    ("appointment", {"deliver_from": "18:00:00"}),
    ("appointment", {"latitude": 31.2}),
    ("appointment", {"latitude": 91, "longitude": 0}),
    ("appointment", {"deliver_from": "18:00:00", "deliver_to": "18:00:00"}),
    ("appointment", {"deliver_from": "18:00:00Z", "deliver_to": "20:00:00"}),
    ("appointment", {"deliver_from": "18:00:00Z", "deliver_to": "20:00:00Z"}),
    ("appointment", {"deliver_from": "24:00:00", "deliver_to": "25:00:00"}),
]


async def test_fulfilment_request_with_invalid_input_changes_nothing(shipping_gateway: ShippingGateway) -> None:
    """Invalid input is refused with 422 and changes nothing."""
    _, [shipment] = await shipping_gateway.ship.add_booked_order()
    for action, body in INVALID_INPUTS:
        answer = await shipping_gateway.call_as_staff("POST", f"/shipments/{shipment.shipment_id}/{action}", json=body)
        assert (answer.status, answer.code) == (422, "invalid"), (action, body, answer.text)
    for wave in ({"warehouse_id": "nul\0"}, *({"warehouse_id": "hz", "max_shipments": n} for n in (0, 501)), {}):
        assert is_problem(await shipping_gateway.call_as_staff("POST", "/waves", json=wave), 422, "invalid")
    for query in ({"worklist": "none"}, {"warehouse": "\0"}, {"limit": 0}, {"limit": 1001}, {"cursor": "x"}):
        assert is_problem(await shipping_gateway.call_as_staff("GET", "/shipments", params=query), 422, "invalid")
    assert await shipping_gateway.ship.get_shipment(shipment.shipment_id) == shipment


VALID_INPUTS: dict[str, dict[str, Any]] = {
    "outcome": {"status": "lost", "reason": "x"},
    **{action: {"reason": "x"} for action in ("hold", "cancel", "resolve", "reship")},
    "pack": {},
    "redirect": {"address": ADDRESS, "reason": "x"},
    "appointment": {},
    "split": {"lines": {"0": 1}},
    "merge": {"shipments": [str(uuid4())]},
    "waves": {"warehouse_id": "hz"},
}


async def test_fulfilment_request_for_missing_resource_is_not_found(shipping_gateway: ShippingGateway) -> None:
    """Every operation on a missing shipment, order or wave is 404 with a request id."""
    tried = 0
    for operation in fulfilment.ADMIN:
        if "{" not in operation.path:
            continue
        path = operation.path.removeprefix("/v1/admin").format(shipment_id=uuid4(), order_id=uuid4(), wave_id=uuid4())
        body = VALID_INPUTS.get(path.rpartition("/")[2])
        answer = await shipping_gateway.call_as_staff(
            operation.method, path, json=body if operation.body is not None else None
        )
        assert (answer.status, answer.code) == (404, "not_found"), (operation.id, answer.text)
        assert answer.body["request_id"] == answer.headers["X-Request-Id"]
        tried += 1
    assert tried == len(fulfilment.ADMIN) - 4
