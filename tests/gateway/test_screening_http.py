"""Screening over HTTP: actions at joins and orders, proofs of work, report and clearings."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest

import lua
from commerce.kernel.clock import SystemClock, from_ms, to_ms
from commerce.waiting_rooms import draw
from config.settings import Settings
from gateway.auth import Authenticator
from gateway.request_origin import RequestOrigin
from ops.services import CliServices
from tests.support.gateway import TestGateway, open_gateway, run_workers
from tests.support.rooms import SKU, open_room, open_serving_room
from tests.support.sales import eventually, make_sale, order_body
from tests.support.screening import attackers, colleagues, make_screened_shop
from tests.support.screening_gateway import SCREENING, give_scores, join_room, read_metric, refresh, solve

MakeSettings = Callable[..., Settings]
ALL = {**SCREENING, "log_min_score": 40, "proof_of_work_min_score": 55, "wait_min_score": 70, "refuse_min_score": 80}


@pytest.fixture(autouse=True)
def short_delay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(draw, "DELAY_ITERATIONS", 10)


@pytest.mark.parametrize("slow", [False, True])
async def test_each_action_is_taken_from_its_score_on(
    make_settings: MakeSettings, shop: CliServices, sale_id: str, slow: bool, caplog: pytest.LogCaptureFixture
) -> None:
    await open_room(shop, sale_id)
    await give_scores(shop, sale_id, {"ann": 39, "ben": 40, "cyd": 55, "dot": 70, "eve": 80})
    before = {action: read_metric("floodgate_screening_actions_total", action=action) for action in ("log", "refuse")}
    async with open_gateway(make_settings(screening=ALL)) as gateway:
        with caplog.at_level(logging.INFO):
            answers = {
                user: await join_room(gateway, sale_id, user, slow) for user in ("ann", "ben", "cyd", "dot", "eve")
            }
            assert (await join_room(gateway, sale_id, "fay", slow)).status == 200
        assert [(user, answer.status) for user, answer in answers.items() if answer.status == 200] == [
            *(("ann", 200), ("ben", 200)),
        ]
        assert {user: answers[user].code for user in ("cyd", "dot", "eve")} == {
            "cyd": "proof_required",
            "dot": "join_delayed",
            "eve": "refused_by_screening",
        }
        assert "ask the shop's staff" in answers["eve"].body["detail"]
        logged = [record for record in caplog.records if record.message == "a suspected customer joins"]
        assert [(record.user_id, record.score) for record in logged] == [("ben", 40)]  # type: ignore[attr-defined]
        for action, count in before.items():
            assert read_metric("floodgate_screening_actions_total", action=action) == count + 1
        solved = await join_room(
            gateway, sale_id, "cyd", slow, **{"Proof-Of-Work": solve(answers["cyd"].body["challenge"])}
        )
        assert solved.status == 200


async def test_screening_without_actions_and_disabled_screening_change_nothing(
    make_settings: MakeSettings, shop: CliServices, sale_id: str
) -> None:
    await open_room(shop, sale_id)
    await give_scores(shop, sale_id, {"eve": 100})
    for screening in ({**ALL, "enabled": False}, SCREENING):
        async with open_gateway(make_settings(screening=screening)) as gateway:
            assert (await join_room(gateway, sale_id, "eve")).status == 200


@pytest.mark.parametrize("fast_path", [True, False])
async def test_refused_customer_cannot_order_and_gets_repeats_of_accepted_orders(
    make_settings: MakeSettings, shop: CliServices, sale_id: str, fast_path: bool
) -> None:
    await make_sale(shop, sale_id, {"A1": (10, 100, None)})
    settings = make_settings(screening=ALL)
    async with open_gateway(settings, fast_path=fast_path) as gateway:
        body = order_body(sale_id, ("A1", 1))
        first = await gateway.order(body, user="eve", key="k1")
        assert first.status == 202
        await give_scores(shop, sale_id, {"eve": 100, "dot": 79})
        await refresh(gateway)
        refused = await gateway.order(body, user="eve", key="k2")
        assert (refused.status, refused.code) == (403, "refused_by_screening")
        again = await gateway.order(body, user="eve", key="k1")
        assert (again.status, again.body["order_id"]) == (200, first.body["order_id"])
        assert (await gateway.order(body, user="dot")).status == 202, "orders neither wait nor take a proof"
        assert (await gateway.order(body, user="fay")).status == 202
        free = await lua.read_stock(shop.redis, lua.SaleKeys(sale_id))
        assert free == {"A1": 7}


@pytest.mark.parametrize("fast_path", [True, False])
async def test_orders_are_noted_and_never_take_a_proof(
    make_settings: MakeSettings, shop: CliServices, sale_id: str, fast_path: bool
) -> None:
    await make_sale(shop, sale_id, {"A1": (100, 100, None)})
    await make_screened_shop(shop).follow_sales()
    settings = make_settings(
        screening={**SCREENING, "proof_of_work_min_score": 30, "wait_min_score": 30, "accounts_per_device": 1}
    )
    async with open_gateway(settings, fast_path=fast_path) as gateway, run_workers(settings, "screening_worker"):
        headers = {"X-Device-Id": "one-device"}
        body = order_body(sale_id, ("A1", 1))
        for user in ("ann", "ben"):
            answer = await gateway.call(
                "POST", "/v1/orders", user=user, headers={**headers, "Idempotency-Key": f"k-{user}"}, json=body
            )
            assert answer.status == 202
        screened = make_screened_shop(shop)

        async def are_scored() -> bool:
            return set(await screened.scores(sale_id)) == {"ann", "ben"}

        await eventually(are_scored)
        assert (await screened.screening.get(sale_id, "ann")).user.orders == 1
        await refresh(gateway)
        assert read_metric("floodgate_screening_suspects", action="wait") == 2
        for number in range(3):
            answer = await gateway.call(
                "POST", "/v1/orders", user="ann", headers={**headers, "Idempotency-Key": f"k-{number}"}, json=body
            )
            assert answer.status == 202


async def test_delayed_customer_joins_after_the_time_and_keeps_a_number(
    make_settings: MakeSettings, shop: CliServices, sale_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    room, users = await open_serving_room(shop, sale_id, 2)
    async with open_gateway(make_settings(screening={**SCREENING, "wait_min_score": 50, "wait_s": 90})) as gateway:
        placed = await join_room(gateway, sale_id, users[0])
        await give_scores(shop, sale_id, {users[0]: 50, users[1]: 50})
        await refresh(gateway)
        again = await join_room(gateway, sale_id, users[0], **{"Room-Ticket": placed.body["ticket"]})
        assert again.body["number"] == placed.body["number"], "who has a number keeps it"
        delayed = await join_room(gateway, sale_id, users[1])
        opens_at = (await room.read()).opens_at
        assert delayed.code == "join_delayed"
        until = datetime.fromisoformat(delayed.body["until"])
        assert until == opens_at.replace(microsecond=0) + timedelta(seconds=90)
        assert int(delayed.headers["Retry-After"]) > 90
        _move_clock(gateway, monkeypatch, to_ms(opens_at) + 90_000)
        assert (await join_room(gateway, sale_id, users[1])).body["number"] == 2


async def test_ticket_with_past_turn_counts_as_none(
    make_settings: MakeSettings, shop: CliServices, sale_id: str
) -> None:
    _, users = await open_serving_room(shop, sale_id, 2)
    async with open_gateway(make_settings(screening={**SCREENING, "proof_of_work_min_score": 50})) as gateway:
        ticket = {"Room-Ticket": (await join_room(gateway, sale_id, users[0])).body["ticket"]}
        await give_scores(shop, sale_id, {users[0]: 50})
        await refresh(gateway)
        assert (await join_room(gateway, sale_id, users[0], **ticket)).status == 200
        async with shop.db.connection() as connection:
            await connection.execute("UPDATE waiting_rooms SET served = 2, expired = 2 WHERE sale_id = $1", sale_id)
        await refresh(gateway)
        for slow in (False, True):
            again = await join_room(gateway, sale_id, users[0], slow, **ticket)
            assert again.code == "proof_required", "a new number would be given"


def _move_clock(gateway: TestGateway, monkeypatch: pytest.MonkeyPatch, now_ms: int) -> None:
    monkeypatch.setattr(gateway.services.clock, "now_ms", lambda: now_ms)
    tokens = Authenticator(gateway.settings.auth, SystemClock())  # theirs are of the present
    monkeypatch.setattr(gateway.services.auth, "identify_customer", tokens.identify_customer)


async def test_clearing_by_staff_wins_within_two_seconds_and_is_recorded(
    make_settings: MakeSettings, shop: CliServices, sale_id: str
) -> None:
    await open_room(shop, sale_id)
    await give_scores(shop, sale_id, {"eve": 100, "dot": 90})
    async with open_gateway(make_settings(screening=ALL)) as gateway:
        assert (await join_room(gateway, sale_id, "eve")).code == "refused_by_screening"
        path = f"/v1/admin/sales/{sale_id}/screening"
        until = from_ms(shop.clock.now_ms()) + timedelta(hours=3)
        body = {"reason": "a family of five", "until": until.isoformat()}
        staff = {"user": "mary", "roles": ("support",)}
        assert (await gateway.call("POST", f"{path}/eve/clear", user="eve", json=body)).status == 401
        cleared = await gateway.call(
            "POST", f"{path}/eve/clear", json=body, headers={"Idempotency-Key": "one"}, **staff
        )
        assert (cleared.status, cleared.body["user"]["score"]) == (200, 100)
        repeat = await gateway.call("POST", f"{path}/eve/clear", json=body, headers={"Idempotency-Key": "one"}, **staff)
        assert repeat.body == cleared.body

        async def is_restored() -> bool:
            return (await join_room(gateway, sale_id, "eve")).status == 200

        await eventually(is_restored, timeout_s=2)
        assert (await join_room(gateway, sale_id, "dot")).code == "refused_by_screening"
        past = {**body, "until": "2020-01-01T00:00:00Z"}
        refused = await gateway.call("POST", f"{path}/eve/clear", json=past, **staff)
        assert (refused.status, refused.body["errors"][0]["pointer"]) == (422, "/until")
        listed = await gateway.call("GET", f"{path}?cleared=false", **staff)
        assert [user["user_id"] for user in listed.body["items"]] == ["dot"]
        await gateway.call("POST", f"{path}/eve/revoke", json={"reason": "no family"}, **staff)
        twice = await gateway.call("POST", f"{path}/eve/revoke", json={"reason": "again"}, **staff)
        assert (twice.status, twice.code) == (409, "not_cleared")
        await refresh(gateway)
        assert (await join_room(gateway, sale_id, "eve")).code == "refused_by_screening"
        details = (await gateway.call("GET", f"{path}/eve", **staff)).body
        decisions = [(decision["actor"], decision["action"], decision["reason"]) for decision in details["decisions"]]
        assert decisions == [
            *(("staff mary", "revoked", "no family"), ("staff mary", "cleared", "a family of five")),
        ]


async def test_clearing_ends_at_its_time_and_may_come_before_the_customer(
    make_settings: MakeSettings, shop: CliServices, sale_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await open_room(shop, sale_id)
    screened = make_screened_shop(shop)
    await screened.follow_sales()
    until = from_ms(shop.clock.now_ms()) + timedelta(hours=1)
    await screened.screening.clear(sale_id, "eve", "known for years", until, "staff mary")
    await give_scores(shop, sale_id, {"eve": 100})
    async with open_gateway(make_settings(screening=ALL)) as gateway:
        assert (await join_room(gateway, sale_id, "eve")).status == 200
        monkeypatch.setattr(gateway.services.clock, "now_ms", lambda: to_ms(until))
        assert (await join_room(gateway, sale_id, "eve")).code == "refused_by_screening"


async def test_report_is_filtered_and_paged(make_settings: MakeSettings, shop: CliServices, sale_id: str) -> None:
    await make_sale(shop, sale_id, {"A1": (10, 100, None)})
    screened = make_screened_shop(shop, accounts_per_address=3)
    await screened.follow_sales()
    await screened.note_joins(sale_id, [*attackers(8, devices=2), *colleagues(5)])
    await screened.score()
    async with open_gateway(make_settings()) as gateway:
        path, staff = f"/v1/admin/sales/{sale_id}/screening", {"user": "mary", "roles": ("sales",)}
        listed_users: list[tuple[str, int]] = []
        cursor = ""
        while True:
            page = (await gateway.call("GET", f"{path}?limit=3{cursor}", **staff)).body
            listed_users += [(user["user_id"], user["score"]) for user in page["items"]]
            if page["next"] is None:
                break
            cursor = f"&cursor={page['next']}"
        bots = [(f"bot-{number:05}", 65) for number in range(8)]
        assert listed_users == [*bots, *((f"colleague-{number:04}", 25) for number in range(5))]
        for query, count in (("min_score=26", 8), ("signal=device", 8), ("signal=address", 13), ("signal=rate", 0)):
            assert len((await gateway.call("GET", f"{path}?{query}", **staff)).body["items"]) == count, query
        for query in ("min_score=0", "signal=face", "cursor=x", "cursor=101:a", "cursor=-1:a", "cleared=perhaps"):
            assert (await gateway.call("GET", f"{path}?{query}", **staff)).status == 422, query
        assert (await gateway.call("GET", f"{path}/nobody", **staff)).status == 404
        assert (await gateway.call("GET", path, user="mary", roles=("catalog",))).status == 403


async def test_gateway_that_restarts_acts_before_it_answers(
    make_settings: MakeSettings, shop: CliServices, sale_id: str
) -> None:
    await open_room(shop, sale_id)
    await give_scores(shop, sale_id, {"eve": 100})
    settings = make_settings(screening=ALL)
    for _ in range(2):
        async with open_gateway(settings) as gateway:
            assert (await join_room(gateway, sale_id, "eve")).code == "refused_by_screening"


async def test_gateway_that_stops_stores_its_sightings(
    make_settings: MakeSettings, shop: CliServices, sale_id: str
) -> None:
    await open_room(shop, sale_id)
    screened = make_screened_shop(shop)
    await screened.follow_sales()
    async with open_gateway(make_settings(screening=SCREENING)) as gateway:
        for user in ("ann", "ben"):
            assert (await join_room(gateway, sale_id, user)).status == 200
    await screened.score()
    assert [(await screened.screening.get(sale_id, user)).user.joins for user in ("ann", "ben")] == [1, 1]


async def test_origin_of_a_request_is_the_same_on_both_paths(
    make_settings: MakeSettings, shop: CliServices, sale_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await open_room(shop, sale_id)
    await make_sale(shop, f"{sale_id}-open", {SKU: (10, 100, None)})
    settings = make_settings(screening=SCREENING, http={"forwarded_header": "x-forwarded-for"})
    origins: list[RequestOrigin] = []
    for fast_path in (True, False):
        async with open_gateway(settings, fast_path=fast_path) as gateway:
            signals = gateway.services.screening_signals
            for name in ("note_join", "note_order"):
                monkeypatch.setattr(signals, name, lambda _sale, _user, origin, *_: origins.append(origin))
            headers = {"X-Device-Id": "my-phone", "X-Forwarded-For": "2001:db8::1"}
            for more in (headers, {**headers, "X-Form": "other"}):
                assert (await join_room(gateway, sale_id, "ann", **more)).status == 200
                key = {"Idempotency-Key": f"key-{fast_path}-{len(origins)}"}
                order = order_body(f"{sale_id}-open", (SKU, 1))
                answer = await gateway.call("POST", "/v1/orders", user="ann", headers={**more, **key}, json=order)
                assert answer.status == 202
    assert len(origins) == 8
    assert {(origin.address, origin.device) for origin in origins} == {("2001:db8::/64", "my-phone")}
    assert origins[:4] == origins[4:]
    assert len({origin.form for origin in origins}) == 4, "joins and orders, each with and without another header"


async def test_attack_over_http_is_refused_while_colleagues_join(
    make_settings: MakeSettings, shop: CliServices, sale_id: str
) -> None:
    await open_room(shop, sale_id)
    settings = make_settings(
        screening={**SCREENING, "refuse_min_score": 80}, http={"forwarded_header": "x-forwarded-for"}
    )
    await make_screened_shop(shop).follow_sales()
    bots, people = [f"bot-{number:03}" for number in range(120)], [f"person-{number:03}" for number in range(60)]
    async with open_gateway(settings) as gateway, run_workers(settings, "screening_worker"):

        async def join_all() -> set[tuple[str, int]]:
            answers = [
                join_room(gateway, sale_id, bot, **{"X-Forwarded-For": "203.0.113.9", "X-Device-Id": f"d-{n % 10}"})
                for n, bot in enumerate(bots)
            ] + [
                join_room(
                    *(gateway, sale_id, person),
                    **{"X-Forwarded-For": "198.51.100.7", "X-Device-Id": f"own-{n}", f"X-App-{n % 3}": "1"},
                )
                for n, person in enumerate(people)
            ]
            statuses = [answer.status for answer in await asyncio.gather(*answers)]
            return {(user.partition("-")[0], status) for user, status in zip(bots + people, statuses, strict=True)}

        assert await join_all() == {("bot", 200), ("person", 200)}, "signals need requests"

        async def are_scored() -> bool:
            scores = {(user["user_id"].partition("-")[0], user["score"]) for user in await _list_all(gateway, sale_id)}
            return scores == {("bot", 85), ("person", 25)}

        await eventually(are_scored)
        await refresh(gateway)
        assert await join_all() == {("bot", 403), ("person", 200)}


async def _list_all(gateway: TestGateway, sale_id: str) -> list[dict[str, Any]]:
    users: list[dict[str, Any]] = []
    query = ""
    while True:
        path = f"/v1/admin/sales/{sale_id}/screening?limit=100{query}"
        page = (await gateway.call("GET", path, user="mary", roles=("support",))).body
        users += page["items"]
        if page["next"] is None:
            return users
        query = f"&cursor={page['next']}"
