"""Services of products for request handlers, built together."""

from __future__ import annotations

from dataclasses import dataclass

from commerce.catalog.prices import Prices
from commerce.catalog.product_variants import ProductVariants
from commerce.catalog.products import Products
from commerce.kernel.clock import Clock
from commerce.kernel.ids import IdGenerator
from commerce.kernel.postgres import Database


@dataclass(frozen=True, slots=True)
class ProductServices:
    """Products, their variants and the list prices of these."""

    products: Products
    variants: ProductVariants
    prices: Prices


def build_products(db: Database, clock: Clock, ids: IdGenerator) -> ProductServices:
    """Build the services of products over Postgres."""
    return ProductServices(Products(db, clock), ProductVariants(db, clock), Prices(db, clock, ids))
