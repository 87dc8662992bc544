"""The report on sales: read from the sums in one snapshot, bounded in time and in rows."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence, Sized
from datetime import UTC, date, datetime, time, timedelta
from typing import NamedTuple
from zoneinfo import ZoneInfo

from asyncpg import QueryCanceledError

from commerce.kernel.clock import Clock, from_ms
from commerce.kernel.errors import Invalid, NotReady
from commerce.kernel.postgres import Connection, Database
from commerce.kernel.redis_client import REDIS_UNAVAILABLE
from commerce.sales.model import Sale
from commerce.sales.service import Sales
from commerce.sales_figures import store
from commerce.sales_figures.errors import SalesReportTooLarge
from commerce.sales_figures.model import (
    MAX_DAYS,
    MAX_MINUTES,
    MAX_ROWS,
    NO_SALE,
    WHOLE_SALE,
    Figure,
    FigureSum,
    ReasonFigures,
    SalesFigures,
    SalesGroup,
    SalesReport,
    StockFigures,
)

_DEFAULT_DAYS = 30
_TICK = timedelta(microseconds=1)
_FIELDS: dict[Figure, tuple[str | None, str | None, str | None]] = {
    "viewed": ("views", None, None),
    "carted": ("carted", None, None),
    "sold_out": ("sold_out", None, None),
    "accepted": ("orders", "units", "amount"),
    "lapsed": ("lapsed_orders", "lapsed_units", "lapsed_amount"),
    "recovered": ("recovered_orders", "recovered_units", "recovered_amount"),
    "paid": ("paid_orders", "paid_units", "paid_amount"),
    "cancelled": (None, "cancelled_units", None),
    "delivered": (None, "delivered_units", None),
    "requested": (None, "requested_units", None),
    "withdrawn": (None, "withdrawn_units", None),
    "received": (None, "received_units", None),
    "refunded": (None, "refunded_units", "refunded_amount"),
}
"""fields of a row for the events, units and amount of a figure"""


class SalesQuery(NamedTuple):
    """Sale, SKU, period and groups of a report.

    Without a sale it is on all of them, without a SKU on whole sales, or on each SKU."""

    by: SalesGroup = "total"
    sale_id: str | None = None
    sku: str | None = None
    start: datetime | None = None
    end: datetime | None = None


class _Sums(NamedTuple):
    """Sums of a period: of each group, over all of them, and by reason."""

    groups: Sequence[FigureSum]
    total: Sequence[FigureSum]
    reasons: Sequence[ReasonFigures] = ()


class SalesReports:
    """Reports over Postgres. Each statement has the timeout of its connection. `zone` is that of days."""

    def __init__(self, db: Database, clock: Clock, zone: ZoneInfo, sales: Sales) -> None:
        self._db = db
        self._clock = clock
        self._zone = zone
        self._sales = sales

    async def report(self, query: SalesQuery) -> SalesReport:
        """Report on a period: by default a sale from its opening until now, or the last 30 days.

        The period is extended to whole days, or by minute to whole minutes. Raises `NoSuchSale`, `Invalid` unless the
        period is in order and at most 366 days, or 2,880 minutes, and `SalesReportTooLarge` if there is too much to
        show."""
        if query.by == "minute" and query.sale_id is None:
            raise Invalid("cannot report by minute: name one sale")
        sale = None if query.sale_id is None else await self._sales.get(query.sale_id)
        now = from_ms(self._clock.now_ms())
        start, end = self._choose_period(query, sale, now)
        supplies: dict[str, int] = {}
        try:
            async with self._db.snapshot() as connection:
                counted_until = await store.oldest_note(connection)
                sums = await self._read(connection, query, start, end)
                if sale is not None and query.by == "sku":
                    supplies = await store.list_supplies(connection, sale.sale_id, query.sku, MAX_ROWS + 1)
        except QueryCanceledError:
            raise SalesReportTooLarge("cannot report: there is too much to add up; choose a shorter period") from None
        rows = make_figures(sums.groups)
        stock: list[StockFigures] = []
        if sale is not None and query.by == "sku":
            rows = [row for row in rows if row.currency or row.group in supplies]  # others were only looked at
            elapsed = min(end, now) - max(start, sale.opens_at)
            _check_size(supplies, MAX_ROWS)
            stock = await self._measure_stock(sale, rows, supplies, elapsed)
        _check_size(rows, MAX_ROWS)
        return SalesReport(
            start=start,
            end=end,
            by=query.by,
            zone=self._zone.key,
            sale_id=query.sale_id,
            sku=query.sku,
            created_at=now,
            counted_until=counted_until,
            totals=make_figures(each._replace(group="") for each in sums.total),
            rows=rows,
            stock=stock,
            reasons=list(sums.reasons),
        )

    def _choose_period(self, query: SalesQuery, sale: Sale | None, now: datetime) -> tuple[datetime, datetime]:
        """Return the period with its defaults, in whole days or minutes. Raises `Invalid`."""
        by_minute = query.by == "minute"
        longest = timedelta(minutes=MAX_MINUTES) if by_minute else timedelta(days=MAX_DAYS)
        start, end = query.start, query.end
        if start is None and sale is not None and (end is None or sale.opens_at < end):
            start = sale.opens_at
            if end is None:
                end = max(now, start + timedelta(minutes=1))
            if end - start > longest:  # the beginning of a sale by minute, else the latest days
                start, end = (start, start + longest) if by_minute else (end - longest, end)
        if end is None:
            end = now if start is None or start < now else start + timedelta(days=1)
        if start is None:
            start = end - min(longest, timedelta(days=_DEFAULT_DAYS))
        if not timedelta() < end - start <= longest:
            bound = f"{MAX_MINUTES} minutes" if by_minute else f"{MAX_DAYS} days"
            raise Invalid(f"cannot report: `to` must be after `from`, and at most {bound} later")
        if by_minute:
            first, last = (at.replace(second=0, microsecond=0) for at in (start, end - _TICK))
            return first.astimezone(UTC), last.astimezone(UTC) + timedelta(minutes=1)
        first_day, after = self._days(start, end)
        return self._start_of(first_day), self._start_of(after)

    def _days(self, start: datetime, end: datetime) -> tuple[date, date]:
        """Return the first day of a period, and the day after its last."""
        return start.astimezone(self._zone).date(), (end - _TICK).astimezone(self._zone).date() + timedelta(days=1)

    def _start_of(self, day: date) -> datetime:
        return datetime.combine(day, time(), self._zone).astimezone(UTC)

    async def _read(self, connection: Connection, query: SalesQuery, start: datetime, end: datetime) -> _Sums:
        """Read the sums of a period. Raises `SalesReportTooLarge`."""
        sale_ids = [query.sale_id] if query.sale_id else await store.list_sale_ids(connection)
        sale_ids.append(NO_SALE)
        sku, days = query.sku or WHOLE_SALE, self._days(start, end)
        if query.by == "minute":
            minutes = await store.sum_minutes(connection, sale_ids, sku, (start, end))
            return _Sums(minutes, minutes)
        total = await store.sum_days(connection, sale_ids, sku, days)
        if query.by == "day":
            return _Sums(total, total)
        if query.by == "reason":
            reasons = await store.sum_reasons(connection, sale_ids, query.sku, days, MAX_ROWS + 1)
            _check_size(reasons, MAX_ROWS)
            return _Sums([], total, reasons)
        if query.by == "total":
            return _Sums([], total)
        if query.sku is not None:
            return _Sums([each._replace(group=query.sku) for each in total], total)
        sums = await store.sum_skus(connection, sale_ids, days, MAX_ROWS * len(_FIELDS) + 1)
        _check_size(sums, MAX_ROWS * len(_FIELDS))
        return _Sums(sums, total)

    async def _measure_stock(
        self, sale: Sale, rows: Iterable[SalesFigures], supplies: dict[str, int], elapsed: timedelta
    ) -> list[StockFigures]:
        """Compare what was sold with the stock of each SKU."""
        sold = {row.group: row.sold_units for row in rows}
        try:
            free = await self._sales.read_free_units((sale.sale_id, sku) for sku in supplies)
        except (*REDIS_UNAVAILABLE, NotReady):
            free = {}
        days = elapsed / timedelta(days=1)
        stock = []
        for sku, supplied in supplies.items():
            units, left = sold.get(sku, 0), free.get((sale.sale_id, sku))
            figures = StockFigures(
                sku=sku,
                supplied=supplied,
                sold=units,
                free=left,
                sell_through=units / supplied if supplied > 0 else None,
                days_left=left * days / units if left is not None and units > 0 and days > 0 else None,
            )
            stock.append(figures)
        return stock


def make_figures(sums: Iterable[FigureSum]) -> list[SalesFigures]:
    """Make a row for each group and currency, in their order.

    Views of products have no currency: they join the row of their group if it has one."""
    values: defaultdict[str, defaultdict[str, Counter[str]]] = defaultdict(lambda: defaultdict(Counter))
    for each in sums:
        fields = values[_format_group(each.group)][each.currency]
        for name, value in zip(_FIELDS[each.figure], (each.events, each.units, each.amount), strict=True):
            if name is not None:
                fields[name] += value
    rows = []
    for group, by_currency in sorted(values.items()):
        views = by_currency.pop("", None)
        if views and len(by_currency) == 1:
            next(iter(by_currency.values())).update(views)
        elif views:
            by_currency[""] = views
        rows += [
            SalesFigures(group=group, currency=currency, **fields) for currency, fields in sorted(by_currency.items())
        ]
    return rows


def _format_group(group: str | date) -> str:
    return group if isinstance(group, str) else group.isoformat().replace("+00:00", "Z")


def _check_size(rows: Sized, max_rows: int) -> None:
    if len(rows) > max_rows:
        raise SalesReportTooLarge(
            f"cannot report: it would have more than {MAX_ROWS} rows; name a sale or a SKU, or choose a shorter period"
        )
