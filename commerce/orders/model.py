"""What a shopper sends, what travels through the stream, and what is shown of an order."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Literal
from uuid import UUID

import msgspec

from commerce.catalog.model import SKU_PATTERN
from commerce.kernel.address import Address
from commerce.kernel.money import Currency, Minor, Money
from commerce.sales.model import SALE_PATTERN, SaleId


def _ends(pattern: str) -> str:
    r"""As JSON Schema writes it: Python's `\Z` is its `$`."""
    return pattern.removesuffix(r"\Z") + "$"


# What a sale does not offer is refused whatever it looks like, so these are only described.
SoldSku = Annotated[str, msgspec.Meta(examples=["85123A"], extra_json_schema={"pattern": _ends(SKU_PATTERN)})]
OpenSaleId = Annotated[str, msgspec.Meta(examples=["double-11"], extra_json_schema={"pattern": _ends(SALE_PATTERN)})]
Quantity = Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]
AddressNo = Annotated[int, msgspec.Meta(ge=0, le=1_000, description="index into the order's ship_to")]
Method = Literal["alipay", "wechatpay", "balance", "cod"]


class OrderStatus(StrEnum):
    """`accepted` exists only before Postgres has the order."""

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
        # It expired, was paid all the same, and the goods could be taken again.
        (OrderStatus.CANCELLED, OrderStatus.PAID),
        (OrderStatus.CANCELLED, OrderStatus.CONFIRMED),
        (OrderStatus.CONFIRMED, OrderStatus.FULFILLING),
        (OrderStatus.PAID, OrderStatus.FULFILLING),
        (OrderStatus.FULFILLING, OrderStatus.SHIPPED),
        (OrderStatus.SHIPPED, OrderStatus.DELIVERED),
        (OrderStatus.DELIVERED, OrderStatus.COMPLETED),
    }
)
"""Every step a stored status may take; the table `order_transitions` says the same and enforces it."""


class LineSplit(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The part of a line that goes to one address."""

    address: AddressNo
    quantity: Quantity


class OrderLineInput(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One product; `ship_to` is an address, or says how the quantity is split over several."""

    sku: SoldSku
    quantity: Quantity
    ship_to: AddressNo | Annotated[list[LineSplit], msgspec.Meta(min_length=1)] = 0


class Tender(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The part of the total that is to be paid in one way, in minor units of the sale's currency."""

    method: Method
    amount: Annotated[int, msgspec.Meta(ge=1, le=10**15)]
    currency: Currency | None = None


class PlaceOrder(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A shopper's order. Without `payments` the way to pay is chosen later."""

    sale_id: OpenSaleId
    lines: Annotated[list[OrderLineInput], msgspec.Meta(min_length=1)]
    ship_to: Annotated[list[Address], msgspec.Meta(min_length=1)]
    payments: list[Tender] = []


class PlacedOrder(msgspec.Struct, frozen=True):
    """The answer to an order, the same however often it is repeated."""

    order_id: UUID
    status: Literal["accepted"]
    sale_id: SaleId
    total: Money
    pay_by: datetime
    durability: Literal["fsync", "replicated", "memory"]


class OrderLine(msgspec.Struct, frozen=True):
    """A stored line's part for one address."""

    line_no: int
    sku: str
    quantity: int
    ship_to: int
    unit_price: Minor


class OrderEvent(msgspec.Struct, frozen=True):
    """One step of an order's status. `seq` rises by one from 0, which is acceptance."""

    seq: int
    at: datetime
    status: OrderStatus
    actor: str
    reason: str


class OrderSummary(msgspec.Struct, frozen=True):
    """An order in a list."""

    order_id: UUID
    status: OrderStatus
    sale_id: SaleId
    total: Money
    accepted_at: datetime
    pay_by: datetime


class Order(msgspec.Struct, frozen=True):
    """An order as its owner sees it. Before Postgres has it, only the first three fields are there."""

    order_id: UUID
    status: OrderStatus
    sale_id: SaleId
    total: Money | None = None
    accepted_at: datetime | None = None
    pay_by: datetime | None = None
    cancel_reason: Literal["expired", "by_customer", "by_staff", "refused"] | None = None
    lines: list[OrderLine] | None = None
    ship_to: list[Address] | None = None
    payments: list[Tender] | None = None


class OrderDetails(msgspec.Struct, frozen=True):
    """An order as staff see it: with its customer, who is null if the order cannot be read, and all that happened."""

    user_id: str | None
    order: Order
    events: list[OrderEvent]
