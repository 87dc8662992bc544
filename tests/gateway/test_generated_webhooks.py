"""Generated webhooks with a valid proof: each is read, or refused as invalid."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from random import Random
from urllib.parse import parse_qsl

import pytest

from commerce.kernel.clock import from_ms
from commerce.kernel.external import InvalidWebhook
from commerce.payments.providers.alipay import Alipay
from config.settings import Settings
from ops.services import CliServices
from tests.payments import test_alipay_webhooks as alipay
from tests.payments import test_wechatpay_webhooks as wechatpay
from tests.payments.alipay_kit import AlipayKit, FakeAlipayTransport, account
from tests.payments.wechatpay_kit import signature_headers
from tests.shipping import kuaidi100_kit as kuaidi100
from tests.shipping import test_kuaidi100_webhooks, test_sf_express_webhooks
from tests.shipping.sf_express_kit import NUMBER as SF_NUMBER
from tests.shipping.sf_express_kit import WEBHOOK_KEY
from tests.support.generated_input import damage_bytes, encode_document, input_count, input_random, vary
from tests.support.shipping_gateway import open_shipping_gateway

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
JSON = {"content-type": "application/json"}
FORM = {"content-type": "application/x-www-form-urlencoded"}


def _read_wechatpay(random: Random) -> Callable[[], object]:
    adapter = wechatpay.create_adapter()
    content, event = random.choice(
        ((wechatpay.TRADE, "TRANSACTION.SUCCESS"), (wechatpay.REFUND, "REFUND.SUCCESS"), ({}, "TRANSACTION.SUCCESS"))
    )
    document = wechatpay.envelope(json.dumps(vary(random, lambda: content)).encode("utf-8", "replace"), event)
    body = encode_document(random, document if random.random() < 0.7 else vary(random, lambda: document))
    return lambda: adapter.read_webhook(signature_headers(body, wechatpay.NOW), body, wechatpay.NOW)


@pytest.fixture(scope="module")
def alipay_fields() -> Iterator[tuple[AlipayKit, dict[str, str]]]:
    kit = AlipayKit()
    kit.alipay = Alipay(account(), FakeAlipayTransport(b""), kit.clock)
    start, names = kit.clock.ms, ("alipay", alipay.PAYMENT_ID.hex, alipay.TRADE_NO)
    trade = alipay.SimulatedTrade(
        *names, 1999, "CNY", "红茶", "qr", "2088", alipay.NOTIFY_URL, "waiting", start, start + 900_000
    )
    kit.payment_store.open_trade(trade)
    alipay.pay(kit)
    yield kit, dict(parse_qsl(kit.webhook(alipay.PAYMENT_ID).decode(), keep_blank_values=True))
    kit.payment_store.close()


def _read_alipay(random: Random, kit: AlipayKit, fields: dict[str, str]) -> Callable[[], object]:
    varied = vary(random, lambda: fields)
    texts = {str(name): str(value) for name, value in varied.items()} if isinstance(varied, dict) else {}
    encodable = {_encodable(name): _encodable(value) for name, value in texts.items()}
    body = alipay.signed(encodable)
    return lambda: kit.alipay.read_webhook(FORM, body, from_ms(kit.clock.ms))


def _encodable(text: str) -> str:
    return text.encode("utf-8", "replace").decode()


def _read_sf_express(random: Random) -> Callable[[], object]:
    document = json.loads(test_sf_express_webhooks.body(*(test_sf_express_webhooks.webhook_route(),) * 2))
    body = encode_document(random, vary(random, lambda: document))
    return lambda: test_sf_express_webhooks.SF.read_webhook(JSON, {"key": WEBHOOK_KEY}, body, NOW)


def _kuaidi100_body(random: Random, number: str) -> bytes:
    result = vary(random, lambda: kuaidi100.query_result(number))
    param = json.dumps(vary(random, lambda: json.loads(kuaidi100.webhook_param(result))), ensure_ascii=False)
    return kuaidi100.webhook_body(_encodable(param))


def _read_kuaidi100(random: Random) -> Callable[[], object]:
    body = _kuaidi100_body(random, test_kuaidi100_webhooks.NUMBER)
    return lambda: test_kuaidi100_webhooks.READER.read_webhook(FORM, {}, body, NOW)


@pytest.mark.timeout(3_600)
@pytest.mark.parametrize("system", ["alipay", "kuaidi100", "sf_express", "wechatpay"])
def test_generated_webhook_is_read_or_refused_as_invalid(
    system: str, alipay_fields: tuple[AlipayKit, dict[str, str]]
) -> None:
    random, results = input_random(f"webhooks of {system}"), Counter[str]()
    make: dict[str, Callable[[], Callable[[], object]]] = {
        "alipay": lambda: _read_alipay(random, *alipay_fields),
        "kuaidi100": lambda: _read_kuaidi100(random),
        "sf_express": lambda: _read_sf_express(random),
        "wechatpay": lambda: _read_wechatpay(random),
    }
    for _ in range(input_count(200)):
        read = make[system]()
        try:
            read()
            results["read"] += 1
        except InvalidWebhook:
            results["invalid"] += 1
    assert results["read"]
    assert results["invalid"]


@pytest.mark.timeout(3_600)
async def test_generated_carrier_webhooks_end_in_no_server_error(
    shop: CliServices, make_settings: Callable[..., Settings], caplog: pytest.LogCaptureFixture
) -> None:
    random, answers = input_random("carrier webhooks"), Counter[tuple[str, int]]()
    async with open_shipping_gateway(shop, make_settings) as shipping:
        with caplog.at_level(logging.WARNING):
            for _ in range(input_count(200)):
                system = random.choice(("sf_express", "kuaidi100"))
                route = test_sf_express_webhooks.webhook_route(mailno=SF_NUMBER)
                document = json.loads(test_sf_express_webhooks.body(route))
                body = (
                    encode_document(random, vary(random, lambda: document))  # noqa: B023
                    if system == "sf_express"
                    else _kuaidi100_body(random, "73100012345678")
                )
                if random.random() < 0.1:
                    body = damage_bytes(random, body)
                path = f"/v1/webhooks/carriers/{system}" + (f"?key={WEBHOOK_KEY}" if system == "sf_express" else "")
                answer = await shipping.gateway.call("POST", path, user=None, data=body)
                answers[system, answer.status] += 1
    assert {answer: count for answer, count in answers.items() if answer[1] >= 500} == {}
    assert [record.message for record in caplog.records if record.exc_info] == []
