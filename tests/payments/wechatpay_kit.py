"""A merchant and the simulated WeChat Pay, with a key each, on a clock that tests move."""

from __future__ import annotations

import asyncio
import time
from base64 import b64encode
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cache
from typing import Any
from uuid import UUID, uuid4

import aiohttp
import msgspec
from aiohttp import web
from aiohttp.test_utils import TestServer
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from commerce.kernel.clock import from_ms
from commerce.kernel.external import HttpResponse
from commerce.kernel.money import Money
from commerce.payments.provider_port import PaymentFlow, PaymentRequest, RefundRequest
from commerce.payments.providers.wechatpay.adapter import WeChatPay
from commerce.payments.providers.wechatpay.settings import WeChatPayAccount
from commerce.payments.providers.wechatpay.wire import sign, signing_text
from ops.sandbox.payment_store import DuePaymentWebhook, PaymentStore, SimulatedRefund, SimulatedTrade
from ops.sandbox.protocol import SignedWebhook
from ops.sandbox.wechatpay import WeChatPaySandbox, make_certificate
from tests.support.http_transport import SessionTransport

APP_ID, MCH_ID, SERIAL, API_V3_KEY = "wx8888888888888888", "1900000109", "5F" * 20, "0123456789abcdef" * 2
PUBLIC_KEY_ID = "PUB_KEY_ID_0119000001092024"
NOTIFY_URL = "https://shop.example/v1/webhooks/payments/wechatpay"
DAY = timedelta(days=1)


@cache
def key(name: str) -> RSAPrivateKey:
    """Return the key of a name, the same for all tests, because generating one takes long."""
    return generate_private_key(public_exponent=65_537, key_size=2_048)


def private_pem(name: str) -> str:
    return key(name).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def public_pem(name: str) -> str:
    return key(name).public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


class FakeWeChatPayClock:
    """A clock that stands still at the real time, since the SDK under comparison uses the real time."""

    def __init__(self) -> None:
        self.ms = time.time_ns() // 1_000_000

    def now_ms(self) -> int:
        return self.ms

    def monotonic(self) -> float:
        return self.ms / 1_000

    async def sleep(self, seconds: float) -> None:
        self.ms += int(seconds * 1_000)
        await asyncio.sleep(0)

    @property
    def now(self) -> datetime:
        return from_ms(self.ms)


def account(base_url: str = "http://127.0.0.1:1", **changes: str) -> WeChatPayAccount:
    settings = {
        "app_id": APP_ID,
        "mch_id": MCH_ID,
        "serial": SERIAL,
        "private_key": private_pem("merchant"),
        "api_v3_key": API_V3_KEY,
        "base_url": base_url,
        "notify_url": NOTIFY_URL,
    }
    return WeChatPayAccount.load(**settings | changes)


def with_public_key(base_url: str = "http://127.0.0.1:1") -> WeChatPayAccount:
    return account(base_url, public_key=public_pem("platform"), public_key_id=PUBLIC_KEY_ID)


@dataclass
class WeChatPayKit:
    """The sandbox, the adapter, and what the sandbox received; `calls` holds the requested paths."""

    clock: FakeWeChatPayClock
    payment_store: PaymentStore
    sandbox: WeChatPaySandbox
    adapter: WeChatPay
    transport: SessionTransport
    url: str
    certificate: str
    trades: list[SimulatedTrade] = field(default_factory=list)
    refunds: list[SimulatedRefund] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)

    def pay(self, payment_id: UUID) -> SimulatedTrade:
        return self.payment_store.pay("wechatpay", payment_id.hex, self.clock.now_ms())

    def webhook(
        self, trade: SimulatedTrade, refund: SimulatedRefund | None = None, wrong: str | None = None
    ) -> SignedWebhook:
        return self.sandbox.build_webhook(due_webhook(trade, refund, wrong), trade, refund)


def due_webhook(
    trade: SimulatedTrade, refund: SimulatedRefund | None = None, wrong: str | None = None
) -> DuePaymentWebhook:
    refund_no = refund.out_refund_no if refund else None
    return DuePaymentWebhook("7b2b145f9cda55738be2d2d9eaaffa25", "wechatpay", trade.out_no, refund_no, wrong, 0)


@asynccontextmanager
async def open_wechatpay_kit(prefix: str = "/wechatpay") -> AsyncIterator[WeChatPayKit]:
    clock, payment_store = FakeWeChatPayClock(), PaymentStore()
    trades: list[SimulatedTrade] = []
    refunds: list[SimulatedRefund] = []
    calls: list[str] = []
    certificate = make_certificate(key("platform"), clock.now - DAY, clock.now + 365 * DAY)
    sandbox = WeChatPaySandbox(
        payment_store=payment_store,
        clock=clock,
        app_id=APP_ID,
        mch_id=MCH_ID,
        api_v3_key=API_V3_KEY,
        platform_private_key=private_pem("platform"),
        platform_certificate=certificate,
        merchant_serial=SERIAL,
        merchant_public_key=public_pem("merchant"),
        on_trade=trades.append,
        on_refund=lambda trade, refund: refunds.append(refund),
        public_url="http://127.0.0.1:9",
    )

    @web.middleware
    async def record_call(request: web.Request, handler: Any) -> web.StreamResponse:
        calls.append(request.path_qs.removeprefix(prefix))
        response: web.StreamResponse = await handler(request)
        return response

    sandbox_app = web.Application(middlewares=[record_call])
    sandbox_app.router.add_routes(sandbox.build_routes())
    app = web.Application()
    if prefix:
        app.add_subapp(f"{prefix}/", sandbox_app)
    async with TestServer(app if prefix else sandbox_app) as server, aiohttp.ClientSession() as session:
        url = str(server.make_url("/")).rstrip("/") + prefix
        transport = SessionTransport(session)
        adapter = WeChatPay(account(url), transport, clock)
        yield WeChatPayKit(clock, payment_store, sandbox, adapter, transport, url, certificate, trades, refunds, calls)
        payment_store.close()


def payment_request(flow: PaymentFlow = "qr", fen: int = 510, **changes: Any) -> PaymentRequest:
    expires_at = changes.pop("expires_at", from_ms(time.time_ns() // 1_000_000) + timedelta(minutes=15))
    payer = changes.pop("payer", "oUpF8uMuAJO_M2pxb1Q9zNjWeS6o" if flow == "jsapi" else None)
    return PaymentRequest(
        payment_id=uuid4(),
        order_id=uuid4(),
        amount=Money(fen, changes.pop("currency", "CNY")),
        subject=changes.pop("subject", "两只红茶杯"),
        expires_at=expires_at,
        flow=flow,
        payer=payer,
        **changes,
    )


def refund_request(payment: PaymentRequest, fen: int, reason: str = "退货") -> RefundRequest:
    return RefundRequest(payment.payment_id, uuid4(), Money(fen, "CNY"), payment.amount, reason)


def signature_headers(
    body: bytes, now: datetime, signer: str = "platform", serial: str = PUBLIC_KEY_ID, nonce: str = "5K8264ILTKCH16"
) -> dict[str, str]:
    """Return the headers of a genuine response or webhook, as a server passes them on."""
    timestamp = str(int(now.timestamp()))
    return {
        "wechatpay-timestamp": timestamp,
        "wechatpay-nonce": nonce,
        "wechatpay-signature": sign(key(signer), signing_text(timestamp, nonce, body)),
        "wechatpay-signature-type": "WECHATPAY2-SHA256-RSA2048",
        "wechatpay-serial": serial,
    }


def encrypt(content: bytes, associated_data: str, api_v3_key: str = API_V3_KEY) -> dict[str, Any]:
    nonce = "fdasflkja484"
    ciphertext = AESGCM(api_v3_key.encode()).encrypt(nonce.encode(), content, associated_data.encode())
    encoded = b64encode(ciphertext).decode()
    return {"algorithm": "AEAD_AES_256_GCM", "nonce": nonce, "associated_data": associated_data, "ciphertext": encoded}


def lower_names(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


class FakeWeChatPayTransport:
    """An `HttpTransport` that returns these responses in turn and keeps the requests."""

    def __init__(self, *responses: HttpResponse) -> None:
        self.responses = list(responses)
        self.requests: list[tuple[str, str, Mapping[str, str], bytes]] = []

    async def send(self, method: str, url: str, headers: Mapping[str, str], body: bytes = b"") -> HttpResponse:
        self.requests.append((method, url, headers, body))
        return self.responses.pop(0)


def http_response(now: datetime, status: int, content: Any, *, is_signed: bool = True, **signer: str) -> HttpResponse:
    body = b"" if content is None else msgspec.json.encode(content)
    return HttpResponse(status, signature_headers(body, now, **signer) if is_signed else {}, body)
