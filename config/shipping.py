"""Settings of shipments and of the carriers that transport them."""

from __future__ import annotations

from datetime import time

from pydantic import Field, SecretStr

from config.base import CredentialSection, Positive, Seconds, SettingsSection, TimeZoneName


class SfExpressSettings(CredentialSection):
    """An account at SF Express: the customer code, its check word, and the card that is billed monthly.

    `webhook_key` is a secret of ours in the address to which SF sends routes (`?key=…`). `express_type` is the number
    of the contracted product. `cod_card` is credited with collected cash, if not the monthly card."""

    partner_id: str
    check_word: SecretStr
    monthly_card: str
    base_url: str = "https://bspgw.sf-express.com/std/service"
    webhook_key: SecretStr
    express_type: str = "1"
    cod_card: str = ""


class Kuaidi100Settings(CredentialSection):
    """An account at kuaidi100, which tracks shipments of many carriers. `salt` signs its webhooks.

    It locks numbers that are queried more often than every half hour: `min_poll_interval_s` holds for every query."""

    customer: str
    key: SecretStr
    salt: SecretStr
    base_url: str = "https://poll.kuaidi100.com"
    notify_url: str
    min_poll_interval_s: Seconds = 1_800


class BoxSettings(SettingsSection):
    """A box for packing, measured inside. `weight_g` is the weight of the empty box."""

    name: str
    length_mm: Positive
    width_mm: Positive
    height_mm: Positive
    weight_g: Positive
    max_contents_g: Positive


class ShippingSettings(SettingsSection):
    """Planning, packing and tracking of shipments, our own fleet, and the accounts at carriers."""

    timezone: TimeZoneName = "Asia/Shanghai"
    dispatch_cutoff: time = Field(default=time(16), description="orders paid later than this leave on the next day")
    delivery_promise_days: int = Field(
        default=5, ge=0, le=90, description="days after payment for which delivery is promised"
    )
    boxes: tuple[BoxSettings, ...] = (
        BoxSettings(name="S", length_mm=250, width_mm=200, height_mm=100, weight_g=120, max_contents_g=3_000),
        BoxSettings(name="M", length_mm=400, width_mm=300, height_mm=200, weight_g=350, max_contents_g=10_000),
        BoxSettings(name="L", length_mm=600, width_mm=400, height_mm=400, weight_g=800, max_contents_g=25_000),
    )
    box_fill_ratio: float = Field(
        default=0.8, gt=0, le=1, description="share of a box's volume that its contents may fill"
    )
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
        default=None,
        min_length=32,
        description="signs drivers' links; if not set, the key is derived from the first HS256 key of tokens",
    )
    sf_express: SfExpressSettings | None = None
    kuaidi100: Kuaidi100Settings | None = None
    kuaidi100_carriers: dict[str, str] = Field(
        default={}, description="carriers that staff book by hand: name in the rate table and code at kuaidi100"
    )
