"""Idempotency keys of staff: a repeat gets the same answer and changes nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any
from uuid import uuid4

import pytest

from commerce.staff_requests import store
from config.settings import Settings
from gateway.app import ADMIN
from ops.services import CliServices
from tests.gateway.test_fulfilment_http import is_problem
from tests.support.gateway import GatewayResponse, open_gateway
from tests.support.sales import make_sale
from tests.support.shipping_gateway import ShippingGateway, open_shipping_gateway
from tests.support.shipping_shop import SHANGHAI

_POSTS = [operation for operation in ADMIN if operation.method == "POST"]
_CHANGE_REDIS = {
    *("open_sale", "pause_sale", "close_sale", "change_stock", "create_promotion", "create_coupon"),
    *("retry_dead_letter", "discard_dead_letter", "cancel_any_order"),
}
"""operations that change Redis too, and whose repeat changes nothing more"""
_STORE_NOTHING = {"preview_refund", "suggest_articles_to_staff", "try_case_rules"}
_COMMIT_EACH_ROW = {"refund_list", "apply_bulk_change"}
"""operations whose rows have keys or versions of their own: a repeat changes nothing twice"""
_TAKE_SECRETS = {"redirect_refund", "search_orders"}
"""operations whose bodies are kept nowhere; a repeat is refused or changes nothing more"""
_UPLOADS = {"upload_staff_attachment", "upload_picture", "upload_products"}
"""operations whose files are stored by content or change nothing yet; unused ones are deleted"""
_IN_SEVERAL_TRANSACTIONS = _CHANGE_REDIS | _STORE_NOTHING | _COMMIT_EACH_ROW | _TAKE_SECRETS | _UPLOADS


@pytest.fixture
async def shipping_gateway(shop: CliServices, make_settings: Callable[..., Settings]) -> AsyncIterator[ShippingGateway]:
    async with open_shipping_gateway(shop, make_settings) as gateway:
        yield gateway


async def post(
    shipping_gateway: ShippingGateway, path: str, body: dict[str, Any], key: str | None, user: str = "ann"
) -> GatewayResponse:
    headers = {} if key is None else {"Idempotency-Key": key}
    return await shipping_gateway.gateway.call(
        "POST", f"/v1/admin{path}", user=user, roles=["warehouse"], headers=headers, json=body
    )


async def count_changes(shipping_gateway: ShippingGateway) -> tuple[int, ...]:
    """Count what staff actions create: shipments, their events, and waves."""
    async with shipping_gateway.ship.shop.db.connection() as connection:
        tables = ("shipments", "shipment_events", "waves")
        return tuple([await connection.fetchval(f"SELECT count(*) FROM {table}") for table in tables])


def test_every_change_by_staff_takes_a_key() -> None:
    for operation in _POSTS:
        headers = [parameter.name for parameter in operation.parameters if parameter.location == "header"]
        assert headers == ([] if operation.id in _TAKE_SECRETS | _UPLOADS else ["Idempotency-Key"]), operation.id
        assert operation.has_secrets is (operation.id in _TAKE_SECRETS), operation.id
        assert operation.is_one_transaction is (operation.id not in _IN_SEVERAL_TRANSACTIONS), operation.id


async def test_repeated_action_with_key_is_done_once(shipping_gateway: ShippingGateway) -> None:
    _, [shipment] = await shipping_gateway.ship.add_booked_order(("a", 9, 0), ship_to=(SHANGHAI,))
    path = f"/shipments/{shipment.shipment_id}"
    actions: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
        (f"{path}/split", {"lines": {"0": 1}}, {"lines": {"0": 2}}),
        ("/waves", {"warehouse_id": "hz", "max_shipments": 1}, {"warehouse_id": "hz"}),
        (f"{path}/hold", {"reason": "a"}, {"reason": "b"}),
        (f"{path}/resolve", {"reason": "a"}, {"reason": "b"}),
    ]
    for number, (action, body, other_body) in enumerate(actions):
        first = await post(shipping_gateway, action, body, f"key-{number}")
        assert first.status in (200, 201), first.text
        counts = await count_changes(shipping_gateway)
        again = await post(shipping_gateway, action, body, f"key-{number}")
        assert (again.status, again.text) == (first.status, first.text), action
        assert is_problem(await post(shipping_gateway, action, other_body, f"key-{number}"), 422, "key_reused")
        assert await count_changes(shipping_gateway) == counts, action
    # Another path is another request, and keys of others are others' keys.
    assert is_problem(await post(shipping_gateway, f"{path}/resolve", {"reason": "a"}, "key-2"), 422, "key_reused")
    assert (await post(shipping_gateway, f"{path}/resolve", {"reason": "b"}, "key-3", user="bob")).status == 200
    for bad in ("with blank", "x" * 129, "ü"):
        assert (await post(shipping_gateway, f"{path}/resume", {}, bad)).status in (400, 422)
    await shipping_gateway.ship.check_records()


async def test_concurrent_repeats_are_done_once(shipping_gateway: ShippingGateway) -> None:
    _, [shipment] = await shipping_gateway.ship.add_booked_order(("a", 9, 0), ship_to=(SHANGHAI,))
    before = await count_changes(shipping_gateway)
    path, body = f"/shipments/{shipment.shipment_id}/split", {"lines": {"0": 1}}
    answers = await asyncio.gather(*(post(shipping_gateway, path, body, "key") for _ in range(4)))
    assert {(answer.status, answer.text) for answer in answers} == {(200, answers[0].text)}
    assert (await count_changes(shipping_gateway))[0] == before[0] + 1
    without_key = [await post(shipping_gateway, path, body, None) for _ in range(2)]
    assert without_key[0].text != without_key[1].text, "without a key each request is its own"


async def test_refused_or_interrupted_request_leaves_its_key_free(
    shipping_gateway: ShippingGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, [shipment] = await shipping_gateway.ship.add_booked_order(("a", 9, 0), ship_to=(SHANGHAI,))
    path, body = f"/shipments/{shipment.shipment_id}/split", {"lines": {"0": 1}}
    assert is_problem(await post(shipping_gateway, path, {"lines": {"7": 1}}, "key"), 422, "invalid")
    before = await count_changes(shipping_gateway)

    async def lose_connection(*_: object) -> None:
        raise ConnectionResetError("the connection was lost")

    with monkeypatch.context() as patched:
        patched.setattr(store, "insert_answer", lose_connection)
        assert (await post(shipping_gateway, path, body, "key")).status >= 500
    assert await count_changes(shipping_gateway) == before, "neither the answer nor the change is stored"
    first = await post(shipping_gateway, path, body, "key")
    assert first.status == 200
    assert (await post(shipping_gateway, path, body, "key")).text == first.text


async def test_repeated_change_of_sale_gets_the_same_answer(shop: CliServices, sale_id: str) -> None:
    await make_sale(shop, sale_id, {"a": (5, 100, None)})
    draft = {"sale_id": f"{sale_id}-draft", "title": "Keys", "currency": "CNY", "opens_at": "2030-01-01T00:00:00Z"}
    async with open_gateway(shop.settings, ADMIN) as gateway:

        async def change(path: str, body: Any, key: str) -> GatewayResponse:
            headers = {"Idempotency-Key": key}
            return await gateway.call(
                "POST", f"/v1/admin/sales{path}", user="ann", roles=["sales"], headers=headers, json=body
            )

        for path, body in (("", {"sale": draft}), (f"/{sale_id}/pause", None), (f"/{sale_id}/close", None)):
            key = str(uuid4())
            first = await change(path, body, key)
            assert first.status in (200, 201), first.text
            again = await change(path, body, key)
            assert (again.status, again.text) == (first.status, first.text)
            assert again.headers.get("Location") == first.headers.get("Location")
            assert is_problem(await change(f"/{sale_id}/open", None, key), 422, "key_reused")
