"""A shop with an account at Alipay's sandbox, and somebody else's SDK for the same account."""

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
from ops.sandbox.payment_store import DueNotice, PaymentStore, SimulatedRefund, SimulatedTrade
from ops.sandbox.protocol import SandboxProtocol
from tests.support.http_transport import SessionTransport

APP_ID, SELLER_ID = "2021000000000001", "2088000000000001"
NOTIFY_URL = "https://shop.invalid/payments/alipay"
PUBLIC_URL = "http://sandbox.invalid"
NOON = datetime(2026, 11, 11, 4, 0, tzinfo=UTC)  # in Shanghai


@cache
def key(owner: str) -> RSAPrivateKey:
    """One key each for the whole run: they take a while to make."""
    assert owner in ("merchant", "alipay", "stranger")
    return generate_private_key(65537, 2048)


def private_pem(owner: str) -> str:
    return key(owner).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def public_pem(owner: str) -> str:
    return key(owner).public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


class FakeAlipayClock:
    """A clock that tests set."""

    def __init__(self) -> None:
        self.ms = to_ms(NOON)

    def now_ms(self) -> int:
        return self.ms

    def monotonic(self) -> float:
        return self.ms / 1000

    async def sleep(self, seconds: float) -> None:
        self.ms += int(seconds * 1000)


class FakeAlipayTransport:
    """An `Outside` that gives these answers in turn, the last one for ever, and counts."""

    def __init__(self, *bodies: bytes, status: int = 200) -> None:
        self.answers = [HttpResponse(status, {}, body) for body in bodies]
        self.asked = 0

    async def send(self, method: str, url: str, headers: Mapping[str, str], body: bytes = b"") -> HttpResponse:
        self.asked += 1
        return self.answers[min(self.asked, len(self.answers)) - 1]


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
    """The oracle: the merchant's side as others wrote it."""
    found = AliPay(
        appid=APP_ID,
        app_notify_url=NOTIFY_URL,
        app_private_key_string=private_pem("merchant"),
        alipay_public_key_string=public_pem("alipay"),
        sign_type="RSA2",
    )
    found._gateway = gateway_url
    return found


def refund_request(payment_id: UUID, fen: int, captured: int = 1999, refund_id: UUID | None = None) -> RefundRequest:
    return RefundRequest(payment_id, refund_id or uuid4(), Money(fen, "CNY"), Money(captured, "CNY"), "坏了")


@dataclass
class AlipayKit:
    """The sandbox's books, both sides of the protocol, and what the sandbox was told to plan."""

    bank: PaymentStore = field(default_factory=PaymentStore)
    clock: FakeAlipayClock = field(default_factory=FakeAlipayClock)
    told: list[SimulatedTrade | tuple[SimulatedTrade, SimulatedRefund]] = field(default_factory=list)
    gateway_url: str = ""

    def __post_init__(self) -> None:
        self.sandbox = AlipaySandbox(
            bank=self.bank,
            clock=self.clock,
            app_id=APP_ID,
            seller_id=SELLER_ID,
            sandbox_key=key("alipay"),
            merchant_key=key("merchant").public_key(),
            on_trade=self.told.append,
            on_refund=lambda trade, refund: self.told.append((trade, refund)),
            public_url=PUBLIC_URL,
        )
        self.protocol: SandboxProtocol = self.sandbox  # mypy compares

    def connect(self, session: aiohttp.ClientSession, gateway_url: str) -> None:
        self.session = session
        self.gateway_url = gateway_url
        self.alipay = Alipay(account(gateway_url), SessionTransport(session), self.clock)
        self.provider: Provider = self.alipay

    def charge(self, scene: PaymentFlow = "qr", fen: int = 1999, **more: object) -> PaymentRequest:
        content = {"subject": "红茶 a/b=c&d", "expires_at": from_ms(self.clock.ms) + timedelta(minutes=15), **more}
        content = {"payment_id": uuid4(), "order_id": uuid4(), "amount": Money(fen, "CNY"), "scene": scene, **content}
        return PaymentRequest(**content)  # type: ignore[arg-type]

    async def open_page(self, url: str) -> aiohttp.ClientResponse:
        return await self.session.get(url, allow_redirects=False)

    async def paid(self, fen: int = 1999) -> UUID:
        """A payment that was asked for by code and paid a minute later."""
        charge = self.charge(fen=fen)
        await self.alipay.create(charge)
        self.clock.ms += 60_000
        self.bank.pay("alipay", charge.payment_id.hex, self.clock.ms)
        return charge.payment_id

    def trade(self, payment_id: UUID) -> SimulatedTrade:
        found = self.bank.trade("alipay", payment_id.hex)
        assert found is not None
        return found

    def callback(self, payment_id: UUID, refund_id: UUID | None = None, wrong: str | None = None) -> bytes:
        refund = self.bank.refund_of("alipay", refund_id.hex) if refund_id else None
        notice = DueNotice("n-1", "alipay", payment_id.hex, refund.out_refund_no if refund else None, wrong, 0)
        return self.sandbox.callback(notice, self.trade(payment_id), refund).body


@asynccontextmanager
async def open_alipay_kit() -> AsyncIterator[AlipayKit]:
    kit = AlipayKit()
    inner, app = web.Application(), web.Application()
    inner.add_routes(kit.sandbox.routes())
    app.add_subapp("/alipay/", inner)
    async with TestServer(app) as server, aiohttp.ClientSession() as session:
        kit.connect(session, str(server.make_url("/alipay/gateway.do")))
        yield kit
    kit.bank.close()
