"""Settings of refunds for tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from config.payments import ProviderRefundSettings, RefundSettings
from config.settings import Settings

REFUNDS_AT_ONCE = RefundSettings(
    wait_initial_s=0.05,
    wait_max_s=0.2,
    alipay=ProviderRefundSettings(window_days=90, min_interval_s=0, refunds_per_payment=99),
    wechatpay=ProviderRefundSettings(window_days=365, min_interval_s=0, refunds_per_payment=50),
)
"""No time between refunds of a payment, and short waits."""


def with_refund_settings(**changed: Any) -> Callable[[Settings], Settings]:
    """Make a `change` of `open_payment_shop` that sets settings of refunds."""

    def change(settings: Settings) -> Settings:
        refunds = settings.payments.refunds.model_copy(update=changed)
        return settings.model_copy(update={"payments": settings.payments.model_copy(update={"refunds": refunds})})

    return change
