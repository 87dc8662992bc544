"""WeChat Pay's side of refunds: requests, queries, and abnormal ones that go to another bank account.

https://pay.weixin.qq.com/doc/v3/merchant/4012552567 and, for abnormal ones, …/4013071193.
"""

from __future__ import annotations

import re
import secrets
from base64 import b64decode
from collections.abc import Callable
from typing import Any

from aiohttp import web
from cryptography.hazmat.primitives.asymmetric.padding import MGF1, OAEP
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.hashes import SHA1

from commerce.kernel.clock import Clock
from ops.sandbox.payment_store import PaymentStore, SimulatedRefund, SimulatedTrade
from ops.sandbox.wechatpay_requests import RedirectBody, RefundBody, WeChatPayError, decode_body

REFUND_STATES = {"processing": "PROCESSING", "done": "SUCCESS", "closed": "CLOSED", "abnormal": "ABNORMAL"}
DecideRefund = Callable[[SimulatedRefund], SimulatedRefund]
"""returns a requested refund with its outcome; raises `PaymentStoreRefusal`"""


class WeChatPayRefunds:
    """Handles the requests about refunds. `serial` is the number of the certificate of `private_key`."""

    def __init__(
        self,
        payment_store: PaymentStore,
        clock: Clock,
        mch_id: str,
        private_key: RSAPrivateKey,
        serial: str,
        on_refund: Callable[[SimulatedTrade, SimulatedRefund], None],
        decide_refund: DecideRefund,
        format_time: Callable[[int], str],
    ) -> None:
        self._payment_store = payment_store
        self._clock = clock
        self._mch_id = mch_id
        self._private_key = private_key
        self._serial = serial
        self._on_refund = on_refund
        self._decide_refund = decide_refund
        self._format_time = format_time

    async def refund(self, request: web.Request, body: bytes) -> tuple[int, Any]:
        refund_request = decode_body(body, RefundBody)
        trade = self._payment_store.find_trade("wechatpay", refund_request.out_trade_no)
        if trade is None:
            raise WeChatPayError(404, "RESOURCE_NOT_EXISTS", "there is no such order")
        if (refund_request.amount.total, refund_request.amount.currency) != (trade.amount, "CNY"):
            raise WeChatPayError(400, "PARAM_ERROR", "amount.total differs from the order's")
        is_new = self._payment_store.find_refund("wechatpay", refund_request.out_refund_no) is None
        refund = self._payment_store.refund(
            self._decide_refund(
                SimulatedRefund(
                    provider="wechatpay",
                    out_refund_no=refund_request.out_refund_no,
                    out_no=refund_request.out_trade_no,
                    refund_no=f"5030{secrets.randbelow(10**24):024}",
                    amount=refund_request.amount.refund,
                    reason=refund_request.reason,
                    at_ms=self._clock.now_ms(),
                )
            )
        )
        if is_new:
            self._on_refund(trade, refund)
        return 200, self._build_response(trade, refund, "processing" if is_new else self._state(refund))

    async def query(self, request: web.Request, body: bytes) -> tuple[int, Any]:
        refund, trade = self._find(request.match_info["out_refund_no"])
        return 200, self._build_response(trade, refund, self._state(refund))

    async def redirect(self, request: web.Request, body: bytes) -> tuple[int, Any]:
        """Send an abnormal refund to a bank account, whose data only this side can read."""
        wanted = decode_body(body, RedirectBody)
        refund, trade = self._find(wanted.out_refund_no)
        if refund.refund_no != request.match_info["refund_no"]:
            raise WeChatPayError(400, "PARAM_ERROR", "refund_id and out_refund_no are of different refunds")
        if wanted.type == "USER_BANK_CARD":
            if request.headers.get("Wechatpay-Serial") != self._serial:
                raise WeChatPayError(400, "PARAM_ERROR", "Wechatpay-Serial names no certificate")
            account, name = self._decrypt(wanted.account), self._decrypt(wanted.name)
            if not wanted.issuer.endswith("_DEBIT") or not re.fullmatch("[0-9]{12,19}", account) or not name:
                raise WeChatPayError(400, "PARAM_ERROR", "bank_type, bank_account or real_name is not valid")
        if self._state(refund) != "abnormal":
            raise WeChatPayError(400, "INVALID_REQUEST", "the refund is not abnormal")
        now_ms = self._clock.now_ms()
        refund = self._payment_store.redirect_refund(refund, now_ms, now_ms)
        self._on_refund(trade, refund)
        return 200, self._build_response(trade, refund, "processing")

    def build_resource(self, trade: SimulatedTrade, refund: SimulatedRefund, excess: int) -> dict[str, Any]:
        """Return the content of a webhook, whose amount is `excess` fen too high."""
        total, refunded = trade.amount, refund.amount + excess
        amount = {"total": total, "refund": refunded, "payer_total": total, "payer_refund": refunded}
        return {
            "mchid": self._mch_id,
            **self._build_base(trade, refund),
            "refund_status": REFUND_STATES[refund.outcome],
            "amount": amount,
        }

    def _find(self, out_refund_no: str) -> tuple[SimulatedRefund, SimulatedTrade]:
        refund = self._payment_store.find_refund("wechatpay", out_refund_no)
        trade = self._payment_store.find_trade("wechatpay", refund.out_no) if refund else None
        if refund is None or trade is None:
            raise WeChatPayError(404, "RESOURCE_NOT_EXISTS", "there is no such refund")
        return refund, trade

    def _state(self, refund: SimulatedRefund) -> str:
        return refund.state_at(self._clock.now_ms())

    def _decrypt(self, ciphertext: str) -> str:
        padding = OAEP(mgf=MGF1(SHA1()), algorithm=SHA1(), label=None)  # noqa: S303  # as the protocol says
        try:
            return self._private_key.decrypt(b64decode(ciphertext, validate=True), padding).decode()
        except ValueError:
            raise WeChatPayError(400, "PARAM_ERROR", "a field is not encrypted with our key") from None

    def _build_response(self, trade: SimulatedTrade, refund: SimulatedRefund, state: str) -> dict[str, Any]:
        amount = {"total": trade.amount, "refund": refund.amount, "currency": "CNY"}
        times = {"create_time": self._format_time(refund.at_ms), "channel": "ORIGINAL"}
        return {**self._build_base(trade, refund), **times, "status": REFUND_STATES[state], "amount": amount}

    def _build_base(self, trade: SimulatedTrade, refund: SimulatedRefund) -> dict[str, Any]:
        return {
            "refund_id": refund.refund_no,
            "out_refund_no": refund.out_refund_no,
            "transaction_id": trade.trade_no,
            "out_trade_no": trade.out_no,
            "success_time": self._format_time(refund.at_ms),
            "user_received_account": "支付用户零钱",
        }
