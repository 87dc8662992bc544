"""What `floodgate up` makes up for a shop, and what it leaves to those that the shop has agreed with."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest
from pydantic import SecretStr

from commerce.kernel.clock import SystemClock
from commerce.shipping.carriers import open_carriers
from config.settings import AlipaySettings, PaymentSettings, Settings
from config.shipping import Kuaidi100Settings, SfExpressSettings, ShippingSettings
from ops.local.sandbox_setup import build_sandbox_settings, build_sandbox_spec, has_no_carriers, has_no_providers
from ops.local.up import _describe_sandbox, _needs_sandbox
from ops.sandbox.keys import make_keys, read_keys

ALIPAY = AlipaySettings(app_id="a", seller_id="s", notify_url="n", merchant_key=SecretStr("k"), alipay_key="k")
SF = SfExpressSettings(partner_id="p", check_word=SecretStr("c"), monthly_card="m", webhook_key=SecretStr("k"))
KUAIDI = Kuaidi100Settings(customer="c", key=SecretStr("k"), salt=SecretStr("s"), notify_url="n")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With keys, since making them takes long."""
    made = tmp_path_factory.mktemp("home")
    make_keys(made / "sandbox" / "keys")
    return made


def shop(payments: PaymentSettings | None = None, shipping: ShippingSettings | None = None) -> Settings:
    return Settings(payments=payments or PaymentSettings(), shipping=shipping or ShippingSettings())


async def test_a_shop_that_has_agreed_with_nobody(home: Path) -> None:
    settings = shop()
    made = tomllib.loads(build_sandbox_settings(settings, home))
    shipping = ShippingSettings.model_validate(made["shipping"])
    assert PaymentSettings.model_validate(made["payments"]).alipay is not None
    assert shipping.own_fleet
    assert shipping.kuaidi100_carriers == {"zto": "zhongtong", "yto": "yuantong"}
    assert shipping.sf_express is not None
    assert shipping.kuaidi100 is not None
    ids = read_keys(home / "sandbox" / "keys").ids
    assert shipping.sf_express.webhook_key.get_secret_value() == ids.sf_express_webhook_key
    assert shipping.sf_express.base_url == f"http://127.0.0.1:{settings.sandbox.port}/sf_express/std/service"
    assert shipping.kuaidi100.notify_url == f"http://127.0.0.1:{settings.http.port}/v1/webhooks/carriers/kuaidi100"
    argv = list(build_sandbox_spec(settings).argv)
    assert argv[argv.index("--shop") + 1] == f"http://127.0.0.1:{settings.http.port}"
    assert argv[argv.index("--speed") + 1] == str(settings.sandbox.time_factor)
    assert [line.split(":")[0] for line in _describe_sandbox(settings)] == ["Payments", "Shipments"]
    async with open_carriers(shipping, SystemClock(), timeout_s=1, connections=1) as carriers:
        assert set(carriers.by_name) == {"own_fleet", "sf_express", "zto", "yto"}


@pytest.mark.parametrize(
    "shipping",
    [
        ShippingSettings(sf_express=SF),
        ShippingSettings(kuaidi100=KUAIDI),
        ShippingSettings(own_fleet=True),
    ],
)
def test_real_carriers_and_made_up_payments(home: Path, shipping: ShippingSettings) -> None:
    settings = shop(shipping=shipping)
    assert (has_no_providers(settings), has_no_carriers(settings)) == (True, False)
    assert set(tomllib.loads(build_sandbox_settings(settings, home))) == {"payments"}
    assert _needs_sandbox(settings)


def test_real_payments_and_made_up_carriers(home: Path) -> None:
    settings = shop(payments=PaymentSettings(alipay=ALIPAY))
    assert set(tomllib.loads(build_sandbox_settings(settings, home))) == {"shipping"}
    assert _needs_sandbox(settings)
    assert [line.split(":")[0] for line in _describe_sandbox(settings)] == ["Shipments"]


def test_nothing_is_made_up_where_all_is_agreed() -> None:
    settings = shop(PaymentSettings(alipay=ALIPAY), ShippingSettings(sf_express=SF))
    assert not _needs_sandbox(settings)
    assert _describe_sandbox(settings) == []


def test_an_older_file_of_ids_is_completed(home: Path) -> None:
    keys = home / "sandbox" / "keys"
    file = keys / "sandbox.json"
    whole = json.loads(file.read_text())
    file.write_text(json.dumps({name: value for name, value in whole.items() if name.startswith(("ali", "wechat"))}))
    make_keys(keys)
    made = json.loads(file.read_text())
    assert made.keys() == whole.keys()
    assert all(made[name] == whole[name] for name in whole if name.startswith(("ali", "wechat")))
    assert made["kuaidi100_salt"] != whole["kuaidi100_salt"]
    assert file.stat().st_mode & 0o777 == 0o600
    make_keys(keys)
    assert json.loads(file.read_text()) == made
    assert len(list(keys.iterdir())) == 6
