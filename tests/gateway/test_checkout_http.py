"""The checkout of a cart over HTTP: one order per sale, refusals that change nothing, and repeats."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest

from commerce.cart.checkouts import Checkouts
from commerce.kernel.clock import from_ms
from commerce.kernel.errors import NotReady, OutcomeUnknown
from commerce.waiting_rooms.model import RoomSettings
from gateway.order_placement import OrderPlacement
from ops.services import CliServices
from tests.gateway.test_cart_http import CART, patch, put, quantities
from tests.support.gateway import GatewayResponse, TestGateway
from tests.support.sales import ADDRESS, make_sale

CHECKOUT = f"{CART}/checkout"


@pytest.fixture
async def sales(shop: CliServices, gateway: TestGateway, sale_prefix: str) -> list[str]:
    """Three open sales with SKUs a (100 each) and b (255 each, 3 units)."""
    ids = [f"{sale_prefix}-{number}" for number in range(3)]
    for sale_id in ids:
        await make_sale(shop, sale_id, {"a": (50, 100, 5), "b": (3, 255, None)})
    await gateway.services.snapshots.refresh()
    return ids


def checkout_body(version: int, total: int, **more: Any) -> dict[str, Any]:
    totals = [{"amount": total, "currency": "CNY"}]
    return {"version": version, "expected_totals": totals, "ship_to": [ADDRESS], **more}


async def check_out(gateway: TestGateway, body: Any, user: str = "user") -> GatewayResponse:
    return await gateway.call("POST", CHECKOUT, user=user, json=body)


def outcomes(answer: GatewayResponse) -> dict[str, str]:
    return {order["sale_id"]: order["outcome"] for order in answer.body["orders"]}


async def count_orders(shop: CliServices, sales: list[str]) -> list[int]:
    """Count the units of SKU a that each sale has reserved."""
    free = await shop.sales.read_free_units(dict.fromkeys([(sale_id, "a") for sale_id in sales]))
    return [50 - free[sale_id, "a"] for sale_id in sales]


async def test_checkout_places_an_order_per_sale_and_leaves_the_rest(
    gateway: TestGateway, shop: CliServices, sales: list[str]
) -> None:
    await put(gateway, sales[0], "a", 2)
    await put(gateway, sales[0], "b", 1)
    await put(gateway, sales[1], "a", 1)
    await put(gateway, sales[1], "b", 4)  # more than there are
    await put(gateway, sales[2], "a", 3)
    await put(gateway, sales[2], "b", 1, line={"selected": False})
    cart = await gateway.call("GET", CART)
    body = checkout_body(6, cart.body["totals"][0]["amount"])
    answer = await check_out(gateway, body)
    assert (answer.status, answer.body["state"]) == (200, "done")
    assert outcomes(answer) == {sales[0]: "placed", sales[1]: "refused", sales[2]: "placed"}
    first, refused, last = answer.body["orders"]
    assert [first["total"]["amount"], refused["total"], last["total"]["amount"]] == [455, None, 300]
    assert (refused["problem"]["code"], refused["problem"]["sku"], refused["order_id"]) == ("sold_out", "b", None)
    cart_after = answer.body["cart"]
    assert (cart_after["version"], cart_after["checkout"]) == (7, None)
    left = {(sales[1], "a"): 1, (sales[1], "b"): 4, (sales[2], "b"): 1}
    assert quantities(await gateway.call("GET", CART)) == left
    order = await gateway.call("GET", f"/v1/orders/{first['order_id']}")
    assert (order.status, order.body["status"]) == (200, "accepted")
    assert await count_orders(shop, sales) == [2, 0, 3]
    for number in range(2):
        headers = {"Idempotency-Key": f"another-{number}"}
        again = await gateway.call("POST", CHECKOUT, json=body, headers=headers)
        assert (again.status, again.body) == (200, answer.body), "clients' keys mean nothing"
    assert await count_orders(shop, sales) == [2, 0, 3]


async def test_racing_checkouts_have_the_same_orders(gateway: TestGateway, shop: CliServices, sales: list[str]) -> None:
    for sale_id in sales:
        await put(gateway, sale_id, "a", 2)
    body = checkout_body(3, 600)
    answers = await asyncio.gather(*(check_out(gateway, body) for _ in range(8)))
    assert {answer.code for answer in answers if answer.status != 200} <= {"checkout_in_progress", "cart_changed"}
    done = [answer.body["orders"] for answer in answers if answer.status == 200]
    done += [(await check_out(gateway, body)).body["orders"]]
    assert all(orders == done[0] for orders in done)
    assert await count_orders(shop, sales) == [2, 2, 2]
    assert (await gateway.call("GET", CART)).body["sales"] == []


async def test_request_overtaken_by_its_repeat_has_the_same_orders(
    gateway: TestGateway, shop: CliServices, sales: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The repeat is done before the first request has begun: that must not call the cart changed."""
    await put(gateway, sales[0], "a", 2)
    body, original = checkout_body(1, 200), Checkouts.find
    repeats: list[Any] = []

    async def overtake(checkouts: Checkouts, *arguments: Any) -> Any:
        checkout = await original(checkouts, *arguments)
        if not repeats:
            repeats.append(None)
            repeats[0] = await check_out(gateway, body)
        return checkout

    monkeypatch.setattr(Checkouts, "find", overtake)
    overtaken = await check_out(gateway, body)
    assert (overtaken.status, overtaken.body) == (200, repeats[0].body)
    assert outcomes(overtaken) == {sales[0]: "placed"}
    assert await count_orders(shop, sales) == [2, 0, 0]
    repeats.clear()
    await put(gateway, sales[0], "a", 2)
    body = checkout_body(3, 200)
    other = await check_out(gateway, {**body, "accept_prices": True})
    assert (other.status, other.code) == (409, "cart_changed"), "it is not the same request"
    assert await count_orders(shop, sales) == [4, 0, 0]


async def test_checkout_of_another_cart_than_the_confirmed_one_is_refused(
    gateway: TestGateway, shop: CliServices, sales: list[str]
) -> None:
    await put(gateway, sales[0], "a", 2)
    for body in (checkout_body(2, 200), checkout_body(0, 200), checkout_body(1, 199)):
        answer = await check_out(gateway, body)
        assert (answer.status, answer.code) == (409, "cart_changed")
        assert answer.body["cart"]["totals"] == [{"amount": 200, "currency": "CNY"}]
        assert answer.body["cart"]["version"] == 1
    await shop.sales.change_item(sales[0], "a", 120, None, "test")
    await gateway.services.snapshots.refresh()
    for total in (200, 240):
        answer = await check_out(gateway, checkout_body(1, total))
        assert (answer.status, answer.code) == (409, "cart_changed"), "nobody has accepted the price"
        assert answer.body["quote"]["totals"] == [{"amount": 240, "currency": "CNY"}]
    assert answer.body["cart"]["warnings"][0]["code"] == "price_changed"
    assert await count_orders(shop, sales) == [0, 0, 0]
    answer = await check_out(gateway, checkout_body(1, 240, accept_prices=True))
    assert (answer.status, outcomes(answer)) == (200, {sales[0]: "placed"})
    assert answer.body["orders"][0]["total"]["amount"] == 240


async def test_checkout_with_nothing_to_order_is_refused(gateway: TestGateway, sales: list[str]) -> None:
    assert (await check_out(gateway, checkout_body(0, 0))).code == "nothing_selected"
    await put(gateway, sales[0], "a", 2, line={"selected": False})
    await put(gateway, sales[0], "b", 2, line={"saved": True})
    answer = await check_out(gateway, checkout_body(2, 0))
    assert (answer.status, answer.code) == (409, "nothing_selected")
    assert (await gateway.call("POST", CHECKOUT, user=None, json=checkout_body(2, 0))).status == 401
    ben = await check_out(gateway, checkout_body(2, 200), user="ben")
    assert ben.code == "cart_changed", "another customer's version"
    assert ben.body["cart"]["sales"] == []


async def test_addresses_are_given_or_named_and_split_over_lines(gateway: TestGateway, sales: list[str]) -> None:
    saved = await gateway.call("POST", "/v1/addresses", json=ADDRESS | {"line": "Saved Road 1"})
    address_id = saved.body["address_id"]
    await put(gateway, sales[0], "a", 3)
    await put(gateway, sales[1], "a", 2)
    ids = {"ship_to": [], "address_ids": [address_id]}
    bad_lines = [{"sku": "a", "ship_to": [{"address": 0, "quantity": 1}]}]
    for change, pointer in (
        ({"address_ids": [address_id]}, "/ship_to"),
        ({"ship_to": []}, "/ship_to"),
        ({"ship_to": [ADDRESS | {"line": "\u3000"}]}, "/ship_to/0/line"),
        ({"ship_to": [ADDRESS] * 51}, "/ship_to"),
        ({"ship_to": [], "address_ids": [address_id] * 51}, "/address_ids"),
        ({"sales": [{"sale_id": sales[2]}]}, "/sales/0/sale_id"),
        ({"sales": [{"sale_id": sales[0], "lines": [{"sku": "b", "ship_to": 0}]}]}, "/sales/0/lines/0/sku"),
        ({"sales": [{"sale_id": sales[0], "lines": [{"sku": "a", "ship_to": 1}]}]}, "/sales/0/lines/0/ship_to"),
        ({"sales": [{"sale_id": sales[0], "lines": bad_lines}]}, "/sales/0/lines/0/ship_to"),
        ({"sales": [{"sale_id": sales[0], "payments": [{"method": "alipay", "amount": 1}]}]}, "/sales/0/payments"),
        ({"sales": [{"sale_id": sales[0], "coupons": ["NONE"]}]}, "/sales/0/coupons/0"),
    ):
        answer = await check_out(gateway, checkout_body(2, 500, **change))
        assert (answer.status, answer.body["errors"][0]["pointer"]) == (422, pointer), answer.text
    unknown = await check_out(gateway, checkout_body(2, 500, **ids | {"address_ids": [str(uuid4())]}))
    assert (unknown.status, unknown.code) == (404, "not_found")
    await put(gateway, sales[0], "a", 1, user="ben")
    others = await check_out(gateway, checkout_body(1, 100, **ids), user="ben")
    assert (others.status, others.code) == (404, "not_found")
    split = [{"address": 1, "quantity": 2}, {"address": 2, "quantity": 1}]
    addresses = [ADDRESS | {"line": f"Road {number}"} for number in range(3)]
    sale = {"sale_id": sales[0], "lines": [{"sku": "a", "ship_to": split}]}
    payments = {"sale_id": sales[1], "payments": [{"method": "alipay", "amount": 200}]}
    bodies: list[Any] = []
    original = OrderPlacement.place

    async def note(self: OrderPlacement, order: Any, *more: Any) -> Any:
        bodies.append(order)
        return await original(self, order, *more)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(OrderPlacement, "place", note)
        answer = await check_out(gateway, checkout_body(2, 500, ship_to=addresses, sales=[sale, payments]))
    assert set(outcomes(answer).values()) == {"placed"}
    first, second = sorted(bodies, key=lambda order: str(order.sale_id))
    assert [address.line for address in first.ship_to] == ["Road 1", "Road 2"]
    assert [(part.address, part.quantity) for part in first.lines[0].ship_to] == [(0, 2), (1, 1)]
    assert [address.line for address in second.ship_to] == ["Road 0"]
    assert second.payments[0].amount == 200
    await put(gateway, sales[2], "a", 1)
    assert (await check_out(gateway, checkout_body(4, 100, **ids))).status == 200


class UncertainPlacement:
    """Orders of one sale reach Redis, and their answer is lost; those of another are not even sent."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, lost: str, unsent: str) -> None:
        self.is_on = True
        original = OrderPlacement.place

        async def place(placement: OrderPlacement, order: Any, *more: Any) -> Any:
            if self.is_on and order.sale_id == unsent:
                raise NotReady("Redis does not answer")
            answer = await original(placement, order, *more)
            if self.is_on and order.sale_id == lost:
                raise OutcomeUnknown("the answer is lost")
            return answer

        monkeypatch.setattr(OrderPlacement, "place", place)


async def test_undecided_checkout_freezes_the_cart_until_its_repeat(
    gateway: TestGateway, shop: CliServices, sales: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for sale_id in sales:
        await put(gateway, sale_id, "a", 2)
    placement = UncertainPlacement(monkeypatch, sales[1], sales[2])
    body = checkout_body(3, 600)
    answer = await check_out(gateway, body)
    assert (answer.status, answer.body["state"], answer.headers["Retry-After"]) == (202, "placing", "1")
    assert outcomes(answer) == {sales[0]: "placed", sales[1]: "pending", sales[2]: "pending"}
    codes = [order["problem"] and order["problem"]["code"] for order in answer.body["orders"]]
    assert codes == [None, "outcome_unknown", "not_ready"]
    cart = (await gateway.call("GET", CART)).body
    assert cart["checkout"] == {"checkout_id": answer.body["checkout_id"], "version": 3}
    for refused in (
        await put(gateway, sales[0], "b", 1),
        await patch(gateway, sales[0], "a", {"quantity": 1}),
        await gateway.call("DELETE", f"{CART}/lines/{sales[0]}/a"),
        await check_out(gateway, checkout_body(3, 600, accept_prices=True)),
    ):
        assert (refused.status, refused.code) == (409, "checkout_in_progress")
    await shop.sales.change_item(sales[1], "a", 130, None, "test")
    await gateway.services.snapshots.refresh()
    placement.is_on = False
    done = await check_out(gateway, body)
    assert (done.status, set(outcomes(done).values())) == (200, {"placed"})
    assert [order["total"]["amount"] for order in done.body["orders"]] == [200, 200, 200]
    assert done.body["orders"][0] == answer.body["orders"][0]
    assert await count_orders(shop, sales) == [2, 2, 2]
    assert (done.body["cart"]["sales"], done.body["cart"]["version"]) == ([], 4)


async def test_checkout_not_repeated_in_time_keeps_only_orders_that_were_placed(
    gateway: TestGateway, shop: CliServices, sales: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for sale_id in sales:
        await put(gateway, sale_id, "a", 2)
    placement = UncertainPlacement(monkeypatch, sales[1], sales[2])
    body = checkout_body(3, 600)
    assert (await check_out(gateway, body)).status == 202
    async with shop.db.connection() as connection:
        await connection.execute("UPDATE checkouts SET created_at = created_at - interval '11 minutes'")
    placement.is_on = False
    changed = await put(gateway, sales[2], "b", 1)
    assert quantities(changed) == {(sales[2], "a"): 2, (sales[2], "b"): 1}
    assert changed.body["version"] == 5
    answer = await check_out(gateway, body)
    assert outcomes(answer) == {sales[0]: "placed", sales[1]: "placed", sales[2]: "not_placed"}
    assert await count_orders(shop, sales) == [2, 2, 0]


async def test_price_that_changes_during_a_checkout_refuses_the_order(
    gateway: TestGateway, shop: CliServices, sales: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    await put(gateway, sales[0], "a", 2)
    original = OrderPlacement.place

    async def change_price(placement: OrderPlacement, *arguments: Any) -> Any:
        await shop.sales.change_item(sales[0], "a", 90, None, "test")
        return await original(placement, *arguments)

    monkeypatch.setattr(OrderPlacement, "place", change_price)
    answer = await check_out(gateway, checkout_body(1, 200))
    assert (answer.status, outcomes(answer)) == (200, {sales[0]: "refused"})
    assert answer.body["orders"][0]["problem"]["code"] == "total_changed"
    assert await count_orders(shop, sales) == [0, 0, 0]
    assert answer.body["cart"]["version"] == 2
    monkeypatch.undo()
    assert outcomes(await check_out(gateway, checkout_body(2, 180))) == {sales[0]: "placed"}


async def test_sale_with_a_waiting_room_takes_orders_with_its_ticket(
    gateway: TestGateway, shop: CliServices, sales: list[str]
) -> None:
    now = from_ms(shop.clock.now_ms())
    await shop.rooms.put(sales[1], RoomSettings("on", now - timedelta(minutes=1), now), "test")
    await gateway.services.room_status.refresh()
    await put(gateway, sales[0], "a", 1)
    await put(gateway, sales[1], "a", 1)
    refused = await check_out(gateway, checkout_body(2, 200))
    assert outcomes(refused) == {sales[0]: "placed", sales[1]: "refused"}
    assert refused.body["orders"][1]["problem"]["code"] == "not_your_turn"
    async with shop.db.connection() as connection:
        await connection.execute("UPDATE waiting_rooms SET state = 'serving', served = 10, expired = 0")
    await gateway.services.room_status.refresh()
    tickets = gateway.services.room_status.tickets
    assert tickets is not None
    ticket = tickets.sign(sales[1], "user", 3, int(now.timestamp()) + 600)
    foreign = await check_out(gateway, checkout_body(3, 100, room_tickets={sales[0]: ticket}))
    assert outcomes(foreign) == {sales[1]: "refused"}
    placed = await check_out(gateway, checkout_body(4, 100, room_tickets={sales[1]: ticket}))
    assert outcomes(placed) == {sales[1]: "placed"}, placed.text


async def test_line_that_is_gone_stops_the_checkout(gateway: TestGateway, shop: CliServices, sales: list[str]) -> None:
    await put(gateway, sales[0], "a", 2)
    await put(gateway, sales[0], "b", 1)
    async with shop.db.connection() as connection:
        await connection.execute("UPDATE cart_lines SET sku = 'x' WHERE sku = 'b'")
    answer = await check_out(gateway, checkout_body(2, 200))
    assert (answer.status, answer.code) == (409, "cart_changed")
    await gateway.call("DELETE", f"{CART}/lines/{sales[0]}/x")
    assert (await check_out(gateway, checkout_body(3, 200))).status == 200
