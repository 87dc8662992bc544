"""Settings of the payment providers, and of refunds through them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field, SecretStr

from config.base import CredentialSection, Seconds, SettingsSection


class ProviderRefundSettings(SettingsSection):
    """Limits of a provider for the refunds of one payment.

    A refund is possible until `window_days` after the payment, at most one each `min_interval_s` seconds and at most
    `refunds_per_payment`."""

    window_days: Annotated[int, Field(ge=1, le=3_650)]
    min_interval_s: Annotated[float, Field(ge=0, le=3_600)]
    refunds_per_payment: Annotated[int, Field(ge=1, le=10_000)]


class RefundSettings(SettingsSection):
    """Attempts and waits of a refund at its provider, before it needs another way.

    `attempts` counts numbers at the provider: one that was closed is followed by another. A refund that the provider
    does not make yet, for lack of money or by its limits, waits between `wait_initial_s` and `wait_max_s` each time,
    until the window is over. After `long_wait_s` the customer reads that it takes longer."""

    attempts: Annotated[int, Field(ge=1, le=20)] = 3
    wait_initial_s: Seconds = 600
    wait_max_s: Seconds = 21_600
    long_wait_s: Seconds = 86_400
    # Three months unless the contract has another time (https://developer.aliyun.com/article/711070). Refunds of a
    # payment are at least 3 seconds apart (https://docs.open.alipay.com/api_1/alipay.trade.refund); their number is not
    # limited there, so this is the limit of its older interface (https://docs.open.alipay.com/66/103689).
    alipay: ProviderRefundSettings = ProviderRefundSettings(window_days=90, min_interval_s=3, refunds_per_payment=99)
    # https://pay.weixin.qq.com/doc/v3/merchant/4012556457
    wechatpay: ProviderRefundSettings = ProviderRefundSettings(
        window_days=365, min_interval_s=60, refunds_per_payment=50
    )

    @property
    def limits(self) -> Mapping[str, ProviderRefundSettings]:
        """The limits by provider."""
        return {"alipay": self.alipay, "wechatpay": self.wechatpay}


class AlipaySettings(CredentialSection):
    """An account at Alipay. Keys are PEM, or base64 as Alipay's console shows them.

    `merchant_key` is the shop's private key, `alipay_key` is Alipay's public key."""

    app_id: str
    seller_id: str
    gateway_url: str = "https://openapi.alipay.com/gateway.do"
    notify_url: str
    merchant_key: SecretStr
    alipay_key: str


class WeChatPaySettings(CredentialSection):
    """An account at WeChat Pay. Keys are PEM.

    `serial` is the serial number of the merchant's certificate. The public key is for merchants who have one in place
    of platform certificates."""

    app_id: str
    mch_id: str
    serial: str
    private_key: SecretStr
    api_v3_key: SecretStr
    base_url: str = "https://api.mch.weixin.qq.com"
    notify_url: str
    public_key: str = ""
    public_key_id: str = ""


class PaymentSettings(SettingsSection):
    """The providers that are offered. A payment expires `expiry_margin_s` before its order.

    `shop_name` begins the text on customers' bills. `return_urls` are pages of the shop to which a provider's page
    leads back: the first one if a request names none, with the order's id in place of `{order_id}`; a request may name
    any page on the hosts of these."""

    expiry_margin_s: Seconds = 60
    shop_name: str = Field(default="", max_length=20)
    return_urls: tuple[Annotated[str, Field(max_length=220, pattern=r"^https?://[!-~]+$")], ...] = ()
    alipay: AlipaySettings | None = None
    wechatpay: WeChatPaySettings | None = None
    refunds: RefundSettings = RefundSettings()
