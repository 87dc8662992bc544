"""Stock of warehouses, its movements, and allotments to sales."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal, NamedTuple
from uuid import UUID

import msgspec

from commerce.catalog.model import Sku
from commerce.kernel.types import Reason, filled_line

MAX_STOCK_UNITS = 1_000_000_000
WAREHOUSE_PATTERN = r"^[a-z0-9][a-z0-9-]{0,31}\Z"
WarehouseId = Annotated[str, msgspec.Meta(pattern=WAREHOUSE_PATTERN, description="the warehouse's id", examples=["hz"])]
MovedUnits = Annotated[int, msgspec.Meta(ge=1, le=MAX_STOCK_UNITS)]
CountedUnits = Annotated[int, msgspec.Meta(ge=0, le=MAX_STOCK_UNITS)]
Reference = Annotated[str, filled_line(100)]
MovementKind = Literal["received", "counted", "damaged", "moved", "returned", "allotted", "taken_back", "shipped"]


class StockLevel(msgspec.Struct, frozen=True):
    """Units of a SKU in a warehouse.

    `allotted` are those on hand that sales may sell. Fewer on hand than `warn_below` are a warning.
    """

    sku: str
    warehouse_id: str
    on_hand: int
    allotted: int
    warn_below: int | None

    @property
    def free(self) -> int:
        return self.on_hand - self.allotted


class WarehouseMovement(msgspec.Struct, frozen=True):
    """A change of stock, with the units that there were after it."""

    movement_no: int
    movement_id: UUID | None
    sku: str
    warehouse_id: str
    kind: MovementKind
    on_hand_delta: int
    allotted_delta: int
    on_hand: int
    allotted: int
    sale_id: str | None
    reference: str | None
    reason: str
    actor: str
    moved_at: datetime


class MovementInput(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Units that came in or went. `reference` names what they belong to, such as a case or a delivery."""

    kind: Literal["received", "damaged", "returned"]
    units: MovedUnits
    reason: Reason
    reference: Reference | None = None


class CountInput(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The units of a SKU that somebody has counted in a warehouse, allotted ones too."""

    units: CountedUnits
    reason: Reason
    reference: Reference | None = None


class StockTransferInput(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Units that move to another warehouse."""

    to_warehouse: WarehouseId
    units: MovedUnits
    reason: Reason
    reference: Reference | None = None


class WarningInput(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The units below which a stock is low; null: never."""

    warn_below: MovedUnits | None


class ItemAllotment(msgspec.Struct, frozen=True):
    """An item of a sale whose units are allotted from warehouses.

    `needed` are the units that the sale may sell, `allotted` those of them that warehouses gave, shipped ones too.
    `units` are left in warehouses, and shipments hold `planned` of those.
    """

    sku: str
    needed: int
    allotted: int
    units: int
    planned: int


class HeldUnits(NamedTuple):
    """Units of a SKU that a warehouse can ship for a sale: allotted to it, and those that no sale has."""

    sale_id: str
    sku: str
    warehouse_id: str
    allotted: int
    free: int


class CountedStock(msgspec.Struct, frozen=True):
    """A line of a file of counts."""

    sku: Sku
    warehouse_id: str
    units: int
    warn_below: int | None
