"""Our WeChat Pay against wechatpayv3, which others wrote: signatures and encryption, both ways, and whole calls."""

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
    lower,
    open_wechatpay_kit,
    payment_request,
    private_pem,
    refund_request,
)


@pytest.fixture
async def kit() -> AsyncIterator[WeChatPayKit]:
    async with open_wechatpay_kit() as made:
        yield made


def sdk(kit: WeChatPayKit, folder: Path) -> Any:
    (folder / "platform.pem").write_text(kit.certificate)
    made = Sdk(
        wechatpay_type=WeChatPayType.NATIVE,
        mchid=MCH_ID,
        private_key=private_pem("merchant"),
        cert_serial_no=SERIAL,
        apiv3_key=API_V3_KEY,
        appid=APP_ID,
        notify_url=NOTIFY_URL,
        cert_dir=str(folder),
    )
    made._core._gate_way = kit.url
    return made


async def call(method: Callable[..., Any], **how: Any) -> tuple[int, Any]:
    status, text = await asyncio.to_thread(method, **how)
    return status, json.loads(text) if text else None


async def test_its_calls_work_in_our_sandbox(kit: WeChatPayKit, tmp_path: Path) -> None:
    theirs = sdk(kit, tmp_path)
    wanted = payment_request()
    order = {"description": "红茶", "out_trade_no": wanted.payment_id.hex, "amount": {"total": 510}}
    status, content = await call(theirs.pay, **order)
    assert (status, content["code_url"]) == (200, f"weixin://wxpay/bizpayurl?pr={wanted.payment_id.hex}")
    assert content["sandbox_page"] == f"http://127.0.0.1:9/pay/wechatpay/{wanted.payment_id.hex}"
    jsapi = order | {"out_trade_no": payment_request().payment_id.hex, "payer": {"openid": "o"}}
    status, content = await call(theirs.pay, **jsapi, pay_type=WeChatPayType.JSAPI)
    assert (status, list(content)) == (200, ["prepay_id"])
    status, content = await call(theirs.query, out_trade_no=wanted.payment_id.hex)
    assert (status, content["trade_state"]) == (200, "NOTPAY")
    assert await call(theirs.close, out_trade_no=jsapi["out_trade_no"]) == (204, None)
    kit.pay(wanted.payment_id)
    back = refund_request(wanted, 200)
    amount = {"refund": 200, "total": 510, "currency": "CNY"}
    how = {"out_trade_no": wanted.payment_id.hex, "out_refund_no": back.refund_id.hex, "amount": amount}
    status, content = await call(theirs.refund, **how)
    assert (status, content["status"]) == (200, "PROCESSING")
    status, content = await call(theirs.query_refund, out_refund_no=back.refund_id.hex)
    assert (status, content["status"]) == (200, "SUCCESS")
    assert (await kit.adapter.query_refund(back)).state == "done"
    status, content = await call(theirs.query, out_trade_no="0" * 32)
    assert (status, content["code"]) == (404, "ORDER_NOT_EXIST")


async def test_it_fetches_our_sandbox_s_certificates(kit: WeChatPayKit, tmp_path: Path) -> None:
    theirs = sdk(kit, tmp_path)
    await asyncio.to_thread(theirs._core._update_certificates)
    assert [f"{found.serial_number:X}" for found in theirs._core._certificates] == [kit.sandbox._serial]


async def test_it_reads_our_sandbox_s_callbacks(kit: WeChatPayKit, tmp_path: Path) -> None:
    theirs = sdk(kit, tmp_path)
    wanted = payment_request()
    await kit.adapter.create(wanted)
    trade = kit.pay(wanted.payment_id)
    await kit.adapter.refund(order := refund_request(wanted, 200))
    for refund in (None, kit.refunds[0]):
        sent = kit.callback(trade, refund)
        read = theirs.callback(sent.headers, sent.body)
        resource = read["resource"]
        assert resource["out_trade_no"] == wanted.payment_id.hex
        assert resource["amount"]["total"] == 510
        assert resource.get("out_refund_no") == (order.refund_id.hex if refund else None)
        forged = kit.callback(trade, refund, wrong="signature")
        assert theirs.callback(forged.headers, forged.body) is None

        said = lower(sent.headers)
        parts = (said["wechatpay-timestamp"], said["wechatpay-nonce"], sent.body.decode(), said["wechatpay-signature"])
        assert rsa_verify(*parts, load_certificate(kit.certificate).public_key())
        hidden = json.loads(sent.body)["resource"]
        clear = aes_decrypt(hidden["nonce"], hidden["ciphertext"], hidden["associated_data"], API_V3_KEY)
        assert json.loads(clear) == resource


async def test_requests_that_it_signs_are_accepted(kit: WeChatPayKit) -> None:
    body = {"mchid": MCH_ID}
    path = f"/v3/pay/transactions/out-trade-no/{payment_request().payment_id.hex}/close"
    for signer, status in (("merchant", 404), ("stranger", 401)):
        signed = build_authorization(path, "POST", MCH_ID, SERIAL, key(signer), data=body)
        headers = {"Authorization": signed, "Content-Type": "application/json"}
        answer = await kit.outside.send("POST", kit.url + path, headers, json.dumps(body).encode())
        assert answer.status == status


async def test_requests_are_signed_alike(kit: WeChatPayKit) -> None:
    path, body = f"/v3/pay/transactions/out-trade-no/x?mchid={MCH_ID}", '{"a":"红"}'
    theirs = build_authorization(path, "GET", MCH_ID, SERIAL, key("merchant"), data=body, nonce_str="n")
    stamp = theirs.partition('timestamp="')[2].partition('"')[0]
    signed = wire.signing_text("GET", path, stamp, "n", body)
    assert f'signature="{wire.sign(key("merchant"), signed)}"' in theirs
    ours = wire.build_authorization(account(), "GET", path, body.encode(), now=kit.clock.now, nonce="n")
    assert ours.partition("signature=")[0] == theirs.partition("signature=")[0]


async def test_parameters_are_signed_alike(kit: WeChatPayKit, tmp_path: Path) -> None:
    action = await kit.adapter.create(payment_request("jsapi"))
    said = action.parameters
    assert said is not None
    parts = [said["appId"], said["timeStamp"], said["nonceStr"], said["package"]]
    assert sdk(kit, tmp_path).sign(parts) == said["paySign"]


async def test_callbacks_made_with_its_algorithms_are_read(kit: WeChatPayKit) -> None:
    await kit.adapter.refresh()
    wanted, stamp = payment_request(), str(kit.clock.now_ms() // 1_000)
    order = refund_request(wanted, 200)
    common = {"mchid": MCH_ID, "out_trade_no": wanted.payment_id.hex, "transaction_id": "42"}
    paid = {"appid": APP_ID, "trade_state": "SUCCESS", "success_time": "2026-11-22T10:34:56+08:00"}
    amounts = {"total": 510, "refund": 200, "currency": "CNY"}
    back = {"out_refund_no": order.refund_id.hex, "refund_status": "SUCCESS"}
    for event, about, content, expected in (
        ("TRANSACTION.SUCCESS", "transaction", common | paid, ProviderPayment),
        ("REFUND.SUCCESS", "refund", common | back, ProviderRefund),
    ):
        clear = json.dumps(content | {"amount": amounts}, ensure_ascii=False).encode()
        hidden = AESGCM(API_V3_KEY.encode()).encrypt(b"0123456789ab", clear, about.encode())
        resource = {"algorithm": "AEAD_AES_256_GCM", "nonce": "0123456789ab", "associated_data": about}
        resource["ciphertext"] = b64encode(hidden).decode()
        body = json.dumps(
            {"id": "EV-1", "resource_type": "encrypt-resource", "event_type": event, "resource": resource}
        )
        headers = {
            "wechatpay-timestamp": stamp,
            "wechatpay-nonce": "n",
            "wechatpay-serial": kit.sandbox._serial,
            "wechatpay-signature": rsa_sign(key("platform"), f"{stamp}\nn\n{body}\n"),
        }
        notice = kit.adapter.read_webhook(headers, body.encode(), kit.clock.now)
        assert isinstance(notice.subject, expected)
        assert notice.subject.amount is not None
        assert notice.subject.amount.amount == (200 if about == "refund" else 510)
