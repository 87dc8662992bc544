"""Alipay (支付宝) for merchants in mainland China: the open platform with RSA2 signatures, in CNY."""

from commerce.payments.provider_port import ProviderAdapter
from commerce.payments.providers.alipay.adapter import Alipay
from commerce.payments.providers.alipay.settings import AlipayAccount

ADAPTER: ProviderAdapter = ProviderAdapter(
    name=Alipay.name,
    settings_field="alipay",
    load_account=AlipayAccount.load,
    create=Alipay,
)

__all__ = ["ADAPTER", "Alipay", "AlipayAccount"]
