"""The sandbox in a process of its own: keys, real protocols, kills."""

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
async def run_sandbox(home: Path, port: int, *options: str) -> AsyncIterator[RunningProcess]:
    """Run a sandbox until the end of the block; the block may kill it earlier."""
    url = f"http://127.0.0.1:{port}/health"

    async def check_ready() -> None:
        async with aiohttp.ClientSession() as client, client.get(url) as response:
            response.raise_for_status()

    argv = [sys.executable, "-m", "ops.sandbox", "--port", str(port), "--data", str(home), "--keys", str(home / "keys")]
    running = await start_process(
        ProcessSpec("sandbox", [*argv, *options], home / "log", check_ready=check_ready, ready_timeout_s=30)
    )
    try:
        yield running
    finally:
        await running.stop()


class ShopAdapters:
    """The shop's adapters with the keys that the sandbox generated, and the webhooks that they read."""

    def __init__(
        self, home: Path, base: str, session: aiohttp.ClientSession, shop_url: str = "http://127.0.0.1:9"
    ) -> None:
        keys, transport = read_keys(home / "keys"), SessionTransport(session)
        alipay_account = alipay_settings.AlipayAccount.load(
            app_id=keys.ids.alipay_app_id,
            seller_id=keys.ids.alipay_seller_id,
            gateway_url=f"{base}/alipay/gateway.do",
            notify_url=f"{shop_url}/webhooks/alipay",
            merchant_key=keys.alipay_merchant.private,
            alipay_key=keys.alipay_platform.public,
        )
        wechatpay_account = wechatpay_settings.WeChatPayAccount.load(
            app_id=keys.ids.wechatpay_app_id,
            mch_id=keys.ids.wechatpay_mch_id,
            serial=keys.ids.wechatpay_merchant_serial,
            private_key=keys.wechatpay_merchant.private,
            api_v3_key=keys.ids.wechatpay_api_v3_key,
            base_url=f"{base}/wechatpay",
            notify_url=f"{shop_url}/webhooks/wechatpay",
        )
        adapters: list[Provider] = [
            alipay.Alipay(alipay_account, transport, CLOCK),
            wechatpay.WeChatPay(wechatpay_account, transport, CLOCK),
        ]
        self.providers = {provider.name: provider for provider in adapters}
        self.received: list[ProviderPayment | ProviderRefund] = []

    async def receive(self, request: web.Request) -> web.Response:
        provider = self.providers[request.match_info["provider"]]
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.received.append(provider.read_webhook(headers, await request.read(), from_ms(CLOCK.now_ms())).subject)
        status, content_type, body = provider.acknowledge(True)
        return web.Response(status=status, headers={"Content-Type": content_type}, body=body)


def create_payment_request(amount: int) -> PaymentRequest:
    return PaymentRequest(
        uuid4(), uuid4(), Money(amount, "CNY"), "tea", from_ms(CLOCK.now_ms()) + timedelta(minutes=5), "qr"
    )


async def test_killed_sandbox_loses_no_robot_payment(tmp_path: Path) -> None:
    port = free_port()
    base = f"http://127.0.0.1:{port}"
    requests: list[tuple[Provider, PaymentRequest]] = []
    async with aiohttp.ClientSession() as session:
        async with run_sandbox(tmp_path, port) as running:
            for provider in ShopAdapters(tmp_path, base, session).providers.values():
                faults = {"approve": "auto", "pay_after_ms": 2_000}
                async with session.put(f"{base}/faults/{provider.name}", json=faults) as response:
                    assert response.status == 200
                request = create_payment_request(510)
                await provider.create(request)
                requests.append((provider, request))
            await running.kill()

        async with run_sandbox(tmp_path, port):
            for provider, request in requests:

                async def find_capture(
                    provider: Provider = provider, request: PaymentRequest = request
                ) -> ProviderPayment | None:
                    payment = await provider.query(request.payment_id)
                    return payment if payment.state == "captured" else None

                capture = await eventually(find_capture)
                assert capture is not None
                assert capture.amount == Money(510, "CNY")
            async with session.get(f"{base}/totals") as response:
                totals = await response.json()
            assert [totals[name]["captured_amount"] for name in ("alipay", "wechatpay")] == [510, 510]


@pytest.mark.parametrize("name", ["alipay", "wechatpay"])
async def test_shop_adapter_pays_and_refunds_with_sandbox_process(tmp_path: Path, name: str) -> None:
    """Covers a payment on the page, its webhook, a refund, its webhook, and the statement."""
    port, shop_port, app = free_port(), free_port(), web.Application()
    base = f"http://127.0.0.1:{port}"
    async with run_sandbox(tmp_path, port), aiohttp.ClientSession() as session, AsyncExitStack() as stack:
        shop = ShopAdapters(tmp_path, base, session, f"http://127.0.0.1:{shop_port}")
        app.router.add_post("/webhooks/{provider}", shop.receive)
        await stack.enter_async_context(TestServer(app, port=shop_port))
        provider, request, days = shop.providers[name], create_payment_request(510), {china_today()}
        await provider.refresh()
        await provider.create(request)
        async with session.post(f"{base}/pay/{name}/{request.payment_id.hex}/approve") as response:
            assert response.status == 200
        await eventually(lambda: has_received(shop, 1))
        refund_request = RefundRequest(request.payment_id, uuid4(), Money(110, "CNY"), request.amount, "broken")
        await provider.refund(refund_request)
        await eventually(lambda: has_received(shop, 2))
        await eventually(lambda: has_sent_all(session, f"{base}/totals", name))
        payment, _ = shop.received
        assert isinstance(payment, ProviderPayment)
        assert (payment.payment_id, payment.state, payment.amount) == (request.payment_id, "captured", request.amount)
        assert (await provider.query_refund(refund_request)).state == "done"

        days.add(china_today())  # midnight may have passed
        lines: list[StatementLine | str] = []
        for day in days:
            async with session.get(f"{base}/statement/{name}/{day}") as response:
                lines += provider.read_statement(await response.text())
        movements = [(line.refund_id, line.amount.amount) for line in lines if not isinstance(line, str)]
        assert sorted(movements, key=str) == sorted([(None, 510), (refund_request.refund_id, 110)], key=str)
        assert len(movements) == len(lines)


def china_today() -> date:
    return (from_ms(CLOCK.now_ms()) + timedelta(hours=8)).date()


async def has_received(shop: ShopAdapters, count: int) -> bool:
    return len(shop.received) >= count


async def has_sent_all(session: aiohttp.ClientSession, url: str, name: str) -> bool:
    async with session.get(url) as response:
        return bool((await response.json())[name]["open_webhooks"] == 0)


async def test_stopped_sandbox_exits_with_status_0(tmp_path: Path) -> None:
    async with run_sandbox(tmp_path, free_port()) as running:
        await running.stop()
        assert running.process.returncode == 0


async def test_invalid_scenario_ends_process_with_one_line(tmp_path: Path) -> None:
    (tmp_path / "scenario.toml").write_text("[[steps]]")
    with pytest.raises(ProcessFailed, match=r"status 1(.|\n)*unknown field `steps`") as error:
        async with run_sandbox(tmp_path, free_port(), "--fault-scenario", str(tmp_path / "scenario.toml")):
            pass
    assert "Traceback" not in str(error.value)


def test_keys_are_generated_once_and_when_missing(tmp_path: Path) -> None:
    make_keys(tmp_path / "keys")
    contents = {file: file.read_bytes() for file in (tmp_path / "keys").iterdir()}
    assert {stat.S_IMODE(file.stat().st_mode) for file in contents} == {0o600}
    keys = read_keys(tmp_path / "keys")
    assert len(keys.ids.wechatpay_api_v3_key) == 32
    certificate = x509.load_pem_x509_certificate(keys.wechatpay_platform_certificate.encode())
    platform = load_pem_private_key(keys.wechatpay_platform.private.encode(), None)
    assert isinstance(platform, RSAPrivateKey)
    assert certificate.public_key() == platform.public_key()
    assert int(keys.wechatpay_platform_serial, 16) == certificate.serial_number
    assert (certificate.not_valid_after_utc - certificate.not_valid_before_utc).days >= 5 * 365

    make_keys(tmp_path / "keys")
    assert {file: file.read_bytes() for file in (tmp_path / "keys").iterdir()} == contents
    (tmp_path / "keys" / "wechatpay-platform.pem").unlink()
    make_keys(tmp_path / "keys")
    new_keys = read_keys(tmp_path / "keys")
    assert new_keys.wechatpay_platform != keys.wechatpay_platform
    assert new_keys.wechatpay_platform_serial != keys.wechatpay_platform_serial
    assert (new_keys.ids, new_keys.alipay_merchant) == (keys.ids, keys.alipay_merchant)
    assert len(list((tmp_path / "keys").iterdir())) == len(contents)
