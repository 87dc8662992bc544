"""Screening over HTTP: actions at joins and orders, proofs of work, report and clearings."""

from __future__ import annotations

import asyncio
import base64
import logging
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import altcha
import orjson
import pytest
from prometheus_client import REGISTRY

import lua
from commerce.kernel.clock import from_ms, to_ms
from commerce.screening.model import Score, ScoreReason
from commerce.screening.store import set_scores
from commerce.waiting_rooms import draw
from config.settings import Settings
from gateway.proof_of_work import ProofOfWork
from gateway.request_origin import RequestOrigin
from ops.services import CliServices
from tests.support.gateway import GatewayResponse, TestGateway, open_gateway, run_workers
from tests.support.rooms import SKU, TestRoom, open_room, open_serving_room
from tests.support.sales import eventually, make_sale, order_body
from tests.support.screening import attackers, colleagues, make_screened_shop

MakeSettings = Callable[..., Settings]
SCREENING = {"enabled": True, "proof_attempts": 20}
ALL = {**SCREENING, "log_min_score": 40, "proof_of_work_min_score": 55, "wait_min_score": 70, "refuse_min_score": 80}


@pytest.fixture(autouse=True)
def short_delay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(draw, "DELAY_ITERATIONS", 10)


async def _score(shop: CliServices, sale_id: str, scores: dict[str, int]) -> None:
    """Give customers scores as the worker does; where they come from is tested with it."""
    screened = make_screened_shop(shop)
    await screened.follow_sales()
    await screened.note_joins(sale_id, [(user_id, colleagues(1)[0][1]) for user_id in scores])
    await screened.score()
    values = {user: Score(score, (ScoreReason("device", score, 9),)) for user, score in scores.items()}
    async with shop.db.transaction() as connection:
        await set_scores(connection, sale_id, values, from_ms(shop.clock.now_ms()))


async def _refresh(*gateways: TestGateway) -> None:
    for gateway in gateways:
        await gateway.services.screening_actions.refresh()
        await gateway.services.room_status.refresh()


async def _join(gateway: TestGateway, sale_id: str, user: str, slow: bool = False, **headers: str) -> GatewayResponse:
    more = {"TE": "trailers"} if slow else {}  # aiohttp answers this head
    return await gateway.call("POST", f"/v1/sales/{sale_id}/room", user=user, headers={**headers, **more})


def _count(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0


def solve(challenge: dict[str, Any]) -> str:
    """Solve a challenge as a client does, with the library of the protocol's authors."""
    parsed = altcha.Challenge.from_dict(challenge)
    solution = altcha.solve_challenge(parsed)
    assert solution is not None
    return altcha.Payload(parsed, solution).to_base64()


@pytest.mark.parametrize("slow", [False, True])
async def test_each_action_is_taken_from_its_score_on(
    make_settings: MakeSettings, shop: CliServices, sale_id: str, slow: bool, caplog: pytest.LogCaptureFixture
) -> None:
    await open_room(shop, sale_id)
    await _score(shop, sale_id, {"ann": 39, "ben": 40, "cyd": 55, "dot": 70, "eve": 80})
    before = {action: _count("floodgate_screening_actions_total", action=action) for action in ("log", "refuse")}
    async with open_gateway(make_settings(screening=ALL)) as gateway:
        with caplog.at_level(logging.INFO):
            answers = {user: await _join(gateway, sale_id, user, slow) for user in ("ann", "ben", "cyd", "dot", "eve")}
            assert (await _join(gateway, sale_id, "fay", slow)).status == 200
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
            assert _count("floodgate_screening_actions_total", action=action) == count + 1
        solved = await _join(
            gateway, sale_id, "cyd", slow, **{"Proof-Of-Work": solve(answers["cyd"].body["challenge"])}
        )
        assert solved.status == 200


async def test_screening_without_actions_and_disabled_screening_change_nothing(
    make_settings: MakeSettings, shop: CliServices, sale_id: str
) -> None:
    await open_room(shop, sale_id)
    await _score(shop, sale_id, {"eve": 100})
    for screening in ({**ALL, "enabled": False}, SCREENING):
        async with open_gateway(make_settings(screening=screening)) as gateway:
            assert (await _join(gateway, sale_id, "eve")).status == 200


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
        await _score(shop, sale_id, {"eve": 100, "dot": 79})
        await _refresh(gateway)
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
        await _refresh(gateway)
        assert _count("floodgate_screening_suspects", action="wait") == 2
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
        placed = await _join(gateway, sale_id, users[0])
        await _score(shop, sale_id, {users[0]: 50, users[1]: 50})
        await _refresh(gateway)
        again = await _join(gateway, sale_id, users[0], **{"Room-Ticket": placed.body["ticket"]})
        assert again.body["number"] == placed.body["number"], "who has a number keeps it"
        delayed = await _join(gateway, sale_id, users[1])
        opens_at = (await room.read()).opens_at
        assert delayed.code == "join_delayed"
        until = datetime.fromisoformat(delayed.body["until"])
        assert until == opens_at.replace(microsecond=0) + timedelta(seconds=90)
        assert int(delayed.headers["Retry-After"]) > 90
        _move_clock(gateway, monkeypatch, to_ms(opens_at) + 90_000)
        assert (await _join(gateway, sale_id, users[1])).body["number"] == 2


def _move_clock(gateway: TestGateway, monkeypatch: pytest.MonkeyPatch, now_ms: int) -> None:
    monkeypatch.setattr(gateway.services.clock, "now_ms", lambda: now_ms)
    monkeypatch.setattr(gateway.services.auth, "identify_customer", gateway.services.auth.find_recent_customer)


async def _open_pair(
    make_settings: MakeSettings, shop: CliServices, sale_id: str, **screening: Any
) -> tuple[TestRoom, Settings]:
    room = await open_room(shop, sale_id)
    await _score(shop, sale_id, {"cyd": 50, "dot": 50})
    return room, make_settings(screening={**SCREENING, "proof_of_work_min_score": 50, **screening})


async def test_proof_counts_once_over_all_gateways(
    make_settings: MakeSettings, shop: CliServices, sale_id: str
) -> None:
    _, settings = await _open_pair(make_settings, shop, sale_id)
    async with open_gateway(settings) as gateway, open_gateway(settings) as other:
        challenge = (await _join(gateway, sale_id, "cyd")).body["challenge"]
        assert challenge["parameters"]["algorithm"] == "SHA-256"
        proof = {"Proof-Of-Work": solve(challenge)}
        answers = await asyncio.gather(
            *(_join(part, sale_id, "cyd", slow, **proof) for part in (gateway, other) for slow in (False, True))
        )
        assert sorted(answer.status for answer in answers) == [200, 403, 403, 403]
        refused = next(answer for answer in answers if answer.status == 403)
        assert refused.code == "proof_invalid"
        assert "used before" in refused.body["detail"]
        fresh = {"Proof-Of-Work": solve(refused.body["challenge"])}
        assert (await _join(other, sale_id, "cyd", **fresh)).status == 200, "a refusal brings a new challenge"
        assert _count("floodgate_proofs_remembered", sale=sale_id) == 2
    async with open_gateway(settings) as restarted:
        assert (await _join(restarted, sale_id, "cyd", **proof)).code == "proof_invalid"


async def test_proof_of_others_forged_expired_or_wrong_is_refused(
    make_settings: MakeSettings, shop: CliServices, sale_id: str, sale_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await open_room(shop, f"{sale_prefix}-other")
    await _score(shop, f"{sale_prefix}-other", {"cyd": 50})
    _, settings = await _open_pair(make_settings, shop, sale_id)
    async with open_gateway(settings) as gateway:
        own_challenge = (await _join(gateway, sale_id, "cyd")).body["challenge"]
        dots = (await _join(gateway, sale_id, "dot")).body["challenge"]
        elsewhere = (await _join(gateway, f"{sale_prefix}-other", "cyd")).body["challenge"]
        stolen = orjson.loads(orjson.dumps(dots))
        stolen["parameters"]["data"]["user_id"] = "cyd"
        easy = orjson.loads(orjson.dumps(own_challenge))
        easy["parameters"]["keyPrefix"] = "0"
        del easy["parameters"]["keySignature"]
        own = altcha.create_challenge(
            "SHA-256", 10, data=own_challenge["parameters"]["data"], counter=3, hmac_secret="guess"
        )
        wrong = {"challenge": own_challenge, "solution": {"counter": 1, "derivedKey": "00" * 32}}
        expired = _expired_challenge(gateway, settings, sale_id)
        proofs = {
            "of another customer": solve(dots),
            "of another sale": solve(elsewhere),
            "with changed data": solve(stolen),
            "made easy": solve(easy),
            "signed by somebody else": solve(own.to_dict()),
            "not solved": base64.b64encode(orjson.dumps(wrong)).decode(),
            "expired": solve(expired),
            "no base64": "!!!",
            "no JSON": base64.b64encode(b"{").decode(),
            "another JSON": base64.b64encode(b'{"challenge": [], "solution": 1}').decode(),
            "deep": base64.b64encode(b"[" * 1_000).decode(),
        }
        for slow in (False, True):
            for name, proof in proofs.items():
                refused = await _join(gateway, sale_id, "cyd", slow, **{"Proof-Of-Work": proof})
                assert (refused.status, refused.code) == (403, "proof_invalid"), name
                assert refused.body["challenge"]["parameters"]["data"] == {"sale_id": sale_id, "user_id": "cyd"}
            long = await _join(gateway, sale_id, "cyd", slow, **{"Proof-Of-Work": "A" * 2_049})
            assert (long.status, long.code) == (422, "invalid")
        assert (await _join(gateway, sale_id, "cyd", **{"Proof-Of-Work": solve(own_challenge)})).status == 200


def _expired_challenge(gateway: TestGateway, settings: Settings, sale_id: str) -> dict[str, Any]:
    """Return a challenge of this shop whose time is over."""

    class EarlyClock:
        def now_ms(self) -> int:
            return gateway.services.clock.now_ms() - 301_000

    proofs = gateway.services.room_entrance._proofs
    early = ProofOfWork(None, proofs._link, settings.screening, EarlyClock())  # type: ignore[arg-type]
    early._secrets = proofs._secrets
    return early._create_challenge(sale_id, "cyd")


async def test_too_many_proofs_are_refused_until_some_expire(
    make_settings: MakeSettings, shop: CliServices, sale_id: str
) -> None:
    room, settings = await _open_pair(make_settings, shop, sale_id, proofs_per_sale=1)
    async with open_gateway(settings) as gateway:
        for user, status in (("cyd", 200), ("dot", 503)):
            challenge = (await _join(gateway, sale_id, user)).body["challenge"]
            assert (await _join(gateway, sale_id, user, **{"Proof-Of-Work": solve(challenge)})).status == status
        await shop.redis.zadd(room.keys.proofs, dict.fromkeys(await shop.redis.zrange(room.keys.proofs, 0, -1), 1))
        challenge = (await _join(gateway, sale_id, "dot")).body["challenge"]
        assert (await _join(gateway, sale_id, "dot", **{"Proof-Of-Work": solve(challenge)})).status == 200
        assert 0 < await shop.redis.pttl(room.keys.proofs) <= 420_000


async def test_clearing_by_staff_wins_within_two_seconds_and_is_recorded(
    make_settings: MakeSettings, shop: CliServices, sale_id: str
) -> None:
    await open_room(shop, sale_id)
    await _score(shop, sale_id, {"eve": 100, "dot": 90})
    async with open_gateway(make_settings(screening=ALL)) as gateway:
        assert (await _join(gateway, sale_id, "eve")).code == "refused_by_screening"
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
            return (await _join(gateway, sale_id, "eve")).status == 200

        await eventually(is_restored, timeout_s=2)
        assert (await _join(gateway, sale_id, "dot")).code == "refused_by_screening"
        past = {**body, "until": "2020-01-01T00:00:00Z"}
        refused = await gateway.call("POST", f"{path}/eve/clear", json=past, **staff)
        assert (refused.status, refused.body["errors"][0]["pointer"]) == (422, "/until")
        listed = await gateway.call("GET", f"{path}?cleared=false", **staff)
        assert [user["user_id"] for user in listed.body["items"]] == ["dot"]
        await gateway.call("POST", f"{path}/eve/revoke", json={"reason": "no family"}, **staff)
        twice = await gateway.call("POST", f"{path}/eve/revoke", json={"reason": "again"}, **staff)
        assert (twice.status, twice.code) == (409, "not_cleared")
        await _refresh(gateway)
        assert (await _join(gateway, sale_id, "eve")).code == "refused_by_screening"
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
    await _score(shop, sale_id, {"eve": 100})
    async with open_gateway(make_settings(screening=ALL)) as gateway:
        assert (await _join(gateway, sale_id, "eve")).status == 200
        monkeypatch.setattr(gateway.services.clock, "now_ms", lambda: to_ms(until))
        assert (await _join(gateway, sale_id, "eve")).code == "refused_by_screening"


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
    await _score(shop, sale_id, {"eve": 100})
    settings = make_settings(screening=ALL)
    for _ in range(2):
        async with open_gateway(settings) as gateway:
            assert (await _join(gateway, sale_id, "eve")).code == "refused_by_screening"


async def test_gateway_that_stops_stores_its_sightings(
    make_settings: MakeSettings, shop: CliServices, sale_id: str
) -> None:
    await open_room(shop, sale_id)
    screened = make_screened_shop(shop)
    await screened.follow_sales()
    async with open_gateway(make_settings(screening=SCREENING)) as gateway:
        for user in ("ann", "ben"):
            assert (await _join(gateway, sale_id, user)).status == 200
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
                assert (await _join(gateway, sale_id, "ann", **more)).status == 200
                key = {"Idempotency-Key": f"key-{fast_path}-{len(origins)}"}
                order = order_body(f"{sale_id}-open", (SKU, 1))
                answer = await gateway.call("POST", "/v1/orders", user="ann", headers={**more, **key}, json=order)
                assert answer.status == 202
    assert len(origins) == 8
    assert {(origin.address, origin.device) for origin in origins} == {("2001:db8::/64", "my-phone")}
    assert origins[:4] == origins[4:]
    assert len({origin.form for origin in origins}) == 4, "joins and orders, each with and without another header"
