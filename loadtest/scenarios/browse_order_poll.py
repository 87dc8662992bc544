"""A visit: look around, order something, and watch until the order is stored."""

from __future__ import annotations

import msgspec
from locust import task

from commerce.catalog.model import Product
from commerce.kernel.paging import Page
from commerce.sales.model import Offer, PublicSale
from loadtest.scenarios import order_generator
from loadtest.scenarios.checks import Refused
from loadtest.scenarios.shopper import Shopper

_sales = msgspec.json.Decoder(Page[PublicSale])
_sale = msgspec.json.Decoder(PublicSale)
_offers = msgspec.json.Decoder(Page[Offer])
_products = msgspec.json.Decoder(Page[Product])
_product = msgspec.json.Decoder(Product)


class Visitor(Shopper):
    """Looks before buying, and again after."""

    @task
    def visit(self) -> None:
        """Browse, order one thing, poll, then find the order by its key and in the own list."""
        sale = self.options.sale
        self.look("/v1/sales", _sales)
        self.look(f"/v1/sales/{sale}", _sale, "/v1/sales/{id}", lambda shown: shown.sale_id == sale)
        self.look("/v1/products", _products)
        page = self.look(f"/v1/sales/{sale}/offers", _offers, "/v1/sales/{id}/offers")
        if isinstance(page, Refused):
            return
        offers = {offer.sku: offer for offer in page.items}
        sku = order_generator.chance.choice(list(offers))
        self.look(f"/v1/products/{sku}", _product, "/v1/products/{sku}", lambda shown: shown.sku == sku)
        bought = self.want(order_generator.single_item_order(sale, sku), offers)
        if isinstance(self.send(bought), Refused):
            return
        self.read_by_key(bought)
        self.until_stored(bought)
        self.read_by_key(bought)
        self.list_own(bought)
