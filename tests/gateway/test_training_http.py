"""Training over HTTP: staff read and take quizzes, leads put them and list certificates."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from fractions import Fraction
from typing import Any

import asyncpg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from commerce.training.certificates import QuizCertificates
from commerce.training.model import QuizQuestion, draw_questions, find_wrong, has_passed
from config.settings import Settings
from tests.gateway.test_articles_http import TEXT, publish, put_article
from tests.support.case_shop import CLAIM, CaseShop, open_case_shop
from tests.support.gateway import GatewayResponse, TestGateway, open_gateway
from tests.support.rooms import ShiftedClock
from tests.support.shipping_shop import ShippingShop

PATH = "/v1/admin/training"
TERMS = {
    "questions": 3,
    "pass_percent": 60,
    "attempts": 2,
    "pause_hours": 24,
    "minutes": 30,
    "valid_days": 100,
    "grace_days": 10,
}
QUESTIONS: list[dict[str, Any]] = [
    {"text": "q one", "options": ["good", "bad", "worse"], "right": [1]},
    {"text": "q two", "options": ["bad", "good"], "right": [2]},
    {"text": "q three", "kind": "several", "options": ["good a", "bad", "good b", "worse"], "right": [1, 3]},
    {"text": "q four", "options": ["good", "bad"], "right": [1]},
]
QUIZ: dict[str, Any] = {"article_id": "claims", "terms": TERMS, "languages": {"zh": QUESTIONS}}


@pytest.fixture
def clock(gateway: TestGateway, monkeypatch: pytest.MonkeyPatch) -> ShiftedClock:
    """Clock of training, which the test moves."""
    clock = ShiftedClock()
    articles = gateway.services.articles
    monkeypatch.setattr(articles.training, "_clock", clock)
    monkeypatch.setattr(articles.attempts, "_clock", clock)
    return clock


@pytest.fixture
def cases(ship: ShippingShop) -> CaseShop:
    return open_case_shop(ship)


def move(clock: ShiftedClock, **duration: float) -> None:
    clock.shift_ms += timedelta(**duration) // timedelta(milliseconds=1)


async def staff(gateway: TestGateway, method: str, path: str, body: Any = None, user: str = "ann") -> GatewayResponse:
    role = "support_lead" if user == "lead" else "support"
    return await gateway.call(method, f"{PATH}{path}", user=user, roles=[role], json=body)


async def put_quiz(gateway: TestGateway, **changes: Any) -> GatewayResponse:
    return await staff(gateway, "PUT", "/quizzes/claims-basics", {**QUIZ, **changes}, "lead")


async def acknowledge(gateway: TestGateway, version: int, user: str = "ann") -> GatewayResponse:
    body = {"language": "zh", "version": version}
    return await staff(gateway, "POST", "/articles/claims/acknowledge", body, user)


async def begin(gateway: TestGateway, user: str = "ann", code: str = "claims-basics") -> GatewayResponse:
    return await staff(gateway, "POST", f"/quizzes/{code}/attempts", {"language": "zh"}, user)


async def submit(gateway: TestGateway, attempt: dict[str, Any], right: int = 3, user: str = "ann") -> GatewayResponse:
    """Submit right answers to the first questions, and none to the others."""
    answers = [
        [number for number, option in enumerate(question["options"], 1) if option.startswith("good")]
        if place < right
        else []
        for place, question in enumerate(attempt["questions"])
    ]
    return await staff(gateway, "POST", f"/attempts/{attempt['attempt_id']}/answers", {"answers": answers}, user)


async def open_training(gateway: TestGateway) -> int:
    """Publish the article, require it of support and put its quiz. Returns the article's version."""
    assert (await put_article(gateway, "claims", audience="internal")).status == 200
    version = await publish(gateway, "claims", "zh", TEXT)
    required = await staff(gateway, "PUT", "/readings/claims", {"roles": ["support"]}, "lead")
    assert required.status == 204, required.text
    put = await put_quiz(gateway)
    assert put.status == 200, put.text
    return version


async def is_certified(gateway: TestGateway, clock: ShiftedClock, actor: str = "staff ann") -> bool:
    async with gateway.services.db.connection() as connection:
        return await QuizCertificates(clock).has_certificate(connection, actor, "claims-basics")


async def read_item(gateway: TestGateway) -> dict[str, Any]:
    [item] = (await staff(gateway, "GET", "")).body["items"]
    return dict(item)


async def test_completion_of_article_is_stated_and_each_step_opens_the_next_at_once(
    gateway: TestGateway, clock: ShiftedClock
) -> None:
    version = await open_training(gateway)
    item = await read_item(gateway)
    assert (item["article_id"], item["is_complete"], item["versions"][0]["is_acknowledged"]) == ("claims", False, False)
    assert item["quizzes"] == [
        {"code": "claims-basics", "languages": ["zh"], "valid_until": None, "is_outdated": False}
    ]
    early = await begin(gateway)
    assert (early.status, early.code) == (409, "reading_needed")
    assert "read and acknowledge" in early.body["detail"]
    assert (await acknowledge(gateway, version)).status == 204
    assert (await acknowledge(gateway, version)).status == 204
    assert not (await read_item(gateway))["is_complete"]
    begun = await begin(gateway)
    assert (begun.status, begun.body["status"], len(begun.body["questions"])) == (201, "open", 3), begun.text
    assert '"right":' not in begun.text
    assert (await staff(gateway, "GET", f"/attempts/{begun.body['attempt_id']}")).body == begun.body
    assert not await is_certified(gateway, clock)
    result = await submit(gateway, begun.body, right=2)
    assert (result.status, result.body["is_passed"], result.body["right_count"]) == (200, True, 2), result.text
    assert (result.body["wrong"], result.body["questions"]) == ([3], [])
    assert await is_certified(gateway, clock)
    assert not await is_certified(gateway, clock, "staff bea")
    assert (await read_item(gateway))["is_complete"]
    others = await gateway.call("GET", PATH, user="cat", roles=["catalog"])
    assert others.body["items"] == []


async def test_decision_without_certificate_names_the_quiz_and_passing_it_gives_the_right(
    gateway: TestGateway, cases: CaseShop
) -> None:
    support = gateway.settings.support.model_copy(update={"certificates": {"claims": "claims-basics"}})
    object.__setattr__(gateway.services, "settings", gateway.settings.model_copy(update={"support": support}))
    version = await open_training(gateway)
    order_id = await cases.add_delivered(("a", 1, 0))
    claim = await cases.request(order_id, 1, kind=CLAIM, reason="damaged_or_defective")

    async def approve() -> GatewayResponse:
        body, path = {"version": 1, "reason": "so"}, f"/v1/admin/cases/{claim}/approve"
        return await gateway.call("POST", path, user="ann", roles=["support"], json=body)

    refused = await approve()
    assert (refused.status, refused.code, refused.body["certificate"]) == (403, "right_needed", "claims-basics")
    assert "pass its quiz" in refused.body["detail"]
    await acknowledge(gateway, version)
    attempt = (await begin(gateway)).body
    assert (await submit(gateway, attempt, right=1)).status == 200
    assert (await approve()).status == 403, "a failed attempt brings no right"
    assert (await submit(gateway, (await begin(gateway)).body)).body["is_passed"]
    assert (await approve()).status == 200


async def test_failed_attempt_gives_nothing_and_a_second_submission_changes_nothing(
    gateway: TestGateway, clock: ShiftedClock
) -> None:
    await acknowledge(gateway, await open_training(gateway))
    begun = (await begin(gateway)).body
    failed = await submit(gateway, begun, right=1)
    assert (failed.body["is_passed"], failed.body["right_count"], failed.body["certificate_until"]) == (False, 1, None)
    assert (await submit(gateway, begun, right=3)).body == failed.body
    assert not await is_certified(gateway, clock)
    again = (await begin(gateway)).body
    assert again["attempt_id"] != begun["attempt_id"]
    nothing = await submit(gateway, again, right=0)
    assert (nothing.body["is_passed"], nothing.body["right_count"]) == (False, 0)
    await put_quiz(gateway, terms={**TERMS, "attempts": 3})
    answers = await asyncio.gather(*(begin(gateway) for _ in range(4)))
    assert [answer.status for answer in answers] == [201] * 4
    assert len({answer.body["attempt_id"] for answer in answers}) == 1
    open_attempt = answers[0].body
    results = await asyncio.gather(*(submit(gateway, open_attempt, right=right) for right in (3, 0, 3, 1)))
    assert len({result.text for result in results}) == 1
    certificates = (await staff(gateway, "GET", "/certificates", user="lead")).body["items"]
    assert len(certificates) == results[0].body["is_passed"]


async def test_attempts_are_limited_and_the_pause_ends(gateway: TestGateway, clock: ShiftedClock) -> None:
    await acknowledge(gateway, await open_training(gateway))
    await submit(gateway, (await begin(gateway)).body, right=0)
    await begin(gateway)
    move(clock, minutes=30)  # it expires unanswered, and counts
    refused = await begin(gateway)
    assert (refused.status, refused.code) == (409, "attempts_used")
    assert refused.body["until"] in refused.body["detail"]
    move(clock, hours=23)
    assert (await begin(gateway)).code == "attempts_used"
    move(clock, hours=1)
    assert (await submit(gateway, (await begin(gateway)).body, right=0)).status == 200
    second = await begin(gateway)
    assert second.status == 201
    move(clock, minutes=31)
    late = await submit(gateway, second.body)
    assert (late.status, late.code) == (409, "attempt_expired")
    shown = await staff(gateway, "GET", f"/attempts/{second.body['attempt_id']}")
    assert (shown.body["status"], shown.body["questions"]) == ("expired", [])


async def test_new_version_asks_again_and_answers_to_the_old_one_are_refused(
    gateway: TestGateway, clock: ShiftedClock
) -> None:
    first = await open_training(gateway)
    await acknowledge(gateway, first)
    await submit(gateway, (await begin(gateway)).body)
    await acknowledge(gateway, first, "bea")
    of_bea = (await begin(gateway, "bea")).body
    second = await publish(gateway, "claims", "zh", {**TEXT, "title": "退货邮费"})
    old = await submit(gateway, of_bea, user="bea")
    assert (old.status, old.code, old.body["version"]) == (409, "article_outdated", second)
    assert "read and acknowledge the published one, and begin again" in old.body["detail"]
    stale = await acknowledge(gateway, first)
    assert (stale.status, stale.code, stale.body["version"]) == (409, "article_outdated", second)
    item = await read_item(gateway)
    assert (item["is_complete"], item["versions"][0]["version"]) == (False, second)
    await acknowledge(gateway, second)
    assert (await read_item(gateway))["is_complete"], "the new version has no questions yet"
    assert (await begin(gateway)).code == "quiz_not_ready"
    [quiz] = (await staff(gateway, "GET", "/quizzes", user="lead")).body["items"]
    assert quiz["missing"] == ["zh"]
    await put_quiz(gateway)
    item = await read_item(gateway)
    assert (item["is_complete"], item["quizzes"][0]["is_outdated"]) == (False, True)
    await acknowledge(gateway, second, "bea")
    assert (await begin(gateway, "bea")).body["article_version"] == second, "the old attempt does not stand in the way"
    move(clock, days=9)
    assert await is_certified(gateway, clock)
    move(clock, days=2)
    assert not await is_certified(gateway, clock)
    await submit(gateway, (await begin(gateway)).body)
    assert await is_certified(gateway, clock)
    assert (await read_item(gateway))["is_complete"]
    move(clock, days=101)
    assert not await is_certified(gateway, clock), "a certificate expires"
    assert not (await read_item(gateway))["is_complete"]


async def test_certificates_are_listed_by_person_role_quiz_and_day(gateway: TestGateway, clock: ShiftedClock) -> None:
    version = await open_training(gateway)
    for user in ("ann", "bea"):
        await acknowledge(gateway, version, user)
        await submit(gateway, (await begin(gateway, user)).body, user=user)

    async def names(query: str) -> list[str]:
        answer = await staff(gateway, "GET", f"/certificates?{query}", user="lead")
        assert answer.status == 200, answer.text
        return [item["person"] for item in answer.body["items"]]

    assert await names("") == ["ann", "bea"]
    assert await names("person=bea") == ["bea"]
    assert (await names("role=support&quiz=claims-basics"), await names("role=warehouse")) == (["ann", "bea"], [])
    assert (await names("expires_before=2999-01-01"), await names("expires_before=2026-01-01")) == (["ann", "bea"], [])
    page = (await staff(gateway, "GET", "/certificates?limit=1", user="lead")).body
    assert await names(f"cursor={page['next']}") == ["bea"]
    move(clock, days=101)
    assert (await names("valid=true"), await names("valid=false")) == ([], ["ann", "bea"])
    assert (await staff(gateway, "GET", "/certificates?quiz=none", user="lead")).status == 404
    assert (await staff(gateway, "GET", "/certificates")).status == 403


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"terms": {**TERMS, "pass_percent": 0}}, "pass_percent"),
        ({"terms": {**TERMS, "questions": 0}}, "questions"),
        ({"terms": {**TERMS, "questions": 5}}, "4 questions, and 5"),
        ({"languages": {"zh": []}}, "languages"),
        ({"languages": {}}, "languages"),
        ({"languages": {"fr": QUESTIONS}}, "languages"),
        ({"languages": {"zh": [{**QUESTIONS[0], "right": []}] * 3}}, "right"),
        ({"languages": {"zh": [{**QUESTIONS[0], "right": [4]}] * 3}}, "right"),
        ({"languages": {"zh": [{**QUESTIONS[0], "right": [1, 2]}] * 3}}, "single"),
        ({"languages": {"zh": [{**QUESTIONS[0], "options": ["x"]}] * 3}}, "options"),
        ({"languages": {"zh": [{**QUESTIONS[0], "options": list("abcdefghi")}] * 3}}, "options"),
        ({"languages": {"zh": [{**QUESTIONS[0], "options": ["x", "x"]}] * 3}}, "same"),
        ({"languages": {"zh": [{**QUESTIONS[0], "text": " "}] * 3}}, "text"),
    ],
)
async def test_wrong_quiz_is_refused(gateway: TestGateway, change: dict[str, Any], pointer: str) -> None:
    refused = await put_quiz(gateway, **change)
    assert refused.status == 422, refused.text
    assert pointer in refused.text


async def test_bad_answers_and_foreign_attempts_are_refused(gateway: TestGateway, clock: ShiftedClock) -> None:
    await acknowledge(gateway, await open_training(gateway))
    begun = (await begin(gateway)).body
    path = f"/attempts/{begun['attempt_id']}/answers"
    place = next(number for number, question in enumerate(begun["questions"]) if question["kind"] == "single")
    for answers, pointer in (
        ([[1]], "/answers"),
        ([[1]] * 4, "/answers"),
        ([[8]] * 3, "/answers/0"),
        ([[1, 1]] * 3, "/answers/0"),
        ([[1, 2]] * 3, f"/answers/{place}"),
    ):
        refused = await staff(gateway, "POST", path, {"answers": answers})
        assert refused.status == 422, refused.text
        assert refused.body["errors"][0]["pointer"] == pointer
    for answers in ([], [[0]], [["1"]], [[1]] * 51):
        assert (await staff(gateway, "POST", path, {"answers": answers})).status == 422
    assert (await submit(gateway, begun, user="bea")).status == 404
    assert (await staff(gateway, "GET", f"/attempts/{begun['attempt_id']}", user="bea")).status == 404
    assert (await begin(gateway, code="none")).status == 404
    assert (await staff(gateway, "PUT", "/readings/claims", {"roles": ["suport"]}, "lead")).status == 422
    assert (await staff(gateway, "PUT", "/readings/none", {"roles": ["support"]}, "lead")).status == 404
    assert (await staff(gateway, "PUT", "/readings/claims", {"roles": []})).status == 403
    assert (await put_quiz(gateway, article_id="other")).status == 422
    other = await staff(gateway, "PUT", "/quizzes/other", {**QUIZ, "article_id": "none"}, "lead")
    assert other.status == 404
    english = await put_quiz(gateway, languages={"en": QUESTIONS})
    assert (english.status, english.code) == (409, "article_outdated")
    await staff(gateway, "PUT", "/quizzes/second", QUIZ, "lead")
    busy = await begin(gateway, code="second")
    assert (busy.status, busy.code) == (409, "attempt_open")


async def test_terms_and_questions_are_those_of_the_beginning(
    gateway: TestGateway, clock: ShiftedClock, database_url: str
) -> None:
    await acknowledge(gateway, await open_training(gateway))
    begun = (await begin(gateway)).body
    other = [{"text": f"other {number}", "options": ["x", "good"], "right": [2]} for number in range(3)]
    await put_quiz(gateway, terms={**TERMS, "questions": 1, "pass_percent": 100}, languages={"zh": other})
    shown = await staff(gateway, "GET", f"/attempts/{begun['attempt_id']}")
    assert shown.body == begun
    assert (await submit(gateway, begun, right=2)).body["is_passed"]
    connection = await asyncpg.connect(database_url)
    with pytest.raises(asyncpg.RaiseError, match="never change"):
        await connection.execute("UPDATE quiz_versions SET questions = '[1]'")
    with pytest.raises(asyncpg.CheckViolationError):  # no certificate without the quiz
        await connection.execute("UPDATE quiz_attempts SET wrong = '{1,2,3}'")
    await connection.close()


@given(st.integers(0, 50), st.integers(1, 50), st.integers(1, 100))
def test_share_is_reached_exactly_and_never_with_nothing_right(right: int, count: int, percent: int) -> None:
    right = min(right, count)
    assert has_passed(right, count, percent) is (right > 0 and Fraction(right, count) >= Fraction(percent, 100))


def test_draw_follows_from_the_seed_and_keeps_right_options_right() -> None:
    questions = [
        QuizQuestion(text=f"q{number}", kind="several", options=["good", "bad", "good too"], right=[1, 3])
        for number in range(20)
    ]
    drawn = draw_questions(questions, 5, 42)
    assert drawn == draw_questions(questions, 5, 42)
    draws = [draw_questions(questions, 5, seed) for seed in range(200)]
    assert {question.text for draw in draws for question in draw} == {question.text for question in questions}
    assert len({tuple(question.options) for draw in draws for question in draw}) == 6
    for draw in draws:
        assert len({question.text for question in draw}) == 5
        right = [
            [number for number, option in enumerate(question.options, 1) if option.startswith("good")]
            for question in draw
        ]
        assert find_wrong(draw, right) == []
        assert find_wrong(draw, [[1, 2, 3]] * 5) == [1, 2, 3, 4, 5]


async def test_gateway_warns_at_its_start_of_a_certificate_without_a_quiz(
    gateway: TestGateway, make_settings: Callable[..., Settings], caplog: pytest.LogCaptureFixture
) -> None:
    settings = make_settings(support={"certificates": {"claims": "claims-basics"}})

    async def list_warnings() -> list[Any]:
        caplog.clear()
        async with open_gateway(settings):
            return [
                getattr(record, "quiz", "")
                for record in caplog.records
                if "certificate without a quiz" in record.message
            ]

    assert await list_warnings() == ["claims-basics"]
    await open_training(gateway)
    assert await list_warnings() == []
