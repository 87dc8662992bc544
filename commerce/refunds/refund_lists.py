"""Refunds of many orders from a list, each row once and alone: a bad row stops no other.

The rows only ask for their refunds. The worker's limiter paces the calls to providers (`jobs.refunds_per_s`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from uuid import UUID

import msgspec

from commerce.kernel.clock import Clock, from_ms
from commerce.kernel.errors import Invalid, ProblemError
from commerce.kernel.ids import IdGenerator
from commerce.kernel.money import MoneyError, parse_money
from commerce.kernel.postgres import POSTGRES_UNAVAILABLE_OR_BUSY, Connection, Database, safe_error_text
from commerce.kernel.types import explain_mismatch
from commerce.orders import store as orders
from commerce.orders.errors import NoSuchOrder
from commerce.refunds import service, store
from commerce.refunds.list_csv import ListRow
from commerce.refunds.model import (
    Grant,
    RefundInput,
    RefundListReport,
    RefundListTotal,
    RefundRow,
    RefundRowResult,
)
from commerce.refunds.staff_refunds import build_staff_request

MAX_ROWS = 10_000


class _DryRun(Exception):
    """Ends a transaction of which nothing is to be stored."""


class RefundLists:
    """Refunds the rows of lists for staff."""

    def __init__(self, db: Database, clock: Clock, ids: IdGenerator) -> None:
        self._db = db
        self._clock = clock
        self._ids = ids

    async def refund(
        self,
        name: str,
        rows: Sequence[RefundRow],
        actor: str,
        *,
        dry_run: bool,
        report_progress: Callable[[int], None] = lambda rows: None,
    ) -> RefundListReport:
        """Refund each row, or show what each would refund.

        A row is refunded once under the list's name and its own key; those of an order share a transaction, in their
        sequence. `report_progress` gets the number of rows that were just done. Raises `Invalid` if a key occurs twice.
        """
        _check_keys(rows)
        groups: dict[UUID, list[RefundRow]] = defaultdict(list)
        for row in rows:
            groups[row.order_id].append(row)
        results: dict[str, RefundRowResult] = {}
        totals: dict[tuple[str, str, str], list[int]] = defaultdict(list)
        for order_id, group in groups.items():
            done: dict[str, RefundRowResult] = {}
            grants = list[Grant]()
            try:
                async with self._db.transaction() as connection:
                    for row in group:
                        done[row.row] = await self._refund_row(connection, name, row, actor, grants)
                    if dry_run:
                        raise _DryRun
            except _DryRun:
                pass
            except POSTGRES_UNAVAILABLE_OR_BUSY as error:
                reason = f"{safe_error_text(error)}: repeat the list"
                done, grants = (
                    {row.row: RefundRowResult(row.row, order_id, "not_done", reason=reason) for row in group},
                    [],
                )
            results |= done
            for grant in grants:
                for part in grant.allocations:
                    totals[part.method, part.goes_to, grant.currency].append(part.amount)
            report_progress(len(group))
        return RefundListReport(
            name,
            dry_run,
            [results[row.row] for row in rows],
            [RefundListTotal(*key, len(amounts), sum(amounts)) for key, amounts in sorted(totals.items())],  # type: ignore[arg-type]
        )

    async def resolve(self, rows: Sequence[ListRow]) -> tuple[list[RefundRow], list[RefundRowResult]]:
        """Convert the rows of a file: their amounts are in the currencies of their orders.

        Returns the rows, and the results of those that do not fit."""
        async with self._db.connection() as connection:
            headers = await orders.read_order_headers(connection, list({row.order_id for row in rows}))
        resolved, refused = list[RefundRow](), list[RefundRowResult]()
        for row in rows:
            header = headers.get(row.order_id)
            try:
                if header is None:
                    raise NoSuchOrder(f"there is no stored order {row.order_id}")
                amount = None if row.amount is None else parse_money(row.amount, header.total.currency)
                values = {"row": row.row, "order_id": row.order_id, "reason": row.reason, "line": row.line}
                resolved.append(msgspec.convert({**values, "amount": amount}, RefundRow))
            except MoneyError as error:
                refused.append(RefundRowResult(row.row, row.order_id, "refused", code="invalid", reason=str(error)))
            except msgspec.ValidationError as error:
                reason = explain_mismatch(error)
                refused.append(RefundRowResult(row.row, row.order_id, "refused", code="invalid", reason=reason))
            except NoSuchOrder as error:
                refused.append(RefundRowResult(row.row, row.order_id, "refused", code=error.code, reason=error.detail))
        return resolved, refused

    async def _refund_row(
        self, connection: Connection, name: str, row: RefundRow, actor: str, grants: list[Grant]
    ) -> RefundRowResult:
        wanted = RefundInput(
            idempotency_key=f"list:{name}:{row.row}",
            reason=row.reason,
            lines=[] if row.line is None else [row.line],
            amount=row.amount,
        )
        try:
            if (row.line is None) == (row.amount is None):
                raise Invalid("give units of a line, or an amount")
            async with connection.transaction():
                order = await orders.lock_order(connection, row.order_id)
                if order is None:
                    raise NoSuchOrder(f"there is no stored order {row.order_id}")
                request = build_staff_request(order.order_id, wanted, actor)
                assert request.source_id is not None
                is_repeat = await store.find_grant(connection, "staff", request.source_id) is not None
                grant = await service.grant(connection, self._ids, order, request, from_ms(self._clock.now_ms()))
        except ProblemError as error:
            return RefundRowResult(row.row, row.order_id, "refused", code=error.code, reason=error.detail)
        if is_repeat:
            return RefundRowResult(row.row, row.order_id, "unchanged", grant.amount, grant.currency)
        grants.append(grant)
        return RefundRowResult(row.row, row.order_id, "refunded", grant.amount, grant.currency)


def _check_keys(rows: Sequence[RefundRow]) -> None:
    keys = set[str]()
    for number, row in enumerate(rows):
        if row.row in keys:
            detail = f"the row {row.row} is in the list already"
            raise Invalid(
                f"/rows/{number}/row: {detail}", errors=[{"pointer": f"/rows/{number}/row", "detail": detail}]
            )
        keys.add(row.row)
