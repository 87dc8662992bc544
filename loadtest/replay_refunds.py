"""Plays returns of the data set: pays for their orders, and refunds their units to the penny.

Every step has a key that follows from the file, so a second run pays and refunds nothing more.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple
from uuid import UUID

from commerce.kernel.errors import ProblemError
from commerce.kernel.money import Money
from commerce.refunds.model import RefundInput, RefundLineInput
from commerce.refunds.staff_refunds import StaffRefunds
from loadtest.replay_client import ReplayClient
from loadtest.replay_returns import MatchedReturn
from loadtest.retail_dataset import CURRENCY, Basket
from ops.services import CliServices

_ACTOR = "replay"
_PAID_TIMEOUT_S = 60.0
_MONEY_TIMEOUT_S = 60.0
_POLL_INTERVAL_S = 0.1


class SentOrder(NamedTuple):
    """The order of a basket of the file."""

    order_id: UUID
    basket: Basket


class _Place(NamedTuple):
    """A line of an order."""

    order_id: UUID
    line_no: int


@dataclass
class _Refunded:
    """Units that were refunded, and their amount in pennies."""

    units: int = 0
    amount: int = 0


@dataclass
class PlayedReturns:
    """Result of the returns.

    `refunded_total` is what customers got back, in pennies. `differences` has a text per return that is not refunded as
    the file says.
    """

    created: int = 0
    repeated: int = 0
    refunded_total: int = 0
    differences: list[str] = field(default_factory=list)


class ReturnPlayer:
    """Refunds what customers of the file returned, line by line."""

    def __init__(self, shop: CliServices, client: ReplayClient, key_prefix: str) -> None:
        self._shop = shop
        self._client = client
        self._key_prefix = key_prefix
        self._refunds = StaffRefunds(shop.db, shop.clock, shop.ids)

    async def play(self, matched: Sequence[MatchedReturn], orders: Mapping[str, SentOrder]) -> PlayedReturns:
        """Refund the units of these returns. `orders` maps invoices to their orders."""
        result = PlayedReturns()
        invoices = dict.fromkeys(units.invoice for match in matched for units in match.units)
        unpaid = {invoice: problem for invoice in invoices if (problem := await self._pay(orders.get(invoice)))}
        ids = [orders[invoice].order_id for invoice in invoices if invoice not in unpaid]
        earlier = await self._count_grants(ids)
        granted: list[MatchedReturn] = []
        for match in matched:
            problems = [f"{units.invoice} {unpaid[units.invoice]}" for units in match.units if units.invoice in unpaid]
            if not problems:
                problems = await self._refund(match, orders)
            result.differences += (f"{match.line.invoice}, line {match.line.number}: {text}" for text in problems)
            if not problems:
                granted.append(match)
        result.created = await self._count_grants(ids) - earlier
        result.repeated = sum(len(_group_by_invoice(match)) for match in granted) - result.created
        await self._compare(result, granted, orders, ids)
        return result

    async def _pay(self, order: SentOrder | None) -> str | None:
        """Grant the customer of an order the credit that it costs, and pay it.

        Returns what prevented it, or None."""
        if order is None:
            return "has no order"
        headers = self._client.create_headers(order.basket.user_id)
        path = f"/v1/orders/{order.order_id}"
        key = f"{self._key_prefix}-{order.basket.invoice}"
        try:
            await self._shop.payments.grant_store_credit(
                order.basket.user_id, Money(order.basket.total, CURRENCY), f"replay-{key}"
            )
        except ProblemError as error:
            return f"cannot be paid: {error}"
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _PAID_TIMEOUT_S
        is_started = False
        while True:
            reply = await self._client.send("GET", path, headers)
            if reply.status == 200 and reply.body["status"] != "awaiting_payment":
                return None if reply.body["status"] != "cancelled" else "is cancelled"
            if reply.status == 200 and not is_started:
                started = await self._client.send("POST", f"{path}/payments", headers, {"payments": []})
                if started.status != 200:
                    return f"cannot be paid: {started.problem}"
                is_started = True
            if loop.time() > deadline:
                return f"is not paid after {_PAID_TIMEOUT_S:.0f} s; does a payment worker run?"
            await asyncio.sleep(_POLL_INTERVAL_S)

    async def _refund(self, match: MatchedReturn, orders: Mapping[str, SentOrder]) -> list[str]:
        """Refund the units of a return, order by order. Returns what was refused."""
        problems = []
        for invoice, lines in _group_by_invoice(match).items():
            wanted = RefundInput(
                idempotency_key=f"replay-{self._key_prefix}-{match.line.invoice}-{match.line.number}-{invoice}",
                reason=f"returned with {match.line.invoice}",
                lines=lines,
            )
            try:
                await self._refunds.refund(orders[invoice].order_id, wanted, _ACTOR)
            except ProblemError as refusal:
                problems.append(f"{invoice}: {refusal}")
        return problems

    async def _count_grants(self, order_ids: Sequence[UUID]) -> int:
        async with self._shop.db.connection() as connection:
            count: int = await connection.fetchval(
                "SELECT count(*) FROM refund_grants WHERE order_id = ANY($1) AND actor = $2", order_ids, _ACTOR
            )
        return count

    async def _compare(
        self,
        result: PlayedReturns,
        granted: Sequence[MatchedReturn],
        orders: Mapping[str, SentOrder],
        order_ids: Sequence[UUID],
    ) -> None:
        """Compare the refunded units and amounts with the file, line by line, once the money has moved."""
        expected: dict[_Place, _Refunded] = defaultdict(_Refunded)
        for match in granted:
            for units in match.units:
                refunded = expected[_Place(orders[units.invoice].order_id, units.line_no)]
                refunded.units += units.quantity
                refunded.amount += units.quantity * match.line.price
        stored = await self._read_refunded(order_ids)
        invoices = {order.order_id: invoice for invoice, order in orders.items()}
        for place in sorted({*expected, *stored}):
            wanted, actual = expected.get(place, _Refunded()), stored.get(place, _Refunded())
            if wanted != actual:
                result.differences.append(
                    f"{invoices[place.order_id]}, line {place.line_no}: {actual.units} units over {actual.amount} "
                    f"pennies are refunded, not {wanted.units} over {wanted.amount}"
                )
        expected_total = sum(refunded.amount for refunded in expected.values())
        result.refunded_total = await self._wait_for_money(order_ids, expected_total)
        if result.refunded_total != expected_total:
            result.differences.append(f"{result.refunded_total} pennies went back, not {expected_total}")

    async def _read_refunded(self, order_ids: Sequence[UUID]) -> dict[_Place, _Refunded]:
        async with self._shop.db.connection() as connection:
            rows = await connection.fetch(
                "SELECT refund_grant_lines.order_id, line_no, sum(quantity)::bigint AS units, "
                "sum(refund_grant_lines.amount_minor)::bigint AS amount "
                "FROM refund_grant_lines JOIN refund_grants USING (grant_id) "
                "WHERE refund_grants.order_id = ANY($1) AND actor = $2 GROUP BY 1, 2",
                *(order_ids, _ACTOR),
            )
        return {_Place(row["order_id"], row["line_no"]): _Refunded(row["units"], row["amount"]) for row in rows}

    async def _wait_for_money(self, order_ids: Sequence[UUID], expected_total: int) -> int:
        """Return what customers got back, once it is all of it or the time is over."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _MONEY_TIMEOUT_S
        while True:
            async with self._shop.db.connection() as connection:
                total: int = await connection.fetchval(
                    "SELECT coalesce(sum(refunds.amount_minor), 0)::bigint "
                    "FROM refunds JOIN payments USING (payment_id) "
                    "WHERE payments.order_id = ANY($1) AND refunds.actor = $2 AND refunds.status = 'done'",
                    *(order_ids, _ACTOR),
                )
            if total >= expected_total or loop.time() > deadline:
                return total
            await asyncio.sleep(_POLL_INTERVAL_S)


def _group_by_invoice(match: MatchedReturn) -> dict[str, list[RefundLineInput]]:
    """Return the units of a return by the purchase that they are of."""
    lines: dict[str, list[RefundLineInput]] = defaultdict(list)
    for units in match.units:
        lines[units.invoice].append(RefundLineInput(line_no=units.line_no, quantity=units.quantity))
    return lines
