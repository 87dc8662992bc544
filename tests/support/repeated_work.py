"""Work that each start of a shop repeats, done once per process of tests.

In production a process starts once; in tests these steps would take longer than all else of a start.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import redis.utils
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from commerce.payments.providers.alipay import settings as alipay_settings
from commerce.payments.providers.wechatpay import settings as wechatpay_settings
from config.settings import LimitSettings
from gateway import app
from gateway.operations import Operation
from ops.sandbox import server, wechatpay

_build_pages = app._build_pages
_pages: dict[tuple[tuple[int, ...], str], tuple[Sequence[Operation], list[tuple[str, bytes, str]]]] = {}
"""pages by the ids of their operations, which are kept so that no other has their ids"""


def _build_pages_once(operations: Sequence[Operation], limits: LimitSettings) -> list[tuple[str, bytes, str]]:
    key = tuple(map(id, operations)), limits.model_dump_json()
    if key not in _pages:
        _pages[key] = operations, _build_pages(operations, limits)
    return _pages[key][1]


def share_repeated_work() -> None:
    """Build the OpenAPI document, check each private key and read the version of redis-py only once."""
    app._build_pages = _build_pages_once
    load_key_once = cache(load_pem_private_key)
    for module in (alipay_settings, wechatpay_settings, server, wechatpay):
        assert vars(module)["load_pem_private_key"] is load_pem_private_key, module
        vars(module)["load_pem_private_key"] = load_key_once
    redis.utils.get_lib_version = cache(redis.utils.get_lib_version)  # of each new connection
