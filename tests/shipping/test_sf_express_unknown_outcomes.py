"""Unusable, incomplete and unknown responses of SF Express: the outcome is unknown."""

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

SUCCESS = {"success": True, "errorCode": "S0000", "errorMsg": None, "msgData": order_result()}
PLATFORM = ("A1001", "A1002", "A1003", "A1004", "A1005", "A1006", "A1007", "A1008", "A1009", "A1010", "A1011", "A1099")
UNUSABLE_RESPONSES: dict[str, HttpResponse | ExternalOutcomeUnknown] = {
    "no answer": ExternalOutcomeUnknown("POST https://sf.example/std/service: timed out"),
    "500": http_response({"apiResultCode": "A1000", "apiResultData": json.dumps(SUCCESS)}, 500),
    "302": HttpResponse(302, {"location": "https://login.example"}, b""),
    "404": http_response(b"<html>not found</html>", 404),
    "empty": http_response(b""),
    "html": http_response(b"<html>busy</html>"),
    "not utf-8": http_response(b'{"apiResultCode": "\xff"}'),
    "deep": http_response(b'{"apiResultCode": ' + b"[" * 100_000),
    "list": http_response([]),
    "null": http_response(None),
    "no code": http_response({"apiResultData": json.dumps(SUCCESS)}),
    "code is a number": http_response({"apiResultCode": 1000, "apiResultData": json.dumps(SUCCESS)}),
    "unknown code": http_response({"apiResultCode": "B2000", "apiResultData": json.dumps(SUCCESS)}),
    "no data": http_response({"apiResultCode": "A1000"}),
    "data is null": http_response({"apiResultCode": "A1000", "apiResultData": None}),
    "data is no text": http_response({"apiResultCode": "A1000", "apiResultData": SUCCESS}),
    "data is no JSON": http_response({"apiResultCode": "A1000", "apiResultData": "ok"}),
    "data is a list": platform_response([]),
    "no success": platform_response({"errorCode": "S0000", "msgData": order_result()}),
    "success is null": platform_response(SUCCESS | {"success": None}),
    "success is a number": platform_response(SUCCESS | {"success": 1}),
    "success is another word": platform_response(SUCCESS | {"success": "yes"}),
    "success with another code": platform_response(SUCCESS | {"errorCode": "8016"}),
    "success without a code": platform_response(SUCCESS | {"errorCode": None}),
    "failure with the code of a success": platform_response(SUCCESS | {"success": False}),
    "failure without a code": platform_response(SUCCESS | {"success": False, "errorCode": None}),
    "message is no text": platform_response(SUCCESS | {"success": False, "errorCode": "8018", "errorMsg": {}}),
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


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("name", UNUSABLE_RESPONSES)
async def test_unusable_reply_is_an_unknown_outcome(call: str, name: str) -> None:
    responses = [UNUSABLE_RESPONSES[name]] * (2 if call == "cancel" else 1)
    adapter, transport = make_adapter(*responses)
    with pytest.raises(ExternalOutcomeUnknown) as error:
        await CALLS[call](adapter)
    assert transport.answers == []
    assert ACCOUNT_SETTINGS["check_word"] not in str(error.value)


@pytest.mark.parametrize("code", PLATFORM)
async def test_platform_error_is_an_unknown_outcome(code: str) -> None:
    for name, call in CALLS.items():
        response = platform_response(None, apiResultCode=code, apiErrorMsg="数字签名无效" * 100)
        adapter, _ = make_adapter(*[response] * (2 if name == "cancel" else 1))
        with pytest.raises(ExternalOutcomeUnknown, match=code) as error:
            await call(adapter)
        assert len(str(error.value)) < 300


@pytest.mark.parametrize("code", sorted(BOOKING_REFUSALS | ABSENT_CODES | CANCELLED_CODES))
async def test_refusal_code_of_another_service_is_an_unknown_outcome(code: str) -> None:
    """A refusal code counts only in the reply of a service that documents it."""
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
async def test_success_is_read_as_boolean_and_as_text(word: Any) -> None:
    adapter, _ = make_adapter(platform_response(SUCCESS | {"success": word}))
    assert (await adapter.book(booking_request())).tracking_no == NUMBER
    failure = "false" if word == "true" else False
    adapter, _ = make_adapter(platform_response(SUCCESS | {"success": failure, "errorCode": 8018, "msgData": None}))
    assert await adapter.find_booking(BOOKING) is None
