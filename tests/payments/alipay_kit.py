"""A merchant with an account at the simulated Alipay, and an independent SDK for the same account."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from uuid import UUID, uuid4

import aiohttp
from aiohttp import web
from aiohttp.test_utils import TestServer
from alipay import AliPay
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from commerce.kernel.clock import from_ms, to_ms
from commerce.kernel.external import HttpResponse
from commerce.kernel.money import Money
from commerce.payments.provider_port import PaymentFlow, PaymentRequest, Provider, RefundRequest
from commerce.payments.providers.alipay import Alipay, AlipayAccount
from ops.sandbox.alipay import AlipaySandbox
from ops.sandbox.payment_store import DuePaymentWebhook, PaymentStore, SimulatedRefund, SimulatedTrade
from ops.sandbox.protocol import ProviderProtocol
from tests.support.http_transport import SessionTransport

APP_ID, SELLER_ID = "2021000000000001", "2088000000000001"
NOTIFY_URL = "https://shop.invalid/payments/alipay"
PUBLIC_URL = "http://sandbox.invalid"
NOON = datetime(2026, 11, 11, 4, 0, tzinfo=UTC)  # in Shanghai


@cache
def key(owner: str) -> RSAPrivateKey:
    """Return the key of an owner, the same for the whole run, because generating one takes long."""
    assert owner in ("merchant", "alipay", "stranger")
    return generate_private_key(65537, 2048)


def private_pem(owner: str) -> str:
    return key(owner).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def public_pem(owner: str) -> str:
    return key(owner).public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


class FakeAlipayClock:
    """A clock that tests move."""

    def __init__(self) -> None:
        self.ms = to_ms(NOON)

    def now_ms(self) -> int:
        return self.ms

    def monotonic(self) -> float:
        return self.ms / 1000

    async def sleep(self, seconds: float) -> None:
        self.ms += int(seconds * 1000)


class FakeAlipayTransport:
    """An `HttpTransport` that returns these responses in turn, then always the last, and counts calls."""

    def __init__(self, *bodies: bytes, status: int = 200) -> None:
        self.responses = [HttpResponse(status, {}, body) for body in bodies]
        self.calls = 0

    async def send(self, method: str, url: str, headers: Mapping[str, str], body: bytes = b"") -> HttpResponse:
        self.calls += 1
        return self.responses[min(self.calls, len(self.responses)) - 1]


def account(gateway_url: str = "https://gateway.invalid/gateway.do") -> AlipayAccount:
    return AlipayAccount.load(
        app_id=APP_ID,
        seller_id=SELLER_ID,
        gateway_url=gateway_url,
        notify_url=NOTIFY_URL,
        merchant_key=private_pem("merchant"),
        alipay_key=public_pem("alipay"),
    )


def sdk(gateway_url: str = "") -> AliPay:
    """Create the reference: the merchant's side in an independent implementation."""
    client = AliPay(
        appid=APP_ID,
        app_notify_url=NOTIFY_URL,
        app_private_key_string=private_pem("merchant"),
        alipay_public_key_string=public_pem("alipay"),
        sign_type="RSA2",
    )
    client._gateway = gateway_url
    return client


def refund_request(payment_id: UUID, fen: int, captured: int = 1999, refund_id: UUID | None = None) -> RefundRequest:
    return RefundRequest(payment_id, refund_id or uuid4(), Money(fen, "CNY"), Money(captured, "CNY"), "坏了")


@dataclass
class AlipayKit:
    """The sandbox's store, both sides of the protocol, and what the sandbox scheduled."""

    payment_store: PaymentStore = field(default_factory=PaymentStore)
    clock: FakeAlipayClock = field(default_factory=FakeAlipayClock)
    scheduled: list[SimulatedTrade | tuple[SimulatedTrade, SimulatedRefund]] = field(default_factory=list)
    gateway_url: str = ""

    def __post_init__(self) -> None:
        self.sandbox = AlipaySandbox(
            payment_store=self.payment_store,
            clock=self.clock,
            app_id=APP_ID,
            seller_id=SELLER_ID,
            sandbox_key=key("alipay"),
            merchant_key=key("merchant").public_key(),
            on_trade=self.scheduled.append,
            on_refund=lambda trade, refund: self.scheduled.append((trade, refund)),
            public_url=PUBLIC_URL,
        )
        self.protocol: ProviderProtocol = self.sandbox  # checked by mypy

    def connect(self, session: aiohttp.ClientSession, gateway_url: str) -> None:
        self.session = session
        self.gateway_url = gateway_url
        self.alipay = Alipay(account(gateway_url), SessionTransport(session), self.clock)
        self.provider: Provider = self.alipay

    def payment_request(self, flow: PaymentFlow = "qr", fen: int = 1999, **fields: object) -> PaymentRequest:
        values = {"subject": "红茶 a/b=c&d", "expires_at": from_ms(self.clock.ms) + timedelta(minutes=15), **fields}
        values = {"payment_id": uuid4(), "order_id": uuid4(), "amount": Money(fen, "CNY"), "flow": flow, **values}
        return PaymentRequest(**values)  # type: ignore[arg-type]

    async def open_page(self, url: str) -> aiohttp.ClientResponse:
        return await self.session.get(url, allow_redirects=False)

    async def create_paid_payment(self, fen: int = 1999) -> UUID:
        """Create a payment by code that is paid a minute later."""
        request = self.payment_request(fen=fen)
        await self.alipay.create(request)
        self.clock.ms += 60_000
        self.payment_store.pay("alipay", request.payment_id.hex, self.clock.ms)
        return request.payment_id

    def trade(self, payment_id: UUID) -> SimulatedTrade:
        trade = self.payment_store.find_trade("alipay", payment_id.hex)
        assert trade is not None
        return trade

    def webhook(self, payment_id: UUID, refund_id: UUID | None = None, wrong: str | None = None) -> bytes:
        refund = self.payment_store.find_refund("alipay", refund_id.hex) if refund_id else None
        due_webhook = DuePaymentWebhook(
            "n-1", "alipay", payment_id.hex, refund.out_refund_no if refund else None, wrong, 0
        )
        return self.sandbox.build_webhook(due_webhook, self.trade(payment_id), refund).body


@asynccontextmanager
async def open_alipay_kit() -> AsyncIterator[AlipayKit]:
    kit = AlipayKit()
    gateway_app, app = web.Application(), web.Application()
    gateway_app.add_routes(kit.sandbox.build_routes())
    app.add_subapp("/alipay/", gateway_app)
    async with TestServer(app) as server, aiohttp.ClientSession() as session:
        kit.connect(session, str(server.make_url("/alipay/gateway.do")))
        yield kit
    kit.payment_store.close()
