"""Answers that cannot be believed, that say too little or that nobody foresaw: nothing is made of them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from commerce.kernel.external import ExternalOutcomeUnknown, HttpResponse
from commerce.shipping.carriers.sf_express.status_map import ABSENT, CANCELLED, NOT_BOOKED
from tests.shipping.sf_express_kit import (
    AGREED,
    ASK,
    BOOKING,
    NUMBER,
    asking,
    bad,
    good,
    http,
    order,
    parcel,
    passed_on,
)

DONE = {"success": True, "errorCode": "S0000", "errorMsg": None, "msgData": order()}
PLATFORM = ("A1001", "A1002", "A1003", "A1004", "A1005", "A1006", "A1007", "A1008", "A1009", "A1010", "A1011", "A1099")
ODD: dict[str, HttpResponse | ExternalOutcomeUnknown] = {
    "no answer": ExternalOutcomeUnknown("POST https://sf.example/std/service: timed out"),
    "500": http({"apiResultCode": "A1000", "apiResultData": json.dumps(DONE)}, 500),
    "302": HttpResponse(302, {"location": "https://login.example"}, b""),
    "404": http(b"<html>not found</html>", 404),
    "empty": http(b""),
    "html": http(b"<html>busy</html>"),
    "not utf-8": http(b'{"apiResultCode": "\xff"}'),
    "deep": http(b'{"apiResultCode": ' + b"[" * 100_000),
    "list": http([]),
    "null": http(None),
    "no code": http({"apiResultData": json.dumps(DONE)}),
    "code is a number": http({"apiResultCode": 1000, "apiResultData": json.dumps(DONE)}),
    "unknown code": http({"apiResultCode": "B2000", "apiResultData": json.dumps(DONE)}),
    "no data": http({"apiResultCode": "A1000"}),
    "data is null": http({"apiResultCode": "A1000", "apiResultData": None}),
    "data is no text": http({"apiResultCode": "A1000", "apiResultData": DONE}),
    "data is no JSON": http({"apiResultCode": "A1000", "apiResultData": "ok"}),
    "data is a list": passed_on([]),
    "no success": passed_on({"errorCode": "S0000", "msgData": order()}),
    "success is null": passed_on(DONE | {"success": None}),
    "success is a number": passed_on(DONE | {"success": 1}),
    "success is another word": passed_on(DONE | {"success": "yes"}),
    "success with another code": passed_on(DONE | {"errorCode": "8016"}),
    "success without a code": passed_on(DONE | {"errorCode": None}),
    "failure with the code of a success": passed_on(DONE | {"success": False}),
    "failure without a code": passed_on(DONE | {"success": False, "errorCode": None}),
    "message is no text": passed_on(DONE | {"success": False, "errorCode": "8018", "errorMsg": {}}),
    "no content": passed_on({"success": True, "errorCode": "S0000"}),
    "content is null": good(None),
    "content is a text": good("SF7444400043266"),
    "system error": bad("4001"),
    "system error as a number": bad(4001),
    "parse error": bad("4002"),
    "runtime error": bad("S0003"),
    "closed for today": bad("8096"),
    "unknown error": bad("99999"),
}


@pytest.mark.parametrize("ask", ASK)
@pytest.mark.parametrize("odd", ODD)
async def test_odd_answers(ask: str, odd: str) -> None:
    answers = [ODD[odd]] * (2 if ask == "cancel" else 1)
    adapter, outside = asking(*answers)
    with pytest.raises(ExternalOutcomeUnknown) as why:
        await ASK[ask](adapter)
    assert outside.answers == []
    assert AGREED["check_word"] not in str(why.value)


@pytest.mark.parametrize("code", PLATFORM)
async def test_what_the_platform_refuses_says_nothing_of_the_parcel(code: str) -> None:
    for name, ask in ASK.items():
        said = passed_on(None, apiResultCode=code, apiErrorMsg="数字签名无效" * 100)
        adapter, _ = asking(*[said] * (2 if name == "cancel" else 1))
        with pytest.raises(ExternalOutcomeUnknown, match=code) as why:
            await ask(adapter)
        assert len(str(why.value)) < 300


@pytest.mark.parametrize("code", sorted(NOT_BOOKED | ABSENT | CANCELLED))
async def test_a_no_to_something_else_is_none(code: str) -> None:
    """A code is believed only of the services that say it: to refuse what was not asked for is no refusal."""
    if code not in NOT_BOOKED:
        adapter, _ = asking(bad(code))
        with pytest.raises(ExternalOutcomeUnknown):
            await adapter.book(parcel())
    if code not in ABSENT:
        adapter, _ = asking(bad(code), bad(code))
        for name in ("find", "track"):
            with pytest.raises(ExternalOutcomeUnknown):
                await ASK[name](adapter)
    if code not in ABSENT | CANCELLED:
        adapter, _ = asking(bad(code), bad("8018"))
        with pytest.raises(ExternalOutcomeUnknown, match=code):
            await adapter.cancel(BOOKING, NUMBER)


@pytest.mark.parametrize("word", [True, "true"])
async def test_success_is_said_in_two_ways(word: Any) -> None:
    adapter, _ = asking(passed_on(DONE | {"success": word}))
    assert (await adapter.book(parcel())).tracking_no == NUMBER
    no = "false" if word == "true" else False
    adapter, _ = asking(passed_on(DONE | {"success": no, "errorCode": 8018, "msgData": None}))
    assert await adapter.find_booking(BOOKING) is None
