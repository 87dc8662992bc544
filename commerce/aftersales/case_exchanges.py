"""Exchanges of resolved cases: the replacement is reserved and paid, and then the units are exchanged.

Nothing is refunded or counted before the replacement is sure. If there can be none (sold out, over the limit, not paid
in time), the units are refunded as returned. Each step looks at what is stored, so a repeat after a crash goes on.
Orders are locked from the newer one to the older one: the replacement first, then the order of the case.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import UUID

from commerce.aftersales import store
from commerce.aftersales.case_decisions import money_state_of
from commerce.aftersales.case_policy import AftersalesPolicy
from commerce.aftersales.case_status import LockedCase, change_case, is_exchanging, lock_case
from commerce.aftersales.case_values import ValuedLine, grant_lines
from commerce.aftersales.errors import NoSuchCase
from commerce.aftersales.model import CaseKind, CaseLine, CaseSummary
from commerce.exchanges import store as exchanges
from commerce.exchanges.model import Exchange, Replacement, WantedLine
from commerce.exchanges.service import ReplacementOrders
from commerce.jobs.model import Job, JobResult, failed, finished, postponed, written
from commerce.kernel.clock import Clock, from_ms
from commerce.kernel.errors import NotReady
from commerce.kernel.failpoints import failpoint
from commerce.kernel.ids import IdGenerator
from commerce.kernel.money import format_money
from commerce.kernel.postgres import Connection, Database
from commerce.orders import store as orders
from commerce.orders.model import OrderStatus
from commerce.orders.store import OrderHeader, StoryEvent
from commerce.payments import store as payments
from commerce.refunds import service as refunds
from commerce.refunds.model import Grant, GrantRequest

_ACTOR = "aftersales_worker"
_SOON = timedelta(milliseconds=300)
_MAX_POLL_S = 60.0


class CaseExchanges:
    """Does the jobs `case.exchange`."""

    def __init__(
        self, db: Database, clock: Clock, ids: IdGenerator, replacements: ReplacementOrders, policy: AftersalesPolicy
    ) -> None:
        self._db = db
        self._clock = clock
        self._ids = ids
        self._replacements = replacements
        self._policy = policy

    async def work(self, jobs: Sequence[Job]) -> Sequence[JobResult]:
        """Go on with an exchange as far as it can go now."""
        [job] = jobs
        async with self._db.connection() as connection:
            case = await store.get_case(connection, job.subject)
            exchange = await exchanges.get_exchange(connection, job.subject)
            if case is None or exchange is None or not is_exchanging(case):
                return [finished("unchanged")]
            lines = (await store.list_lines(connection, [case.case_id]))[case.case_id]
            order = await orders.read_order_header(connection, case.order_id)
            replacement = await orders.read_order_header(connection, exchange.replacement_id)
            # Units of the case that are about to return to the limit: the replacement may need it.
            is_early = replacement is None and await exchanges.is_releasing(connection, case.order_id)
        assert order is not None
        if is_early and case.due_at is not None and case.due_at > self._now():
            return [postponed("waiting", self._now() + _SOON)]
        if replacement is None:
            return [await self._place(case, exchange, order, lines)]
        return [await self._follow(case, exchange, replacement)]

    async def _place(
        self, case: CaseSummary, exchange: Exchange, order: OrderHeader, lines: Sequence[CaseLine]
    ) -> JobResult:
        request = Replacement(exchange, wanted_lines(lines), self._policy.exchange_pay_within_s)
        try:
            refusal = await self._replacements.place(order, request)
        except NotReady as error:  # it may be placed by now, so nothing is refunded until that is known
            await self._escalate(case.case_id, error.detail)
            return failed("waiting", error.detail)
        failpoint("exchange.after_reserve")
        if refusal is not None:
            return await self._refund(case.case_id, exchange, f"the replacement cannot be reserved: {refusal}")
        return postponed("placed", self._now() + _SOON)

    async def _follow(self, case: CaseSummary, exchange: Exchange, replacement: OrderHeader) -> JobResult:
        """Go on with a stored replacement: it is paid, it waits for its payment, or it was cancelled."""
        if case.exchange_order_id is None:
            await self._link(case.case_id, exchange)
        if replacement.status is OrderStatus.CANCELLED:
            reasons = {"expired": "the difference was not paid in time"}
            reason = reasons.get(replacement.cancel_reason or "", "the replacement was cancelled")
            return await self._refund(case.case_id, exchange, reason)
        if replacement.status is OrderStatus.AWAITING_PAYMENT:
            waited_s = (self._now() - replacement.accepted_at).total_seconds()
            return postponed("waiting", self._now() + max(_SOON, timedelta(seconds=min(waited_s / 4, _MAX_POLL_S))))
        return await self._complete(case.case_id, exchange)

    async def _link(self, case_id: UUID, exchange: Exchange) -> None:
        """Show the replacement in the case and in the stories of both orders."""
        async with self._db.transaction() as connection:
            replacement = await orders.lock_order(connection, exchange.replacement_id)
            locked = await lock_case(connection, case_id)
            if replacement is None or locked.case.exchange_order_id is not None or not is_exchanging(locked.case):
                return
            now, is_open = self._now(), replacement.status is OrderStatus.AWAITING_PAYMENT
            text = f"order {replacement.order_id} replaces the returned units"
            if is_open:
                price = format_money(replacement.total.amount, replacement.total.currency)
                text += f"; {price} more is to be paid by {replacement.pay_by:%Y-%m-%d %H:%M} UTC"
            due_at = max(locked.case.due_at or now, replacement.pay_by + timedelta(days=1)) if is_open else None
            await change_case(
                *(connection, locked.case, now, _ACTOR, text[:500]),
                job_due_at=now + _SOON,
                exchange_order_id=replacement.order_id,
                waits_for="customer" if is_open else "warehouse",
                due_at=due_at or locked.case.due_at,
            )
            details = {"case_id": str(case_id), "order_id": str(locked.order.order_id), "amount": exchange.credit_minor}
            origin = f"it replaces units of order {locked.order.order_id}"
            await _add_to_stories(connection, exchange, text, origin, now, details)
            failpoint("exchange.before_link")

    async def _complete(self, case_id: UUID, exchange: Exchange) -> JobResult:
        """Count the units as exchanged, and refund what the replacement does not cost."""
        async with self._db.transaction() as connection:
            replacement = await orders.lock_order(connection, exchange.replacement_id)
            locked = await _lock_exchanging(connection, case_id)
            if locked is None or replacement is None or replacement.status is OrderStatus.CANCELLED:
                return postponed("changed", self._now())
            now = self._now()
            discount_minor = await exchanges.get_discount(connection, exchange.replacement_id)
            await exchanges.end_exchange(connection, case_id, "done", now)
            rest_minor = exchange.credit_minor - discount_minor
            reason = "exchanged" if not rest_minor else "exchanged; the replacement costs less"
            grant = await self._grant(connection, locked, rest_minor, now, reason)
            await self._end(connection, locked, grant, now, reason)
            story = (
                f"the exchange is done: {format_money(discount_minor, locked.case.currency)} is taken off the new order"
            )
            await _add_to_stories(connection, exchange, story, "the exchange is done", now, {"case_id": str(case_id)})
            failpoint("exchange.before_commit")
        return written("exchanged")

    async def _refund(self, case_id: UUID, exchange: Exchange, reason: str) -> JobResult:
        """Refund the units as returned, once there is no replacement that could still be paid."""
        async with self._db.transaction() as connection:
            replacement = await orders.lock_order(connection, exchange.replacement_id)
            locked = await _lock_exchanging(connection, case_id)
            if locked is None or (replacement is not None and replacement.status is not OrderStatus.CANCELLED):
                return postponed("changed", self._now())
            if replacement is not None:
                tasks = {payment.task for payment in await payments.list_payments(connection, replacement.order_id)}
                if "recover_order" in tasks:  # it was paid late just now
                    return postponed("waiting", self._now() + _SOON)
                await exchanges.withdraw_expired(connection, replacement.order_id)
            now, reason = self._now(), f"{reason}; the units are refunded instead"[:300]
            await exchanges.end_exchange(connection, case_id, "returned", now)
            grant = await self._grant(connection, locked, exchange.credit_minor, now, reason)
            await self._end(connection, locked, grant, now, reason, kind=CaseKind.RETURN)
            event = StoryEvent(locked.order.order_id, "exchange", reason, {"case_id": str(case_id)})
            await orders.insert_story_events(connection, [event], now, _ACTOR)
            failpoint("exchange.before_commit")
        return written("refunded")

    async def _grant(
        self, connection: Connection, locked: LockedCase, amount_minor: int, now: datetime, reason: str
    ) -> Grant:
        """Grant an amount for the accepted units, and count them as refunded.

        What exceeds their value is freight."""
        accepted = [ValuedLine(line.line_no, line.ship_to, line.sku, accepted_units(line)) for line in locked.lines]
        request = GrantRequest("case", locked.case.case_id, reason, _ACTOR, grant_lines(accepted))
        value = await refunds.preview(connection, locked.order, request)
        value_minor = sum(line.amount for line in value.lines)
        request = request._replace(
            amount_override=min(amount_minor, value_minor), freight=max(0, amount_minor - value_minor)
        )
        return await refunds.grant(connection, self._ids, locked.order, request, now)

    async def _end(
        self,
        connection: Connection,
        locked: LockedCase,
        grant: Grant,
        now: datetime,
        reason: str,
        kind: CaseKind = CaseKind.EXCHANGE,
    ) -> None:
        await change_case(
            *(connection, locked.case, now, _ACTOR, reason),
            job_due_at=now + timedelta(seconds=self._policy.money_poll_s),
            kind=kind,
            amount=sum(line.amount for line in grant.lines),
            freight=grant.freight,
            fee=grant.fee,  # with what is taken off the replacement
            grant_id=grant.grant_id,
            money_state=money_state_of(grant),
            waits_for="provider",
            due_at=now + timedelta(seconds=self._policy.refund_within_s),
        )

    async def _escalate(self, case_id: UUID, reason: str) -> None:
        """Have staff look at an exchange that cannot go on in time."""
        async with self._db.transaction() as connection:
            locked = await _lock_exchanging(connection, case_id)
            now = self._now()
            if locked is None or locked.case.is_escalated or locked.case.due_at is None or locked.case.due_at > now:
                return
            await change_case(
                *(connection, locked.case, now, _ACTOR, f"the replacement waits: {reason}"[:500]),
                job_due_at=now + _SOON,
                is_escalated=True,
                waits_for="staff",
                due_at=now + timedelta(seconds=self._policy.decide_within_s),
            )

    def _now(self) -> datetime:
        return from_ms(self._clock.now_ms())


def accepted_units(line: CaseLine) -> int:
    """Return the units of a case line that an inspection has accepted."""
    return line.resellable + line.damaged


def wanted_lines(lines: Sequence[CaseLine]) -> list[WantedLine]:
    """Return the units that replace the accepted ones."""
    return [
        WantedLine(line.wanted_sku, accepted_units(line), line.ship_to)
        for line in lines
        if line.wanted_sku is not None and accepted_units(line)
    ]


async def _lock_exchanging(connection: Connection, case_id: UUID) -> LockedCase | None:
    """Lock a case that waits for its replacement; None if it does not any more."""
    try:
        locked = await lock_case(connection, case_id)
    except NoSuchCase:
        return None
    return locked if is_exchanging(locked.case) else None


async def _add_to_stories(
    connection: Connection, exchange: Exchange, story: str, origin: str, now: datetime, details: dict[str, object]
) -> None:
    """Add to the stories of the order and of its replacement."""
    events = [
        StoryEvent(exchange.order_id, "exchange", story, {**details, "order_id": str(exchange.replacement_id)}),
        StoryEvent(exchange.replacement_id, "exchange", origin, {**details, "order_id": str(exchange.order_id)}),
    ]
    await orders.insert_story_events(connection, events, now, _ACTOR)
