"""The order desk: what becomes of an order request, whichever way it came in.

The ordinary route and the express lane both ask here, in the same sequence, so they cannot give different answers.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import Annotated, TypeVar
from uuid import UUID

import msgspec
from redis.asyncio import Redis

from commerce.kernel.clock import DAY_MS, Clock, from_ms
from commerce.kernel.errors import Invalid, NotReady, ProblemError
from commerce.kernel.ids import IdGenerator
from commerce.kernel.money import Money
from commerce.kernel.redis_client import REDIS_UNAVAILABLE
from commerce.orders.errors import KeyReused
from commerce.orders.model import PlacedOrder, PlaceOrder
from commerce.orders.pricing import OrderLimits, body_digest, price_order
from commerce.sales.errors import NoSuchSale, OverLimit, SaleClosed, SaleNotOpen, SalePaused, SoldOut
from commerce.sales.model import SALE_PATTERN, Sale
from config.settings import Settings
from gateway.order_intake import OrderIntake
from gateway.problems import BadRequest
from gateway.sale_snapshots import SaleSnapshots
from lua import EntryId, KeyRecord, Reservation, ReserveOutcome, ReserveResult, SaleKeys, find_key_records

IdempotencyKey = Annotated[str, msgspec.Meta(min_length=1, max_length=128, pattern=r"^[!-~]+\Z")]
_KEY = re.compile(r"[!-~]{1,128}")
_SALE_ID = re.compile(SALE_PATTERN)
_decode = msgspec.json.Decoder(PlaceOrder).decode
_UNDECODABLE = (ValueError, RecursionError)
_ACCEPTED = ReserveOutcome.ACCEPTED
_PLACE = re.compile(r" - at `([^`]*)`$")


class NeedsSlowPath(Exception):
    """The order cannot be placed from what is in memory; `Desk.place` finds out what to do."""


Type = TypeVar("Type")


def decode_json(decoder: msgspec.json.Decoder[Type], body: bytes) -> Type:
    """A body as its type. Raises `Invalid` with the place as a JSON pointer, or `BadRequest` if it is no JSON."""
    try:
        return decoder.decode(body)
    except _UNDECODABLE as error:
        raise _undecodable(error) from None


def _undecodable(error: Exception) -> ProblemError:
    if isinstance(error, msgspec.ValidationError):
        return invalid_input(error)
    return BadRequest(f"the body is not JSON: {error}")


def invalid_input(error: msgspec.ValidationError) -> Invalid:
    """msgspec's message with its place as a JSON pointer: `$.lines[0].sku` becomes `/lines/0/sku`."""
    text = str(error)
    place = _PLACE.search(text)
    pointer = ""
    if place:
        text = text[: place.start()]
        pointer = place[1].removeprefix("$").replace(".", "/").replace("[", "/").replace("]", "")
    return Invalid(f"{pointer or 'the body'}: {text}", errors=[{"pointer": pointer, "detail": text}])


class OrderPlacement:
    """Prices orders from memory and hands them to the intake."""

    def __init__(
        self,
        settings: Settings,
        clock: Clock,
        ids: IdGenerator,
        redis: Redis,
        snapshots: SaleSnapshots,
        intake: OrderIntake,
        limits: OrderLimits,
    ) -> None:
        self._durability = settings.durability
        self._clock = clock
        self._ids = ids
        self._redis = redis
        self._snapshots = snapshots
        self._intake = intake
        self._limits = limits
        self._pay_by: tuple[tuple[int, int], datetime] = ((0, 0), from_ms(0))

    def price_from_memory(self, order: PlaceOrder, user_id: str, key: str, traceparent: str) -> Reservation:
        """Price an order from memory. Raises `NeedsLooking` where memory is not enough to say yes or no."""
        snapshot = self._snapshots.cached(order.sale_id)
        if snapshot is None:
            raise NeedsSlowPath
        try:
            return price_order(order, snapshot, self._limits, user_id, key, self._ids.new(), traceparent)
        except Invalid:
            raise NeedsSlowPath from None

    async def place(self, order: PlaceOrder, user_id: str, key: str, traceparent: str) -> tuple[PlacedOrder, int]:
        """Place an order: the answer and its status, 202 or 200 for a repeat. Raises the refusal."""
        for attempt in range(2):
            try:
                reservation = await self._price(order, user_id, key, traceparent)
            except Invalid:
                if record := await self._find_replay(order, user_id, key):
                    return self.replayed_result(order.sale_id, record)
                raise
            reserved = await self._intake.place(order.sale_id, reservation)
            if reserved.outcome is not ReserveOutcome.STALE:
                return self.result_of(order.sale_id, reservation, reserved)
            if attempt == 0:
                await self._snapshots.refresh()
        raise problem_for_outcome(reserved, order.sale_id)

    def result_of(self, sale_id: str, reservation: Reservation, reserved: ReserveResult) -> tuple[PlacedOrder, int]:
        """The answer to an order that Redis has decided on, and its status. Raises the refusal."""
        if reserved.outcome is _ACCEPTED and reserved.entry is not None:
            return self._placed(sale_id, reservation.order_id, reservation.total_minor, reserved.entry), 202
        if reserved.outcome is ReserveOutcome.REPLAYED and reserved.record is not None:
            return self.replayed_result(sale_id, reserved.record)
        raise problem_for_outcome(reserved, sale_id)

    def replayed_result(self, sale_id: str, record: KeyRecord) -> tuple[PlacedOrder, int]:
        """The first answer once more."""
        return self._placed(sale_id, record.order_id, record.total_minor, record.entry), 200

    async def _price(self, order: PlaceOrder, user_id: str, key: str, traceparent: str) -> Reservation:
        if not _SALE_ID.fullmatch(order.sale_id):
            detail = "not the id of a sale"
            raise Invalid(f"/sale_id: {detail}", errors=[{"pointer": "/sale_id", "detail": detail}])
        snapshot = await self._snapshots.get(order.sale_id)
        return price_order(order, snapshot, self._limits, user_id, key, self._ids.new(), traceparent)

    async def _find_replay(self, order: PlaceOrder, user_id: str, key: str) -> KeyRecord | None:
        """What stands under the key, if this is an order that was accepted on terms that have changed since."""
        if self._snapshots.cached(order.sale_id) is None:
            return None
        day = self._clock.now_ms() // DAY_MS
        try:
            [record] = await find_key_records(self._redis, [SaleKeys(order.sale_id)], day, user_id, key)
        except REDIS_UNAVAILABLE:
            raise NotReady("Redis cannot be reached, nothing was taken; repeat with the same key") from None
        if record is not None and record.body_digest != body_digest(order):
            raise problem_for_outcome(ReserveResult(ReserveOutcome.KEY_REUSED), order.sale_id)
        return record

    def _placed(self, sale_id: str, order_id: UUID, total_minor: int, entry: EntryId) -> PlacedOrder:
        snapshot = self._snapshots.cached(sale_id)
        if snapshot is None:
            raise NoSuchSale(f"there is no sale {sale_id!r}")
        sale = snapshot.sale
        total = Money(total_minor, sale.currency)
        return PlacedOrder(
            order_id, "accepted", sale.sale_id, total, self._payment_deadline(entry, sale), self._durability
        )

    def _payment_deadline(self, entry: EntryId, sale: Sale) -> datetime:
        """When the order must be paid; the same for a whole batch, so it is computed once for it."""
        of, due = self._pay_by
        if of != (entry.ms, sale.pay_within_s):
            due = from_ms(entry.ms) + timedelta(seconds=sale.pay_within_s)
            self._pay_by = ((entry.ms, sale.pay_within_s), due)
        return due


def check_idempotency_key(given: str | None) -> str:
    """An Idempotency-Key as it stands in a header. Raises `BadRequest` or `Invalid`."""
    if given is None:
        raise BadRequest(f"the header parameter Idempotency-Key is missing: {KEY_DESCRIPTION}")
    if not _KEY.fullmatch(given):
        raise Invalid(f"Idempotency-Key: {KEY_WRONG}", errors=[{"pointer": "Idempotency-Key", "detail": KEY_WRONG}])
    return given


KEY_WRONG = "not 1 to 128 printable ASCII characters without blanks"
KEY_DESCRIPTION = (
    "any text of up to 128 printable characters, new for each order; a repeat with the same key is the same order"
)


def decode_order_body(body: bytes) -> PlaceOrder:
    """An order's body. Raises `Invalid` or `BadRequest`."""
    try:
        return _decode(body)
    except _UNDECODABLE as error:
        raise _undecodable(error) from None


def problem_for_outcome(reserved: ReserveResult, sale_id: str) -> ProblemError:
    """What a shopper is told of an outcome that is no order."""
    match reserved.outcome:
        case ReserveOutcome.KEY_REUSED:
            return KeyReused("this Idempotency-Key stands for an order with other content: use a new key")
        case ReserveOutcome.NOT_OPEN:
            opens_at = from_ms(reserved.opens_ms)
            text = opens_at.strftime("%Y-%m-%dT%H:%M:%SZ")
            return SaleNotOpen(f"{sale_id} opens at {text}", opens_at=text)
        case ReserveOutcome.PAUSED:
            return SalePaused(f"{sale_id} takes no orders for the moment; try again later")
        case ReserveOutcome.CLOSED:
            return SaleClosed(f"{sale_id} takes no orders any more")
        case ReserveOutcome.SOLD_OUT:
            return SoldOut(f"not as many of {reserved.sku} are left; nothing was taken", sku=reserved.sku)
        case ReserveOutcome.OVER_LIMIT:
            detail = f"you may not buy as many of {reserved.sku}, counting earlier orders; nothing was taken"
            return OverLimit(detail, sku=reserved.sku)
        case _:
            return NotReady(f"{sale_id} is being made ready; repeat with the same key in a moment")
