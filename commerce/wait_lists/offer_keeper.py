"""Keeping of a wait-list: offer returned units, withdraw what nobody took, put the rest on sale.

Any number of keepers may run. What is offered to whom is committed first, under the lock of the SKU's counts; the
scripts then move the units once per offer, and are repeated by the next keeper if one dies in between. A unit is held
back, offered, free or sold at any moment, and each step moves it from one to another in one script.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from datetime import datetime
from uuid import UUID, uuid5

from redis.asyncio import Redis

import lua
from commerce.kernel.clock import Clock, from_ms, to_ms
from commerce.kernel.failpoints import failpoint
from commerce.kernel.failures import Failures
from commerce.kernel.ids import IdGenerator
from commerce.kernel.postgres import Connection, Database
from commerce.sales.model import SaleState
from commerce.wait_lists import store
from commerce.wait_lists.model import RecordedOffer, WaitList
from lua import OfferOutcome, SaleKeys, UnitOffer, WithdrawOutcome

_logger = logging.getLogger(__name__)
_OFFERS_PER_CALL = 500
_PLACES_PER_CALL = 10_000
_RUNNING_INTERVAL_MS, _TAKEN_INTERVAL_MS = 1_000, 1_000
_FIRST = UUID(int=0)
_STATES = {
    WithdrawOutcome.WITHDRAWN: "lapsed",
    WithdrawOutcome.ALREADY_WITHDRAWN: "lapsed",
    WithdrawOutcome.TAKEN: "taken",
}


CountOffers = Callable[[str, int], None]
"""called with an outcome (offered, taken, lapsed, refused) and a number of offers"""


class WaitListKeeper:
    """Takes the next step of a wait-list, as often as it is called.

    `count_offers` gets the numbers of offers for metrics.
    """

    def __init__(
        self, db: Database, redis: Redis, clock: Clock, ids: IdGenerator, count_offers: CountOffers | None = None
    ) -> None:
        self._db = db
        self._redis = redis
        self._clock = clock
        self._ids = ids
        self._count_offers = count_offers
        self._checked_taken: dict[str, tuple[int, UUID]] = {}
        """when the last check of a sale's running offers began, and the offer that it has come to"""

    async def step(self, wait_list: WaitList) -> None:
        """Withdraw offers that are over, and offer what is held back, or put it on sale if the list ends.

        Moves no units while the sale takes no orders. Raises `SomeFailed` after all SKUs if the step of some failed.
        """
        sale_id, now = wait_list.sale_id, self._now()
        is_ending = wait_list.is_ending(now)
        if not is_ending and (wait_list.sale_state is not SaleState.OPEN or wait_list.opens_at > now):
            return
        keys, failures = SaleKeys(sale_id), Failures("take the step of a SKU", _logger)
        if is_ending:  # also while Redis does not have the sale
            for awaited in [awaited for awaited in wait_list.skus if awaited.waiting]:
                with failures.catch(sale_id=sale_id, sku=awaited.sku):
                    await self._end_waiting(sale_id, awaited.sku, now)
        [load] = await lua.read_load_states(self._redis, [keys])
        if load.epoch == 0 or not load.is_adopted:
            failures.raise_any()
            return
        if not is_ending and _is_running_due(wait_list, to_ms(now)):
            async with self._db.connection() as connection:
                await store.continue_offers(connection, sale_id, now)
        if wait_list.offered:
            await self._apply_offers(sale_id, keys)
            await self._end_offers(sale_id, keys, now, is_ending=is_ending)
        has_offered = False
        for sku in await lua.list_held_back(self._redis, keys):
            with failures.catch(sale_id=sale_id, sku=sku):
                has_offered |= await self._distribute(wait_list, keys, sku, load.epoch, now)
        if has_offered:
            await self._apply_offers(sale_id, keys)
        failures.raise_any()

    async def _distribute(self, wait_list: WaitList, keys: SaleKeys, sku: str, epoch: int, now: datetime) -> bool:
        """Record offers of units held back, and put the rest on sale. Returns True if there are offers.

        Who wants more than there is gets an offer of what there is: no unit lies idle, and nobody overtakes.
        """
        sale_id = wait_list.sale_id
        async with self._db.transaction() as connection:
            if not await store.lock_loaded(connection, sale_id, epoch):
                return False
            await store.lock_skus(connection, sale_id, [sku])
            # First the rows, then Redis: an offer that is applied in between is counted twice, and fewer are made.
            unapplied = await store.sum_unapplied(connection, sale_id, sku)
            spare = await lua.read_held_back(self._redis, keys, sku) - unapplied
            if spare <= 0:
                return False
            offered = 0
            if not wait_list.is_ending(now):
                offered, spare = await self._record_offers(connection, sale_id, keys, sku, spare, now)
            if offered < _OFFERS_PER_CALL and spare > 0:  # nobody else waits, and who joins now waits for the lock
                await lua.put_on_sale(self._redis, keys, epoch, sku, spare)
                failpoint("wait_list.after_sale")
        failpoint("wait_list.after_record")
        self._count("offered", offered)
        return offered > 0

    async def _record_offers(
        self, connection: Connection, sale_id: str, keys: SaleKeys, sku: str, spare: int, now: datetime
    ) -> tuple[int, int]:
        """Record offers to those who have waited longest. Returns their number and the units that are left."""
        offers: list[tuple[int, UUID, int]] = []
        for number, quantity in await store.list_waiting(connection, sale_id, sku, min(spare, _OFFERS_PER_CALL)):
            units = min(quantity, spare)
            if units == 0:
                break
            spare -= units
            offers.append((number, self._ids.new(), units))
        if offers:
            after = (await lua.read_position(self._redis, keys)).last_entry
            await store.record_offers(connection, sale_id, sku, offers, now, after)
        return len(offers), spare

    async def _apply_offers(self, sale_id: str, keys: SaleKeys) -> None:
        """Make recorded offers in Redis, also those of a keeper that died."""
        async with self._db.connection() as connection:
            recorded = await store.list_unapplied(connection, sale_id, _OFFERS_PER_CALL)
        if not recorded:
            return
        epoch = recorded[0].sale_epoch
        results = await lua.offer_units(self._redis, keys, epoch, [_to_unit_offer(offer) for offer in recorded])
        failpoint("wait_list.after_offer")
        applied: list[tuple[UUID, int]] = []
        refused: list[UUID] = []
        for offer, result in zip(recorded, results, strict=True):
            match result.outcome:
                case OfferOutcome.APPLIED | OfferOutcome.ALREADY_APPLIED:
                    applied.append((offer.offer_id, result.seq))
                case OfferOutcome.REFUSED:
                    refused.append(offer.offer_id)
                case OfferOutcome.TOO_OLD:
                    _log_too_old(sale_id, offer)
        async with self._db.transaction() as connection:
            if not await self._lock(connection, sale_id, epoch, recorded):
                return
            await store.mark_offers_applied(connection, applied, epoch, self._now())
            await store.refuse_offers(connection, refused)
        self._count("refused", len(refused))

    async def _end_offers(self, sale_id: str, keys: SaleKeys, now: datetime, *, is_ending: bool) -> None:
        """Withdraw the offers that are over, and find out which are taken."""
        async with self._db.connection() as connection:
            recorded = await store.list_over(connection, sale_id, now, all_over=is_ending, count=_OFFERS_PER_CALL)
            if not is_ending:
                recorded += await self._list_running(connection, sale_id, now)
        if not recorded:
            return
        epoch = recorded[0].sale_epoch
        results = await lua.withdraw_offers(self._redis, keys, epoch, [_to_unit_offer(offer) for offer in recorded])
        failpoint("wait_list.after_withdraw")
        ended: list[tuple[UUID, str, int]] = []
        for offer, result in zip(recorded, results, strict=True):
            if result.outcome in _STATES:
                ended.append((offer.offer_id, _STATES[result.outcome], result.seq))
            elif result.outcome is WithdrawOutcome.TOO_OLD:
                _log_too_old(sale_id, offer)
        if not ended:
            return
        async with self._db.transaction() as connection:
            if not await self._lock(connection, sale_id, epoch, recorded):
                return
            await store.end_offers(connection, ended, epoch, now)
        for state in ("taken", "lapsed"):
            self._count(state, sum(ended_state == state for _, ended_state, _ in ended))

    async def _lock(self, connection: Connection, sale_id: str, epoch: int, recorded: Sequence[RecordedOffer]) -> bool:
        """Lock the counts of offers. Returns False if a load has begun, which restores the offers."""
        if await store.lock_epoch(connection, sale_id) != epoch:
            return False
        await store.lock_skus(connection, sale_id, sorted({offer.sku for offer in recorded}))
        return True

    async def _end_waiting(self, sale_id: str, sku: str, now: datetime) -> None:
        ended = _PLACES_PER_CALL
        while ended == _PLACES_PER_CALL:
            async with self._db.transaction() as connection:
                await store.lock_skus(connection, sale_id, [sku])
                ended = await store.end_waiting(connection, sale_id, sku, now, _PLACES_PER_CALL)

    def _count(self, outcome: str, offers: int) -> None:
        if self._count_offers is not None and offers:
            self._count_offers(outcome, offers)

    async def _list_running(self, connection: Connection, sale_id: str, now: datetime) -> list[RecordedOffer]:
        """List the offers that are asked about in this step; all of them in turn, however many run."""
        now_ms = to_ms(now)
        began_ms, after = self._checked_taken.get(sale_id, (0, _FIRST))
        if after == _FIRST:
            if abs(now_ms - began_ms) < _TAKEN_INTERVAL_MS:
                return []
            began_ms = now_ms
        running = await store.list_running(connection, sale_id, now, after, _OFFERS_PER_CALL)
        is_last = len(running) < _OFFERS_PER_CALL
        self._checked_taken[sale_id] = began_ms, _FIRST if is_last else running[-1].offer_id
        return running

    def _now(self) -> datetime:
        return from_ms(self._clock.now_ms())


def _is_running_due(wait_list: WaitList, now_ms: int) -> bool:
    return wait_list.ran_at is None or now_ms - to_ms(wait_list.ran_at) >= _RUNNING_INTERVAL_MS


def _to_unit_offer(offer: RecordedOffer) -> UnitOffer:
    return UnitOffer(
        offer.offer_id,
        uuid5(offer.offer_id, "withdrawal"),
        to_ms(offer.offered_at),
        offer.user_id,
        offer.sku,
        offer.units,
        offer.is_over,
    )


def _log_too_old(sale_id: str, offer: RecordedOffer) -> None:
    _logger.error(
        "an offer is too old for Redis to know its outcome: run `floodgate rebuild` of the sale",
        extra={"sale_id": sale_id, "sku": offer.sku, "offer_id": str(offer.offer_id)},
    )
