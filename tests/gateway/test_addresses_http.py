"""The address book over HTTP: one default at most, the rules of orders, and nobody else's addresses."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from uuid import uuid4

import pytest

from config.settings import Settings
from tests.support.gateway import GatewayResponse, TestGateway, open_gateway
from tests.support.sales import ADDRESS

PATH = "/v1/addresses"


async def _add(gateway: TestGateway, line: str, user: str = "user") -> GatewayResponse:
    return await gateway.call("POST", PATH, user=user, json=ADDRESS | {"line": line})


async def _list(gateway: TestGateway, user: str = "user") -> list[tuple[str, bool]]:
    items = (await gateway.call("GET", PATH, user=user)).body["items"]
    return [(item["address"]["line"], item["is_default"]) for item in items]


async def test_first_address_becomes_default_and_another_may_be_chosen(gateway: TestGateway) -> None:
    first, second = [await _add(gateway, line) for line in ("Road 1", "Road 2")]
    assert (first.status, first.body["is_default"], second.body["is_default"]) == (201, True, False)
    assert first.headers["Location"] == f"{PATH}/{first.body['address_id']}"
    assert await _list(gateway) == [("Road 1", True), ("Road 2", False)]
    for _ in range(2):
        chosen = await gateway.call("PUT", f"{second.headers['Location']}/default")
        assert (chosen.status, chosen.body["is_default"]) == (200, True)
    assert await _list(gateway) == [("Road 2", True), ("Road 1", False)]
    replaced = await gateway.call("PUT", second.headers["Location"], json=ADDRESS | {"line": "Road 3"})
    assert (replaced.body["address"]["line"], replaced.body["is_default"]) == ("Road 3", True)
    assert (await gateway.call("GET", second.headers["Location"])).body == replaced.body
    for _ in range(2):
        assert (await gateway.call("DELETE", second.headers["Location"])).status == 204
    assert await _list(gateway) == [("Road 1", False)]
    assert (await gateway.call("GET", second.headers["Location"])).code == "not_found"


async def test_defaults_chosen_at_once_leave_one(gateway: TestGateway) -> None:
    added = [await _add(gateway, f"Road {number}") for number in range(6)]
    answers = await asyncio.gather(
        *(gateway.call("PUT", f"{answer.headers['Location']}/default") for answer in added * 3)
    )
    assert {answer.status for answer in answers} == {200}
    assert [is_default for _, is_default in await _list(gateway)] == [True] + [False] * 5


async def test_address_sent_twice_is_saved_once(gateway: TestGateway) -> None:
    answers = await asyncio.gather(*(_add(gateway, "Road 1") for _ in range(5)))
    assert sorted(answer.status for answer in answers) == [200, 200, 200, 200, 201]
    assert len({answer.body["address_id"] for answer in answers}) == 1


async def test_address_of_another_customer_is_not_found(gateway: TestGateway) -> None:
    location = (await _add(gateway, "Road 1", "ann")).headers["Location"]
    for method, path, body in (
        ("GET", location, None),
        ("PUT", location, ADDRESS),
        ("PUT", f"{location}/default", None),
        ("PUT", f"{PATH}/{uuid4()}/default", None),
    ):
        assert (await gateway.call(method, path, user="ben", json=body)).code == "not_found", path
    assert (await gateway.call("DELETE", location, user="ben")).status == 204
    assert await _list(gateway, "ann") == [("Road 1", True)]
    assert await _list(gateway, "ben") == []
    assert (await gateway.call("GET", PATH, user=None)).code == "unauthorized"


async def test_failed_choice_keeps_the_default(gateway: TestGateway) -> None:
    await _add(gateway, "Road 1")
    assert (await gateway.call("PUT", f"{PATH}/{uuid4()}/default")).status == 404
    assert await _list(gateway) == [("Road 1", True)]


async def test_full_address_book_refuses_another(make_settings: Callable[..., Settings], sale_prefix: str) -> None:
    async with open_gateway(make_settings(limits={"addresses_per_user": 3})) as gateway:
        answers = await asyncio.gather(*(_add(gateway, f"Road {number}") for number in range(5)))
        assert sorted(answer.status for answer in answers) == [201, 201, 201, 409, 409]
        refused = next(answer for answer in answers if answer.status == 409)
        assert refused.code == "too_many_addresses"
        line = next(answer for answer in answers if answer.status == 201).body["address"]["line"]
        assert (await _add(gateway, line)).status == 200
        assert (await _add(gateway, "Road 9", "ben")).status == 201


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"name": " "}, "/name"),
        ({"line": "\u3000"}, "/line"),
        ({"city": "\u200b"}, "/city"),
        ({"line": "Road\n1"}, "/line"),
        ({"country": "XX"}, "/country"),
        ({"phone": "none"}, "/phone"),
        ({"name": ""}, "/name"),
        ({"name": "x" * 201}, "/name"),
        ({"door": "2"}, ""),
    ],
)
async def test_address_that_no_order_may_have_is_refused(
    gateway: TestGateway, change: dict[str, str], pointer: str
) -> None:
    saved = await _add(gateway, "Road 1")
    for method, path in (("POST", PATH), ("PUT", saved.headers["Location"])):
        answer = await gateway.call(method, path, json=ADDRESS | change)
        assert (answer.status, answer.body["errors"][0]["pointer"]) == (422, pointer)
    assert await _list(gateway) == [("Road 1", True)]
