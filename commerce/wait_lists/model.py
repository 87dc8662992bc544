"""Wait-lists as staff set them, as they are stored, and as everybody sees them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal, NamedTuple
from uuid import UUID

import msgspec
from msgspec import UNSET, UnsetType

from commerce.catalog.model import Sku
from commerce.orders.model import Quantity
from commerce.sales.model import SaleId, SaleState

WaitListMode = Literal["off", "on"]
AcceptSeconds = Annotated[int, msgspec.Meta(ge=10, le=86_400)]
PeoplePerSku = Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]
PlaceState = Literal["waiting", "offered", "taken", "lapsed", "left"]
MAX_WAIT_LISTS = 1_000
MAX_WAIT_LIST_SKUS = 1_000
"""SKUs of a sale for which people wait or have offers: all of them are on the public page"""


class WaitListSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The settings of a wait-list. What is offered to a customer is his for `accept_s` seconds."""

    mode: WaitListMode = "on"
    accept_s: AcceptSeconds = 600
    max_people_per_sku: PeoplePerSku = 100_000


class ChangedWaitListSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Changed settings of a wait-list: an absent member leaves its value."""

    mode: WaitListMode | UnsetType = UNSET
    accept_s: AcceptSeconds | UnsetType = UNSET
    max_people_per_sku: PeoplePerSku | UnsetType = UNSET


class AwaitedSku(msgspec.Struct, frozen=True):
    """A SKU that people wait for, or have offers of.

    The numbers up to `offered_number` have had an offer; `last_number` is the last one given. `waiting` people wait
    now, and `offered_units` units are on offer now.
    """

    sku: Sku
    offered_number: int
    last_number: int
    waiting: int
    offered_units: int


class WaitList(msgspec.Struct, frozen=True):
    """A wait-list as stored, with the state of its sale.

    `waiting` and `offered` count its people now. `ran_at` is when the keeper last found that orders are taken.
    """

    sale_id: SaleId
    mode: WaitListMode
    accept_s: int
    max_people_per_sku: int
    ran_at: datetime | None
    sale_state: SaleState
    opens_at: datetime
    closes_at: datetime | None
    waiting: int
    offered: int
    skus: list[AwaitedSku]

    def is_ending(self, now: datetime) -> bool:
        """Tell whether nobody can wait any more: it is off, or the sale is over."""
        is_over = self.sale_state is SaleState.CLOSED or (self.closes_at is not None and self.closes_at <= now)
        return self.mode == "off" or is_over


class PublicWaitList(msgspec.Struct, frozen=True):
    """The public state of a wait-list, the same for everybody.

    The holder of number n of a SKU has at most (n - offered_number - 1) people before him. An offer is made to one
    customer, who has `accept_s` seconds to order.
    """

    sale_id: SaleId
    mode: WaitListMode
    accept_s: int
    skus: list[AwaitedSku]
    ask_again_s: int


class WaitListJoin(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The SKU that a customer waits for, and how many units he wants at most."""

    sku: Sku
    quantity: Quantity = 1


class WaitListPlace(msgspec.Struct, frozen=True):
    """A customer's place on the wait-list of a SKU.

    `state` is `waiting`, `offered` (order at most `offered_units` by `accept_by`), `taken`, `lapsed` (the offer is
    over) or `left`. `ahead` is null unless he waits. `ticket` proves the number; null if the shop signs none.
    """

    sale_id: SaleId
    sku: Sku
    state: PlaceState
    number: int
    ahead: int | None
    quantity: int
    offered_units: int | None
    accept_by: datetime | None
    ticket: str | None


class WaitListEntry(msgspec.Struct, frozen=True):
    """A place as stored; `accept_by` is None until Redis has the offer."""

    sale_id: str
    sku: str
    number: int
    user_id: str
    quantity: int
    state: PlaceState
    offered_units: int | None
    accept_by: datetime | None


class RecordedOffer(NamedTuple):
    """An offer of the wait-list as the keeper reads it; `is_over` if its time to accept has passed."""

    offer_id: UUID
    user_id: str
    sku: str
    units: int
    offered_at: datetime
    sale_epoch: int
    is_over: bool
