"""Carts of guests: signed ids, and the merge into a customer's cart at log-in."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta

import pytest

from commerce.kernel.clock import DAY_MS
from commerce.retention.service import Retention
from config.settings import Settings
from ops.services import CliServices
from tests.gateway.test_cart_http import CART, codes, patch, put, quantities
from tests.support.gateway import GatewayResponse, TestGateway, open_gateway
from tests.support.rooms import ShiftedClock
from tests.support.sales import make_sale

SKUS = ("a", "b", "c", "d")


@pytest.fixture
async def gateway(make_settings: Callable[..., Settings], shop: CliServices, sale_id: str):  # type: ignore[no-untyped-def]
    """A gateway whose carts take three lines, and a sale: of c a customer may buy 4."""
    await make_sale(shop, sale_id, {sku: (50, 100, 4 if sku == "c" else None) for sku in SKUS})
    async with open_gateway(make_settings(limits={"lines_per_cart": 3})) as gateway:
        yield gateway


async def fill_guest_cart(gateway: TestGateway, sale_id: str, **lines: int) -> dict[str, str]:
    """Fill a guest's cart. Returns the header that names it."""
    headers: dict[str, str] = {}
    for sku, quantity in lines.items():
        answer = await put(gateway, sale_id, sku, quantity, user=None, headers=headers)
        assert answer.status == 200, answer.text
        headers = {"Cart-Id": answer.body["cart_id"]}
    return headers


async def merge(gateway: TestGateway, headers: dict[str, str], user: str = "user") -> GatewayResponse:
    return await gateway.call("POST", f"{CART}/merge", user=user, headers=headers)


async def test_guest_has_a_cart_by_its_signed_id(gateway: TestGateway, sale_id: str) -> None:
    empty = await gateway.call("GET", CART, user=None)
    assert (empty.status, empty.body["cart_id"], empty.body["version"]) == (200, None, 0)
    headers = await fill_guest_cart(gateway, sale_id, a=2, b=1)
    answer = await gateway.call("GET", CART, user=None, headers=headers)
    assert quantities(answer) == {(sale_id, "a"): 2, (sale_id, "b"): 1}
    assert answer.headers["Cart-Id"] == answer.body["cart_id"] == headers["Cart-Id"]
    assert (await patch(gateway, sale_id, "a", {"quantity": 3}, user=None, headers=headers)).body["version"] == 3
    other = await fill_guest_cart(gateway, sale_id, a=9)
    assert other != headers
    assert (await gateway.call("GET", CART, headers=headers)).body["sales"] == [], "the token counts"


async def test_new_carts_of_one_address_are_limited(
    make_settings: Callable[..., Settings], shop: CliServices, sale_id: str
) -> None:
    """Each is a row for weeks. Guests who have a cart, and customers, are not limited by that."""
    await make_sale(shop, sale_id, {"a": (50, 100, None)})
    limits = {"guest_carts_per_address_per_s": 0.05, "guest_carts_per_address_burst": 2}
    async with open_gateway(make_settings(http={"proxy_networks": []}, limits=limits)) as gateway:
        headers = [await fill_guest_cart(gateway, sale_id, a=1) for _ in range(2)]
        refused = await put(gateway, sale_id, "a", 1, user=None)
        assert (refused.status, refused.body["limit"]) == (429, "guest_carts")
        assert refused.body["detail"].startswith("more than 0.05 new carts of guests per second of one address; wait ")
        assert (await put(gateway, sale_id, "a", 2, user=None, headers=headers[0])).status == 200
        assert (await put(gateway, sale_id, "a", 2)).status == 200
        assert (await gateway.call("GET", CART, user=None)).status == 200


async def test_forged_id_of_a_guest_is_not_found(gateway: TestGateway, sale_id: str) -> None:
    guest_id = (await fill_guest_cart(gateway, sale_id, a=2))["Cart-Id"]
    kind, cart_hex, signature = guest_id.split(".")
    other_digit = "0" if cart_hex[0] != "0" else "1"
    forged = [f"{kind}.{other_digit}{cart_hex[1:]}.{signature}", f"{kind}.{cart_hex}.{'A' * 22}", cart_hex, ""]
    for text in forged:
        for answer in (
            await gateway.call("GET", CART, user=None, headers={"Cart-Id": text}),
            await put(gateway, sale_id, "a", 1, user=None, headers={"Cart-Id": text}),
            await merge(gateway, {"Cart-Id": text}),
        ):
            assert (answer.status, answer.code) == (404, "not_found"), text
    assert (await gateway.call("POST", f"{CART}/merge", user=None, headers={"Cart-Id": guest_id})).status == 401
    assert (await merge(gateway, {})).status == 400


async def test_id_of_a_customers_cart_opens_nothing(gateway: TestGateway, shop: CliServices, sale_id: str) -> None:
    await put(gateway, sale_id, "a", 1)
    async with shop.db.connection() as connection:
        cart_id = await connection.fetchval("SELECT cart_id FROM carts")
    guest_ids = gateway.services.shopping.carts._guest_ids
    assert guest_ids is not None
    headers = {"Cart-Id": guest_ids.sign(cart_id)}
    assert (await gateway.call("GET", CART, user=None, headers=headers)).body["sales"] == []
    assert quantities(await merge(gateway, headers)) == {(sale_id, "a"): 1}


async def test_merge_takes_the_larger_quantity_and_is_repeatable(gateway: TestGateway, sale_id: str) -> None:
    await put(gateway, sale_id, "a", 3)
    await put(gateway, sale_id, "b", 5)
    headers = await fill_guest_cart(gateway, sale_id, a=4, b=2, c=2)
    merged = await merge(gateway, headers)
    assert quantities(merged) == {(sale_id, "a"): 4, (sale_id, "b"): 5, (sale_id, "c"): 2}
    assert (merged.body["version"], codes(merged), merged.body["cart_id"]) == (3, [], None)
    for _ in range(2):
        assert (await merge(gateway, headers)).body == merged.body
    await put(gateway, sale_id, "a", 1)
    assert quantities(await merge(gateway, headers))[sale_id, "a"] == 1, "the guest's cart counts once"


async def test_merge_names_lines_that_were_cut_or_left(gateway: TestGateway, sale_id: str) -> None:
    await put(gateway, sale_id, "a", 3)
    await put(gateway, sale_id, "b", 3)
    headers = await fill_guest_cart(gateway, sale_id, c=9, d=7, a=1)
    merged = await merge(gateway, headers)
    assert quantities(merged) == {(sale_id, "a"): 3, (sale_id, "b"): 3, (sale_id, "c"): 4}
    warnings = [
        {"code": "quantity_cut", "sale_id": sale_id, "sku": "c", "limit": 4, "quantity": 4, "wanted": 9},
        {"code": "not_merged", "sale_id": sale_id, "sku": "d", "wanted": 7},
    ]
    assert merged.body["warnings"] == warnings
    rest = await gateway.call("GET", CART, user=None, headers=headers)
    assert quantities(rest) == {(sale_id, "d"): 7}
    await gateway.call("DELETE", f"{CART}/lines/{sale_id}/b")
    again = await merge(gateway, headers)
    assert again.body["warnings"] == warnings
    assert quantities(again) == {(sale_id, "a"): 3, (sale_id, "c"): 4}
    refused = await put(gateway, sale_id, "a", 1, user=None, headers=headers)
    assert (refused.status, refused.code) == (409, "cart_merged")


async def test_merge_of_more_units_than_are_free_warns(gateway: TestGateway, sale_id: str) -> None:
    await put(gateway, sale_id, "a", 40)
    merged = await merge(gateway, await fill_guest_cart(gateway, sale_id, a=60, b=50))
    assert quantities(merged) == {(sale_id, "a"): 60, (sale_id, "b"): 50}
    assert merged.body["warnings"] == [{"code": "too_few_units", "sale_id": sale_id, "sku": "a", "available": 50}]


async def test_racing_merges_add_a_guests_cart_once(gateway: TestGateway, sale_id: str) -> None:
    headers = await fill_guest_cart(gateway, sale_id, a=4, b=2)
    answers = await asyncio.gather(*(merge(gateway, headers, user) for user in ("ann", "ben") for _ in range(5)))
    assert sorted(answer.status for answer in answers) == [200] * 5 + [404] * 5
    carts = [quantities(await gateway.call("GET", CART, user=user)) for user in ("ann", "ben")]
    assert sorted(map(len, carts)) == [0, 2]


async def test_merge_of_a_price_that_rose_shows_the_rise(gateway: TestGateway, shop: CliServices, sale_id: str) -> None:
    headers = await fill_guest_cart(gateway, sale_id, a=4)
    await shop.sales.change_item(sale_id, "a", 120, None, "test")
    await gateway.services.snapshots.refresh()
    await put(gateway, sale_id, "a", 1)
    merged = await merge(gateway, headers)
    price = {"code": "price_changed", "sale_id": sale_id, "sku": "a", "old_price": 100, "new_price": 120}
    assert merged.body["warnings"] == [price]


async def test_old_carts_of_guests_are_deleted_and_may_begin_again(
    gateway: TestGateway, shop: CliServices, sale_id: str
) -> None:
    headers = await fill_guest_cart(gateway, sale_id, a=4, b=1)
    await put(gateway, sale_id, "a", 1)
    clock = ShiftedClock()
    retention = Retention(shop.db, clock, {"carts": timedelta(days=30)}, 100)
    clock.shift_ms = 29 * DAY_MS
    assert (await retention.delete_old("carts")).rows == 0
    clock.shift_ms = 31 * DAY_MS
    assert (await retention.delete_old("carts")).rows == 1
    assert (await gateway.call("GET", CART, user=None, headers=headers)).body["sales"] == []
    assert quantities(await gateway.call("GET", CART)) == {(sale_id, "a"): 1}
    again = await put(gateway, sale_id, "b", 1, user=None, headers=headers)
    assert (quantities(again), again.body["cart_id"]) == ({(sale_id, "b"): 1}, headers["Cart-Id"])


async def test_shop_without_a_key_has_no_carts_of_guests(
    make_settings: Callable[..., Settings], sale_prefix: str
) -> None:
    async with open_gateway(make_settings(auth={"keys": []})) as gateway:
        assert (await gateway.call("GET", CART, user=None)).code == "unauthorized"
