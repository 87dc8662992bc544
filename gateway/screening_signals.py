"""Joins and orders of the customers of screened sales, on their way from this process to Postgres.

A join or an order costs a look-up in a dictionary. Once a second they are stored, in one row per customer. The memory
is bounded: who comes when it is full is counted and not noted. A process that is killed loses a second.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from contextlib import suppress
from itertools import islice

from commerce.kernel.clock import Clock, from_ms, to_ms
from commerce.kernel.outages import log_failure
from commerce.screening.marks import make_mark
from commerce.screening.model import ScreenedSale, Sighting
from commerce.screening.service import Screening
from config.screening import ScreeningSettings
from gateway import metrics
from gateway.request_origin import RequestOrigin

_logger = logging.getLogger(__name__)
_INTERVAL_S, _LAST_EXPORT_TIMEOUT_S = 1.0, 2.0
_SIGHTINGS_PER_ITERATION = 50


class _Activity:
    """The joins and orders of a customer since the last export."""

    __slots__ = ("fastest_ms", "first_ms", "in_second", "joins", "last_ms", "orders", "origin", "peak_per_s", "second")

    def __init__(self, now_ms: int) -> None:
        self.first_ms = self.last_ms = now_ms
        self.joins = self.orders = 0
        self.second = self.in_second = self.peak_per_s = 0
        self.fastest_ms: int | None = None
        self.origin: RequestOrigin

    def add(self, older: _Activity) -> None:
        """Add earlier joins and orders of the same customer."""
        self.first_ms = min(self.first_ms, older.first_ms)
        self.joins += older.joins
        self.orders += older.orders
        self.peak_per_s = max(self.peak_per_s, older.peak_per_s)
        if self.fastest_ms is None or (older.fastest_ms is not None and older.fastest_ms < self.fastest_ms):
            self.fastest_ms = older.fastest_ms


class ScreeningSignals:
    """Notes joins and orders. `is_on` is false unless the settings enable screening."""

    def __init__(self, screening: Screening, settings: ScreeningSettings, clock: Clock) -> None:
        self.is_on = settings.enabled
        self._screening = screening
        self._settings = settings
        self._clock = clock
        self._sales: dict[str, ScreenedSale] = {}
        self._opens_ms: dict[str, int] = {}
        self._activities: dict[tuple[str, str], _Activity] = {}
        self._dropped = 0

    def set_sales(self, sales: Iterable[ScreenedSale]) -> None:
        """Note the customers of these sales from now on, and of no others."""
        self._sales = {sale.sale_id: sale for sale in sales}
        self._opens_ms = {sale.sale_id: to_ms(sale.opens_at) for sale in self._sales.values()}

    def note_join(self, sale_id: str, user_id: str, origin: RequestOrigin, opens_ms: int) -> None:
        """Note that a customer joins the waiting room of a sale, which has opened at `opens_ms`."""
        activity = self._note(sale_id, user_id, origin, opens_ms)
        if activity is not None:
            activity.joins += 1

    def note_order(self, sale_id: str, user_id: str, origin: RequestOrigin) -> None:
        """Note that a customer orders."""
        opens_ms = self._opens_ms.get(sale_id)
        if opens_ms is not None:
            activity = self._note(sale_id, user_id, origin, opens_ms)
            if activity is not None:
                activity.orders += 1

    def _note(self, sale_id: str, user_id: str, origin: RequestOrigin, opens_ms: int) -> _Activity | None:
        now_ms = self._clock.now_ms()
        key = sale_id, user_id
        activity = self._activities.get(key)
        if activity is None:
            if sale_id not in self._sales:
                return None
            if len(self._activities) >= self._settings.buffered_customers:
                self._dropped += 1
                return None
            activity = self._activities[key] = _Activity(now_ms)
        activity.origin, activity.last_ms = origin, max(activity.last_ms, now_ms)
        second = now_ms // 1000
        activity.in_second = activity.in_second + 1 if second == activity.second else 1
        activity.second = second
        if activity.in_second > activity.peak_per_s:
            activity.peak_per_s = activity.in_second
        after_ms = now_ms - opens_ms
        # Whoever comes before the opening is impatient, and only a person is.
        if 0 <= after_ms < self._settings.fastest_human_ms and (
            activity.fastest_ms is None or after_ms < activity.fastest_ms
        ):
            activity.fastest_ms = after_ms
        return activity

    async def export(self) -> int:
        """Store the oldest joins and orders. Returns the number of customers.

        What cannot be stored is kept for the next time, as far as the memory allows. Raises the error of Postgres.
        """
        batch = dict(islice(self._activities.items(), self._settings.sightings_per_s))
        for key in batch:
            del self._activities[key]
        dropped, self._dropped = self._dropped, 0
        is_stored = False
        try:
            sightings = []
            for number, (key, activity) in enumerate(batch.items(), 1):
                if key[0] in self._sales:
                    sightings.append(self._make_sighting(*key, activity))
                if number % _SIGHTINGS_PER_ITERATION == 0:
                    await asyncio.sleep(0)  # orders are answered in between
            is_stored = not sightings or await self._screening.record(sightings, self._settings.waiting_sightings)
        finally:
            if not is_stored:
                dropped += self._put_back(batch)
            metrics.SCREENING_DROPPED.labels("sightings").inc(dropped)
        return len(batch) if is_stored else 0

    def _put_back(self, batch: dict[tuple[str, str], _Activity]) -> int:
        """Keep a batch that was not stored. Returns the number of customers for whom there is no place."""
        dropped = 0
        for key, older in batch.items():
            newer = self._activities.get(key)
            if newer is not None:
                newer.add(older)
            elif len(self._activities) < self._settings.buffered_customers:
                self._activities[key] = older
            else:
                dropped += 1
        return dropped

    def _make_sighting(self, sale_id: str, user_id: str, activity: _Activity) -> Sighting:
        salt, origin = self._sales[sale_id].salt, activity.origin
        return Sighting(
            sale_id,
            user_id,
            None if origin.address is None else make_mark(salt, "address", origin.address),
            None if origin.device is None else make_mark(salt, "device", origin.device),
            make_mark(salt, "form", str(origin.form)),
            activity.joins,
            activity.orders,
            activity.peak_per_s,
            activity.fastest_ms,
            from_ms(activity.first_ms),
            from_ms(activity.last_ms),
        )

    async def export_forever(self) -> None:
        """Export once a second until cancelled, also through outages of the database."""
        while self.is_on:
            try:
                await self.export()
            except Exception as error:  # noqa: BLE001  # log_failure tells outages from bugs
                log_failure(_logger, "cannot store the joins and orders for screening", error)
            await self._clock.sleep(_INTERVAL_S)

    async def export_rest(self) -> None:
        """Export what is left before the process ends, if that goes fast."""
        with suppress(Exception):
            async with asyncio.timeout(_LAST_EXPORT_TIMEOUT_S):
                while self._activities and await self.export():
                    pass
