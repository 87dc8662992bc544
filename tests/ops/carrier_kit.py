"""The sandbox's carriers inside a test, on a clock that is moved by hand; small clients of both, and a shop that gets
their pushes. Written from the carriers' documents, not from the shop's adapters."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs, quote_plus

import aiohttp
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from commerce.kernel.clock import SystemClock
from ops.sandbox.carriers import CARRIERS, SimulatedCarriers, carrier_protocols, run_carriers
from ops.sandbox.faults import CarrierFaults, FaultRegistry, ProviderFaultRegistry, Step
from ops.sandbox.keys import MerchantIds
from ops.sandbox.payment_store import PaymentStore
from ops.sandbox.server import build, running
from ops.sandbox.shipment_store import ShipmentStore
from ops.sandbox.webhook_sender import Sending
from tests.support.sales import eventually

IDS = MerchantIds(
    **dict.fromkeys(MerchantIds.__struct_fields__, "")
    | {
        "sf_express_partner_id": "PARTNER",
        "sf_express_check_word": "check~word*",
        "sf_express_monthly_card": "7551234567",
        "sf_express_webhook_key": "push/key+",
        "kuaidi100_customer": "CUSTOMER",
        "kuaidi100_key": "key",
        "kuaidi100_salt": "salt",
    }
)
ORDERS = [f"{number:032x}" for number in range(200)]
HOUR_MS = 3_600_000


class FakeCarrierClock(SystemClock):
    """Moved by hand."""

    ms = 1_800_000_000_000

    def now_ms(self) -> int:
        return self.ms


def java_encoded(text: str) -> str:
    """As URLEncoder.encode does it."""
    return quote_plus(text, safe="*").replace("~", "%7E")


class SfExpressClient:
    """A customer of SF's open platform."""

    def __init__(self, http: aiohttp.ClientSession | TestClient[Any, Any], base: str, ids: MerchantIds = IDS) -> None:
        self._http = http
        self._url = f"{base}/sf_express/std/service"
        self._ids = ids

    def form(self, service: str, message: object) -> dict[str, str]:
        data, now = json.dumps(message, ensure_ascii=False), "1800000000000"
        digest = hashlib.md5(java_encoded(data + now + self._ids.sf_express_check_word).encode()).digest()
        return {
            "partnerID": self._ids.sf_express_partner_id,
            "requestID": "r1",
            "serviceCode": service,
            "timestamp": now,
            "msgDigest": base64.b64encode(digest).decode(),
            "msgData": data,
        }

    async def send(self, form: dict[str, str]) -> dict[str, Any]:
        async with self._http.post(self._url, data=form) as answer:
            assert answer.status == 200, await answer.text()
            told: dict[str, Any] = await answer.json()
        return told

    async def call(self, service: str, **message: object) -> dict[str, Any]:
        told = await self.send(self.form(f"EXP_RECE_{service}", message))
        assert told["apiResultCode"] == "A1000", told
        found: dict[str, Any] = json.loads(told["apiResultData"])
        return found

    def order(self, order_no: str, **more: object) -> dict[str, Any]:
        sender = {"contactType": 1, "contact": "a", "mobile": "15685585514", "city": "杭州市", "address": "a 1"}
        receiver = {"contactType": 2, "contact": "b*~", "mobile": "19292082784", "city": "上海市", "address": "b + 2"}
        order = {"orderId": order_no, "monthlyCard": self._ids.sf_express_monthly_card}
        return {**order, "contactInfoList": [sender, receiver], "cargoDetails": [{"name": "茶", "count": 1}], **more}

    async def book(self, order_no: str = ORDERS[0]) -> str:
        """The parcel's number."""
        told = await self.call("CREATE_ORDER", **self.order(order_no))
        assert told["success"], told
        [waybill] = told["msgData"]["waybillNoInfoList"]
        assert waybill["waybillType"] == 1
        return str(waybill["waybillNo"])

    async def tracked(self, number: str, **more: object) -> list[dict[str, str]]:
        told = await self.call("SEARCH_ROUTES", trackingType="1", trackingNumber=[number], **more)
        [found] = told["msgData"]["routeResps"]
        assert found["mailNo"] == number
        return list(found["routes"])


class Kuaidi100Client:
    """A customer of kuaidi100."""

    def __init__(
        self, http: aiohttp.ClientSession | TestClient[Any, Any], base: str, callback: str, ids: MerchantIds = IDS
    ) -> None:
        self._http = http
        self._base = f"{base}/kuaidi100"
        self._callback = callback
        self._ids = ids

    async def follow(self, number: str, company: str = "yuantong", **more: str) -> dict[str, Any]:
        parameters = {"callbackurl": self._callback, "salt": self._ids.kuaidi100_salt, "resultv2": "4"}
        asked = {"company": company, "number": number, "key": self._ids.kuaidi100_key, "parameters": parameters, **more}
        async with self._http.post(f"{self._base}/poll", data={"schema": "json", "param": json.dumps(asked)}) as answer:
            told: dict[str, Any] = await answer.json()
        return told

    async def query(self, number: str, sign: str | None = None, **more: str) -> dict[str, Any]:
        param = json.dumps({"com": "yuantong", "num": number, "resultv2": "4", **more})
        good = md5(param + self._ids.kuaidi100_key + self._ids.kuaidi100_customer)
        form = {"customer": self._ids.kuaidi100_customer, "sign": sign or good, "param": param}
        async with self._http.post(f"{self._base}/poll/query.do", data=form) as answer:
            told: dict[str, Any] = await answer.json()
        return told


def md5(text: str) -> str:
    return hashlib.md5(text.encode()).hexdigest().upper()


class ReceivedWebhook(NamedTuple):
    """What the shop got."""

    carrier: str
    key: str
    body: bytes

    @property
    def route(self) -> dict[str, str]:
        [route] = json.loads(self.body)["Body"]["WaybillRoute"]
        return dict(route)

    @property
    def form(self) -> dict[str, str]:
        return {name: value for name, [value] in parse_qs(self.body.decode()).items()}

    @property
    def told(self) -> dict[str, Any]:
        return dict(json.loads(self.form["param"]))

    @property
    def is_genuine(self) -> bool:
        if self.carrier == "sf_express":
            return self.key == IDS.sf_express_webhook_key
        return self.form["sign"] == md5(self.form["param"] + IDS.kuaidi100_salt)


GOOD = {
    "sf_express": {"return_code": "0000", "return_msg": "成功"},
    "kuaidi100": {"result": True, "returnCode": "200", "message": "ok"},
}
BAD = {
    "sf_express": {"return_code": "1000", "return_msg": "no"},
    "kuaidi100": {"result": False, "returnCode": "500", "message": "no"},
}


@dataclass
class WebhookReceiver:
    """The shop: it says no as long as `refusals` has something, and then yes."""

    got: list[ReceivedWebhook] = field(default_factory=list)
    refusals: Iterator[object] = field(default_factory=lambda: iter(()))
    url: str = ""

    @asynccontextmanager
    async def listening(self, port: int | None = None) -> AsyncIterator[WebhookReceiver]:
        app = web.Application()
        app.router.add_post("/v1/webhooks/carriers/{system}", self._notify)
        async with TestServer(app, port=port) as server:
            self.url = str(server.make_url("")).rstrip("/")
            yield self

    async def _notify(self, request: web.Request) -> web.Response:
        carrier = request.match_info["carrier"]
        self.got.append(ReceivedWebhook(carrier, request.query.get("key", ""), await request.read()))
        return web.json_response(next((BAD for _ in self.refusals), GOOD)[carrier])

    def codes(self) -> list[str]:
        """Of SF's routes, as they came."""
        return [push.route["opCode"] for push in self.got]


@dataclass
class CarrierKit:
    """Carriers, their clients and the shop."""

    carriers: SimulatedCarriers
    clock: FakeCarrierClock
    http: TestClient[web.Request, web.Application]
    sf: SfExpressClient
    kuaidi100: Kuaidi100Client
    receiver: WebhookReceiver

    def jump(self, hours: float) -> None:
        self.clock.ms += int(hours * HOUR_MS)
        self.carriers.courier.wake.set()

    async def live(self) -> list[ReceivedWebhook]:
        """Until no parcel moves any more, step by step; what the shop has got then."""
        while (next_ms := self.carriers.courier.next_ms()) is not None:
            self.clock.ms = max(next_ms, self.clock.ms)
            self.carriers.courier.wake.set()
            await self.settled()
        return self.receiver.got

    async def settled(self) -> None:
        """All that is due has happened."""

        async def look() -> bool:
            now_ms, next_ms = self.clock.ms, self.carriers.courier.next_ms()
            return (next_ms is None or next_ms > now_ms) and not self.carriers.depot.due(now_ms, 1)

        await eventually(look)

    def switch(self, **switches: Any) -> None:
        for name in CARRIERS:
            self.carriers.courier.switch(name, CarrierFaults(**{"push_ms": 0, **switches}))

    async def state(self, number: str, wanted: str) -> None:
        await eventually(lambda: self._is(number, wanted))

    async def _is(self, number: str, wanted: str) -> bool:
        return self.carriers.depot.find(number).state == wanted

    async def all_sent(self) -> list[ReceivedWebhook]:
        """What the shop has got when nothing is left to be sent."""

        async def look() -> bool:
            return all(self.books(name)["open_pushes"] == 0 for name in CARRIERS)

        await eventually(look)
        return self.receiver.got

    def books(self, carrier: str) -> dict[str, int]:
        return self.carriers.depot.books(carrier)

    def steps(self, number: str) -> list[str]:
        parcel = self.carriers.depot.find(number)
        return [event.step for event in self.carriers.depot.events(parcel.carrier, number)]


@asynccontextmanager
async def open_carrier_kit(
    receiver: WebhookReceiver,
    file: Path | str = ":memory:",
    board: FaultRegistry[CarrierFaults] | None = None,
    clock: FakeCarrierClock | None = None,
    scenario: Sequence[Step] = (),
    speed: int = 1,
    **more: Any,
) -> AsyncIterator[CarrierKit]:
    """Carriers in this process, which behave well and push at once; `more` says how pushes are sent."""
    sending, clock = Sending(timeout_s=2, longest_wait_s=0, **more), clock or FakeCarrierClock()
    if board is None:
        board = FaultRegistry(CarrierFaults)
        for name in CARRIERS:
            board.set(name, CarrierFaults(push_ms=0))
    nobody: Callable[[object], list[Any]] = lambda plans: []  # noqa: E731
    with closing(PaymentStore()) as bank, closing(ShipmentStore(file)) as depot:
        make = partial(carrier_protocols, depot, board, IDS, receiver.url)
        async with (
            running(bank, clock, ProviderFaultRegistry(), sending, nobody) as sandbox,
            run_carriers(depot, clock, board, sending, make, speed, sandbox.over, scenario) as carriers,
            TestClient(TestServer(build(sandbox, carriers))) as http,
        ):
            callback = f"{receiver.url}/v1/webhooks/carriers/kuaidi100"
            yield CarrierKit(
                carriers, clock, http, SfExpressClient(http, ""), Kuaidi100Client(http, "", callback), receiver
            )
