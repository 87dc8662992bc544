"""The sandbox as a program of its own: keys, real protocols, kills."""

from __future__ import annotations

import stat
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import date, timedelta
from pathlib import Path
from uuid import uuid4

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from commerce.kernel.clock import SystemClock, from_ms
from commerce.kernel.money import Money
from commerce.payments.provider_port import (
    PaymentRequest,
    Provider,
    ProviderPayment,
    ProviderRefund,
    RefundRequest,
    StatementLine,
)
from commerce.payments.providers.alipay import adapter as alipay
from commerce.payments.providers.alipay import settings as alipay_settings
from commerce.payments.providers.wechatpay import adapter as wechatpay
from commerce.payments.providers.wechatpay import settings as wechatpay_settings
from ops.local.subprocesses import ProcessFailed, ProcessSpec, RunningProcess, start_process
from ops.sandbox.keys import make_keys, read_keys
from tests.support.http_transport import SessionTransport
from tests.support.processes import free_port
from tests.support.sales import eventually

CLOCK = SystemClock()


@asynccontextmanager
async def run_sandbox(home: Path, port: int, *more: str) -> AsyncIterator[RunningProcess]:
    """Runs it until the end of the block, if it was not killed before."""
    url = f"http://127.0.0.1:{port}/health"

    async def ready() -> None:
        async with aiohttp.ClientSession() as client, client.get(url) as answer:
            answer.raise_for_status()

    argv = [sys.executable, "-m", "ops.sandbox", "--port", str(port), "--data", str(home), "--keys", str(home / "keys")]
    running = await start_process(
        ProcessSpec("sandbox", [*argv, *more], home / "log", check_ready=ready, ready_timeout_s=30)
    )
    try:
        yield running
    finally:
        await running.stop()


class ShopAdapters:
    """The shop's side, with the keys that the sandbox has made: the adapters, and what they read in callbacks."""

    def __init__(
        self, home: Path, base: str, session: aiohttp.ClientSession, notify: str = "http://127.0.0.1:9"
    ) -> None:
        keys, outside = read_keys(home / "keys"), SessionTransport(session)
        ali = alipay_settings.AlipayAccount.load(
            app_id=keys.ids.alipay_app_id,
            seller_id=keys.ids.alipay_seller_id,
            gateway_url=f"{base}/alipay/gateway.do",
            notify_url=f"{notify}/notify/alipay",
            merchant_key=keys.alipay_merchant.private,
            alipay_key=keys.alipay_platform.public,
        )
        wechat = wechatpay_settings.WeChatPayAccount.load(
            app_id=keys.ids.wechatpay_app_id,
            mch_id=keys.ids.wechatpay_mch_id,
            serial=keys.ids.wechatpay_merchant_serial,
            private_key=keys.wechatpay_merchant.private,
            api_v3_key=keys.ids.wechatpay_api_v3_key,
            base_url=f"{base}/wechatpay",
            notify_url=f"{notify}/notify/wechatpay",
        )
        made: list[Provider] = [alipay.Alipay(ali, outside, CLOCK), wechatpay.WeChatPay(wechat, outside, CLOCK)]
        self.providers = {provider.name: provider for provider in made}
        self.told: list[ProviderPayment | ProviderRefund] = []

    async def notified(self, request: web.Request) -> web.Response:
        provider = self.providers[request.match_info["provider"]]
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.told.append(provider.read_webhook(headers, await request.read(), from_ms(CLOCK.now_ms())).subject)
        status, content_type, body = provider.acknowledge(True)
        return web.Response(status=status, headers={"Content-Type": content_type}, body=body)


def payment_request(amount: int) -> PaymentRequest:
    return PaymentRequest(
        uuid4(), uuid4(), Money(amount, "CNY"), "tea", from_ms(CLOCK.now_ms()) + timedelta(minutes=5), "qr"
    )


async def test_a_kill_loses_no_payment_of_a_robot(tmp_path: Path) -> None:
    port = free_port()
    base = f"http://127.0.0.1:{port}"
    made: list[tuple[Provider, PaymentRequest]] = []
    async with aiohttp.ClientSession() as session:
        async with run_sandbox(tmp_path, port) as running:
            for provider in ShopAdapters(tmp_path, base, session).providers.values():
                switches = {"approve": "auto", "pay_after_ms": 2_000}
                async with session.put(f"{base}/switches/{provider.name}", json=switches) as answer:
                    assert answer.status == 200
                charge = payment_request(510)
                await provider.create(charge)
                made.append((provider, charge))
            await running.kill()

        async with run_sandbox(tmp_path, port):
            for provider, charge in made:

                async def captured(
                    provider: Provider = provider, charge: PaymentRequest = charge
                ) -> ProviderPayment | None:
                    seen = await provider.query(charge.payment_id)
                    return seen if seen.state == "captured" else None

                seen = await eventually(captured)
                assert seen is not None
                assert seen.amount == Money(510, "CNY")
            async with session.get(f"{base}/books") as answer:
                books = await answer.json()
            assert [books[name]["captured_amount"] for name in ("alipay", "wechatpay")] == [510, 510]


@pytest.mark.parametrize("name", ["alipay", "wechatpay"])
async def test_a_shop_can_live_with_it(tmp_path: Path, name: str) -> None:
    """A payment on the page, its callback, a refund, its callback, the statement."""
    port, own_port, app = free_port(), free_port(), web.Application()
    base = f"http://127.0.0.1:{port}"
    async with run_sandbox(tmp_path, port), aiohttp.ClientSession() as session, AsyncExitStack() as stack:
        shop = ShopAdapters(tmp_path, base, session, f"http://127.0.0.1:{own_port}")
        app.router.add_post("/notify/{provider}", shop.notified)
        await stack.enter_async_context(TestServer(app, port=own_port))
        provider, charge, days = shop.providers[name], payment_request(510), {today()}
        await provider.refresh()
        await provider.create(charge)
        async with session.post(f"{base}/pay/{name}/{charge.payment_id.hex}/approve") as answer:
            assert answer.status == 200
        await eventually(lambda: has_received(shop, 1))
        order = RefundRequest(charge.payment_id, uuid4(), Money(110, "CNY"), charge.amount, "broken")
        await provider.refund(order)
        await eventually(lambda: has_received(shop, 2))
        await eventually(lambda: is_quiet(session, f"{base}/books", name))
        payment, _ = shop.told
        assert isinstance(payment, ProviderPayment)
        assert (payment.payment_id, payment.state, payment.amount) == (charge.payment_id, "captured", charge.amount)
        assert (await provider.query_refund(order)).state == "done"

        days.add(today())  # it may be midnight
        lines: list[StatementLine | str] = []
        for day in days:
            async with session.get(f"{base}/statement/{name}/{day}") as answer:
                lines += provider.read_statement(await answer.text())
        read = [(line.refund_id, line.amount.amount) for line in lines if not isinstance(line, str)]
        assert sorted(read, key=str) == sorted([(None, 510), (order.refund_id, 110)], key=str)
        assert len(read) == len(lines)


def today() -> date:
    """In China."""
    return (from_ms(CLOCK.now_ms()) + timedelta(hours=8)).date()


async def has_received(shop: ShopAdapters, count: int) -> bool:
    return len(shop.told) >= count


async def is_quiet(session: aiohttp.ClientSession, url: str, name: str) -> bool:
    async with session.get(url) as answer:
        return bool((await answer.json())[name]["open_notices"] == 0)


async def test_it_stops_cleanly(tmp_path: Path) -> None:
    async with run_sandbox(tmp_path, free_port()) as running:
        await running.stop()
        assert running.process.returncode == 0


async def test_what_is_wrong_is_said_in_a_line(tmp_path: Path) -> None:
    (tmp_path / "scenario.toml").write_text("[[steps]]")
    with pytest.raises(ProcessFailed, match=r"status 1(.|\n)*unknown field `steps`") as error:
        async with run_sandbox(tmp_path, free_port(), "--scenario", str(tmp_path / "scenario.toml")):
            pass
    assert "Traceback" not in str(error.value)


def test_keys_are_made_once_and_what_is_missing_again(tmp_path: Path) -> None:
    make_keys(tmp_path / "keys")
    made = {file: file.read_bytes() for file in (tmp_path / "keys").iterdir()}
    assert {stat.S_IMODE(file.stat().st_mode) for file in made} == {0o600}
    keys = read_keys(tmp_path / "keys")
    assert len(keys.ids.wechatpay_api_v3_key) == 32
    certificate = x509.load_pem_x509_certificate(keys.wechatpay_platform_certificate.encode())
    platform = load_pem_private_key(keys.wechatpay_platform.private.encode(), None)
    assert isinstance(platform, RSAPrivateKey)
    assert certificate.public_key() == platform.public_key()
    assert int(keys.wechatpay_platform_serial, 16) == certificate.serial_number
    assert (certificate.not_valid_after_utc - certificate.not_valid_before_utc).days >= 5 * 365

    make_keys(tmp_path / "keys")
    assert {file: file.read_bytes() for file in (tmp_path / "keys").iterdir()} == made
    (tmp_path / "keys" / "wechatpay-platform.pem").unlink()
    make_keys(tmp_path / "keys")
    again = read_keys(tmp_path / "keys")
    assert again.wechatpay_platform != keys.wechatpay_platform
    assert again.wechatpay_platform_serial != keys.wechatpay_platform_serial
    assert (again.ids, again.alipay_merchant) == (keys.ids, keys.alipay_merchant)
    assert len(list((tmp_path / "keys").iterdir())) == len(made)
