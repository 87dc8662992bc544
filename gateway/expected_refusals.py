"""Orders that are expected to be refused: of a sale that takes none, or of something that is sold out.

A refusal teaches this process what the next orders will hear. They are not decoded, priced and sent to `reserve.lua`
any more. `recheck.lua` confirms the refusal of all that arrive within a fifth of a second by one small call, made after
they have arrived; the first of a quiet time does not wait. So the answers are never older than the requests: added
stock is bought at once. An order whose key is known, which must be answered as before, and one of a customer to whom
the wait-list offers units go the ordinary way.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

import lua
from commerce.coupons.issued_codes import split_code
from commerce.kernel.clock import DAY_MS, Clock
from commerce.kernel.coupon_skus import coupon_sku
from commerce.kernel.errors import ProblemError
from commerce.kernel.redis_client import REDIS_UNAVAILABLE
from commerce.kernel.redis_multiplexer import RedisMultiplexer
from commerce.orders.model import PlaceOrder
from gateway.fast_path_responses import ResponseHeads
from gateway.load_shedding import PrebuiltRefusals
from gateway.order_intake import redis_unreachable
from gateway.order_placement import problem_for_outcome
from gateway.sale_snapshots import SaleSnapshots
from gateway.visit_counts import VisitCounts
from lua import Recheck, ReserveOutcome, ReserveResult, SaleKeys, buyer_field, idempotency_field

_logger = logging.getLogger(__name__)
_OF_SALE = (ReserveOutcome.NOT_OPEN, ReserveOutcome.PAUSED, ReserveOutcome.CLOSED)
_SALE_AT_HEAD = re.compile(rb'\s*\{\s*"sale_id"\s*:\s*"([a-z0-9-]{1,64})"')
_ORDERS_PER_CALL = 1_000
_RECHECK_INTERVAL_S = 0.2
"""shortest time between two calls, while fewer orders wait than one call takes"""
_MAX_SOLD_OUT = 10_000
_WHOLE_SALE = ""

OnRechecked = Callable[[PrebuiltRefusals | ProblemError | None], None]
"""Called with the refusal, or with None if the order is to be placed the ordinary way."""


class _Expected(NamedTuple):
    """An order that is expected to be refused.

    The reason is that fewer than `units` of `sku` are free, the state of its whole sale, or `problem`. An order with
    `problem` is not refused if its only SKU, which is `sku` then, is offered to the customer by the wait-list.
    """

    user_id: str
    key: str
    on_rechecked: OnRechecked
    sku: str = _WHOLE_SALE
    units: int = 1
    problem: ProblemError | None = None


class RefusingSale:
    """A sale that refuses orders, as far as this process knows."""

    __slots__ = (
        *("has_offers", "is_closed", "keys", "next_recheck_at", "prebuilt", "rechecking", "sale_id", "sold_out"),
        "waiting",
    )

    def __init__(self, sale_id: str) -> None:
        self.sale_id = sale_id
        self.keys = SaleKeys(sale_id)
        self.is_closed = False
        """true if the sale is not open yet, paused or closed"""
        self.has_offers = False
        """true if the wait-list offered units at the last recheck"""
        self.sold_out: set[str] = set()
        self.waiting: list[_Expected] = []
        self.rechecking: asyncio.Task[None] | None = None
        self.next_recheck_at = 0.0
        self.prebuilt: dict[tuple[ReserveOutcome, str, int], PrebuiltRefusals] = {}


class ExpectedRefusals:
    """The sales of which this process expects refusals. `is_active` tells whether there are any."""

    def __init__(
        self,
        link: RedisMultiplexer,
        snapshots: SaleSnapshots,
        clock: Clock,
        heads: ResponseHeads,
        visits: VisitCounts,
    ) -> None:
        self._link = link
        self._snapshots = snapshots
        self._clock = clock
        self._heads = heads
        self._visits = visits
        self._loop = asyncio.get_running_loop()
        self._sales: dict[str, RefusingSale] = {}
        self.is_active = False

    def learn(self, sale_id: str, result: ReserveResult) -> None:
        """Remember a refusal that other orders will get too."""
        if result.outcome in _OF_SALE:
            self._find(sale_id).is_closed = True
        elif (
            result.outcome is ReserveOutcome.SOLD_OUT and len(sold_out := self._find(sale_id).sold_out) < _MAX_SOLD_OUT
        ):
            sold_out.add(result.sku)

    def find_sale(self, body: bytes) -> RefusingSale | None:
        """Return the sale that an order's body begins with, if it refuses every order.

        That is one which takes no orders, or whose only SKU is sold out.
        """
        match = _SALE_AT_HEAD.match(body)
        if match is None:
            return None
        sale = self._sales.get(match[1].decode())
        if sale is None or not (sale.is_closed or self._find_only_sku(sale) in sale.sold_out):
            return None
        return sale

    def find_sku(self, order: PlaceOrder) -> tuple[RefusingSale, str, int] | None:
        """Return sale, SKU and units of an order's first line or coupon that is expected to be sold out."""
        sale = self._sales.get(order.sale_id)
        if sale is not None:
            for line in order.lines:
                if line.sku in sale.sold_out:
                    return sale, line.sku, line.quantity
            for presented in order.coupons:
                code, _ = split_code(presented)
                if (sku := coupon_sku(code)) in sale.sold_out:
                    return sale, sku, 1
        return None

    def submit(
        self,
        sale: RefusingSale,
        user_id: str,
        key: str,
        on_rechecked: OnRechecked,
        sku: str = _WHOLE_SALE,
        units: int = 1,
    ) -> None:
        """Recheck an order together with the others of this iteration."""
        self._add(sale, _Expected(user_id, key, on_rechecked, sku, units))

    def refuse_unless_repeat(
        self,
        sale_id: str,
        user_id: str,
        key: str,
        on_rechecked: OnRechecked,
        problem: ProblemError,
        sku: str = _WHOLE_SALE,
    ) -> None:
        """Refuse an order with a problem, unless it is a repeat, or its only SKU is offered to the customer."""
        self._add(self._find(sale_id), _Expected(user_id, key, on_rechecked, sku, problem=problem))

    def _add(self, sale: RefusingSale, order: _Expected) -> None:
        sale.waiting.append(order)
        if sale.rechecking is None:
            sale.rechecking = self._loop.create_task(self._recheck_all(sale))

    def _find(self, sale_id: str) -> RefusingSale:
        sale = self._sales.get(sale_id)
        if sale is None:
            sale = self._sales[sale_id] = RefusingSale(sale_id)
            self.is_active = True
        return sale

    def _find_only_sku(self, sale: RefusingSale) -> str | None:
        """Return the SKU of a sale that offers a single one."""
        snapshot = self._snapshots.cached(sale.sale_id)
        return next(iter(snapshot.items)) if snapshot is not None and len(snapshot.items) == 1 else None

    async def _recheck_all(self, sale: RefusingSale) -> None:
        """Recheck until nothing waits; forget the sale if nothing of it is refused any more."""
        try:
            while sale.waiting:
                pause_s = sale.next_recheck_at - self._loop.time()
                if pause_s > 0 and len(sale.waiting) < _ORDERS_PER_CALL:
                    await asyncio.sleep(pause_s)  # one call refuses all who come meanwhile
                sale.next_recheck_at = self._loop.time() + _RECHECK_INTERVAL_S
                batch, sale.waiting = sale.waiting[:_ORDERS_PER_CALL], sale.waiting[_ORDERS_PER_CALL:]
                recheck = await self._recheck(sale, batch)
                refusals: dict[tuple[str, int], PrebuiltRefusals | ProblemError | None] = {}
                orders_by_refusal: dict[tuple[str, int], int] = {}
                for position, order in enumerate(batch):
                    refusal: PrebuiltRefusals | ProblemError | None = None
                    if recheck is None or (recheck.outcome and recheck.outcome.outcome is ReserveOutcome.NOT_READY):
                        refusal = redis_unreachable() if order.problem else None  # it may be a repeat
                    elif position in recheck.repeats or (recheck.outcome is None and position in recheck.holders):
                        pass
                    elif order.problem is not None:
                        refusal = order.problem
                    elif (wanted := (order.sku, order.units)) in refusals:
                        refusal = refusals[wanted]
                        orders_by_refusal[wanted] += 1
                    else:
                        refusal = refusals[wanted] = self._refusal(sale, recheck, *wanted)
                        orders_by_refusal[wanted] = 1
                    self._resolve(order, refusal)
                if recheck is not None and recheck.outcome is None:
                    self._count(sale, {key: orders_by_refusal[key] for key, refusal in refusals.items() if refusal})
        finally:
            sale.rechecking = None
        if not sale.is_closed and not sale.sold_out:
            self._sales.pop(sale.sale_id, None)
            self.is_active = bool(self._sales)

    async def _recheck(self, sale: RefusingSale, batch: list[_Expected]) -> Recheck | None:
        """Ask Redis about a batch. Returns None if it does not tell; the ordinary way then finds out why."""
        skus = {order.sku for order in batch if order.problem is None}
        if _WHOLE_SALE in skus:
            skus.discard(_WHOLE_SALE)
            if (only_sku := self._find_only_sku(sale)) is not None:
                skus.add(only_sku)
        day, fields = self._clock.now_ms() // DAY_MS, [idempotency_field(order.user_id, order.key) for order in batch]
        others = [SaleKeys(sale_id) for sale_id in self._snapshots.ids_with_live_keys() if sale_id != sale.sale_id]
        try:
            pairs = [self._offer_field(sale, order) for order in batch] if sale.has_offers else []
            recheck = await lua.recheck(self._link, sale.keys, day, list(skus), fields, pairs)
            if recheck.has_offers and not pairs:  # the first since the last recheck
                pairs = [self._offer_field(sale, order) for order in batch]
                recheck = await lua.recheck(self._link, sale.keys, day, list(skus), fields, pairs)
            if others:  # a key names one order over all sales
                keys = [(order.user_id, order.key) for order in batch]
                used = await lua.read_used_keys(self._link, others, day, keys)
                recheck.repeats.update(position for position, is_used in enumerate(used) if is_used)
        except (*REDIS_UNAVAILABLE, ProblemError):
            return None
        except Exception:
            _logger.exception("cannot recheck refusals", extra={"sale_id": sale.sale_id})
            return None
        sale.has_offers = recheck.has_offers
        sale.is_closed = recheck.outcome is not None and recheck.outcome.outcome in _OF_SALE
        sale.sold_out.difference_update(sku for sku, free in recheck.free.items() if free > 0)
        return recheck

    def _offer_field(self, sale: RefusingSale, order: _Expected) -> bytes:
        """Return the field of the offers that may serve an order, empty if there is none."""
        sku = order.sku or (self._find_only_sku(sale) if order.problem is None else None)
        return buyer_field(order.user_id, sku) if sku else b""

    def _refusal(self, sale: RefusingSale, recheck: Recheck, sku: str, units: int) -> PrebuiltRefusals | None:
        """Return the refusal that Redis has confirmed for orders of so many units, None if it has not."""
        if recheck.outcome is not None:
            return self._prebuild(sale, recheck.outcome) if sale.is_closed else None
        of_sku = sku or self._find_only_sku(sale)
        if of_sku is None or recheck.free.get(of_sku, units) >= units:
            return None
        return self._prebuild(sale, ReserveResult(ReserveOutcome.SOLD_OUT, sku=of_sku))

    def _count(self, sale: RefusingSale, refused: Mapping[tuple[str, int], int]) -> None:
        """Count orders that were refused because something is sold out, by SKU and units."""
        for (sku, _), orders in refused.items():
            if of_sku := sku or self._find_only_sku(sale):
                self._visits.note_sold_out(sale.sale_id, of_sku, orders)

    def _prebuild(self, sale: RefusingSale, result: ReserveResult) -> PrebuiltRefusals:
        key = result.outcome, result.sku, result.opens_ms
        prebuilt = sale.prebuilt.get(key)
        if prebuilt is None:
            problem = problem_for_outcome(result, sale.sale_id)
            if len(sale.prebuilt) >= _MAX_SOLD_OUT:
                sale.prebuilt.clear()
            prebuilt = sale.prebuilt[key] = PrebuiltRefusals(problem, self._heads)
            prebuilt.ends_ms = result.opens_ms
        return prebuilt

    @staticmethod
    def _resolve(order: _Expected, refusal: PrebuiltRefusals | ProblemError | None) -> None:
        try:
            order.on_rechecked(refusal)
        except Exception:
            _logger.exception("an order failed after its recheck")
