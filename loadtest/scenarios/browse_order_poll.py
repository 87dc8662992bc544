"""A visit: browse the catalog, order one item, and poll until the order is stored."""

from __future__ import annotations

import msgspec
from locust import task

from commerce.catalog.model import Variant
from commerce.kernel.paging import Page
from commerce.sales.model import Offer, PublicSale
from loadtest.scenarios import order_generator
from loadtest.scenarios.checks import ExpectedRefusal
from loadtest.scenarios.customer import SimulatedCustomer

_sales = msgspec.json.Decoder(Page[PublicSale])
_sale = msgspec.json.Decoder(PublicSale)
_offers = msgspec.json.Decoder(Page[Offer])
_variants = msgspec.json.Decoder(Page[Variant])
_variant = msgspec.json.Decoder(Variant)


class BrowsingCustomer(SimulatedCustomer):
    """Reads the catalog before ordering, and the order afterwards."""

    @task
    def visit(self) -> None:
        """Browse, order one item, poll, then find the order by its key and in the customer's list."""
        sale_id = self.options.sale
        self.browse("/v1/sales", _sales)
        self.browse(f"/v1/sales/{sale_id}", _sale, "/v1/sales/{id}", lambda sale: sale.sale_id == sale_id)
        self.browse("/v1/variants", _variants)
        page = self.browse(f"/v1/sales/{sale_id}/offers", _offers, "/v1/sales/{id}/offers")
        if isinstance(page, ExpectedRefusal):
            return
        offers = {offer.sku: offer for offer in page.items}
        sku = order_generator.chance.choice(list(offers))
        self.browse(f"/v1/variants/{sku}", _variant, "/v1/variants/{sku}", lambda variant: variant.sku == sku)
        purchase = self.create_purchase(order_generator.single_item_order(sale_id, sku), offers)
        if isinstance(self.place(purchase), ExpectedRefusal):
            return
        self.read_by_key(purchase)
        self.wait_until_stored(purchase)
        self.read_by_key(purchase)
        self.list_orders(purchase)
