"""Settings that `floodgate up` derives for the sandbox, depending on the shop's own accounts."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest
from pydantic import SecretStr

from commerce.kernel.clock import SystemClock
from commerce.kernel.errors import NotReady
from commerce.shipping.carriers import open_carriers
from config.payments import AlipaySettings, PaymentSettings
from config.settings import Settings
from config.shipping import Kuaidi100Settings, SfExpressSettings, ShippingSettings
from ops.local.sandbox_setup import build_sandbox_settings, build_sandbox_spec, has_no_carriers, has_no_providers
from ops.local.up import _describe_sandbox, _needs_sandbox
from ops.sandbox.keys import make_keys, read_keys

ALIPAY = AlipaySettings(app_id="a", seller_id="s", notify_url="n", merchant_key=SecretStr("k"), alipay_key="k")
SF = SfExpressSettings(partner_id="p", check_word=SecretStr("c"), monthly_card="m", webhook_key=SecretStr("k"))
KUAIDI = Kuaidi100Settings(customer="c", key=SecretStr("k"), salt=SecretStr("s"), notify_url="n")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a data directory with keys, which are generated once because that takes long."""
    directory = tmp_path_factory.mktemp("home")
    make_keys(directory / "sandbox" / "keys")
    return directory


def create_settings(payments: PaymentSettings | None = None, shipping: ShippingSettings | None = None) -> Settings:
    return Settings(payments=payments or PaymentSettings(), shipping=shipping or ShippingSettings())


async def test_shop_without_accounts_gets_all_from_sandbox(home: Path) -> None:
    settings = create_settings()
    sections = tomllib.loads(build_sandbox_settings(settings, home))
    shipping = ShippingSettings.model_validate(sections["shipping"])
    assert PaymentSettings.model_validate(sections["payments"]).alipay is not None
    assert shipping.own_fleet
    assert shipping.kuaidi100_carriers == {"zto": "zhongtong", "yto": "yuantong"}
    assert shipping.sf_express is not None
    assert shipping.kuaidi100 is not None
    ids = read_keys(home / "sandbox" / "keys").ids
    assert shipping.sf_express.webhook_key.get_secret_value() == ids.sf_express_webhook_key
    assert shipping.sf_express.base_url == f"http://127.0.0.1:{settings.sandbox.port}/sf_express/std/service"
    assert shipping.kuaidi100.notify_url == f"http://127.0.0.1:{settings.http.port}/v1/webhooks/carriers/kuaidi100"
    argv = list(build_sandbox_spec(settings).argv)
    assert argv[argv.index("--shop-url") + 1] == f"http://127.0.0.1:{settings.http.port}"
    assert argv[argv.index("--time-factor") + 1] == str(settings.sandbox.time_factor)
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
def test_shop_with_carrier_gets_providers_from_sandbox(home: Path, shipping: ShippingSettings) -> None:
    settings = create_settings(shipping=shipping)
    assert (has_no_providers(settings), has_no_carriers(settings)) == (True, False)
    assert set(tomllib.loads(build_sandbox_settings(settings, home))) == {"payments"}
    assert _needs_sandbox(settings)


def test_shop_with_provider_gets_carriers_from_sandbox(home: Path) -> None:
    settings = create_settings(payments=PaymentSettings(alipay=ALIPAY))
    assert set(tomllib.loads(build_sandbox_settings(settings, home))) == {"shipping"}
    assert _needs_sandbox(settings)
    assert [line.split(":")[0] for line in _describe_sandbox(settings)] == ["Shipments"]


def test_shop_with_all_accounts_needs_no_sandbox() -> None:
    settings = create_settings(PaymentSettings(alipay=ALIPAY), ShippingSettings(sf_express=SF))
    assert not _needs_sandbox(settings)
    assert _describe_sandbox(settings) == []


@pytest.mark.parametrize("name", ["sandbox.sqlite", "switches.json", "carrier-switches.json"])
def test_state_of_older_version_is_refused(tmp_path: Path, name: str) -> None:
    directory = tmp_path / "sandbox"
    directory.mkdir()
    (directory / name).touch()
    with pytest.raises(NotReady, match=f"{name} was written by an older version; delete {directory}"):
        build_sandbox_settings(create_settings(), tmp_path)
    assert [file.name for file in directory.iterdir()] == [name]


def test_ids_of_older_version_are_refused(tmp_path: Path) -> None:
    keys = tmp_path / "sandbox" / "keys"
    make_keys(keys)
    file = keys / "sandbox.json"
    ids = json.loads(file.read_text())
    ids["sf_express_push_key"] = ids.pop("sf_express_webhook_key")
    file.write_text(json.dumps(ids))
    with pytest.raises(NotReady, match=f"cannot read {file}.*sf_express_push_key.*delete {keys}"):
        build_sandbox_settings(create_settings(), tmp_path)
    assert json.loads(file.read_text()) == ids
