"""Settings of the payment providers."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, SecretStr

from config.base import CredentialSection, Seconds, SettingsSection


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
