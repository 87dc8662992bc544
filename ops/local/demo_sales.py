"""Demonstration products and sales, with warehouses and vehicles from `demo_shipping`."""

from __future__ import annotations

from datetime import timedelta

from commerce.catalog.model import VariantInput
from commerce.kernel.clock import from_ms
from commerce.sales.errors import NoSuchSale
from commerce.sales.model import ItemInput, SaleInput
from ops.local import demo_festival
from ops.local.demo_pictures import create_demo_pictures
from ops.local.demo_shipping import create_demo_shipping
from ops.local.demo_support import create_demo_support
from ops.services import CliServices, create_fleet

SALE_ID, SHORT_SALE_ID = "midnight", "hurry"
_SHORT_PAY_WITHIN_S = 30  # so that one can watch an order expire
_ACTOR = "demo"
_CURRENCY = "CNY"
PRODUCTS = (
    ("PHONE-X1", "Phone X1, 256 GB, night blue", 399_900, 1_000, 1),
    ("BUDS-2", "Earbuds 2 with charging case", 29_900, 5_000, 2),
    ("KETTLE-17", "Electric kettle 1.7 l, steel", 12_900, 20_000, None),
    ("TEA-LJ-250", "Longjing green tea, 250 g tin", 16_800, 20_000, None),
    ("RICE-5KG", "Northeast rice, 5 kg", 5_990, 50_000, None),
    ("DUVET-200", "Duvet, 200 x 230 cm", 25_900, 3_000, 2),
    ("LAMP-LED", "LED lamp with dimmer", 8_900, 10_000, None),
    ("SHOES-42", "Running shoes, size 42", 45_900, 2_000, 1),
    ("MASK-50", "Face masks, box of 50", 1_990, 100_000, 10),
    ("CABLE-C-1M", "USB-C cable, 1 m", 990, 100_000, None),
)
"""SKU, name, price in fen, units, limit per user"""


async def create_demo(shop: CliServices) -> None:
    """Create the demonstration data that is missing, and open its sales. Idempotent."""
    opens_at = from_ms(shop.clock.now_ms()) - timedelta(seconds=1)
    for sale in (
        SaleInput(SALE_ID, "The midnight sale", _CURRENCY, opens_at),
        SaleInput(SHORT_SALE_ID, "Pay within half a minute", _CURRENCY, opens_at, pay_within_s=_SHORT_PAY_WITHIN_S),
        SaleInput(demo_festival.SALE_ID, "The festival: every 300 less 50", _CURRENCY, opens_at),
    ):
        await _create_sale(shop, sale)
    await create_demo_shipping(shop.db, shop.clock, create_fleet(shop))  # first: freight needs the weights
    for sale_id in (SALE_ID, SHORT_SALE_ID, demo_festival.SALE_ID):
        await _open_sale(shop, sale_id)
    await create_demo_support(shop)
    await create_demo_pictures(shop)


async def _create_sale(shop: CliServices, sale_input: SaleInput) -> None:
    """Create a draft with all products, unless the sale exists."""
    try:
        await shop.sales.get(sale_input.sale_id)
    except NoSuchSale:
        products = [(sku, VariantInput(name, price, _CURRENCY)) for sku, name, price, _, _ in PRODUCTS]
        await shop.catalog.put_many(products)
        items = [(sku, ItemInput(limit_per_user=limit, units=units)) for sku, _, _, units, limit in PRODUCTS]
        await shop.sales.create(sale_input, items, _ACTOR)


async def _open_sale(shop: CliServices, sale_id: str) -> None:
    """Open a sale unless it was opened before."""
    if (await shop.sales.get(sale_id)).state == "draft":
        if sale_id == demo_festival.SALE_ID:
            await demo_festival.create_festival_terms(shop, _ACTOR)
        await shop.sales.open(sale_id, _ACTOR)


def sample_order() -> str:
    """Return the JSON body of an order in the demonstration sale, on one line.

    A carrier delivers it, which the sandbox simulates; our own vehicles in Hangzhou wait for a driver.
    """
    return (
        f'{{"sale_id": "{SALE_ID}", "lines": [{{"sku": "TEA-LJ-250", "quantity": 2}}], '
        '"ship_to": [{"name": "Zhang San", "phone": "13800000000", "country": "CN", "province": "Sichuan", '
        '"city": "Chengdu", "line": "Renmin South Road 5"}], '
        '"payments": [{"method": "alipay", "amount": 33600}]}'
    )
