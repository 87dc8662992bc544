"""Services of products for request handlers, built together."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from commerce.catalog.prices import Prices
from commerce.catalog.product_variants import ProductVariants
from commerce.catalog.products import Products
from commerce.kernel.clock import Clock
from commerce.kernel.ids import IdGenerator
from commerce.kernel.postgres import Database
from commerce.product_imports.service import ProductImports
from commerce.product_quality.grading import GradingPolicy, ProductGrading
from commerce.product_quality.model import Grade
from commerce.product_quality.publishing_gate import PublishingGate
from gateway.uploads import UploadSlots


@dataclass(frozen=True, slots=True)
class ProductServices:
    """Products, their variants, the list prices of these, and imports."""

    products: Products
    variants: ProductVariants
    prices: Prices
    imports: ProductImports


@dataclass(frozen=True, slots=True)
class ProductFileSlots:
    """Counts files of products that this process receives and sends."""

    uploads: UploadSlots = field(default_factory=UploadSlots)
    exports: UploadSlots = field(default_factory=UploadSlots)


class PublishingPolicy(GradingPolicy, Protocol):
    """The section `quality` of the settings."""

    @property
    def publish_from(self) -> Grade: ...


def build_products(db: Database, clock: Clock, ids: IdGenerator, policy: PublishingPolicy) -> ProductServices:
    """Build the services of products over Postgres."""
    gate = PublishingGate(ProductGrading(db, clock, policy), policy.publish_from)
    return ProductServices(
        products=Products(db, clock, gate.check),
        variants=ProductVariants(db, clock),
        prices=Prices(db, clock, ids),
        imports=ProductImports(db, clock, ids, gate.check),
    )
