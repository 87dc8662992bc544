"""WeChat Pay, API v3, for a merchant of its own in mainland China (not through a service provider)."""

from commerce.payments.providers.wechatpay.adapter import WeChatPay
from commerce.payments.providers.wechatpay.settings import WeChatPayAccount

__all__ = ["WeChatPay", "WeChatPayAccount"]
