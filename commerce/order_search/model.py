"""Searches for orders, and orders as staff read them whole."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal, NamedTuple
from uuid import UUID

import msgspec

from commerce.aftersales.model import CaseSummary
from commerce.cancellations.model import Cancellation
from commerce.conversations.model import ConversationSummary
from commerce.kernel.moments import Day, WithMoments
from commerce.kernel.money import Minor, Money
from commerce.kernel.types import Name
from commerce.ledger.model import PostingKind
from commerce.orders.model import Order, OrderEvent, OrderStatus
from commerce.payments.model import OrderPayments
from commerce.refunds.model import GrantKind
from commerce.return_shipments.model import ReturnShipmentDetails
from commerce.shipping.model import OrderShipments

OrderPart = Annotated[
    str,
    msgspec.Meta(
        max_length=36,
        pattern=r"^[0-9a-fA-F](?:-?[0-9a-fA-F]){7,31}\Z",
        description="an order's id, or at least its first 8 digits",
        examples=["01a202f0-719c"],
    ),
]
UserId = Annotated[str, msgspec.Meta(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9._@+-]*\Z")]
ProviderNumber = Annotated[
    str,
    msgspec.Meta(
        min_length=4,
        max_length=64,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_.|-]*\Z",
        description="number of a payment or refund: the provider's, or ours",
    ),
]
SearchedTrackingNo = Annotated[
    str,
    msgspec.Meta(min_length=4, max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*\Z", description="of either way"),
]
Phone = Annotated[
    str,
    msgspec.Meta(
        max_length=32,
        pattern=r"^\+?[0-9](?:[ ()-]*[0-9]){3}[0-9 ()-]*\Z",
        description="a recipient's whole number, with or without the prefix of China",
    ),
]
PhoneEnd = Annotated[
    str, msgspec.Meta(pattern=r"^[0-9]{4}\Z", description="the last four digits of a recipient's number")
]
StoredStatus = Literal[
    "awaiting_payment", "confirmed", "paid", "fulfilling", "shipped", "delivered", "completed", "cancelled"
]


class OrderSearch(WithMoments, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A search for stored orders; all conditions must fit.

    Days are those of the orders' ids, in the shop's zone. `cursor` is `next` of the previous page."""

    order: OrderPart | None = None
    user_id: UserId | None = None
    phone: Phone | None = None
    phone_end: PhoneEnd | None = None
    name: Name | None = None
    tracking_no: SearchedTrackingNo | None = None
    transaction_no: ProviderNumber | None = None
    status: StoredStatus | None = None
    first_day: Day | None = None
    last_day: Day | None = None
    cursor: UUID | None = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=1000)] | None = None


class ContactFilter(NamedTuple):
    """A recipient that is searched for, in the stored forms; None fits all."""

    phone: str | None
    phone_end: str | None
    name: str | None


class OrderMatch(msgspec.Struct, frozen=True):
    """An order that a search has found; `recipients` are the names of its addresses."""

    order_id: UUID
    user_id: str
    sale_id: str
    status: OrderStatus
    total: Money
    accepted_at: datetime
    recipients: list[str]


class OrderGrant(msgspec.Struct, frozen=True):
    """A decision that the customer gets money of the order back, in minor units."""

    grant_id: UUID
    kind: GrantKind
    amount: Minor
    freight: Minor
    fee: Minor
    currency: str
    reason: str
    actor: str
    at: datetime


class OrderPosting(msgspec.Struct, frozen=True):
    """A posting of the ledger for the order; its entries are minor units by account."""

    posting: str
    kind: PostingKind
    at: datetime
    actor: str | None
    reference: str | None
    reason: str | None
    currency: str
    entries: dict[str, int]


class TransactionNumbers(msgspec.Struct, frozen=True):
    """Numbers of a payment: ours, and the provider's once it has one."""

    payment_id: UUID
    transaction_id: str | None


class OrderContact(msgspec.Struct, frozen=True):
    """A recipient of the order: name and phone of an address."""

    ship_to: int
    name: str
    phone: str


StorySubject = Literal["order", "shipment", "return_shipment"]


class StoryEntry(msgspec.Struct, frozen=True):
    """An event of the order or one of its shipments; `kind` is that of an event of the order."""

    at: datetime
    subject: StorySubject
    subject_id: UUID
    actor: str
    text: str
    status: str | None = None
    kind: str | None = None
    details: dict[str, Any] | None = None


class WholeOrder(msgspec.Struct, frozen=True, kw_only=True):
    """An order with its customer and all that belongs to it, for staff.

    Until it is stored, little of it is known. `story` has the events of order, shipments and return shipments in the
    order of time."""

    user_id: str | None
    order: Order
    events: list[OrderEvent]
    contacts: list[OrderContact]
    payments: OrderPayments | None
    transactions: list[TransactionNumbers]
    grants: list[OrderGrant]
    postings: list[OrderPosting]
    shipments: OrderShipments | None
    return_shipments: list[ReturnShipmentDetails]
    cancellations: list[Cancellation]
    cases: list[CaseSummary]
    conversations: list[ConversationSummary]
    story: list[StoryEntry]


class OrderView(msgspec.Struct, frozen=True):
    """A person of the staff who has opened an order, and when."""

    actor: str
    at: datetime


class OrderViewList(msgspec.Struct, frozen=True):
    """Those who have opened an order, the latest first; 500 at most."""

    items: list[OrderView]
