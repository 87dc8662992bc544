"""Product search over HTTP: languages, availability, pages, limits and bad input."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from commerce.kernel.errors import NotReady
from config.settings import Settings
from ops.services import CliServices
from tests.support.gateway import GatewayResponse, TestGateway, open_gateway
from tests.support.sales import eventually, make_sale, order_body
from tests.support.search_shop import make_search_shop

SEARCH, SUGGEST = "/v1/product-search", "/v1/product-suggestions"

_UNUSUAL = [
    "e",
    "衣",
    "😀",
    '"',
    "'",
    "-",
    "*",
    "&|!",
    "%_",
    "\\",
    "<->",
    ":*",
    "a" * 200,
    "衣" * 200,
    "שלום עולם",
    "\u202eabc",
    "' OR 1=1 --",
    "jacket -storm",
    "{}",
    "\ud83d",
    "%",
    "+",
    "a\tb",
]
_REFUSED = ["", " ", "\t \n", "\u200b", "a\0b", "a" * 201, "a" * 7_000, "衣" * 201]
_BAD_FILTERS = [
    ([("attribute", "color")], "attribute"),
    ([("attribute", "color:")], "attribute"),
    ([("attribute", "*brand:x")], "attribute"),
    ([("number", "weight:5")], "number"),
    ([("number", "weight:9..5")], "number"),
    ([("number", "weight:1..2"), ("number", "weight:3..4")], "number"),
    ([("number", "weight:nan..inf")], "number"),
    ([("min_price", "5")], "currency"),
    ([("currency", "CNY"), ("min_price", "5"), ("max_price", "4")], "min_price"),
    ([("currency", "cny")], "currency"),
    ([("min_price", "-1"), ("currency", "CNY")], "min_price"),
    ([("brand", f"b{number}") for number in range(21)], "brand"),
    ([("brand", " ")], "brand"),
    ([("limit", "0")], "limit"),
    ([("limit", "101")], "limit"),
    ([("available", "yes")], "available"),
    ([("sort", "best")], "sort"),
    ([("category_id", "A B")], "category_id"),
]


@pytest.fixture
async def search_gateway(shop: CliServices, gateway: TestGateway) -> TestGateway:
    await make_search_shop(shop)
    return gateway


async def find(gateway: TestGateway, *pairs: tuple[str, str], language: str = "en", **more: str) -> GatewayResponse:
    params = [*pairs, *more.items()]
    return await gateway.call("GET", SEARCH, user=None, params=params, headers={"Accept-Language": language})


def ids(answer: GatewayResponse) -> list[str]:
    assert answer.status == 200, answer.text
    return [item["product_id"] for item in answer.body["items"]]


async def test_answer_is_in_the_language_of_the_reader(search_gateway: TestGateway) -> None:
    english = await find(search_gateway, q="waterproof jacket")
    assert english.body == {
        "items": [
            {
                "product_id": "storm",
                "name": "Storm Jacket",
                "language": "en",
                "category_id": "jackets",
                "brand": "Nordwind",
                "min_price": 45_000,
                "max_price": 45_000,
                "currency": "CNY",
                "is_available": False,
                "cover": None,
            }
        ],
        "next": None,
        "total": 1,
        "is_total_capped": False,
        "corrected_text": None,
        "facets": [],
    }
    assert english.headers["Vary"] == "Accept-Language"
    assert english.headers["Cache-Control"] == "public, max-age=1"
    chinese = await find(search_gateway, q="waterproof jacket", language="zh-CN")
    assert chinese.body["items"][0]["name"] == "暴风冲锋衣"
    assert (await find(search_gateway, q="strom jakcet")).body["corrected_text"] == "storm jacket"


async def test_unchanged_answer_is_304(search_gateway: TestGateway) -> None:
    tag = (await find(search_gateway, q="mug")).headers["ETag"]
    again = await search_gateway.call(
        "GET", SEARCH, user=None, params={"q": "mug"}, headers={"If-None-Match": tag, "Accept-Language": "en"}
    )
    assert again.status == 304


async def test_filters_and_facets(search_gateway: TestGateway) -> None:
    answer = await find(
        search_gateway,
        *(
            ("attribute", "color:blue"),
            ("attribute", "color:red"),
            ("brand", "Nordwind"),
            ("number", "weight:200..500"),
        ),
        category_id="clothing",
        currency="CNY",
        min_price="1",
        sort="price_up",
        facets="true",
    )
    assert ids(answer) == ["runner", "storm"]
    facets = {facet["field"]: facet for facet in answer.body["facets"]}
    assert facets["color"] == {
        "field": "color",
        "kind": "choice",
        "name": "Color",
        "unit": None,
        "values": [
            {"value": "red", "name": "Red", "products": 2, "is_chosen": True},
            {"value": "blue", "name": "Blue", "products": 1, "is_chosen": True},
        ],
        "min": None,
        "max": None,
    }
    assert (facets["weight"]["min"], facets["weight"]["max"], facets["weight"]["unit"]) == (250.5, 480, "g")
    assert (facets["price"]["min"], facets["price"]["max"]) == (30_000, 45_000)
    assert [value["name"] for value in facets["category"]["values"]] == ["Jackets & Coats", "Shoes"]


async def test_available_products_are_those_with_units_in_an_open_sale(
    shop: CliServices, search_gateway: TestGateway, sale_id: str
) -> None:
    assert ids(await find(search_gateway, available="true")) == []
    await make_sale(shop, sale_id, {"mug-1": (1, 4_500, None), "denim-1": (0, 20_000, None)})

    async def is_available() -> bool:
        return ids(await find(search_gateway, available="true")) == ["mug"]

    await eventually(is_available)
    shown = {item["product_id"]: item["is_available"] for item in (await find(search_gateway)).body["items"]}
    assert shown == {"mug": True, "denim": False, "storm": False, "runner": False}
    facets = (await find(search_gateway, facets="true")).body["facets"]
    [counted] = [facet["values"] for facet in facets if facet["kind"] == "available"]
    assert counted == [{"value": "true", "name": "true", "products": 1, "is_chosen": False}]
    assert (await search_gateway.order(order_body(sale_id, ("mug-1", 1)))).status == 202
    await asyncio.sleep(1.0)  # the promise: nothing older than a second is shown
    assert ids(await find(search_gateway, available="true")) == []
    assert not any(item["is_available"] for item in (await find(search_gateway)).body["items"])
    await shop.sales.close(sale_id, "test")


async def test_unreadable_stock_is_null_and_hides_nothing(
    search_gateway: TestGateway, monkeypatch: pytest.MonkeyPatch, shop: CliServices, sale_id: str
) -> None:
    await make_sale(shop, sale_id, {"mug-1": (1, 4_500, None)})
    await search_gateway.services.snapshots.refresh()

    async def fail(*args: object) -> Any:
        raise NotReady("no stock")

    monkeypatch.setattr("commerce.sales.service.read_units_free", fail)
    assert (await find(search_gateway, available="true")).code == "not_ready"
    answer = await find(search_gateway, q="mug", facets="true")
    assert [item["is_available"] for item in answer.body["items"]] == [None]
    assert "available" not in {facet["kind"] for facet in answer.body["facets"]}
    await shop.sales.close(sale_id, "test")


async def test_pages_continue_by_cursor_of_the_same_search(search_gateway: TestGateway) -> None:
    first = await find(search_gateway, q="red", limit="2")
    cursor = first.body["next"]
    second = await find(search_gateway, q="red", limit="100", cursor=cursor)
    assert len({*ids(first), *ids(second)}) == first.body["total"] == 3
    assert second.body["next"] is None
    for bad in (cursor[:-2], cursor + "AAAA", "x", "%00", "é", "A" * 200):
        refused = await find(search_gateway, q="red", cursor=bad)
        assert (refused.status, refused.code) == (422, "cursor_outdated")
    for other in ({"q": "blue"}, {"q": "red", "sort": "newest"}, {"q": "red", "category_id": "shoes"}):
        refused = await find(search_gateway, cursor=cursor, **other)
        assert (refused.status, refused.code) == (422, "cursor_outdated")
    assert (await find(search_gateway, q="red", cursor="A" * 201)).status == 422


async def test_unusual_text_is_answered(search_gateway: TestGateway) -> None:
    for text in _UNUSUAL:
        params = {"q": text.encode("utf-8", "replace").decode(), "facets": "true"}
        assert (await find(search_gateway, **params)).status == 200
        assert (await search_gateway.call("GET", SUGGEST, user=None, params={"q": params["q"]})).status == 200


async def test_text_that_cannot_be_sought_is_refused(search_gateway: TestGateway) -> None:
    for text in _REFUSED:
        for path in (SEARCH, SUGGEST):
            refused = await search_gateway.call("GET", path, user=None, params={"q": text})
            assert (refused.status, refused.body["errors"][0]["pointer"]) == (422, "q")


async def test_text_longer_than_a_line_of_a_request_may_be_is_refused(search_gateway: TestGateway) -> None:
    refused = await search_gateway.call("GET", SEARCH, user=None, params={"q": "a" * 10_000})
    assert refused.status in (400, 414, 431)


async def test_bad_filter_is_refused_with_its_name(search_gateway: TestGateway) -> None:
    for pairs, pointer in _BAD_FILTERS:
        refused = await find(search_gateway, *pairs)
        assert (refused.status, refused.body["errors"][0]["pointer"]) == (422, pointer)


async def test_filters_are_limited_together(search_gateway: TestGateway) -> None:
    pairs = [("brand", f"b{number}") for number in range(10)] + [("attribute", f"color:c{n}") for n in range(10)]
    assert (await find(search_gateway, *pairs)).status == 200
    assert (await find(search_gateway, *pairs, category_id="shoes")).status == 422


async def test_unknown_filters_find_nothing(search_gateway: TestGateway) -> None:
    for pair in (
        ("attribute", "unknown:x"),
        ("number", "unknown:1.."),
        ("category_id", "unknown"),
        ("brand", "' | 'x"),
    ):
        answer = await find(search_gateway, pair, facets="true")
        assert (ids(answer), answer.body["total"]) == ([], 0)


async def test_suggestions(search_gateway: TestGateway) -> None:
    answer = await search_gateway.call("GET", SUGGEST, user=None, params={"q": "ja", "limit": "2"})
    assert answer.body["items"] == [
        {"kind": "category", "id": "jackets", "text": "Jackets & Coats"},
        {"kind": "product", "id": "denim", "text": "Denim Jacket"},
    ]
    assert (await search_gateway.call("GET", SUGGEST, user=None)).status == 400
    assert (await search_gateway.call("GET", SUGGEST, user=None, params={"q": "a", "limit": "21"})).status == 422


async def test_searches_of_an_address_are_limited(make_settings: Callable[..., Settings], sale_prefix: str) -> None:
    limits = {"product_searches_per_address_per_s": 0.05, "product_searches_per_address_burst": 2}
    async with open_gateway(make_settings(http={"proxy_networks": []}, limits=limits)) as gateway:
        for _ in range(2):
            assert (await find(gateway, q="x")).status == 200
        refused = await find(gateway, q="x")
        assert (refused.status, refused.body["limit"]) == (429, "searches")
        assert (await gateway.call("GET", SUGGEST, user=None, params={"q": "x"})).status == 429


async def test_crowd_of_searches_waits_or_is_refused_and_others_read_on(
    make_settings: Callable[..., Settings], sale_prefix: str
) -> None:
    catalog = {"concurrent_searches": 1, "waiting_searches": 2, "search_wait_ms": 10_000}
    async with open_gateway(make_settings(catalog=catalog)) as gateway:
        search = gateway.services.search
        async with search.open_turn():
            waiting = [asyncio.create_task(find(gateway, q="x")) for _ in range(5)]
            done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            assert {task.result().code for task in done} == {"overloaded"}
            assert (await gateway.call("GET", "/v1/products", user=None)).status == 200
        statuses = sorted([(await task).status for task in waiting])
        assert statuses == [200, 200, 503, 503, 503]


async def test_search_stands_back_while_orders_wait(
    search_gateway: TestGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(search_gateway.services.admission), "pressure", lambda self, now: 0.5)
    refused = await find(search_gateway, q="mug")
    assert (refused.status, refused.code) == (503, "overloaded")
    assert int(refused.headers["Retry-After"]) > 0
