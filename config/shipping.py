"""The settings of parcels and of those who bring them."""

from __future__ import annotations

from datetime import time
from typing import Annotated
from zoneinfo import available_timezones

from pydantic import AfterValidator, Field, SecretStr

from config.base import CredentialSection, Positive, Seconds, SettingsSection


def _zone(name: str) -> str:
    if name not in available_timezones():
        raise ValueError(f"{name!r} is no time zone: take one like Asia/Shanghai")
    return name


class SfExpressSettings(CredentialSection):
    """What is agreed with SF Express: the customer code, its check word, and the account that pays by the month.

    `push_key` is a secret of ours that stands in the address which SF pushes routes to (`?key=…`). `express_type` is
    the number of the product that was agreed, `cod_card` takes what is collected at the door, if not the monthly
    card."""

    partner_id: str
    check_word: SecretStr
    monthly_card: str
    base_url: str = "https://bspgw.sf-express.com/std/service"
    push_key: SecretStr
    express_type: str = "1"
    cod_card: str = ""


class Kuaidi100Settings(CredentialSection):
    """What is agreed with kuaidi100, which follows the parcels of many carriers. `salt` signs what it pushes."""

    customer: str
    key: SecretStr
    salt: SecretStr
    base_url: str = "https://poll.kuaidi100.com"
    notify_url: str


class BoxSettings(SettingsSection):
    """A box of the packing bench, measured inside; `weight_g` is that of the box, `max_contents_g` of what it holds."""

    name: str
    length_mm: Positive
    width_mm: Positive
    height_mm: Positive
    weight_g: Positive
    max_contents_g: Positive


class ShippingSettings(SettingsSection):
    """Parcels and those who bring them."""

    timezone: Annotated[str, AfterValidator(_zone)] = "Asia/Shanghai"
    dispatch_cutoff: time = Field(default=time(16), description="what is paid later leaves on the next day")
    delivery_promise_days: int = Field(
        default=5, ge=0, le=90, description="an order is promised so many days after it was paid"
    )
    boxes: tuple[BoxSettings, ...] = (
        BoxSettings(name="S", length_mm=250, width_mm=200, height_mm=100, weight_g=120, max_contents_g=3_000),
        BoxSettings(name="M", length_mm=400, width_mm=300, height_mm=200, weight_g=350, max_contents_g=10_000),
        BoxSettings(name="L", length_mm=600, width_mm=400, height_mm=400, weight_g=800, max_contents_g=25_000),
    )
    box_fill_ratio: float = Field(default=0.8, gt=0, le=1, description="of a box's room that goods may take")
    shipments_per_order: Positive = 200
    tracking_poll_initial_s: Seconds = 1_800
    tracking_poll_max_s: Seconds = 21_600
    no_first_scan_after_s: Seconds = 86_400
    stalled_after_s: Seconds = 172_800
    complete_after_s: Seconds = 604_800
    stop_service_s: Positive = 240
    vehicle_speed_kmh: Positive = 25
    own_fleet: bool = False
    driver_link_key: SecretStr | None = Field(
        default=None, min_length=32, description="signs drivers' links; none: made of the first shared key of tokens"
    )
    sf_express: SfExpressSettings | None = None
    kuaidi100: Kuaidi100Settings | None = None
    kuaidi100_carriers: dict[str, str] = Field(
        default={}, description="carriers whose parcels the desk books: their name in the rate table, kuaidi100's code"
    )
