"""Finds orders for staff by what a customer knows of them.

One index yields candidates, newest first; the other conditions are checked on them. A page examines a bounded number,
so it may be short, or empty, while others follow.
"""

from __future__ import annotations

from datetime import datetime, time, timedelta
from uuid import UUID
from zoneinfo import ZoneInfo

from commerce.kernel.clock import to_ms
from commerce.kernel.ids import first_id, parse_uuid_hex
from commerce.kernel.paging import Page
from commerce.kernel.postgres import Connection, Database
from commerce.order_search import store
from commerce.order_search.contact_forms import normalise_name, normalise_phone
from commerce.order_search.errors import SearchTooWide
from commerce.order_search.model import ContactFilter, OrderMatch, OrderSearch
from commerce.order_search.store import SearchKey

MAX_EXAMINED = 5_000
_HEX_DIGITS = 32
_LAST_ID = (1 << 128) - 1
_INDEXED = "order, user_id, phone, phone_end, name, tracking_no, transaction_no or first_day"


class OrderFinder:
    """Searches among stored orders. `zone` is the shop's, in which days are counted."""

    def __init__(self, db: Database, zone: ZoneInfo, max_examined: int = MAX_EXAMINED) -> None:
        self._db = db
        self._zone = zone
        self._max_examined = max_examined

    async def find(self, search: OrderSearch, size: int) -> Page[OrderMatch]:
        """Return a page of orders that fit, newest first. Raises `SearchTooWide` if no index can find them."""
        first, last = self._find_range(search)
        if first > last:
            return Page([], None)
        contact = ContactFilter(
            search.phone and normalise_phone(search.phone),
            search.phone_end,
            search.name and normalise_name(search.name),
        )
        async with self._db.connection() as connection:
            candidates = await self._list_candidates(connection, search, contact, UUID(int=first), UUID(int=last))
            matches = await store.filter_orders(
                *(connection, candidates, size + 1, search.user_id, search.status, contact)
            )
        if len(matches) > size:
            return Page(matches[:size], str(matches[size - 1].order_id))
        has_more = len(candidates) == self._max_examined
        return Page(matches, str(candidates[-1]) if has_more else None)

    def _find_range(self, search: OrderSearch) -> tuple[int, int]:
        """Return the first and the last id that may fit, as numbers."""
        first, last = 0, _LAST_ID if search.cursor is None else search.cursor.int - 1
        if search.order is not None:
            digits = search.order.replace("-", "")
            first = int(digits.ljust(_HEX_DIGITS, "0"), 16)
            last = min(last, int(digits.ljust(_HEX_DIGITS, "f"), 16))
        if search.first_day is not None:
            first = max(first, first_id(to_ms(datetime.combine(search.first_day, time(), self._zone))).int)
        last_day = search.last_day or search.first_day
        if last_day is not None:
            end = datetime.combine(last_day + timedelta(days=1), time(), self._zone)
            last = min(last, first_id(to_ms(end)).int - 1)
        return first, last

    async def _list_candidates(
        self, connection: Connection, search: OrderSearch, contact: ContactFilter, first: UUID, last: UUID
    ) -> list[UUID]:
        """List orders by the most selective condition, newest first."""
        exact: set[UUID] | None = None
        if search.tracking_no is not None:
            exact = await store.find_by_tracking_no(connection, search.tracking_no)
        if search.transaction_no is not None:
            number = search.transaction_no
            orders = await store.find_by_transaction_no(connection, number, parse_uuid_hex(number.replace("-", "")))
            exact = orders if exact is None else exact & orders
        if exact is not None:
            return sorted((id_ for id_ in exact if first <= id_ <= last), reverse=True)[: self._max_examined]
        keys: tuple[tuple[SearchKey, str | None], ...] = (
            ("phone", contact.phone),
            ("user", search.user_id),
            ("name", contact.name),
            ("phone_end", contact.phone_end),
        )
        if search.order is None:
            for key, value in keys:
                if value is not None:
                    return await store.list_by_key(connection, key, value, first, last, self._max_examined)
        if search.order is None and search.first_day is None:
            detail = f"too many orders may fit: add {_INDEXED}"
            raise SearchTooWide.at("/status" if search.status else "", detail)
        return await store.list_by_id(connection, first, last, self._max_examined)


async def index_contacts(db: Database, batches: int) -> int:
    """Copy the recipients of some stored orders to where they are searched. Returns the number of orders.

    Several processes may. A batch and its recipients are one transaction, so each order is copied once."""
    async with db.transaction() as connection:
        order_ids = await store.take_batches(connection, batches)
        await store.insert_contacts(connection, set(order_ids))
    return len(order_ids)
