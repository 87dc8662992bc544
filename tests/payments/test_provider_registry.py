"""The registry of providers agrees with the payment methods, the settings and the folders of adapters."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from commerce.orders.model import Method
from commerce.payments import providers
from commerce.payments.model import INTERNAL_METHODS
from commerce.payments.provider_port import ProviderAdapter
from commerce.payments.providers import ADAPTERS, PROVIDER_NAMES, configured_credentials
from config.payments import PaymentSettings

FOLDER = Path(providers.__file__).parent


def test_methods_are_providers_and_internal_methods() -> None:
    assert sorted(get_args(Method)) == sorted([*PROVIDER_NAMES, *INTERNAL_METHODS])


@pytest.mark.parametrize("adapter", ADAPTERS, ids=PROVIDER_NAMES)
def test_adapter_has_settings_section_and_folder(adapter: ProviderAdapter) -> None:
    assert adapter.settings_field in PaymentSettings.model_fields
    files = {file.name for file in (FOLDER / adapter.name).glob("*.py")}
    assert {"__init__.py", "settings.py", "wire.py", "status_map.py", "adapter.py"} <= files


def test_credentials_without_settings_are_empty() -> None:
    assert configured_credentials(PaymentSettings()) == {}
