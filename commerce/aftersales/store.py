"""Rows of cases, their lines and events.

`case_status.py` is the one place that changes a case.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from typing import Any, NamedTuple
from uuid import UUID

import msgspec

from commerce.aftersales.eligibility import DeliveredUnits, OrderedUnits
from commerce.aftersales.model import (
    CaseEvent,
    CaseKind,
    CaseLine,
    CaseOffer,
    CaseStatus,
    CaseSummary,
    ClaimKind,
    Evidence,
    PolicyTerms,
    ReturnPolicy,
)
from commerce.kernel.postgres import Connection
from commerce.kernel.sql import load_queries

_RENAMED = {
    "reason": "reason_code",
    "text": "customer_text",
    "amount": "amount_minor",
    "freight": "freight_minor",
    "fee": "fee_minor",
}
"""fields of a `CaseSummary` whose columns have other names"""
_CASE_COLUMNS = [_RENAMED.get(field, field) for field in CaseSummary.__struct_fields__]
_LINE_COLUMNS = (
    "case_id",
    *("address_no" if field == "ship_to" else field for field in CaseLine.__struct_fields__ if field != "amount"),
    "amount_minor",
)
_TERM_COLUMNS = [field for field in PolicyTerms.__struct_fields__ if field != "skus"]
_POLICY_COLUMNS = ["policy_id", "version", *_TERM_COLUMNS, "changed_at", "actor"]
queries = load_queries(
    __package__,
    cases=_CASE_COLUMNS,
    case_lines=_LINE_COLUMNS,
    return_policies=_POLICY_COLUMNS,
    case_evidence=Evidence.__struct_fields__,
)

KEY_CONSTRAINT = "cases_user_id_idempotency_key_key"
POLICY_SKU_CONSTRAINT = "return_policy_skus_sku_fkey"


class NewCase(NamedTuple):
    """A case to insert. `policy` has the terms that count, by SKU."""

    case: CaseSummary
    lines: Sequence[CaseLine]
    policy: Mapping[str, PolicyTerms]
    idempotency_key: str
    body_digest: bytes


class CaseUnits(NamedTuple):
    """Units of an order line in a case, with the case's kind and status."""

    case_id: UUID
    kind: CaseKind
    status: CaseStatus
    items_back: bool
    line: CaseLine


class UnitCounts(NamedTuple):
    """Units of a case line that were received, and what an inspection has found."""

    case_line_no: int
    received: int
    resellable: int = 0
    damaged: int = 0
    rejected: int = 0


async def find_order(connection: Connection, case_id: UUID) -> UUID | None:
    order_id: UUID | None = await connection.fetchval(queries.find_order_of_case, case_id)
    return order_id


async def get_case(connection: Connection, case_id: UUID) -> CaseSummary | None:
    row = await connection.fetchrow(queries.get_cases, [case_id])
    return _case(row) if row else None


async def list_of_order(connection: Connection, order_id: UUID) -> list[CaseSummary]:
    """List the cases of an order, oldest first."""
    return [_case(row) for row in await connection.fetch(queries.list_of_order, order_id)]


async def list_of_user(connection: Connection, user_id: str, before: UUID, count: int) -> list[CaseSummary]:
    """List the cases of a customer with ids below `before`, newest first."""
    return [_case(row) for row in await connection.fetch(queries.list_of_user, user_id, before, count)]


async def find_by_key(connection: Connection, user_id: str, idempotency_key: str) -> tuple[UUID, bytes] | None:
    """Return the case that a request with this key has created, and the digest of its body."""
    row = await connection.fetchrow(queries.find_by_key, user_id, idempotency_key)
    return (row["case_id"], row["body_digest"]) if row else None


async def list_open(
    connection: Connection,
    after: tuple[datetime, UUID],
    waits_for: str | None,
    is_escalated: bool,
    due_before: datetime | None,
    count: int,
) -> list[CaseSummary]:
    """List open cases by deadline after (due_at, case_id)."""
    rows = await connection.fetch(queries.list_open, *after, waits_for, is_escalated, due_before, count)
    return [_case(row) for row in rows]


async def list_all(connection: Connection, before: UUID, count: int) -> list[CaseSummary]:
    """List all cases with ids below `before`, newest first."""
    return [_case(row) for row in await connection.fetch(queries.list_all, before, count)]


async def insert_case(connection: Connection, new: NewCase, actor: str, reason: str, now: datetime) -> None:
    """Insert a case with its lines and its first event. Raises `UniqueViolationError` if its key is used."""
    case = new.case
    policy = msgspec.json.encode(new.policy).decode()
    await connection.execute(
        queries.insert_case,
        *(case.case_id, case.order_id, case.user_id, case.kind, case.claim, case.items_back, case.items_state),
        *(case.is_opened, case.reason, case.text, policy, case.freight_payer, case.currency, case.waits_for),
        *(case.due_at, new.idempotency_key, new.body_digest, case.created_by, now),
    )
    columns = zip(
        *(
            (line.case_line_no, line.line_no, line.ship_to, line.shipment_id, line.sku, line.quantity, line.wanted_sku)
            for line in new.lines
        ),
        strict=True,
    )
    await connection.execute(queries.insert_lines, case.case_id, case.order_id, *map(list, columns))
    await connection.execute(queries.insert_first_event, case.case_id, now, actor, reason)


async def list_lines(connection: Connection, case_ids: Sequence[UUID]) -> dict[UUID, list[CaseLine]]:
    """List the lines of each of these cases."""
    lines: dict[UUID, list[CaseLine]] = {case_id: [] for case_id in case_ids}
    for row in await connection.fetch(queries.list_lines, case_ids):
        lines[row["case_id"]].append(_line(row))
    return lines


async def list_units_of_order(connection: Connection, order_id: UUID) -> list[CaseUnits]:
    """List the lines of all cases of an order, also of those that are declined or cancelled."""
    return [
        CaseUnits(row["case_id"], CaseKind(row["kind"]), CaseStatus(row["status"]), row["items_back"], _line(row))
        for row in await connection.fetch(queries.list_lines_of_order, order_id)
    ]


async def count_of_sku(connection: Connection, order_id: UUID) -> Counter[str]:
    """Count the cases of an order by SKU, of whatever status."""
    return Counter({row["sku"]: row["cases"] for row in await connection.fetch(queries.count_of_sku, order_id)})


async def set_line_amounts(connection: Connection, case_id: UUID, amounts: Mapping[int, int]) -> None:
    """Set the amounts of lines by `case_line_no`."""
    await connection.execute(queries.set_line_amounts, case_id, list(amounts), list(amounts.values()))


async def set_unit_counts(connection: Connection, case_id: UUID, counts: Sequence[UnitCounts]) -> None:
    """Set the units of lines that were received. Call inside a transaction that holds the order lock."""
    if counts:
        await connection.execute(queries.count_units, case_id, *map(list, zip(*counts, strict=True)))


async def update_case(
    connection: Connection,
    case: CaseSummary,
    changed: CaseSummary,
    now: datetime,
    actor: str,
    reason: str,
    details: Mapping[str, Any] | None,
) -> bool:
    """Store a changed case and the event of its next version. False if it has another version than `case`."""
    offer = None if changed.offer is None else msgspec.json.encode(changed.offer).decode()
    version = await connection.fetchval(
        queries.update_case,
        *(case.case_id, case.version, changed.status, changed.items_back, changed.items_state, changed.money_state),
        *(changed.kind, changed.is_escalated, changed.freight_payer, changed.amount, changed.freight, changed.fee),
        *(offer, changed.grant_id, changed.exchange_order_id, changed.waits_for, changed.due_at, changed.decided_at),
        *(changed.ended_at, now, actor, reason, changed.claim, case.status),
        None if details is None else msgspec.json.encode(details).decode(),
    )
    return version is not None


async def list_events(connection: Connection, case_ids: Sequence[UUID]) -> dict[UUID, list[CaseEvent]]:
    """List the events of each of these cases, oldest first."""
    events: dict[UUID, list[CaseEvent]] = defaultdict(list)
    for row in await connection.fetch(queries.list_events, case_ids):
        events[row["case_id"]].append(
            CaseEvent(
                version=row["version"],
                at=row["at"],
                from_status=CaseStatus(row["from_status"]) if row["from_status"] else None,
                to_status=CaseStatus(row["to_status"]) if row["to_status"] else None,
                actor=row["actor"],
                reason=row["reason"],
            )
        )
    return events


async def count_open(connection: Connection, now: datetime) -> dict[tuple[str, str], tuple[int, int]]:
    """Count open cases and those that are overdue, by (kind, waits_for)."""
    rows = await connection.fetch(queries.count_open, now)
    return {(row["kind"], row["waits_for"]): (row["cases"], row["overdue"]) for row in rows}


async def measure_decisions(connection: Connection, now: datetime) -> list[float]:
    """Return the percentiles 50, 90 and 99 of the seconds until a decision, of the last day, if any."""
    return list(await connection.fetchval(queries.measure_decisions, now) or [])


# What a judgement of a request needs.


async def list_delivered_units(connection: Connection, order_id: UUID) -> list[DeliveredUnits]:
    """List the units of an order by the shipments that have brought them, earliest first."""
    return [DeliveredUnits(*row) for row in await connection.fetch(queries.list_delivered_units, order_id)]


async def list_order_units(connection: Connection, order_id: UUID, today: date) -> list[OrderedUnits]:
    """List the units of an order by line and address.

    Open shipments that were promised before today are late."""
    return [OrderedUnits(*row) for row in await connection.fetch(queries.list_order_units, order_id, today)]


async def list_sold_skus(connection: Connection, sale_id: str, skus: Sequence[str]) -> set[str]:
    """Return those of the SKUs that a sale offers."""
    return {row["sku"] for row in await connection.fetch(queries.list_sold_skus, sale_id, skus)}


# Policies.


async def find_policies(connection: Connection, sale_id: str, skus: Sequence[str]) -> dict[str, ReturnPolicy]:
    """Return the policy that counts for each SKU in a sale; its terms name no SKUs."""
    return {row["sku"]: _policy(row, []) for row in await connection.fetch(queries.find_policies, sale_id, skus)}


async def list_policies(connection: Connection, policy_id: str | None, after: str, count: int) -> list[ReturnPolicy]:
    """List policies by id, or the one with an id."""
    rows = await connection.fetch(queries.list_policies, policy_id, after, count)
    return [_policy(row, list(row["skus"])) for row in rows]


async def put_policy(connection: Connection, policy_id: str, terms: PolicyTerms, now: datetime, actor: str) -> None:
    """Create a policy, or replace it whole.

    Raises `ForeignKeyViolationError` without its sale or a product."""
    values = [getattr(terms, column) for column in _TERM_COLUMNS]
    await connection.execute(queries.put_policy, policy_id, *values, now, actor)
    await connection.execute(queries.delete_policy_skus, policy_id)
    if terms.skus:
        await connection.execute(queries.insert_policy_skus, policy_id, sorted(set(terms.skus)))


async def delete_policy(connection: Connection, policy_id: str) -> bool:
    """Delete a policy. False if there is none."""
    return await connection.fetchval(queries.delete_policy, policy_id) is not None


def _policy(row: Any, skus: list[str]) -> ReturnPolicy:
    terms = PolicyTerms(skus=skus, **{column: row[column] for column in _TERM_COLUMNS})
    return ReturnPolicy(
        policy_id=row["policy_id"],
        version=row["version"],
        terms=terms,
        changed_at=row["changed_at"],
        actor=row["actor"],
    )


async def get_case_policy(connection: Connection, case_id: UUID) -> dict[str, PolicyTerms]:
    """Return the terms that counted when a case was requested, by SKU."""
    policy = await connection.fetchval(queries.get_case_policy, case_id)
    return msgspec.json.decode(policy, type=dict[str, PolicyTerms])


# Pictures.


async def list_free_evidence(connection: Connection, order_id: UUID, evidence_ids: Sequence[UUID]) -> set[UUID]:
    """Return those of the pictures that belong to an order and to no case."""
    if not evidence_ids:
        return set()
    rows = await connection.fetch(queries.list_free_evidence, order_id, evidence_ids)
    return {row["evidence_id"] for row in rows}


async def attach_evidence(connection: Connection, case_id: UUID, evidence_ids: Sequence[UUID]) -> None:
    """Attach free pictures to a case."""
    if evidence_ids:
        await connection.execute(queries.attach_evidence, case_id, evidence_ids)


async def find_evidence_file(connection: Connection, evidence_id: UUID) -> tuple[str, bytes] | None:
    """Return the customer of a picture and the digest of its file."""
    row = await connection.fetchrow(queries.find_evidence_file, evidence_id)
    return (row["user_id"], row["sha256"]) if row else None


async def insert_evidence(connection: Connection, evidence: Evidence, user_id: str, sha256: bytes) -> None:
    """Insert a picture whose file is stored."""
    await connection.execute(
        queries.insert_evidence,
        *(evidence.evidence_id, evidence.order_id, user_id, sha256, evidence.media_type),
        *(evidence.size_bytes, evidence.width_px, evidence.height_px, evidence.created_at),
    )


async def count_free_evidence(connection: Connection, order_id: UUID) -> int:
    """Count the pictures of an order that no case has."""
    return int(await connection.fetchval(queries.count_free_evidence, order_id))


async def delete_unused_evidence(connection: Connection, before: datetime, count: int) -> list[bytes]:
    """Delete the oldest pictures that no case has. Returns the digests of their files."""
    return [row["sha256"] for row in await connection.fetch(queries.delete_unused_evidence, before, count)]


async def list_unused_files(connection: Connection, sha256s: Sequence[bytes]) -> list[bytes]:
    """Return those of the files that no picture has."""
    return [row["sha256"] for row in await connection.fetch(queries.list_unused_files, sha256s)]


async def list_evidence_files(connection: Connection, after: bytes, count: int) -> list[bytes]:
    """List the digests of pictures' files that follow one, in their order."""
    return [row["sha256"] for row in await connection.fetch(queries.list_evidence_files, after, count)]


async def list_evidence(connection: Connection, case_id: UUID) -> list[Evidence]:
    """List the pictures of a case, oldest first."""
    return [Evidence(**row) for row in await connection.fetch(queries.list_evidence, case_id)]


def _case(row: Any) -> CaseSummary:
    values = {field: row[_RENAMED.get(field, field)] for field in CaseSummary.__struct_fields__}
    values["kind"], values["status"] = CaseKind(values["kind"]), CaseStatus(values["status"])
    values["claim"] = values["claim"] and ClaimKind(values["claim"])
    if values["offer"] is not None:
        values["offer"] = msgspec.json.decode(values["offer"], type=CaseOffer)
    return CaseSummary(**values)


def _line(row: Any) -> CaseLine:
    return CaseLine(
        case_line_no=row["case_line_no"],
        line_no=row["line_no"],
        ship_to=row["address_no"],
        shipment_id=row["shipment_id"],
        sku=row["sku"],
        quantity=row["quantity"],
        received=row["received"],
        resellable=row["resellable"],
        damaged=row["damaged"],
        rejected=row["rejected"],
        amount=row["amount_minor"],
        wanted_sku=row["wanted_sku"],
    )
