"""Simulated carriers inside a test, with a client of each and a shop that receives webhooks.

The clock is moved by hand. The clients are written from the carriers' documents, not from the shop's adapters.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import AsyncIterator, Iterator, Sequence
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
from ops.sandbox.faults import CarrierFaults, FaultRegistry, ProviderFaultRegistry, ScenarioStep
from ops.sandbox.keys import MerchantIds
from ops.sandbox.payment_store import PaymentStore
from ops.sandbox.server import build_app, run_providers
from ops.sandbox.shipment_store import ShipmentStore
from ops.sandbox.webhook_sender import SenderSettings
from tests.support.sales import eventually

IDS = MerchantIds(
    **dict.fromkeys(MerchantIds.__struct_fields__, "")
    | {
        "sf_express_partner_id": "PARTNER",
        "sf_express_check_word": "check~word*",
        "sf_express_monthly_card": "7551234567",
        "sf_express_webhook_key": "webhook/key+",
        "kuaidi100_customer": "CUSTOMER",
        "kuaidi100_key": "key",
        "kuaidi100_salt": "salt",
    }
)
ORDERS = [f"{number:032x}" for number in range(200)]
HOUR_MS = 3_600_000


class FakeCarrierClock(SystemClock):
    """A clock that is moved by hand."""

    ms = 1_800_000_000_000

    def now_ms(self) -> int:
        return self.ms


def encode_like_java(text: str) -> str:
    """Return the text as Java's URLEncoder.encode writes it."""
    return quote_plus(text, safe="*").replace("~", "%7E")


class SfExpressClient:
    """A customer of SF's open platform."""

    def __init__(self, http: aiohttp.ClientSession | TestClient[Any, Any], base: str, ids: MerchantIds = IDS) -> None:
        self._http = http
        self._url = f"{base}/sf_express/std/service"
        self._ids = ids

    def build_form(self, service: str, message: object) -> dict[str, str]:
        data, now = json.dumps(message, ensure_ascii=False), "1800000000000"
        digest = hashlib.md5(encode_like_java(data + now + self._ids.sf_express_check_word).encode()).digest()
        return {
            "partnerID": self._ids.sf_express_partner_id,
            "requestID": "r1",
            "serviceCode": service,
            "timestamp": now,
            "msgDigest": base64.b64encode(digest).decode(),
            "msgData": data,
        }

    async def send(self, form: dict[str, str]) -> dict[str, Any]:
        async with self._http.post(self._url, data=form) as response:
            assert response.status == 200, await response.text()
            document: dict[str, Any] = await response.json()
        return document

    async def call(self, service: str, **message: object) -> dict[str, Any]:
        document = await self.send(self.build_form(f"EXP_RECE_{service}", message))
        assert document["apiResultCode"] == "A1000", document
        result: dict[str, Any] = json.loads(document["apiResultData"])
        return result

    def build_order(self, order_no: str, **fields: object) -> dict[str, Any]:
        sender = {"contactType": 1, "contact": "a", "mobile": "15685585514", "city": "杭州市", "address": "a 1"}
        receiver = {"contactType": 2, "contact": "b*~", "mobile": "19292082784", "city": "上海市", "address": "b + 2"}
        order = {"orderId": order_no, "monthlyCard": self._ids.sf_express_monthly_card}
        return {**order, "contactInfoList": [sender, receiver], "cargoDetails": [{"name": "茶", "count": 1}], **fields}

    async def book(self, order_no: str = ORDERS[0]) -> str:
        """Book a shipment and return its tracking number."""
        result = await self.call("CREATE_ORDER", **self.build_order(order_no))
        assert result["success"], result
        [waybill] = result["msgData"]["waybillNoInfoList"]
        assert waybill["waybillType"] == 1
        return str(waybill["waybillNo"])

    async def fetch_routes(self, tracking_no: str, **fields: object) -> list[dict[str, str]]:
        result = await self.call("SEARCH_ROUTES", trackingType="1", trackingNumber=[tracking_no], **fields)
        [response] = result["msgData"]["routeResps"]
        assert response["mailNo"] == tracking_no
        return list(response["routes"])


class Kuaidi100Client:
    """A customer of kuaidi100."""

    def __init__(
        self, http: aiohttp.ClientSession | TestClient[Any, Any], base: str, webhook_url: str, ids: MerchantIds = IDS
    ) -> None:
        self._http = http
        self._base = f"{base}/kuaidi100"
        self._webhook_url = webhook_url
        self._ids = ids

    async def subscribe(self, number: str, company: str = "yuantong", **fields: str) -> dict[str, Any]:
        parameters = {"callbackurl": self._webhook_url, "salt": self._ids.kuaidi100_salt, "resultv2": "4"}
        param = {"company": company, "number": number, "key": self._ids.kuaidi100_key, "parameters": parameters}
        form = {"schema": "json", "param": json.dumps(param | fields)}
        async with self._http.post(f"{self._base}/poll", data=form) as response:
            document: dict[str, Any] = await response.json()
        return document

    async def query(self, number: str, sign: str | None = None, **fields: str) -> dict[str, Any]:
        param = json.dumps({"com": "yuantong", "num": number, "resultv2": "4", **fields})
        right_sign = hash_md5(param + self._ids.kuaidi100_key + self._ids.kuaidi100_customer)
        form = {"customer": self._ids.kuaidi100_customer, "sign": sign or right_sign, "param": param}
        async with self._http.post(f"{self._base}/poll/query.do", data=form) as response:
            document: dict[str, Any] = await response.json()
        return document


def hash_md5(text: str) -> str:
    return hashlib.md5(text.encode()).hexdigest().upper()


class ReceivedWebhook(NamedTuple):
    """A webhook that the shop received."""

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
    def param(self) -> dict[str, Any]:
        return dict(json.loads(self.form["param"]))

    @property
    def is_genuine(self) -> bool:
        if self.carrier == "sf_express":
            return self.key == IDS.sf_express_webhook_key
        return self.form["sign"] == hash_md5(self.form["param"] + IDS.kuaidi100_salt)


ACCEPTED = {
    "sf_express": {"return_code": "0000", "return_msg": "成功"},
    "kuaidi100": {"result": True, "returnCode": "200", "message": "ok"},
}
REFUSED = {
    "sf_express": {"return_code": "1000", "return_msg": "no"},
    "kuaidi100": {"result": False, "returnCode": "500", "message": "no"},
}


@dataclass
class WebhookReceiver:
    """A shop that refuses one webhook for each item of `refusals`, and then accepts."""

    received: list[ReceivedWebhook] = field(default_factory=list)
    refusals: Iterator[object] = field(default_factory=lambda: iter(()))
    url: str = ""

    @asynccontextmanager
    async def listen(self, port: int | None = None) -> AsyncIterator[WebhookReceiver]:
        app = web.Application()
        app.router.add_post("/v1/webhooks/carriers/{system}", self._receive)
        async with TestServer(app, port=port) as server:
            self.url = str(server.make_url("")).rstrip("/")
            yield self

    async def _receive(self, request: web.Request) -> web.Response:
        system = request.match_info["system"]
        self.received.append(ReceivedWebhook(system, request.query.get("key", ""), await request.read()))
        return web.json_response(next((REFUSED for _ in self.refusals), ACCEPTED)[system])

    def list_codes(self) -> list[str]:
        """Return the codes of SF's routes in the order of arrival."""
        return [webhook.route["opCode"] for webhook in self.received]


@dataclass
class CarrierKit:
    """Simulated carriers, their clients and the shop."""

    carriers: SimulatedCarriers
    clock: FakeCarrierClock
    http: TestClient[web.Request, web.Application]
    sf: SfExpressClient
    kuaidi100: Kuaidi100Client
    receiver: WebhookReceiver

    def advance(self, hours: float) -> None:
        """Move the clock forward."""
        self.clock.ms += int(hours * HOUR_MS)
        self.carriers.simulator.wake.set()

    async def run_to_end(self) -> list[ReceivedWebhook]:
        """Move the clock step by step until every shipment has ended, and return the webhooks."""
        while (next_ms := self.carriers.simulator.find_next_due_ms()) is not None:
            self.clock.ms = max(next_ms, self.clock.ms)
            self.carriers.simulator.wake.set()
            await self.wait_until_idle()
        return self.receiver.received

    async def wait_until_idle(self) -> None:
        """Wait until no step and no webhook is due."""

        async def is_idle() -> bool:
            now_ms, next_ms = self.clock.ms, self.carriers.simulator.find_next_due_ms()
            has_due_step = next_ms is not None and next_ms <= now_ms
            return not has_due_step and not self.carriers.shipment_store.list_due_webhooks(now_ms, 1)

        await eventually(is_idle)

    def set_faults(self, **faults: Any) -> None:
        """Set the faults of all carriers; webhooks are sent at once."""
        for name in CARRIERS:
            self.carriers.simulator.set_faults(name, CarrierFaults(**{"webhook_delay_ms": 0, **faults}))

    async def wait_for_state(self, tracking_no: str, state: str) -> None:
        async def is_reached() -> bool:
            return self.carriers.shipment_store.get(tracking_no).state == state

        await eventually(is_reached)

    async def wait_until_sent(self) -> list[ReceivedWebhook]:
        """Wait until no webhook is left to be sent, and return those received."""

        async def is_sent() -> bool:
            return all(self.totals(name)["open_webhooks"] == 0 for name in CARRIERS)

        await eventually(is_sent)
        return self.receiver.received

    def totals(self, carrier: str) -> dict[str, int]:
        return self.carriers.shipment_store.totals(carrier)

    def list_steps(self, tracking_no: str) -> list[str]:
        shipment = self.carriers.shipment_store.get(tracking_no)
        return [event.step for event in self.carriers.shipment_store.list_events(shipment.carrier, tracking_no)]


@asynccontextmanager
async def open_carrier_kit(
    receiver: WebhookReceiver,
    file: Path | str = ":memory:",
    fault_registry: FaultRegistry[CarrierFaults] | None = None,
    clock: FakeCarrierClock | None = None,
    scenario: Sequence[ScenarioStep] = (),
    time_factor: int = 1,
    **settings: Any,
) -> AsyncIterator[CarrierKit]:
    """Run carriers in this process, without faults and with immediate webhooks.

    `settings` are those of the webhook sender.
    """
    sender_settings = SenderSettings(timeout_s=2, max_retry_wait_s=0, **settings)
    clock = clock or FakeCarrierClock()
    if fault_registry is None:
        fault_registry = FaultRegistry(CarrierFaults)
        for name in CARRIERS:
            fault_registry.set(name, CarrierFaults(webhook_delay_ms=0))
    with closing(PaymentStore()) as payment_store, closing(ShipmentStore(file)) as shipment_store:
        create_protocols = partial(carrier_protocols, shipment_store, fault_registry, IDS, receiver.url)
        async with (
            run_providers(
                payment_store, clock, ProviderFaultRegistry(), sender_settings, lambda simulator: []
            ) as sandbox,
            run_carriers(
                shipment_store,
                clock,
                fault_registry,
                sender_settings,
                create_protocols,
                time_factor,
                sandbox.stop_on_failure,
                scenario,
            ) as carriers,
            TestClient(TestServer(build_app(sandbox, carriers))) as http,
        ):
            webhook_url = f"{receiver.url}/v1/webhooks/carriers/kuaidi100"
            yield CarrierKit(
                carriers=carriers,
                clock=clock,
                http=http,
                sf=SfExpressClient(http, ""),
                kuaidi100=Kuaidi100Client(http, "", webhook_url),
                receiver=receiver,
            )
