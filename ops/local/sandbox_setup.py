"""The sandbox under `floodgate up`: its program, and the settings that name it as the shop's providers and carriers."""

from __future__ import annotations

import sys
from pathlib import Path

import aiohttp

from config.settings import Settings
from ops.local.subprocesses import ProcessSpec
from ops.sandbox.keys import Keys, MerchantIds, make_keys, read_keys


def lacks_providers(settings: Settings) -> bool:
    """The shop has agreed with nobody who takes payments."""
    return not (settings.payments.alipay or settings.payments.wechatpay)


def lacks_carriers(settings: Settings) -> bool:
    """The shop has agreed with nobody who brings parcels, and has no vans."""
    shipping = settings.shipping
    return not (shipping.sf_express or shipping.kuaidi100 or shipping.kuaidi100_carriers or shipping.own_fleet)


def sandbox_settings(settings: Settings, home: Path) -> str:
    """The parts `payments` and `shipping` of the settings, as TOML, where the shop lacks them; makes the keys that both
    sides need."""
    directory = _home(home) / "keys"
    make_keys(directory)
    keys = read_keys(directory)
    base, shop = _base(settings), _shop(settings)
    parts: dict[str, dict[str, str]] = {}
    if lacks_providers(settings):
        parts |= _providers(keys, base, shop)
    if lacks_carriers(settings):
        parts |= _carriers(keys.ids, base, shop)
    lines = ["[shipping]\nown_fleet = true\n"] if lacks_carriers(settings) else []
    for name, values in parts.items():
        lines.append(f"\n[{name}]\n")
        lines += [
            f"{key} = '''\n{value}'''\n" if "\n" in value else f'{key} = "{value}"\n' for key, value in values.items()
        ]
    return "".join(lines)


def _providers(keys: Keys, base: str, shop: str) -> dict[str, dict[str, str]]:
    alipay = {
        "app_id": keys.ids.alipay_app_id,
        "seller_id": keys.ids.alipay_seller_id,
        "gateway_url": f"{base}/alipay/gateway.do",
        "notify_url": f"{shop}/v1/webhooks/payments/alipay",
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
        "notify_url": f"{shop}/v1/webhooks/payments/wechatpay",
    }
    return {"payments.alipay": alipay, "payments.wechatpay": wechatpay}


def _carriers(ids: MerchantIds, base: str, shop: str) -> dict[str, dict[str, str]]:
    sf_express = {
        "partner_id": ids.sf_express_partner_id,
        "check_word": ids.sf_express_check_word,
        "monthly_card": ids.sf_express_monthly_card,
        "base_url": f"{base}/sf_express/std/service",
        "push_key": ids.sf_express_push_key,
    }
    kuaidi100 = {
        "customer": ids.kuaidi100_customer,
        "key": ids.kuaidi100_key,
        "salt": ids.kuaidi100_salt,
        "base_url": f"{base}/kuaidi100",
        "notify_url": f"{shop}/v1/webhooks/carriers/kuaidi100",
    }
    return {
        "shipping.sf_express": sf_express,
        "shipping.kuaidi100": kuaidi100,
        "shipping.kuaidi100_carriers": {"zto": "zhongtong", "yto": "yuantong"},
    }


def sandbox_program(settings: Settings) -> ProcessSpec:
    """Started before the shop's own programs, so that it is there when they call."""
    home = _home(settings.data_dir)
    argv = [sys.executable, "-m", "ops.sandbox", "--port", str(settings.sandbox.port)]
    argv += ["--data", str(home), "--keys", str(home / "keys")]
    argv += ["--shop", _shop(settings), "--speed", str(settings.sandbox.time_factor)]
    if settings.sandbox.fault_scenario is not None:
        argv += ["--scenario", str(settings.sandbox.fault_scenario)]

    async def ready() -> None:
        url = f"{_base(settings)}/health"
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as client, client.get(url) as answer:
            answer.raise_for_status()

    return ProcessSpec("sandbox", argv, settings.data_dir / "logs" / "sandbox.log", ready=ready)


def _base(settings: Settings) -> str:
    return f"http://127.0.0.1:{settings.sandbox.port}"


def _shop(settings: Settings) -> str:
    return f"http://{settings.http.host}:{settings.http.port}"


def _home(data_dir: Path) -> Path:
    return data_dir / "sandbox"
