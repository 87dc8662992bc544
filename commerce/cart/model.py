"""Carts and checkouts: the input of customers, rows as stored, and as they are shown."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal, NamedTuple
from uuid import UUID

import msgspec
from msgspec import UNSET, UnsetType

from commerce.catalog.model import Sku
from commerce.kernel.address import Address
from commerce.kernel.money import Currency, Minor, Money
from commerce.orders.model import AddressNo, CouponCode, LineSplit, OrderPrice, PlaceOrder, Quantity, Tender
from commerce.promotions.model import Explanation
from commerce.sales.model import ItemTerms, SaleId, SaleState

TicketText = Annotated[str, msgspec.Meta(min_length=1, max_length=512, pattern=r"^[!-~]+\Z")]
CartVersion = Annotated[int, msgspec.Meta(ge=0, le=2**53, description="rises with each change of the cart")]


class CartLineInput(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A line of a cart. A checkout takes lines that are `selected` and not `saved` for later."""

    quantity: Quantity
    selected: bool = True
    saved: bool = False


class CartLineChange(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Changes of a line; what is left out stays.

    `accept_price` accepts the present price, as a new quantity does.
    """

    quantity: Quantity | UnsetType = UNSET
    selected: bool | UnsetType = UNSET
    saved: bool | UnsetType = UNSET
    accept_price: bool = False


WarningCode = Literal[
    "price_changed",
    "sold_out",
    "too_few_units",
    "over_limit",
    "sale_not_open",
    "sale_paused",
    "sale_closed",
    "gone",
    "quantity_cut",
    "not_merged",
]


class CartWarning(msgspec.Struct, frozen=True, omit_defaults=True):
    """Something that the customer should know about a line, as `code` says.

    | code | meaning |
    |---|---|
    | `price_changed` | it costs `new_price`; `old_price` is the one that the customer accepted |
    | `sold_out`, `too_few_units` | none is free, or only `available` |
    | `over_limit` | one customer may buy `limit` |
    | `sale_not_open`, `sale_paused`, `sale_closed` | the sale takes no orders now |
    | `gone` | the sale does not offer it any more |
    | `quantity_cut` | a merge kept `quantity` of `wanted` |
    | `not_merged` | a merge left the line with `wanted` units in the guest's cart |
    """

    code: WarningCode
    sale_id: SaleId
    sku: Sku
    old_price: Minor | None = None
    new_price: Minor | None = None
    available: int | None = None
    limit: int | None = None
    quantity: int | None = None
    wanted: int | None = None


class CartLine(msgspec.Struct, frozen=True):
    """A line with the price of this moment, null if it is gone.

    `available` are the free units, null if that is not known; the limit per user counts earlier orders too.
    """

    sku: Sku
    name: str | None
    quantity: int
    selected: bool
    saved: bool
    price: Minor | None
    accepted_price: Minor
    limit_per_user: int | None
    available: int | None
    added_at: datetime


class CartSale(msgspec.Struct, frozen=True):
    """The lines of one sale, which become one order.

    `price` and `total` are those of the selected lines, without freight unless the sale has none, and without coupons.
    `promotions` apply to them, or are in reach. All are null or empty if the sale is gone.
    """

    sale_id: SaleId
    title: str | None
    state: SaleState | None
    opens_at: datetime | None
    closes_at: datetime | None
    currency: Currency | None
    lines: list[CartLine]
    price: OrderPrice | None
    total: Money | None
    promotions: list[Explanation]


class CheckoutState(msgspec.Struct, frozen=True):
    """A checkout that is under way, and the version of the cart that it takes."""

    checkout_id: UUID
    version: CartVersion


class Cart(msgspec.Struct, frozen=True):
    """A cart as it is now. It reserves nothing.

    `cart_id` is what a guest sends as `Cart-Id`, null for customers. `totals` has the selected lines of all sales, by
    currency.
    """

    cart_id: str | None
    version: CartVersion
    sales: list[CartSale]
    totals: list[Money]
    warnings: list[CartWarning]
    checkout: CheckoutState | None


class CheckoutLine(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The address of a selected line, or a split of its quantity over several."""

    sku: Sku
    ship_to: AddressNo | Annotated[list[LineSplit], msgspec.Meta(min_length=1)]


class SaleCheckout(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The details of one sale's order. Lines that are not named go to address 0."""

    sale_id: SaleId
    lines: list[CheckoutLine] = []
    payments: list[Tender] = []
    coupons: list[CouponCode] = []


class CheckoutPlan(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The details of a checkout of selected lines; addresses are given, or named by their ids."""

    ship_to: list[Address] = []
    address_ids: list[UUID] = []
    sales: list[SaleCheckout] = []


class CheckoutRequest(CheckoutPlan, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """An order of the selected lines of a cart.

    `version` and `expected_totals` are those of the quote that the customer confirms. `room_tickets` maps sales to
    tickets of their waiting rooms.
    """

    version: CartVersion
    expected_totals: Annotated[list[Money], msgspec.Meta(min_length=1)]
    accept_prices: bool = False
    room_tickets: dict[SaleId, TicketText] = {}


class OrderProblem(msgspec.Struct, frozen=True):
    """The refusal of an order, as the problem that placing it alone would have answered."""

    code: str
    status: int
    title: str
    detail: str
    sku: str | None = None
    coupon: str | None = None


OrderOutcome = Literal["pending", "placed", "refused", "not_placed"]


class CheckoutOrder(msgspec.Struct, frozen=True):
    """The outcome of one sale's order.

    | outcome | meaning |
    |---|---|
    | `placed` | it is order `order_id`, all of its lines; they left the cart |
    | `refused` | nothing of it was reserved, as `problem` says; its lines are in the cart |
    | `pending` | it is not decided: repeat the same request |
    | `not_placed` | the request was not repeated in time, and there is no order |
    """

    sale_id: SaleId
    outcome: OrderOutcome
    order_id: UUID | None
    total: Money | None
    pay_by: datetime | None
    problem: OrderProblem | None


class CheckoutResult(msgspec.Struct, frozen=True):
    """The outcomes of a checkout's orders, and the cart with what is left in it."""

    checkout_id: UUID
    state: Literal["placing", "done"]
    orders: list[CheckoutOrder]
    cart: Cart


class StoredCheckoutOrder(NamedTuple):
    """An order of a checkout as stored; `total_minor` is the one that the customer has confirmed."""

    sale_id: str
    body: PlaceOrder | None
    outcome: OrderOutcome
    order_id: UUID | None
    total_minor: int
    currency: str
    pay_by: datetime | None
    problem: OrderProblem | None


class StoredCheckout(NamedTuple):
    """A checkout as stored; only the request with its `attempt` may go on with it."""

    checkout_id: UUID
    cart_id: UUID
    cart_version: int
    user_id: str
    request_digest: bytes
    state: Literal["placing", "done"]
    attempt: int
    created_at: datetime
    orders: list[StoredCheckoutOrder]


class CartOwner(NamedTuple):
    """The customer of a cart, or the guest, known by the id of the cart.

    Without either the cart is empty.
    """

    user_id: str | None
    cart_id: UUID | None = None


class StoredLine(NamedTuple):
    """A line as stored."""

    sale_id: str
    sku: str
    quantity: int
    selected: bool
    saved: bool
    accepted_price_minor: int
    added_at: datetime

    @property
    def key(self) -> tuple[str, str]:
        return self.sale_id, self.sku

    @property
    def is_ordered(self) -> bool:
        """Tell whether a checkout takes the line."""
        return self.selected and not self.saved


class StoredCart(NamedTuple):
    """A cart as stored; version 0 is a cart that has no row yet."""

    cart_id: UUID | None
    user_id: str | None
    version: int
    merged_into: UUID | None
    checkout: CheckoutState | None
    lines: list[StoredLine]


class CartLimits(NamedTuple):
    """Maximum lines of a cart, and maximum quantity of a line."""

    lines: int
    quantity: int


class OfferedSale(NamedTuple):
    """A sale as carts show it, with its items by SKU."""

    title: str
    state: SaleState
    opens_at: datetime
    closes_at: datetime | None
    currency: str
    items: dict[str, ItemTerms]


class SalePrice(NamedTuple):
    """The price of the selected lines of a sale, and its promotions that apply or are in reach."""

    price: OrderPrice
    total: int
    promotions: list[Explanation]


class ShopView(NamedTuple):
    """The state of the shop that a cart is shown with.

    Sales and prices of the selected lines by sale, free units by sale and SKU, names by SKU.
    """

    sales: dict[str, OfferedSale]
    prices: dict[str, SalePrice]
    units: dict[tuple[str, str], int | None]
    names: dict[str, str]
    now: datetime
