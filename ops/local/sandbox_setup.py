"""The sandbox of `floodgate up`: its process, and the settings that point the shop at it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import aiohttp

from commerce.kernel.bind import local_url
from commerce.kernel.errors import NotReady
from commerce.payments.providers import configured_credentials
from config.settings import Settings
from ops.local.subprocesses import ProcessSpec
from ops.sandbox.keys import Keys, MerchantIds, make_keys, read_keys
from ops.sandbox.state_files import refuse_old_state


def has_no_providers(settings: Settings) -> bool:
    """Return True if the settings name no account at a payment provider."""
    return not configured_credentials(settings.payments)


def has_no_carriers(settings: Settings) -> bool:
    """Return True if the settings name no carrier account and no fleet of our own."""
    shipping = settings.shipping
    return not (shipping.sf_express or shipping.kuaidi100 or shipping.kuaidi100_carriers or shipping.own_fleet)


def build_sandbox_settings(settings: Settings, home: Path) -> str:
    """Return the sections `payments` and `shipping` that point a shop at the sandbox, as TOML.

    A section that the settings have already is left out. Creates the keys that both sides need. Raises `NotReady` if
    the sandbox's files are of an older version or not valid.
    """
    directory = _sandbox_home(home)
    try:
        refuse_old_state(directory)
        make_keys(directory / "keys")
        keys = read_keys(directory / "keys")
    except ValueError as error:
        raise NotReady(str(error)) from None
    sandbox_url, shop_url = _sandbox_url(settings), _shop_url(settings)
    sections: dict[str, dict[str, str]] = {}
    if has_no_providers(settings):
        sections |= _provider_sections(keys, sandbox_url, shop_url)
    if has_no_carriers(settings):
        sections |= _carrier_sections(keys.ids, sandbox_url, shop_url)
    lines = ["[shipping]\nown_fleet = true\n"] if has_no_carriers(settings) else []
    for name, values in sections.items():
        lines.append(f"\n[{name}]\n")
        lines += [f"{key} = {toml_string(value)}\n" for key, value in values.items()]
    return "".join(lines)


def toml_string(value: str) -> str:
    """Return a text as a TOML string: one of JSON, except that TOML does not permit DEL in it."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _provider_sections(keys: Keys, sandbox_url: str, shop_url: str) -> dict[str, dict[str, str]]:
    alipay = {
        "app_id": keys.ids.alipay_app_id,
        "seller_id": keys.ids.alipay_seller_id,
        "gateway_url": f"{sandbox_url}/alipay/gateway.do",
        "notify_url": f"{shop_url}/v1/webhooks/payments/alipay",
        "merchant_key": keys.alipay_merchant.private,
        "alipay_key": keys.alipay_platform.public,
    }
    wechatpay = {
        "app_id": keys.ids.wechatpay_app_id,
        "mch_id": keys.ids.wechatpay_mch_id,
        "serial": keys.ids.wechatpay_merchant_serial,
        "private_key": keys.wechatpay_merchant.private,
        "api_v3_key": keys.ids.wechatpay_api_v3_key,
        "base_url": f"{sandbox_url}/wechatpay",
        "notify_url": f"{shop_url}/v1/webhooks/payments/wechatpay",
    }
    return {"payments.alipay": alipay, "payments.wechatpay": wechatpay}


def _carrier_sections(ids: MerchantIds, sandbox_url: str, shop_url: str) -> dict[str, dict[str, str]]:
    sf_express = {
        "partner_id": ids.sf_express_partner_id,
        "check_word": ids.sf_express_check_word,
        "monthly_card": ids.sf_express_monthly_card,
        "base_url": f"{sandbox_url}/sf_express/std/service",
        "webhook_key": ids.sf_express_webhook_key,
    }
    kuaidi100 = {
        "customer": ids.kuaidi100_customer,
        "key": ids.kuaidi100_key,
        "salt": ids.kuaidi100_salt,
        "base_url": f"{sandbox_url}/kuaidi100",
        "notify_url": f"{shop_url}/v1/webhooks/carriers/kuaidi100",
        "min_poll_interval_s": "0.5",  # half an hour of simulated shipments at the default pace
    }
    return {
        "shipping.sf_express": sf_express,
        "shipping.kuaidi100": kuaidi100,
        "shipping.kuaidi100_carriers": {"zto": "zhongtong", "yto": "yuantong"},
    }


def build_sandbox_spec(settings: Settings) -> ProcessSpec:
    """Return the sandbox's process. Start it before the shop's processes, which call it."""
    home = _sandbox_home(settings.data_dir)
    argv = [sys.executable, "-m", "ops.sandbox", "--port", str(settings.sandbox.port)]
    argv += ["--data", str(home), "--keys", str(home / "keys")]
    argv += ["--shop-url", _shop_url(settings), "--time-factor", str(settings.sandbox.time_factor)]
    if settings.sandbox.fault_scenario is not None:
        argv += ["--fault-scenario", str(settings.sandbox.fault_scenario)]

    async def check_ready() -> None:
        url = f"{_sandbox_url(settings)}/health"
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as client, client.get(url) as response:
            response.raise_for_status()

    return ProcessSpec("sandbox", argv, settings.data_dir / "logs" / "sandbox.log", check_ready=check_ready)


def _sandbox_url(settings: Settings) -> str:
    return f"http://127.0.0.1:{settings.sandbox.port}"


def _shop_url(settings: Settings) -> str:
    return local_url(settings.http.host, settings.http.port)


def _sandbox_home(data_dir: Path) -> Path:
    return data_dir / "sandbox"
