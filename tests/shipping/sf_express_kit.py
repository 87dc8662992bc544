"""A shop's account at SF Express, a booking request, and a transport with prescribed responses."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl
from uuid import UUID, uuid4

from commerce.kernel.address import Address
from commerce.kernel.clock import to_ms
from commerce.kernel.external import ExternalOutcomeUnknown, HttpResponse
from commerce.kernel.money import Money
from commerce.shipping.carrier_port import BookingRequest, ContentLine
from commerce.shipping.carriers.sf_express import SfExpress, SfExpressAccount

NUMBER, OTHER_NUMBER = "SF7444400043266", "SF7444400031887"
CHECK_WORD, WEBHOOK_KEY = "Y7hH~mk*qfehpA2SxjBT0M0QY74Vk", "a-key-that-nobody-else-knows"
NOW = datetime(2026, 11, 11, 0, 0, 30, tzinfo=UTC)
BOOKING = UUID("018f2c4e-7b1a-7c3d-9e5f-0123456789ab")
ACCOUNT_SETTINGS = {
    "partner_id": "Y7hHmkqf",
    "check_word": CHECK_WORD,
    "monthly_card": "7551234567",
    "base_url": "https://sf.example/std/service",
    "webhook_key": WEBHOOK_KEY,
}
SENDER = Address("红茶仓", "+86 571-8888 0000", "CN", "杭州市", "文三路 1 号 *一楼*", "浙江省", "西湖区", "310000")
RECIPIENT = Address("张三 ~", "13925211148", "CN", "广州市", "湖北大厦 10 楼 & 2", "广东省", "白云区")


class FakeSfExpressClock:
    def now_ms(self) -> int:
        return to_ms(NOW)

    def monotonic(self) -> float:
        return 0.0

    async def sleep(self, seconds: float) -> None:
        raise AssertionError("an adapter does not wait")


class SfExpressRequest:
    """A request, decoded as SF Express decodes it."""

    def __init__(self, method: str, url: str, headers: Mapping[str, str], body: bytes) -> None:
        self.method, self.url, self.headers, self.body = method, url, headers, body
        pairs = parse_qsl(body.decode("ascii"), keep_blank_values=True, strict_parsing=True)
        self.form = dict(pairs)
        assert len(self.form) == len(pairs)
        self.service, self.message = self.form["serviceCode"], json.loads(self.form["msgData"])


class FakeSfExpressTransport:
    """Returns these responses, one after the other, and records the requests."""

    def __init__(self, *answers: HttpResponse | ExternalOutcomeUnknown) -> None:
        self.answers = list(answers)
        self.requests: list[SfExpressRequest] = []

    async def send(self, method: str, url: str, headers: Mapping[str, str], body: bytes = b"") -> HttpResponse:
        self.requests.append(SfExpressRequest(method, url, headers, body))
        answer = self.answers.pop(0)
        if isinstance(answer, ExternalOutcomeUnknown):
            raise answer
        return answer

    @property
    def services(self) -> list[str]:
        return [request.service.removeprefix("EXP_RECE_") for request in self.requests]


def account(**changed: str) -> SfExpressAccount:
    return SfExpressAccount.load(**ACCOUNT_SETTINGS | changed)


def make_adapter(
    *answers: HttpResponse | ExternalOutcomeUnknown, **changed: str
) -> tuple[SfExpress, FakeSfExpressTransport]:
    transport = FakeSfExpressTransport(*answers)
    return SfExpress(account(**changed), transport, FakeSfExpressClock()), transport


def http_response(content: Any, status: int = 200) -> HttpResponse:
    body = content if isinstance(content, bytes) else json.dumps(content, ensure_ascii=False).encode()
    return HttpResponse(status, {}, body)


def platform_response(result: Any, **envelope: Any) -> HttpResponse:
    """Make the platform's response around a service's result."""
    return http_response({"apiResultCode": "A1000", "apiErrorMsg": "", "apiResultData": json.dumps(result)} | envelope)


def success_response(content: Any) -> HttpResponse:
    return platform_response({"success": True, "errorCode": "S0000", "errorMsg": None, "msgData": content})


def error_response(code: str | int, detail: str = "不行") -> HttpResponse:
    return platform_response({"success": False, "errorCode": code, "errorMsg": detail, "msgData": None})


def order_result(**changed: Any) -> dict[str, Any]:
    """Make an order as in the sample of SF's documentation."""
    label = {"waybillNo": NUMBER, "destDeptCode": "710F", "destRouteLabel": "710VA-F", "errMsg": ""}
    return {
        "orderId": BOOKING.hex,
        "originCode": "719",
        "destCode": "710",
        "filterResult": 2,
        "remark": "",
        "url": None,
        "returnExtraInfoList": None,
        "waybillNoInfoList": [{"waybillType": 1, "waybillNo": NUMBER}],
        "routeLabelInfo": [{"code": "1000", "routeLabelData": label, "message": f"{NUMBER}:"}],
    } | changed


def route_entry(op_code: str, at: str = "2026-11-11 08:00:00", **changed: Any) -> dict[str, Any]:
    return {"acceptTime": at, "acceptAddress": "郑州市", "remark": "快件到达", "opCode": op_code} | changed


def routes_response(*routes: dict[str, Any], number: str = NUMBER) -> HttpResponse:
    return success_response({"routeResps": [{"mailNo": number, "routes": list(routes)}]})


def booking_request(**changed: Any) -> BookingRequest:
    fields: dict[str, Any] = {
        "booking_id": BOOKING,
        "order_id": uuid4(),
        "sender": SENDER,
        "recipient": RECIPIENT,
        "weight_g": 1_234,
        "length_mm": 405,
        "width_mm": 300,
        "height_mm": 200,
        "contents": [ContentLine("红茶杯", 2), ContentLine("茶 " * 100, 1)],
        "value": Money(5_100, "CNY"),
    }
    return BookingRequest(**fields | changed)


CALLS: dict[str, Callable[[SfExpress], Awaitable[Any]]] = {
    "book": lambda sf: sf.book(booking_request()),
    "find": lambda sf: sf.find_booking(BOOKING),
    "cancel": lambda sf: sf.cancel(BOOKING, None),
    "track": lambda sf: sf.fetch_tracking(NUMBER, RECIPIENT.phone),
}
"""each method that sends requests"""
