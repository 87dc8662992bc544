"""A catalogue and a sale to try out, made here."""

from __future__ import annotations

from datetime import timedelta
from zoneinfo import ZoneInfo

from commerce.catalog.model import ProductInput
from commerce.fleet.service import Fleet
from commerce.kernel.clock import from_ms
from commerce.sales.errors import NoSuchSale
from commerce.sales.model import ItemInput, SaleInput
from ops.local.demo_shipping import make_shipping
from ops.services import CliServices

SALE_ID, HURRY_ID = "midnight", "hurry"
_HURRY_S = 30  # to pay in, so that one can watch an order expire
_CURRENCY = "CNY"
# sku, name, price in fen, units, limit a user
_GOODS = (
    ("PHONE-X1", "Phone X1, 256 GB, night blue", 399_900, 1_000, 1),
    ("BUDS-2", "Earbuds 2 with charging case", 29_900, 5_000, 2),
    ("KETTLE-17", "Electric kettle 1.7 l, steel", 12_900, 20_000, None),
    ("TEA-LJ-250", "Longjing green tea, 250 g tin", 16_800, 20_000, None),
    ("RICE-5KG", "Northeast rice, 5 kg", 5_990, 50_000, None),
    ("DUVET-200", "Duvet, 200 x 230 cm", 25_900, 3_000, 2),
    ("LAMP-DESK", "Desk lamp with dimmer", 8_900, 10_000, None),
    ("SHOES-42", "Running shoes, size 42", 45_900, 2_000, 1),
    ("MASK-50", "Face masks, box of 50", 1_990, 100_000, 10),
    ("CABLE-C-1M", "USB-C cable, 1 m", 990, 100_000, None),
)


async def make_demo(shop: CliServices) -> None:
    """Make what is not there yet; a sale that was made and not opened is opened."""
    opens_at = from_ms(shop.clock.now_ms()) - timedelta(seconds=1)
    for sale in (
        SaleInput(SALE_ID, "The midnight sale", _CURRENCY, opens_at),
        SaleInput(HURRY_ID, "Pay within half a minute", _CURRENCY, opens_at, pay_within_s=_HURRY_S),
    ):
        await _make_sale(shop, sale)
    shipping = shop.settings.shipping
    zone = ZoneInfo(shipping.timezone)
    fleet = Fleet(shop.db, shop.clock, shop.ids, zone, shipping.stop_service_s, shipping.vehicle_speed_kmh)
    await make_shipping(shop.db, shop.clock, fleet)


async def _make_sale(shop: CliServices, sale: SaleInput) -> None:
    try:
        known = await shop.sales.get(sale.sale_id)
    except NoSuchSale:
        products = [(sku, ProductInput(name, price, _CURRENCY)) for sku, name, price, _, _ in _GOODS]
        await shop.catalog.put_many(products)
        items = [(sku, ItemInput(limit_per_user=limit, units=units)) for sku, _, _, units, limit in _GOODS]
        known = await shop.sales.create(sale, items, "demo")
    if known.state == "draft":
        await shop.sales.open(sale.sale_id, "demo")


def sample_order() -> str:
    """The body of an order for the demonstration sale, on one line."""
    return (
        f'{{"sale_id": "{SALE_ID}", "lines": [{{"sku": "TEA-LJ-250", "quantity": 2}}], '
        '"ship_to": [{"name": "Zhang San", "phone": "13800000000", "country": "CN", "province": "Zhejiang", '
        '"city": "Hangzhou", "district": "Xihu", "line": "Wenyi West Road 969", "postcode": "310000"}], '
        '"payments": [{"method": "alipay", "amount": 33600}]}'
    )
