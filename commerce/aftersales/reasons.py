"""Reasons of cases, with labels in English and Chinese.

Codes and labels are from Shopify's product taxonomy (https://github.com/Shopify/product-taxonomy, release 2026-08,
return reasons in dist/en and dist/zh-CN; copyright (c) Shopify, MIT licence). `missing_parts`, `not_received`,
`undelivered` and the party at fault are our own.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

Fault = Literal["customer", "shop", "carrier"]


class CaseReason(NamedTuple):
    """A reason, with the party at fault. If that is not the customer, the shop pays for the way back."""

    code: str
    fault: Fault
    en: str
    zh: str


_REASONS = (
    CaseReason("changed_my_mind", "customer", "Changed my mind", "不想要了"),
    CaseReason("item_not_as_described", "shop", "Item not as described", "商品与描述不符"),
    CaseReason("received_the_wrong_item", "shop", "Received the wrong item", "收到错误的商品"),
    CaseReason("damaged_or_defective", "shop", "Damaged or defective", "损坏或有缺陷"),
    CaseReason("too_small", "customer", "Too small", "太小"),
    CaseReason("too_big", "customer", "Too big", "太大"),
    CaseReason("style", "customer", "Style", "款式"),
    CaseReason("color", "customer", "Color", "颜色"),
    CaseReason("arrived_late", "carrier", "Arrived late", "到货太晚"),
    CaseReason("battery_life", "customer", "Battery life", "电池续航"),
    CaseReason("capacity", "customer", "Capacity", "容量"),
    CaseReason("comfort", "customer", "Comfort", "舒适度"),
    CaseReason("condition", "customer", "Condition", "商品状况"),
    CaseReason("edition", "customer", "Edition", "版本"),
    CaseReason("fit", "customer", "Fit", "合身度"),
    CaseReason("incompatible", "customer", "Incompatible", "不兼容"),
    CaseReason("missing_parts", "shop", "Missing parts or units", "缺少配件或数量不足"),
    CaseReason("not_received", "carrier", "Not received", "未收到货"),
    CaseReason("undelivered", "carrier", "Could not be stopped on its way", "发出后未能拦截"),
    CaseReason("other_reason", "customer", "Other", "其他"),
    CaseReason("unknown", "customer", "Unknown", "未知"),
)
REASONS = {reason.code: reason for reason in _REASONS}
