"""Products, their variants, and the prices of variants."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal, NamedTuple
from uuid import UUID

import msgspec
from msgspec import UNSET, UnsetType

from commerce.catalog.gtin import check_gtin
from commerce.categories.attribute_values import MAX_CHOSEN, MAX_TEXT_CHARS
from commerce.categories.model import AttributeId, CategoryId, ChoiceId
from commerce.kernel.languages import MAX_LANGUAGES, LanguageTag
from commerce.kernel.moments import Moment, WithMoments
from commerce.kernel.money import Currency, Minor, Price, check_price
from commerce.kernel.types import MARKDOWN, Name, Reason, filled_line

SKU_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z"
MAX_OPTIONS, MAX_VARIANTS, MAX_ATTRIBUTE_VALUES = 3, 500, 200
MAX_PLANNED_PRICES = 100
"""of a variant, at one time"""

Sku = Annotated[str, msgspec.Meta(pattern=SKU_PATTERN, description="stock keeping unit", examples=["85123A"])]
ProductId = Annotated[str, msgspec.Meta(pattern=SKU_PATTERN, description="the product's id", examples=["mug"])]
ProductStatus = Literal["draft", "on_sale", "retired"]
ProductAction = Literal["created", "changed", "published", "retired", "variant_added", "variant_changed", "moved"]
PlanStatus = Literal["planned", "applied", "cancelled", "replaced"]
Version = Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)]
# The text has no pattern, because msgspec 0.22 aborts the process if one stands in a union with a list.
# `validate_attributes` checks it.
AttributeValue = (
    bool
    | int
    | float
    | Annotated[str, msgspec.Meta(max_length=MAX_TEXT_CHARS)]
    | Annotated[list[ChoiceId], msgspec.Meta(max_length=MAX_CHOSEN)]
)
AttributeValues = Annotated[
    dict[AttributeId, AttributeValue],
    msgspec.Meta(max_length=MAX_ATTRIBUTE_VALUES, description="values by attribute"),
]
OptionValues = Annotated[
    dict[AttributeId, AttributeValue],
    msgspec.Meta(max_length=MAX_OPTIONS, description="a value for each option of the product"),
]
Options = Annotated[
    list[AttributeId],
    msgspec.Meta(max_length=MAX_OPTIONS, description="attributes by which the variants differ"),
]
Barcode = Annotated[
    str,
    msgspec.Meta(
        pattern=r"^[0-9]{1,14}\Z",
        description="GTIN of 8, 12, 13 or 14 digits; the last one is a check digit",
        examples=["4006381333931"],
        extra_json_schema={"pattern": "^([0-9]{8}|[0-9]{12,14})$"},
    ),
]
Brand = Annotated[str, filled_line(100)]
Description = Annotated[
    str, msgspec.Meta(min_length=1, max_length=5000, pattern=MARKDOWN, extra_json_schema={"pattern": r"[^\s]"})
]
SearchWord = Annotated[str, filled_line(100)]


class VariantInput(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The data of a variant that staff set. A new one is the variant of a product of its own."""

    name: Name
    price: Price
    currency: Currency

    def __post_init__(self) -> None:
        check_price(self.price)


class Variant(msgspec.Struct, frozen=True):
    """A variant of a product with its list price in minor units."""

    sku: Sku
    name: Name
    price: Minor
    currency: Currency
    updated_at: datetime
    product_id: str
    option_values: dict[str, Any]
    barcode: str | None


class VersionedVariant(NamedTuple):
    """A variant and the version of its row, which is another one after each change.

    Customers see it if its product is on sale."""

    version: int
    is_public: bool
    variant: Variant


class ProductText(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Name, description and search words of a product in one language."""

    name: Name
    description: Description | None = None
    search_words: Annotated[list[SearchWord], msgspec.Meta(max_length=50)] = []


Texts = Annotated[
    dict[LanguageTag, ProductText],
    msgspec.Meta(min_length=1, max_length=MAX_LANGUAGES, description="texts by language"),
]


class ProductContent(msgspec.Struct, frozen=True, kw_only=True):
    """A product without its variants."""

    texts: Texts
    category_id: CategoryId | None = None
    brand: Brand | None = None
    attributes: AttributeValues = {}
    options: Options = []


class ProductInput(ProductContent, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A product to create as a draft, or with the `version` that was read to replace.

    `option_values` has the new ones by SKU if the options change while there are variants."""

    option_values: Annotated[dict[Sku, OptionValues], msgspec.Meta(max_length=MAX_VARIANTS)] = {}
    version: Version | None = None
    reason: Reason


class ProductPatch(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Changes of a product in the `version` that was read.

    What is left out stays. Of texts and attributes those that are named change; null removes one."""

    texts: Annotated[dict[LanguageTag, ProductText | None], msgspec.Meta(max_length=MAX_LANGUAGES)] = {}
    category_id: CategoryId | UnsetType | None = UNSET
    brand: Brand | UnsetType | None = UNSET
    attributes: Annotated[dict[AttributeId, AttributeValue | None], msgspec.Meta(max_length=MAX_ATTRIBUTE_VALUES)] = {}
    options: Options | UnsetType = UNSET
    option_values: Annotated[dict[Sku, OptionValues], msgspec.Meta(max_length=MAX_VARIANTS)] = {}
    version: Version
    reason: Reason


class ProductStep(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The version of a product whose status is to change, and the reason."""

    version: Version
    reason: Reason


class PublishStep(ProductStep, frozen=True, forbid_unknown_fields=True):
    """The version of a product that is to go on sale, and the reason.

    With `anyway`, which is a reason too, it goes on sale whatever its quality, and its change keeps both."""

    anyway: Reason | None = None


class ProductVariantInput(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A variant of a product that staff add or replace.

    `name` is for orders and labels. A SKU of another product moves only if `moved_from` names that product. `version`
    is that of the product; null does not compare it."""

    name: Name
    price: Price
    currency: Currency
    option_values: OptionValues = {}
    barcode: Barcode | None = None
    moved_from: ProductId | None = None
    version: Version | None = None
    reason: Reason

    def __post_init__(self) -> None:
        check_price(self.price)
        if self.barcode is not None:
            check_gtin(self.barcode)


class Product(msgspec.Struct, frozen=True, kw_only=True):
    """A product as staff see it, with its texts in all languages and its variants."""

    product_id: str
    status: ProductStatus
    version: int
    texts: dict[str, ProductText]
    category_id: str | None
    brand: str | None
    attributes: dict[str, Any]
    options: list[str]
    variants: list[Variant]
    created_at: datetime
    updated_at: datetime


class RetiredProduct(Product, frozen=True, kw_only=True):
    """A product that was retired. `open_sales` are sales that go on selling its variants, twenty at most."""

    open_sales: list[str]


class VersionedProduct(NamedTuple):
    """A product and the version of its rows and those of its variants."""

    version: str
    product: Product


class ProductSummary(msgspec.Struct, frozen=True, kw_only=True):
    """A product in a list of staff; `names` are by language. Without variants it has no prices."""

    product_id: str
    status: ProductStatus
    version: int
    names: dict[str, str]
    category_id: str | None
    brand: str | None
    variant_count: int
    min_price: int | None
    max_price: int | None
    currency: str | None
    updated_at: datetime


class ListedProduct(msgspec.Struct, frozen=True, kw_only=True):
    """A product on sale in a list, with its lowest and highest list price in minor units."""

    product_id: str
    name: str
    language: str
    category_id: str | None
    brand: str | None
    min_price: int
    max_price: int
    currency: str


class PublicProduct(msgspec.Struct, frozen=True, kw_only=True):
    """A product on sale in one language, with its variants. `languages` lists those that it has."""

    product_id: str
    name: str
    description: str | None
    language: str
    languages: list[str]
    category_id: str | None
    brand: str | None
    attributes: dict[str, Any]
    options: list[str]
    variants: list[Variant]
    updated_at: datetime


class ProductChange(msgspec.Struct, frozen=True, kw_only=True):
    """A change of a product or of its variants: the version that it made, and by field [before, after]."""

    version: int
    action: ProductAction
    at: datetime
    actor: str
    reason: str
    diff: dict[str, Any]


class PriceInput(WithMoments, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A list price, from now or from `starts_at`.

    It takes the place of one that is planned for the same time."""

    price: Price
    currency: Currency
    starts_at: Moment | None = None
    reason: Reason

    def __post_init__(self) -> None:
        super().__post_init__()
        check_price(self.price)


class PriceChange(msgspec.Struct, frozen=True, kw_only=True):
    """A list price that a variant has had since `at`. `plan_id` is the plan that set it, if one did."""

    change_no: int
    price: int
    currency: str
    at: datetime
    actor: str
    reason: str
    plan_id: UUID | None


class PlannedPrice(msgspec.Struct, frozen=True, kw_only=True):
    """A list price that is, or was, to be set at a time."""

    plan_id: UUID
    sku: str
    price: int
    currency: str
    starts_at: datetime
    status: PlanStatus
    actor: str
    reason: str
    created_at: datetime
    ended_at: datetime | None
    ended_by: str | None
    end_reason: str | None


class PlanEnd(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The reason why a planned price is cancelled."""

    reason: Reason
