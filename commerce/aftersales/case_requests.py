"""Requests of customers, and cases that other parts of the shop open for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from hashlib import sha256
from typing import NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo

import msgspec
from asyncpg import UniqueViolationError

from commerce.aftersales import store
from commerce.aftersales.case_policy import AftersalesPolicy
from commerce.aftersales.case_status import LockedCase, describe, open_conversation, put_case_job, put_rule_job
from commerce.aftersales.case_values import NOTHING, CaseValue, ValuedLine, value_lines
from commerce.aftersales.eligibility import Judgement, OrderFacts, UsedUnits, count_used, judge
from commerce.aftersales.errors import NotReturnable, TooManyCases
from commerce.aftersales.exchange_offers import ExchangeOffers
from commerce.aftersales.model import (
    CaseInput,
    CaseKind,
    CaseLine,
    CaseLineInput,
    CasePreview,
    CaseStatus,
    CaseSummary,
    PolicyTerms,
)
from commerce.aftersales.store import KEY_CONSTRAINT, CaseUnits, NewCase
from commerce.kernel.clock import Clock, from_ms
from commerce.kernel.errors import Conflict, Invalid, KeyReused
from commerce.kernel.failpoints import failpoint
from commerce.kernel.ids import IdGenerator
from commerce.kernel.postgres import Connection, Database
from commerce.orders import store as orders
from commerce.orders.errors import NoSuchOrder
from commerce.orders.store import OrderHeader, StoryEvent


class StaffCase(NamedTuple):
    """A case that is opened for a customer, once per `key`. Its units are not judged by a policy."""

    key: str
    request: CaseInput
    reason: str


class CaseRequests:
    """Judges requests and stores those that may become cases, under the order lock.

    `zone` is the shop's time zone, in which days are counted."""

    def __init__(
        self,
        db: Database,
        clock: Clock,
        ids: IdGenerator,
        policy: AftersalesPolicy,
        zone: ZoneInfo,
        offers: ExchangeOffers,
    ) -> None:
        self._db = db
        self._clock = clock
        self._ids = ids
        self._policy = policy
        self._zone = zone
        self._offers = offers

    async def preview(self, order_id: UUID, user_id: str, request: CaseInput) -> CasePreview:
        """Return how a request would be judged now, and what it would come to. Stores nothing.

        Raises `NoSuchOrder` if the customer has no such stored order, `Invalid` for more lines than allowed."""
        self._check_size(request)
        async with self._db.snapshot() as connection:
            order = _check_owner(await orders.read_order_header(connection, order_id), order_id, user_id)
            judgement = await self._judge(connection, order, request)
            value = await _value(connection, order, request.kind, judgement)
        total_minor, exchange = value.amount + value.freight - value.fee, None
        if request.kind is CaseKind.EXCHANGE and not judgement.obstacles:
            exchange, obstacle = await self._offers.find(order, judgement.lines, total_minor)
            judgement.obstacles += [obstacle] if obstacle else []
        return CasePreview(
            is_eligible=not judgement.obstacles,
            obstacles=judgement.obstacles,
            items_back=judgement.items_back,
            freight_payer=judgement.freight_payer,
            amount=value.amount,
            freight=value.freight,
            fee=value.fee,
            total=total_minor,
            currency=order.total.currency,
            request_by=judgement.request_by,
            policies=sorted({line.policy.policy_id for line in judgement.lines}),
            exchange=exchange,
        )

    async def request(self, order_id: UUID, user_id: str, key: str, request: CaseInput) -> tuple[UUID, bool]:
        """Store a request as a case, once per key. Returns the case, and whether it is new.

        Raises `NotReturnable` with all obstacles, `TooManyCases`, `KeyReused` if the key belongs to another request,
        and as `preview` does."""
        self._check_size(request)
        digest = _digest(order_id, request)
        obstacles = []
        if request.kind is CaseKind.EXCHANGE:  # Redis is asked before the order is locked
            obstacles = (await self.preview(order_id, user_id, request)).obstacles
        async with self._db.transaction() as connection:
            order = _check_owner(await orders.lock_order(connection, order_id), order_id, user_id)
            stored = await store.find_by_key(connection, user_id, key)
            if stored is not None:
                return _same_request(stored, digest), False
            judgement = await self._judge(connection, order, request)
            judgement.obstacles = judgement.obstacles or obstacles
            if judgement.obstacles:
                raise _refusal(judgement)
            actor, reason = f"customer {user_id}", "asked for by the customer"
            try:
                case = await self._insert(connection, order, request, judgement, key, digest, actor, reason)
            except UniqueViolationError as error:  # a request for another order has the key
                if error.constraint_name != KEY_CONSTRAINT:
                    raise
                raise KeyReused("this Idempotency-Key belongs to a request for another order: use a new key") from None
            await put_rule_job(connection, case, case.created_at)
            failpoint("case.before_commit")
        return case.case_id, True

    async def create_staff_case(
        self, connection: Connection, order: OrderHeader, staff_case: StaffCase, actor: str
    ) -> UUID:
        """Store a case for a customer, once per key. Call inside a transaction that holds the order lock.

        No deadline or exclusion counts; units that are not there, or that another case has, are refused. Raises
        `NotReturnable`."""
        key = f"staff {staff_case.key}"
        digest = _digest(order.order_id, staff_case.request)
        stored = await store.find_by_key(connection, order.user_id, key)
        if stored is not None:
            return _same_request(stored, digest)
        judgement = await self._judge(connection, order, staff_case.request)
        judgement.obstacles = [obstacle for obstacle in judgement.obstacles if obstacle.code not in _OF_CUSTOMERS]
        if judgement.obstacles:
            raise _refusal(judgement)
        case = await self._insert(
            connection, order, staff_case.request, judgement, key, digest, actor, staff_case.reason
        )
        return case.case_id

    async def check_exchange(self, case_id: UUID) -> None:
        """Check that the replacement of an exchange could be reserved now.

        Raises as `ReplacementOrders.check`."""
        async with self._db.connection() as connection:
            case = await store.get_case(connection, case_id)
            if case is None or case.kind is not CaseKind.EXCHANGE:
                return
            lines = (await store.list_lines(connection, [case_id]))[case_id]
            order = await orders.read_order_header(connection, case.order_id)
        assert order is not None
        await self._offers.check(order, lines, 0)

    async def check_units(self, connection: Connection, locked: LockedCase) -> None:
        """Check that the units of a case that is over are in no other one. Raises `NotReturnable`."""
        case, others = locked.case, await store.list_units_of_order(connection, locked.case.order_id)
        lines = [
            CaseLineInput(
                line_no=line.line_no,
                quantity=line.quantity,
                shipment_id=line.shipment_id,
                ship_to=line.ship_to,
                wanted_sku=line.wanted_sku,
            )
            for line in locked.lines
        ]
        request = CaseInput(kind=case.kind, lines=lines, reason=case.reason, claim=case.claim, is_opened=case.is_opened)
        facts = await self._read_facts(connection, locked.order, request)
        used = _used_units([unit for unit in others if unit.case_id != case.case_id])
        judgement = judge(request, replace(facts, used=used))
        judgement.obstacles = [obstacle for obstacle in judgement.obstacles if obstacle.code not in _OF_CUSTOMERS]
        if judgement.obstacles:
            raise _refusal(judgement)

    def _check_size(self, request: CaseInput) -> None:
        if len(request.lines) > self._policy.lines_per_case:
            detail = f"at most {self._policy.lines_per_case} lines: make several requests"
            raise Invalid(f"/lines: {detail}", errors=[{"pointer": "/lines", "detail": detail}])

    async def _judge(self, connection: Connection, order: OrderHeader, request: CaseInput) -> Judgement:
        return judge(request, await self._read_facts(connection, order, request))

    async def _read_facts(self, connection: Connection, order: OrderHeader, request: CaseInput) -> OrderFacts:
        now = self._now()
        units = await store.list_order_units(connection, order.order_id, now.astimezone(self._zone).date())
        skus = sorted({line.sku for line in units})
        wanted = sorted({line.wanted_sku for line in request.lines if line.wanted_sku is not None})
        sold = await store.list_sold_skus(connection, order.sale_id, wanted) if wanted else set[str]()
        return OrderFacts(
            now=now,
            zone=self._zone,
            delivered=await store.list_delivered_units(connection, order.order_id),
            ordered=units,
            used=_used_units(await store.list_units_of_order(connection, order.order_id)),
            policies=await store.find_policies(connection, order.sale_id, skus),
            cases_of_sku=await store.count_of_sku(connection, order.order_id),
            sold_skus=sold,
            free_evidence=await store.list_free_evidence(connection, order.order_id, request.evidence),
        )

    async def _insert(
        self,
        connection: Connection,
        order: OrderHeader,
        request: CaseInput,
        judgement: Judgement,
        key: str,
        digest: bytes,
        actor: str,
        reason: str,
    ) -> CaseSummary:
        now = self._now()
        open_cases = [case for case in await store.list_of_order(connection, order.order_id) if case.ended_at is None]
        if len(open_cases) >= self._policy.open_cases_per_order:
            raise TooManyCases(f"the order has {len(open_cases)} open cases: wait until one of them has ended")
        case = self._new_case(order, request, judgement, actor, now)
        new = NewCase(case, _new_lines(judgement), _policies(judgement), key, digest)
        await store.insert_case(connection, new, actor, reason, now)
        await store.attach_evidence(connection, case.case_id, request.evidence)
        await put_case_job(connection, case, now)
        await open_conversation(connection, case, now, actor)
        details = {"case_id": str(case.case_id), "status": case.status, "version": 1}
        story = StoryEvent(order.order_id, "case", f"{describe(case)} requested: {reason}"[:500], details)
        await orders.insert_story_events(connection, [story], now, actor)
        return case

    def _new_case(
        self, order: OrderHeader, request: CaseInput, judgement: Judgement, actor: str, now: datetime
    ) -> CaseSummary:
        return CaseSummary(
            case_id=self._ids.new(),
            order_id=order.order_id,
            user_id=order.user_id,
            kind=request.kind,
            claim=request.claim,
            status=CaseStatus.REQUESTED,
            items_state="expected" if judgement.items_back else "not_expected",
            money_state="undecided",
            version=1,
            is_escalated=False,
            items_back=judgement.items_back,
            is_opened=request.is_opened,
            reason=request.reason,
            text=request.text,
            freight_payer=judgement.freight_payer,
            currency=order.total.currency,
            amount=None,
            freight=None,
            fee=None,
            offer=None,
            grant_id=None,
            exchange_order_id=None,
            waits_for="staff",
            due_at=now + timedelta(seconds=self._policy.decide_within_s),
            created_by=actor,
            created_at=now,
            decided_at=None,
            ended_at=None,
        )

    def _now(self) -> datetime:
        return from_ms(self._clock.now_ms())


_OF_CUSTOMERS = frozenset({"excluded", "opened", "deadline_passed", "too_many_cases", "evidence_needed"})
"""obstacles that bind customers; staff may deviate from the policy"""


async def _value(connection: Connection, order: OrderHeader, kind: CaseKind, judgement: Judgement) -> CaseValue:
    """Value a request; nothing if it has obstacles that leave no value."""
    lines = [ValuedLine(line.line_no, line.address_no, line.sku, line.quantity) for line in judgement.lines]
    try:
        return await value_lines(
            connection, order, kind, lines, _policies(judgement), is_shop_liable=judgement.has_liable_shop
        )
    except (Conflict, Invalid):  # more units than are left
        if not judgement.obstacles:
            raise
        return NOTHING


def _policies(judgement: Judgement) -> Mapping[str, PolicyTerms]:
    return {line.sku: line.policy.terms for line in judgement.lines}


def _new_lines(judgement: Judgement) -> list[CaseLine]:
    return [
        CaseLine(
            case_line_no=number,
            line_no=line.line_no,
            ship_to=line.address_no,
            shipment_id=line.shipment_id,
            sku=line.sku,
            quantity=line.quantity,
            received=0,
            resellable=0,
            damaged=0,
            rejected=0,
            amount=None,
            wanted_sku=line.wanted_sku,
        )
        for number, line in enumerate(judgement.lines)
    ]


def _used_units(units: Sequence[CaseUnits]) -> list[UsedUnits]:
    return [
        UsedUnits(
            unit.line.line_no,
            unit.line.ship_to,
            unit.line.shipment_id,
            _count_used(unit),
        )
        for unit in units
    ]


def _count_used(unit: CaseUnits) -> int:
    """Count the units that no other case may have.

    Those of a resolved claim that never arrived are cancelled."""
    if unit.line.shipment_id is None and unit.status is CaseStatus.RESOLVED:
        return 0
    return count_used(unit.status, unit.items_back, unit.line.quantity, unit.line.received)


def _refusal(judgement: Judgement) -> NotReturnable:
    first, more = judgement.obstacles[0], len(judgement.obstacles) - 1
    others = f"; and {more} more, see obstacles" if more else ""
    obstacles = [msgspec.to_builtins(obstacle) for obstacle in judgement.obstacles]
    return NotReturnable(f"{first.pointer}: {first.detail}{others}", obstacles=obstacles)


def _check_owner(order: OrderHeader | None, order_id: UUID, user_id: str) -> OrderHeader:
    if order is None or order.user_id != user_id:
        raise NoSuchOrder(f"there is no stored order {order_id}, or it is not yours")
    return order


def _digest(order_id: UUID, request: CaseInput) -> bytes:
    return sha256(order_id.bytes + msgspec.json.encode(request, order="deterministic")).digest()


def _same_request(stored: tuple[UUID, bytes], digest: bytes) -> UUID:
    case_id, stored_digest = stored
    if stored_digest != digest:
        raise KeyReused("this Idempotency-Key belongs to another request: use a new key")
    return case_id
