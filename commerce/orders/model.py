"""Orders: the input of customers, and the answers to customers and staff."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Literal, NamedTuple
from uuid import UUID

import msgspec

from commerce.catalog.model import SKU_PATTERN
from commerce.kernel.address import Address
from commerce.kernel.money import Currency, Minor, Money
from commerce.orders.order_states import DeliveryState, PaymentState, ReturnState
from commerce.sales.model import SALE_PATTERN, SaleId


def _schema_pattern(pattern: str) -> str:
    r"""Convert a pattern to JSON Schema, where `$` has the meaning of Python's `\Z`."""
    return pattern.removesuffix(r"\Z") + "$"


# These patterns are only stated in the schema: a SKU or sale that does not exist is refused anyway.
_SKU_SCHEMA = {"pattern": _schema_pattern(SKU_PATTERN)}
_SALE_SCHEMA = {"pattern": _schema_pattern(SALE_PATTERN)}
SoldSku = Annotated[str, msgspec.Meta(examples=["85123A"], extra_json_schema=_SKU_SCHEMA)]
OpenSaleId = Annotated[str, msgspec.Meta(examples=["double-11"], extra_json_schema=_SALE_SCHEMA)]
Quantity = Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]
AddressNo = Annotated[int, msgspec.Meta(ge=0, le=1_000, description="index into the order's ship_to")]
CouponCode = Annotated[
    str, msgspec.Meta(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9.-]*\Z", examples=["FESTIVAL-50"])
]
Method = Literal["alipay", "wechatpay", "balance", "cod"]
FULFILMENTS = "fulfilments"
"""queue of orders that are to be shipped; a trigger fills it when one is paid"""
CANCELLATIONS = "cancellations"
"""queue of orders of which units are cancelled or undecided; a trigger fills it with each refund"""
ADVANCE_CANCELLATIONS = "cancellation.advance"
"""the kind of all its jobs"""
CASES = "cases"
"""queue of cases, and of orders for which cases are to be opened"""
CASE_RULES = "case_rules"
"""queue of cases on which rules may decide"""


class OrderStatus(StrEnum):
    """The status of an order. `accepted` exists only until the order is stored in Postgres."""

    ACCEPTED = "accepted"
    AWAITING_PAYMENT = "awaiting_payment"
    CONFIRMED = "confirmed"
    PAID = "paid"
    FULFILLING = "fulfilling"
    SHIPPED = "shipped"
    DELIVERED = "delivered"
    COMPLETED = "completed"
    CANCELLED = "cancelled"


TRANSITIONS = frozenset(
    {
        (OrderStatus.AWAITING_PAYMENT, OrderStatus.CONFIRMED),
        (OrderStatus.AWAITING_PAYMENT, OrderStatus.PAID),
        (OrderStatus.AWAITING_PAYMENT, OrderStatus.CANCELLED),
        # The order expired, was paid late, and its stock was reacquired.
        (OrderStatus.CANCELLED, OrderStatus.PAID),
        (OrderStatus.CANCELLED, OrderStatus.CONFIRMED),
        (OrderStatus.CONFIRMED, OrderStatus.FULFILLING),
        (OrderStatus.PAID, OrderStatus.FULFILLING),
        # Nothing of the order is or will be delivered.
        (OrderStatus.CONFIRMED, OrderStatus.CANCELLED),
        (OrderStatus.PAID, OrderStatus.CANCELLED),
        (OrderStatus.FULFILLING, OrderStatus.CANCELLED),
        (OrderStatus.SHIPPED, OrderStatus.CANCELLED),
        (OrderStatus.FULFILLING, OrderStatus.SHIPPED),
        (OrderStatus.SHIPPED, OrderStatus.DELIVERED),
        (OrderStatus.DELIVERED, OrderStatus.COMPLETED),
    }
)
"""Allowed changes of a stored status; the table `order_transitions` enforces the same ones."""


SOLD_AND_UNDELIVERED = frozenset({OrderStatus.CONFIRMED, OrderStatus.PAID, OrderStatus.FULFILLING, OrderStatus.SHIPPED})
"""statuses of paid orders that can still be cancelled"""


class LineSplit(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The part of an order line for one address."""

    address: AddressNo
    quantity: Quantity


class OrderLineInput(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One product of an order; `ship_to` is one address, or a split of the quantity over several."""

    sku: SoldSku
    quantity: Quantity
    ship_to: AddressNo | Annotated[list[LineSplit], msgspec.Meta(min_length=1)] = 0


class Tender(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The part of the total that is paid by one method, in minor units of the sale's currency."""

    method: Method
    amount: Annotated[int, msgspec.Meta(ge=1, le=10**15)]
    currency: Currency | None = None


class PlaceOrder(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A customer's order. Without `payments` the payment method is chosen later. Each coupon is used once."""

    sale_id: OpenSaleId
    lines: Annotated[list[OrderLineInput], msgspec.Meta(min_length=1)]
    ship_to: Annotated[list[Address], msgspec.Meta(min_length=1)]
    payments: list[Tender] = []
    coupons: list[CouponCode] = []


class PlacedOrder(msgspec.Struct, frozen=True):
    """The answer to an accepted order; a repeat of the request gets the same answer."""

    order_id: UUID
    status: Literal["accepted"]
    sale_id: SaleId
    total: Money
    pay_by: datetime
    durability: Literal["fsync", "replicated", "memory"]


class OrderLine(msgspec.Struct, frozen=True):
    """The part of a stored order line for one address, with prices in minor units.

    `unit_price` is that of the sale and `list_price` the one outside it, null in orders of earlier versions. `discount`
    is taken off the whole line, and `paid` is what is left. The last four are units: `cancelled` ones will never be
    delivered.
    """

    line_no: int
    sku: str
    quantity: int
    ship_to: int
    unit_price: Minor
    list_price: Minor | None
    discount: Minor
    paid: Minor
    shipped: int = 0
    delivered: int = 0
    cancelled: int = 0
    returned: int = 0


class OrderDiscount(msgspec.Struct, frozen=True):
    """A promotion of an order, as its customer read it, with what it took off in minor units."""

    promotion_id: str
    label: str
    amount: Minor


class OrderFreight(msgspec.Struct, frozen=True):
    """Freight to one address of an order, in minor units."""

    ship_to: int
    amount: Minor


class OrderPrice(msgspec.Struct, frozen=True):
    """An order's price in minor units: subtotal - discount + freight + fee for cash on delivery = total.

    `coupons` are the codes of those that the order uses.
    """

    subtotal: Minor
    discount: Minor
    freight: Minor
    cod_fee: Minor
    discounts: list[OrderDiscount] = []
    freight_by_address: list[OrderFreight] = []
    coupons: list[str] = []


CancelReason = Literal[
    "expired", "by_customer", "by_staff", "refused", "delivery_refused", "undeliverable", "lost", "refunded"
]
EventKind = Literal["status", "payment", "refund", "cancellation", "shipment", "case", "exchange"]


class OrderEvent(msgspec.Struct, frozen=True, omit_defaults=True):
    """One event of an order. `seq` counts from 0, the acceptance.

    `status` is the status after the event; only events of the kind `status` change it. The event with which the order
    is stored has its total and price; others leave them out. `details` are ids, and amounts in minor units.
    """

    seq: int
    at: datetime
    status: OrderStatus
    actor: str
    reason: str
    total: Money | None = None
    price: OrderPrice | None = None
    kind: EventKind = "status"
    details: dict[str, Any] | None = None


RefundWay = Literal["provider", "store_credit", "transfer"]


class RefundSum(msgspec.Struct, frozen=True):
    """Refunds of payments by one method that go one way, in minor units: requested, and done of these."""

    method: Method
    way: RefundWay
    requested: Minor
    done: Minor


class OrderRefunds(msgspec.Struct, frozen=True):
    """Refunds of an order in minor units: requested, and done of these."""

    requested: Minor
    done: Minor
    parts: list[RefundSum]


class OrderStates(NamedTuple):
    """States of an order beside its status, its refunds and the orders of its exchanges, or null."""

    payment_state: PaymentState
    delivery_state: DeliveryState
    return_state: ReturnState
    refunds: OrderRefunds | None
    replacements: list[UUID] | None
    replaces: UUID | None


class OrderSummary(msgspec.Struct, frozen=True):
    """An order in a list."""

    order_id: UUID
    status: OrderStatus
    sale_id: SaleId
    total: Money
    accepted_at: datetime
    pay_by: datetime
    payment_state: PaymentState
    delivery_state: DeliveryState
    return_state: ReturnState


class Order(msgspec.Struct, frozen=True):
    """An order for its customer. Until it is stored, only the first three fields are set.

    `replacements` are the orders for which units of this one are exchanged, and have it as `replaces`."""

    order_id: UUID
    status: OrderStatus
    sale_id: SaleId
    total: Money | None = None
    price: OrderPrice | None = None
    accepted_at: datetime | None = None
    pay_by: datetime | None = None
    cancel_reason: CancelReason | None = None
    lines: list[OrderLine] | None = None
    ship_to: list[Address] | None = None
    payments: list[Tender] | None = None
    payment_state: PaymentState | None = None
    delivery_state: DeliveryState | None = None
    return_state: ReturnState | None = None
    refunds: OrderRefunds | None = None
    replacements: list[UUID] | None = None
    replaces: UUID | None = None


class VersionedOrder(NamedTuple):
    """A stored order and the version of its rows, which is another one after each change."""

    version: int
    user_id: str
    order: Order


class OrderDetails(msgspec.Struct, frozen=True):
    """An order for staff, with its events and its customer, who is null if the order cannot be decoded."""

    user_id: str | None
    order: Order
    events: list[OrderEvent]


@dataclass(slots=True)
class PersistResult:
    """The result of storing a batch; each of its orders is counted once."""

    stored: int = 0
    duplicates: int = 0
    refused: list[UUID] = field(default_factory=list)
    dead_lettered: dict[UUID, str] = field(default_factory=dict)
