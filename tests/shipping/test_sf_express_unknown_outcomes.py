"""Answers that cannot be believed, that say too little or that nobody foresaw: nothing is made of them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from commerce.kernel.external import ExternalOutcomeUnknown, HttpResponse
from commerce.shipping.carriers.sf_express.status_map import ABSENT_CODES, BOOKING_REFUSALS, CANCELLED_CODES
from tests.shipping.sf_express_kit import (
    ACCOUNT_SETTINGS,
    BOOKING,
    CALLS,
    NUMBER,
    booking_request,
    error_response,
    http_response,
    make_adapter,
    order_result,
    platform_response,
    success_response,
)

DONE = {"success": True, "errorCode": "S0000", "errorMsg": None, "msgData": order_result()}
PLATFORM = ("A1001", "A1002", "A1003", "A1004", "A1005", "A1006", "A1007", "A1008", "A1009", "A1010", "A1011", "A1099")
UNUSABLE_ANSWERS: dict[str, HttpResponse | ExternalOutcomeUnknown] = {
    "no answer": ExternalOutcomeUnknown("POST https://sf.example/std/service: timed out"),
    "500": http_response({"apiResultCode": "A1000", "apiResultData": json.dumps(DONE)}, 500),
    "302": HttpResponse(302, {"location": "https://login.example"}, b""),
    "404": http_response(b"<html>not found</html>", 404),
    "empty": http_response(b""),
    "html": http_response(b"<html>busy</html>"),
    "not utf-8": http_response(b'{"apiResultCode": "\xff"}'),
    "deep": http_response(b'{"apiResultCode": ' + b"[" * 100_000),
    "list": http_response([]),
    "null": http_response(None),
    "no code": http_response({"apiResultData": json.dumps(DONE)}),
    "code is a number": http_response({"apiResultCode": 1000, "apiResultData": json.dumps(DONE)}),
    "unknown code": http_response({"apiResultCode": "B2000", "apiResultData": json.dumps(DONE)}),
    "no data": http_response({"apiResultCode": "A1000"}),
    "data is null": http_response({"apiResultCode": "A1000", "apiResultData": None}),
    "data is no text": http_response({"apiResultCode": "A1000", "apiResultData": DONE}),
    "data is no JSON": http_response({"apiResultCode": "A1000", "apiResultData": "ok"}),
    "data is a list": platform_response([]),
    "no success": platform_response({"errorCode": "S0000", "msgData": order_result()}),
    "success is null": platform_response(DONE | {"success": None}),
    "success is a number": platform_response(DONE | {"success": 1}),
    "success is another word": platform_response(DONE | {"success": "yes"}),
    "success with another code": platform_response(DONE | {"errorCode": "8016"}),
    "success without a code": platform_response(DONE | {"errorCode": None}),
    "failure with the code of a success": platform_response(DONE | {"success": False}),
    "failure without a code": platform_response(DONE | {"success": False, "errorCode": None}),
    "message is no text": platform_response(DONE | {"success": False, "errorCode": "8018", "errorMsg": {}}),
    "no content": platform_response({"success": True, "errorCode": "S0000"}),
    "content is null": success_response(None),
    "content is a text": success_response("SF7444400043266"),
    "system error": error_response("4001"),
    "system error as a number": error_response(4001),
    "parse error": error_response("4002"),
    "runtime error": error_response("S0003"),
    "closed for today": error_response("8096"),
    "unknown error": error_response("99999"),
}


@pytest.mark.parametrize("ask", CALLS)
@pytest.mark.parametrize("odd", UNUSABLE_ANSWERS)
async def test_odd_answers(ask: str, odd: str) -> None:
    answers = [UNUSABLE_ANSWERS[odd]] * (2 if ask == "cancel" else 1)
    adapter, transport = make_adapter(*answers)
    with pytest.raises(ExternalOutcomeUnknown) as error:
        await CALLS[ask](adapter)
    assert transport.answers == []
    assert ACCOUNT_SETTINGS["check_word"] not in str(error.value)


@pytest.mark.parametrize("code", PLATFORM)
async def test_what_the_platform_refuses_says_nothing_of_the_parcel(code: str) -> None:
    for name, ask in CALLS.items():
        said = platform_response(None, apiResultCode=code, apiErrorMsg="数字签名无效" * 100)
        adapter, _ = make_adapter(*[said] * (2 if name == "cancel" else 1))
        with pytest.raises(ExternalOutcomeUnknown, match=code) as error:
            await ask(adapter)
        assert len(str(error.value)) < 300


@pytest.mark.parametrize("code", sorted(BOOKING_REFUSALS | ABSENT_CODES | CANCELLED_CODES))
async def test_a_no_to_something_else_is_none(code: str) -> None:
    """A code is believed only of the services that say it: to refuse what was not asked for is no refusal."""
    if code not in BOOKING_REFUSALS:
        adapter, _ = make_adapter(error_response(code))
        with pytest.raises(ExternalOutcomeUnknown):
            await adapter.book(booking_request())
    if code not in ABSENT_CODES:
        adapter, _ = make_adapter(error_response(code), error_response(code))
        for name in ("find", "track"):
            with pytest.raises(ExternalOutcomeUnknown):
                await CALLS[name](adapter)
    if code not in ABSENT_CODES | CANCELLED_CODES:
        adapter, _ = make_adapter(error_response(code), error_response("8018"))
        with pytest.raises(ExternalOutcomeUnknown, match=code):
            await adapter.cancel(BOOKING, NUMBER)


@pytest.mark.parametrize("word", [True, "true"])
async def test_success_is_said_in_two_ways(word: Any) -> None:
    adapter, _ = make_adapter(platform_response(DONE | {"success": word}))
    assert (await adapter.book(booking_request())).tracking_no == NUMBER
    no = "false" if word == "true" else False
    adapter, _ = make_adapter(platform_response(DONE | {"success": no, "errorCode": 8018, "msgData": None}))
    assert await adapter.find_booking(BOOKING) is None
