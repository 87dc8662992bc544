"""Waiting rooms as staff set them, as they are stored, and as everybody sees them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal, NamedTuple

import msgspec

from commerce.sales.model import SaleId, SaleState

RoomMode = Literal["off", "on", "automatic"]
RoomState = Literal["standby", "waiting", "drawing", "serving", "ended"]
HASH_BYTES = 32
MAX_SOLD_OUT_SKUS = 100
MAX_ROOMS = 1_000
_Seconds = Annotated[int, msgspec.Meta(ge=0, le=2_000_000_000)]


class RoomSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The settings of a room. Without `list_closes_at` the list closes when the sale opens.

    An `automatic` room opens when many orders are refused, and draws nothing unless people joined while it was `on`.

    `served_per_unit` bounds the people who are served and have not ordered: so many for each free unit. If the named
    randomness is not known `fallback_after_s` after its time, that of `delay:fallback_rounds` takes its place.
    """

    mode: RoomMode
    join_opens_at: datetime
    list_closes_at: datetime | None = None
    min_account_age_s: _Seconds = 0
    served_valid_s: Annotated[int, msgspec.Meta(ge=10, le=3_600)] = 300
    max_pace_per_s: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] = 1_000
    max_waiting: Annotated[int, msgspec.Meta(ge=1, le=5_000_000)] = 1_000_000
    served_per_unit: Annotated[float, msgspec.Meta(ge=0.1, le=100)] = 2.0
    fallback_after_s: Annotated[int, msgspec.Meta(ge=1, le=86_400)] = 60
    fallback_rounds: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 60


class Step(NamedTuple):
    """A step of the serving: everybody up to `served` had his turn by `at_ms`.

    `stood_still_ms` is the time since then in which nobody could order; it is added to the turn.
    """

    served: int
    at_ms: int
    stood_still_ms: int = 0

    def end_ms(self, served_valid_s: int) -> int:
        """Return the moment at which the turn is over."""
        return self.at_ms + served_valid_s * 1000 + self.stood_still_ms


class Room(msgspec.Struct, frozen=True):
    """A room as stored, with the times and the state of its sale."""

    sale_id: SaleId
    mode: RoomMode
    state: RoomState
    salt: bytes
    join_opens_at: datetime
    list_closes_at: datetime
    min_account_age_s: int
    served_valid_s: int
    max_pace_per_s: int
    max_waiting: int
    served_per_unit: float
    named_source: str
    randomness_at: datetime | None
    fallback_after_s: int
    fallback_rounds: int
    listed_at: datetime | None
    entries: int | None
    list_digest: bytes | None
    source: str | None
    randomness: str | None
    drawn_at: datetime | None
    served: int
    expired: int
    last_number: int
    pace_per_s: float
    steps: list[Step]
    turns_ran_at: datetime | None
    sold_out: list[str]
    ended_at: datetime | None
    opened_at: datetime | None
    version: int
    opens_at: datetime
    closes_at: datetime | None
    sale_state: SaleState

    @property
    def is_open(self) -> bool:
        """Tell whether orders of the sale need a ticket."""
        return self.state not in ("standby", "ended")


class PublicDraw(msgspec.Struct, frozen=True):
    """The draw of a room: the source named beforehand, the digest of the closed list, the result.

    `fallback` takes the place of `named_source` if that is not known by `fallback_at`. `listed_at` is when the list was
    fixed.
    """

    named_source: str
    randomness_at: datetime | None
    fallback: str | None
    fallback_at: datetime | None
    listed_at: datetime | None
    entries: int | None
    list_digest: str | None
    source: str | None
    randomness: str | None
    file: str | None


class PublicRoom(msgspec.Struct, frozen=True):
    """The public state of a room, the same for everybody. `is_open`: orders of the sale need a ticket.

    The holder of number n has (n - served) people before him, and waits about (n - served) / pace_per_s seconds.
    """

    sale_id: SaleId
    state: RoomState
    is_open: bool
    join_opens_at: datetime
    list_closes_at: datetime
    opens_at: datetime
    served: int
    expired: int
    last_number: int
    pace_per_s: float
    sold_out: list[str]
    ask_again_s: int
    draw: PublicDraw


class RoomPlace(msgspec.Struct, frozen=True):
    """A customer's place. `number` and the two after it are null until the places are drawn.

    `ticket_hash` is SHA-256 over `floodgate-ticket`, sale, user and the bytes of `nonce`, with NUL between: the line
    that stands for this customer in the draw's file.
    """

    sale_id: SaleId
    state: RoomState
    ticket: str
    number: int | None
    ahead: int | None
    expected_wait_s: int | None
    ticket_hash: str
    nonce: str
