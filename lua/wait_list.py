"""Scripts and reads of wait-lists: units that are held back, and those that are offered."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, NamedTuple
from uuid import UUID

from redis.asyncio import Redis

from lua.keys import SaleKeys, buyer_field
from lua.script import Argument, Script
from lua.stock import DAY_MS

_offer, _withdraw, _put_on_sale = Script("offer_units"), Script("withdraw_offers"), Script("put_on_sale")


class OfferOutcome(IntEnum):
    """Outcomes of an offer; the numbers are those of `offer_units.lua`."""

    APPLIED = 0
    ALREADY_APPLIED = 1
    NOT_READY = 2
    TOO_OLD = 3
    REFUSED = 4


class WithdrawOutcome(IntEnum):
    """Outcomes of a withdrawal; the numbers are those of `withdraw_offers.lua`."""

    WITHDRAWN = 0
    ALREADY_WITHDRAWN = 1
    NOT_READY = 2
    TOO_OLD = 3
    TAKEN = 4
    KEPT = 5


@dataclass(frozen=True, slots=True)
class UnitOffer:
    """Units of a SKU that are offered to a user. Redis keeps its ids under the day of `created_ms`."""

    offer_id: UUID
    withdrawal_id: UUID
    created_ms: int
    user_id: str
    sku: str
    units: int
    is_over: bool = False


class OfferResult(NamedTuple):
    """Redis's decision on an offer. `seq` is set when APPLIED or ALREADY_APPLIED."""

    outcome: OfferOutcome
    seq: int


class WithdrawResult(NamedTuple):
    """Redis's decision on a withdrawal. `seq` is set when WITHDRAWN, ALREADY_WITHDRAWN or TAKEN."""

    outcome: WithdrawOutcome
    seq: int


async def offer_units(client: Redis, keys: SaleKeys, epoch: int, offers: Sequence[UnitOffer]) -> list[OfferResult]:
    """Move units that are held back to the users they are offered to, each offer once.

    `epoch` is that in which the offers were read: another load restores them, and nothing is moved there.
    """
    reply = await _call(client, _offer, keys, epoch, offers, lambda offer: (offer.offer_id.bytes, offer.units))
    return [OfferResult(OfferOutcome(outcome), seq) for outcome, seq in reply]


async def withdraw_offers(
    client: Redis, keys: SaleKeys, epoch: int, offers: Sequence[UnitOffer]
) -> list[WithdrawResult]:
    """Hold back again what is left of the offers that are over, each once; tell which offers are taken."""
    reply = await _call(
        client, _withdraw, keys, epoch, offers, lambda offer: (offer.withdrawal_id.bytes, int(offer.is_over))
    )
    return [WithdrawResult(WithdrawOutcome(outcome), seq) for outcome, seq in reply]


async def _call(
    client: Redis,
    script: Script,
    keys: SaleKeys,
    epoch: int,
    offers: Sequence[UnitOffer],
    ends_of: Callable[[UnitOffer], tuple[bytes, int]],
) -> list[Any]:
    """Run a script over offers; `ends_of` returns the first and the last argument of each."""
    days = sorted({offer.created_ms // DAY_MS for offer in offers})
    day_numbers = {day: number for number, day in enumerate(days, 1)}
    arguments: list[Argument] = [epoch, len(offers)]
    for offer in offers:
        day = offer.created_ms // DAY_MS
        id_, last = ends_of(offer)
        arguments += (id_, day, day_numbers[day], buyer_field(offer.user_id, offer.sku), offer.sku, last)
    names = [keys.meta, keys.held_back, keys.offers, *(keys.changes(day) for day in days)]
    reply: list[Any] = await script.call(client, names, arguments)
    return reply[1:]


async def put_on_sale(client: Redis, keys: SaleKeys, epoch: int, sku: str, units: int) -> int:
    """Move units that are held back into the stock, at most so many. Returns how many, -1 in another load."""
    return int(await _put_on_sale.call(client, [keys.meta, keys.stock, keys.held_back], [epoch, sku, units]))


async def list_held_back(client: Redis, keys: SaleKeys) -> list[str]:
    """List the SKUs of which units are held back."""
    skus: list[Any] = await client.hkeys(keys.held_back.decode())
    return sorted(sku.decode() for sku in skus)


async def read_held_back(client: Redis, keys: SaleKeys, sku: str) -> int:
    """Return the units held back of a SKU."""
    return int(await client.hget(keys.held_back.decode(), sku) or 0)


class CustomerUnits(NamedTuple):
    """The free units of a SKU, None if it is not loaded, and those that a user has bought."""

    free: int | None
    bought: int


async def read_customer_units(client: Redis, keys: SaleKeys, pairs: Sequence[tuple[str, str]]) -> list[CustomerUnits]:
    """Read the free units and the bought ones of each pair (user, SKU)."""
    if not pairs:
        return []
    pipe = client.pipeline(transaction=False)
    pipe.exists(keys.meta)
    pipe.hmget(keys.stock, [sku for _, sku in pairs])
    pipe.hmget(keys.buyers, [buyer_field(user_id, sku) for user_id, sku in pairs])
    is_loaded, free, bought = await pipe.execute()
    return [
        CustomerUnits(int(units or 0) if is_loaded else None, int(taken or 0))
        for units, taken in zip(free, bought, strict=True)
    ]


async def has_offer(client: Redis, keys: SaleKeys, user_id: str, sku: str) -> bool:
    """Tell whether units of a SKU are offered to a user."""
    return bool(await client.hexists(keys.offers.decode(), buyer_field(user_id, sku).decode()))
