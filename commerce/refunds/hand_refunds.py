"""Refunds that somebody made at a provider by hand: found on its statements, posted by two people.

One person records what is known of it, another confirms: then it counts as a refund of its order like any other. If the
payment holds less by then, the customer has the money twice, and the shop has lost it.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, time, timedelta
from uuid import UUID

from commerce.kernel.china_time import CHINA
from commerce.kernel.clock import Clock, from_ms
from commerce.kernel.errors import Invalid
from commerce.kernel.ids import IdGenerator
from commerce.kernel.paging import Page, to_page
from commerce.kernel.postgres import Connection, Database
from commerce.ledger import store as ledger
from commerce.ledger.model import NewPosting
from commerce.orders import store as orders
from commerce.payments import locked_orders, refund_status, refund_store
from commerce.payments.errors import NoSuchRefund, RefundNotStuck, SecondPersonNeeded
from commerce.payments.order_status import NewRefund
from commerce.payments.provider_port import StatementLine
from commerce.payments.reconciliation import ReconciliationReport
from commerce.refunds import store
from commerce.refunds.allocation import find_destination
from commerce.refunds.model import Allocation, Grant, GrantRequest, HandRefund, HandRefundOutcome
from commerce.refunds.store import StoredHandRefund

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NOON = time(12)


class HandRefunds:
    """Finds and posts refunds that were made by hand."""

    def __init__(self, db: Database, clock: Clock, ids: IdGenerator) -> None:
        self._db = db
        self._clock = clock
        self._ids = ids

    async def find(
        self,
        method: str,
        day: date,
        statement: Sequence[StatementLine | str],
        report: ReconciliationReport,
        actor: str,
    ) -> int:
        """Insert the refunds on a statement that the shop has not requested. Returns how many are new.

        `report` is that of the comparison of the statement with our records."""
        missing = {difference.key for difference in report.differences if difference.kind == "missing_here"}
        lines = {
            line.refund_id: line
            for line in statement
            if isinstance(line, StatementLine) and line.refund_id and (line.payment_id, line.refund_id) in missing
        }
        async with self._db.transaction() as connection:
            return await store.insert_refunds_by_hand(connection, method, day, lines, actor, self._now())

    async def list_open(self, cursor: str | None, size: int) -> Page[HandRefund]:
        """List those that are not posted, the oldest first. Raises `Invalid` for a cursor that is none."""
        async with self._db.connection() as connection:
            rows = await store.list_refunds_by_hand(connection, _parse_cursor(cursor), size + 1)
        return to_page(rows, size, _build_cursor)

    async def record(self, refund_id: UUID, proof: str, actor: str) -> None:
        """Record what is known of a refund, in the place of what was recorded before.

        Raises `NoSuchRefund`, and `RefundNotStuck` if it is posted."""
        async with self._db.transaction() as connection:
            stored = await _lock(connection, refund_id)
            if stored.confirmed_by is not None:
                raise RefundNotStuck("cannot record it: it is posted already")
            await store.record_refund_by_hand(connection, refund_id, proof, actor, self._now())

    async def confirm(self, refund_id: UUID, actor: str) -> HandRefundOutcome:
        """Post a refund that another person has recorded, and return its outcome. A repeat changes nothing.

        Raises `NoSuchRefund`, `SecondPersonNeeded`, and `RefundNotStuck` if nobody has recorded it or another person
        has posted it."""
        async with self._db.transaction() as connection:
            stored = await _lock(connection, refund_id)
            if stored.outcome is not None and stored.confirmed_by == actor:
                return stored.outcome
            if stored.outcome is not None:
                raise RefundNotStuck(f"cannot confirm it: it is posted as a {stored.outcome} already")
            if stored.proof is None:
                raise RefundNotStuck("cannot confirm it: record first who refunded it, and why")
            if stored.recorded_by == actor:
                raise SecondPersonNeeded("cannot confirm the refund: you have recorded it, so another person must")
            outcome = await self._post(connection, stored, stored.proof, actor)
            await store.confirm_refund_by_hand(connection, refund_id, actor, self._now(), outcome)
            return outcome

    async def _post(
        self, connection: Connection, stored: StoredHandRefund, proof: str, actor: str
    ) -> HandRefundOutcome:
        """Post a refund of its order, or a loss if its payment holds less."""
        now = self._now()
        header = await orders.lock_order(connection, stored.order_id)
        assert header is not None
        [locked] = await locked_orders.read_orders(connection, [header])
        payment = locked.payments[stored.payment_id]
        held_minor = payment.captured_minor - sum(
            refund.amount_minor
            for refund in locked.refunds
            if refund.payment_id == payment.payment_id and refund.status != "failed"
        )
        if stored.amount_minor > held_minor:
            entries = {"differences": stored.amount_minor, f"provider:{payment.method}": -stored.amount_minor}
            name, on = f"by_hand {stored.refund_id}", stored.booked_on
            posting = NewPosting(*(name, stored.order_id, stored.currency, entries, actor), stored.number, proof, on)
            await ledger.insert_postings(connection, [posting], now)
            return "loss"
        reason = f"it was refunded at {payment.method}: {proof}"[:500]
        part = Allocation(payment.payment_id, payment.method, stored.amount_minor, find_destination(payment.method))
        value = Grant(None, stored.order_id, stored.amount_minor, stored.currency, 0, 0, "ratio", [], [part])
        grant_id = self._ids.new()
        request = GrantRequest("staff", stored.refund_id, reason, actor)
        await store.insert_grant(connection, grant_id, value, request, now)
        key = store.refund_key(grant_id)
        new = NewRefund(payment, key, stored.amount_minor, reason, actor, is_announced=True)
        await refund_store.insert_refunds(connection, {stored.refund_id: new}, now)
        [locked] = await locked_orders.read_orders(connection, [header])
        [refund] = [refund for refund in locked.refunds if refund.refund_id == stored.refund_id]
        refund_status.complete(locked, payment, refund, "provider", stored.number)
        await locked_orders.write_changes(connection, self._ids, [locked], now, actor)
        await store.date_refund(connection, stored.refund_id, datetime.combine(stored.booked_on, _NOON, CHINA))
        return "refund"

    def _now(self) -> datetime:
        return from_ms(self._clock.now_ms())


async def _lock(connection: Connection, refund_id: UUID) -> StoredHandRefund:
    stored = await store.lock_refund_by_hand(connection, refund_id)
    if stored is None:
        raise NoSuchRefund(f"no statement has a refund {refund_id} that was made by hand")
    return stored


def _build_cursor(refund: HandRefund) -> str:
    return f"{(refund.found_at - _EPOCH) // timedelta(microseconds=1)},{refund.refund_id}"


def _parse_cursor(cursor: str | None) -> tuple[datetime, UUID]:
    since_us, _, refund_id = (cursor or "0," + str(UUID(int=0))).partition(",")
    try:
        return _EPOCH + timedelta(microseconds=int(since_us)), UUID(refund_id)
    except (ValueError, OverflowError):
        raise Invalid("cursor: use `next` of the previous page as it is") from None
