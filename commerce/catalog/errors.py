"""Errors of the catalog, each with what to do."""

from __future__ import annotations

from commerce.kernel.errors import Conflict, Invalid, NotFound


class NoSuchVariant(NotFound):
    title = "There is no such variant"


class NoSuchProduct(NotFound):
    title = "There is no such product"


class NoSuchPlannedPrice(NotFound):
    title = "There is no such planned price"


class ProductChanged(Conflict):
    """Somebody changed the product since it was read. `version` is the present one."""

    code = "version_conflict"
    title = "The product has changed since you read it"


class ProductNotReady(Conflict):
    """The product cannot have this status. `errors` may say what is missing."""

    code = "product_status"
    title = "The product cannot have this status now"


class DuplicateVariant(Conflict):
    """Another variant of the product has these option values. `sku` is that variant."""

    code = "duplicate_variant"
    title = "Two variants of a product would be alike"


class BarcodeTaken(Conflict):
    """Another variant has the barcode. `sku` is that variant."""

    code = "barcode_taken"
    title = "Another variant has this barcode"


class SkuOfOtherProduct(Conflict):
    """The SKU belongs to the product `product_id`."""

    code = "sku_of_other_product"
    title = "The SKU belongs to another product"


class PlanEnded(Conflict):
    code = "plan_ended"
    title = "The planned price is not planned any more"


class BadProduct(Invalid):
    """`errors` lists `{"pointer": JSON pointer, "detail": text}`."""

    title = "The product cannot be stored as it is"
