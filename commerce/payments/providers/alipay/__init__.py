"""Alipay (支付宝) for merchants in mainland China: the open platform's gateway with RSA2 signatures, in CNY only."""

from commerce.payments.providers.alipay.adapter import Alipay
from commerce.payments.providers.alipay.settings import AlipayAccount

__all__ = ["Alipay", "AlipayAccount"]
