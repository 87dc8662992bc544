"""WeChat Pay's protocol against the independent wechatpayv3: signatures, encryption, calls."""

from __future__ import annotations

import asyncio
import json
from base64 import b64encode
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from wechatpayv3 import WeChatPay as Sdk  # type: ignore[import-untyped]
from wechatpayv3 import WeChatPayType
from wechatpayv3.utils import aes_decrypt, build_authorization, load_certificate, rsa_sign, rsa_verify

from commerce.payments.provider_port import ProviderPayment, ProviderRefund
from commerce.payments.providers.wechatpay import wire
from tests.payments.wechatpay_kit import (
    API_V3_KEY,
    APP_ID,
    MCH_ID,
    NOTIFY_URL,
    SERIAL,
    WeChatPayKit,
    account,
    key,
    lower_names,
    open_wechatpay_kit,
    payment_request,
    private_pem,
    refund_request,
)


@pytest.fixture
async def kit() -> AsyncIterator[WeChatPayKit]:
    async with open_wechatpay_kit() as wechatpay_kit:
        yield wechatpay_kit


def sdk(kit: WeChatPayKit, folder: Path) -> Any:
    (folder / "platform.pem").write_text(kit.certificate)
    client = Sdk(
        wechatpay_type=WeChatPayType.NATIVE,
        mchid=MCH_ID,
        private_key=private_pem("merchant"),
        cert_serial_no=SERIAL,
        apiv3_key=API_V3_KEY,
        appid=APP_ID,
        notify_url=NOTIFY_URL,
        cert_dir=str(folder),
    )
    client._core._gate_way = kit.url
    return client


async def call(method: Callable[..., Any], **arguments: Any) -> tuple[int, Any]:
    status, text = await asyncio.to_thread(method, **arguments)
    return status, json.loads(text) if text else None


async def test_calls_of_sdk_are_served_by_sandbox(kit: WeChatPayKit, tmp_path: Path) -> None:
    client = sdk(kit, tmp_path)
    request = payment_request()
    order = {"description": "红茶", "out_trade_no": request.payment_id.hex, "amount": {"total": 510}}
    status, content = await call(client.pay, **order)
    assert (status, content["code_url"].partition("=")[2][:32]) == (200, request.payment_id.hex)
    assert content["sandbox_page"] == f"http://127.0.0.1:9/pay/wechatpay/{request.payment_id.hex}"
    jsapi = order | {"out_trade_no": payment_request().payment_id.hex, "payer": {"openid": "o"}}
    status, content = await call(client.pay, **jsapi, pay_type=WeChatPayType.JSAPI)
    assert (status, list(content)) == (200, ["prepay_id"])
    app = order | {"out_trade_no": payment_request().payment_id.hex}
    status, content = await call(client.pay, **app, pay_type=WeChatPayType.APP)
    assert (status, list(content)) == (200, ["prepay_id"])
    h5 = order | {"out_trade_no": payment_request().payment_id.hex}
    scene = {"payer_client_ip": "203.0.113.7", "h5_info": {"type": "Wap"}}
    status, content = await call(client.pay, **h5, pay_type=WeChatPayType.H5, scene_info=scene)
    assert (status, list(content)) == (200, ["h5_url"])
    status, content = await call(client.query, out_trade_no=request.payment_id.hex)
    assert (status, content["trade_state"]) == (200, "NOTPAY")
    assert await call(client.close, out_trade_no=jsapi["out_trade_no"]) == (204, None)
    kit.pay(request.payment_id)
    refund = refund_request(request, 200)
    amount = {"refund": 200, "total": 510, "currency": "CNY"}
    arguments = {"out_trade_no": request.payment_id.hex, "out_refund_no": refund.refund_id.hex, "amount": amount}
    status, content = await call(client.refund, **arguments)
    assert (status, content["status"]) == (200, "PROCESSING")
    status, content = await call(client.query_refund, out_refund_no=refund.refund_id.hex)
    assert (status, content["status"]) == (200, "SUCCESS")
    assert (await kit.adapter.query_refund(refund)).state == "done"
    status, content = await call(client.query, out_trade_no="0" * 32)
    assert (status, content["code"]) == (404, "ORDER_NOT_EXIST")


async def test_certificates_of_sandbox_are_read_by_sdk(kit: WeChatPayKit, tmp_path: Path) -> None:
    client = sdk(kit, tmp_path)
    await asyncio.to_thread(client._core._update_certificates)
    assert [f"{certificate.serial_number:X}" for certificate in client._core._certificates] == [kit.sandbox._serial]


async def test_webhook_of_sandbox_is_read_by_sdk(kit: WeChatPayKit, tmp_path: Path) -> None:
    client = sdk(kit, tmp_path)
    request = payment_request()
    await kit.adapter.create(request)
    trade = kit.pay(request.payment_id)
    await kit.adapter.refund(requested := refund_request(request, 200))
    for refund in (None, kit.refunds[0]):
        genuine = kit.webhook(trade, refund)
        decoded = client.callback(genuine.headers, genuine.body)
        resource = decoded["resource"]
        assert resource["out_trade_no"] == request.payment_id.hex
        assert resource["amount"]["total"] == 510
        assert resource.get("out_refund_no") == (requested.refund_id.hex if refund else None)
        forged = kit.webhook(trade, refund, wrong="signature")
        assert client.callback(forged.headers, forged.body) is None

        values = lower_names(genuine.headers)
        signed_values = (
            values["wechatpay-timestamp"],
            values["wechatpay-nonce"],
            genuine.body.decode(),
            values["wechatpay-signature"],
        )
        assert rsa_verify(*signed_values, load_certificate(kit.certificate).public_key())
        encrypted_resource = json.loads(genuine.body)["resource"]
        plaintext = aes_decrypt(
            encrypted_resource["nonce"],
            encrypted_resource["ciphertext"],
            encrypted_resource["associated_data"],
            API_V3_KEY,
        )
        assert json.loads(plaintext) == resource


async def test_request_signed_by_sdk_is_accepted(kit: WeChatPayKit) -> None:
    body = {"mchid": MCH_ID}
    path = f"/v3/pay/transactions/out-trade-no/{payment_request().payment_id.hex}/close"
    for signer, status in (("merchant", 404), ("stranger", 401)):
        signed = build_authorization(path, "POST", MCH_ID, SERIAL, key(signer), data=body)
        headers = {"Authorization": signed, "Content-Type": "application/json"}
        response = await kit.transport.send("POST", kit.url + path, headers, json.dumps(body).encode())
        assert response.status == status


async def test_request_of_adapter_has_signature_of_sdk(kit: WeChatPayKit) -> None:
    path, body = f"/v3/pay/transactions/out-trade-no/x?mchid={MCH_ID}", '{"a":"红"}'
    expected = build_authorization(path, "GET", MCH_ID, SERIAL, key("merchant"), data=body, nonce_str="n")
    timestamp = expected.partition('timestamp="')[2].partition('"')[0]
    signed = wire.signing_text("GET", path, timestamp, "n", body)
    assert f'signature="{wire.sign(key("merchant"), signed)}"' in expected
    header = wire.build_authorization(account(), "GET", path, body.encode(), now=kit.clock.now, nonce="n")
    assert header.partition("signature=")[0] == expected.partition("signature=")[0]


async def test_parameters_of_adapter_have_signature_of_sdk(kit: WeChatPayKit, tmp_path: Path) -> None:
    action = await kit.adapter.create(payment_request("jsapi"))
    values = action.parameters
    assert values is not None
    signed_values = [values["appId"], values["timeStamp"], values["nonceStr"], values["package"]]
    assert sdk(kit, tmp_path).sign(signed_values) == values["paySign"]


async def test_parameters_for_app_have_signature_of_sdk(kit: WeChatPayKit, tmp_path: Path) -> None:
    values = (await kit.adapter.create(payment_request("app"))).parameters
    assert values is not None
    signed_values = [values["appid"], values["timestamp"], values["noncestr"], values["prepayid"]]
    assert sdk(kit, tmp_path).sign(signed_values) == values["sign"]


async def test_webhook_created_with_sdk_algorithms_is_read(kit: WeChatPayKit) -> None:
    await kit.adapter.refresh()
    request, timestamp = payment_request(), str(kit.clock.now_ms() // 1_000)
    refund = refund_request(request, 200)
    common = {"mchid": MCH_ID, "out_trade_no": request.payment_id.hex, "transaction_id": "42"}
    payment_values = {"appid": APP_ID, "trade_state": "SUCCESS", "success_time": "2026-11-22T10:34:56+08:00"}
    amounts = {"total": 510, "refund": 200, "currency": "CNY"}
    refund_values = {"out_refund_no": refund.refund_id.hex, "refund_status": "SUCCESS"}
    for event, subject_kind, content, expected in (
        ("TRANSACTION.SUCCESS", "transaction", common | payment_values, ProviderPayment),
        ("REFUND.SUCCESS", "refund", common | refund_values, ProviderRefund),
    ):
        plaintext = json.dumps(content | {"amount": amounts}, ensure_ascii=False).encode()
        encrypted_resource = AESGCM(API_V3_KEY.encode()).encrypt(b"0123456789ab", plaintext, subject_kind.encode())
        resource = {"algorithm": "AEAD_AES_256_GCM", "nonce": "0123456789ab", "associated_data": subject_kind}
        resource["ciphertext"] = b64encode(encrypted_resource).decode()
        body = json.dumps(
            {"id": "EV-1", "resource_type": "encrypt-resource", "event_type": event, "resource": resource}
        )
        headers = {
            "wechatpay-timestamp": timestamp,
            "wechatpay-nonce": "n",
            "wechatpay-serial": kit.sandbox._serial,
            "wechatpay-signature": rsa_sign(key("platform"), f"{timestamp}\nn\n{body}\n"),
        }
        webhook = kit.adapter.read_webhook(headers, body.encode(), kit.clock.now)
        assert isinstance(webhook.subject, expected)
        assert webhook.subject.amount is not None
        assert webhook.subject.amount.amount == (200 if subject_kind == "refund" else 510)
