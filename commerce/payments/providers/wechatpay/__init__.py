"""WeChat Pay, API v3, for a merchant of its own in mainland China (not through a service provider)."""

from commerce.payments.provider_port import ProviderAdapter
from commerce.payments.providers.wechatpay.adapter import WeChatPay
from commerce.payments.providers.wechatpay.settings import WeChatPayAccount

ADAPTER: ProviderAdapter = ProviderAdapter(
    name=WeChatPay.name,
    settings_field="wechatpay",
    load_account=WeChatPayAccount.load,
    create=WeChatPay,
)

__all__ = ["ADAPTER", "WeChatPay", "WeChatPayAccount"]
