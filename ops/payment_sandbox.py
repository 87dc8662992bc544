"""The payment sandbox under `floodgate up`: its program, and the settings that name it as the shop's providers."""

from __future__ import annotations

import sys
from pathlib import Path

import aiohttp

from config.settings import Settings
from ops.programs import Program
from ops.sandbox.keys import make_keys, read_keys


def sandbox_settings(settings: Settings, home: Path) -> str:
    """The part `payments` of the settings, as TOML; makes the keys that both sides need."""
    directory = _home(home) / "keys"
    make_keys(directory)
    keys = read_keys(directory)
    base, shop = _base(settings), f"http://{settings.http.host}:{settings.http.port}"
    alipay = {
        "app_id": keys.ids.alipay_app_id,
        "seller_id": keys.ids.alipay_seller_id,
        "gateway_url": f"{base}/alipay/gateway.do",
        "notify_url": f"{shop}/v1/payments/alipay/notify",
        "merchant_key": keys.alipay_merchant.private,
        "alipay_key": keys.alipay_platform.public,
    }
    wechatpay = {
        "app_id": keys.ids.wechatpay_app_id,
        "mch_id": keys.ids.wechatpay_mch_id,
        "serial": keys.ids.wechatpay_merchant_serial,
        "private_key": keys.wechatpay_merchant.private,
        "api_v3_key": keys.ids.wechatpay_api_v3_key,
        "base_url": f"{base}/wechatpay",
        "notify_url": f"{shop}/v1/payments/wechatpay/notify",
    }
    parts = []
    for name, values in (("alipay", alipay), ("wechatpay", wechatpay)):
        parts.append(f"\n[payments.{name}]\n")
        parts += [
            f"{key} = '''\n{value}'''\n" if "\n" in value else f'{key} = "{value}"\n' for key, value in values.items()
        ]
    return "".join(parts)


def sandbox_program(settings: Settings) -> Program:
    """Started before the shop's own programs, so that it is there when they call."""
    home = _home(settings.data_dir)
    argv = [sys.executable, "-m", "ops.sandbox", "--port", str(settings.sandbox.port)]
    argv += ["--data", str(home), "--keys", str(home / "keys")]
    if settings.sandbox.scenario is not None:
        argv += ["--scenario", str(settings.sandbox.scenario)]

    async def ready() -> None:
        url = f"{_base(settings)}/health"
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as client, client.get(url) as answer:
            answer.raise_for_status()

    return Program("sandbox", argv, settings.data_dir / "logs" / "sandbox.log", ready=ready)


def _base(settings: Settings) -> str:
    return f"http://127.0.0.1:{settings.sandbox.port}"


def _home(data_dir: Path) -> Path:
    return data_dir / "sandbox"
