"""Compares a provider's daily statement with our records and explains every difference.

Pure: the caller has read the statement and the records. A statement covers a day in China, from midnight to midnight.
Captures are recorded by the provider's time. Refunds are recorded when we learn of them, which may be after midnight.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from typing import Literal, NamedTuple
from uuid import UUID

from commerce.kernel.china_time import CHINA
from commerce.kernel.errors import Invalid
from commerce.kernel.money import format_money
from commerce.kernel.text_files import decode_text
from commerce.payments.model import Payment, Refund
from commerce.payments.provider_port import StatementLine
from commerce.payments.store import RecordedMovement

DAY = timedelta(days=1)
NEAR_MIDNIGHT = timedelta(minutes=30)
"""distance from midnight within which a movement may be on the statement of the adjacent day"""

MovementKey = tuple[UUID, UUID | None]
"""a payment's id with None, or with the id of one of its refunds"""
DifferenceKind = Literal[
    "missing_here",
    "recorded_on_other_day",
    "not_in_statement",
    "near_midnight",
    "amount",
    "transaction",
    "duplicate",
    "unreadable",
]


class Difference(NamedTuple):
    """A difference for staff to resolve. `key` is None if a line cannot be read."""

    kind: DifferenceKind
    key: MovementKey | None
    reason: str


class ReconciliationReport(NamedTuple):
    """Movements in the statement, movements of either side that match, and the differences."""

    movements: int
    matching: int
    differences: list[Difference]


@dataclass(frozen=True)
class RecordedDay:
    """Recorded movements of a provider on a day, on the adjacent days, and near that day's two midnights."""

    day: Sequence[RecordedMovement]
    around: Sequence[RecordedMovement]
    early: Sequence[RecordedMovement]
    late: Sequence[RecordedMovement]


def day_bounds(day: date) -> tuple[datetime, datetime]:
    """Return the moments at which a day begins and ends in China."""
    start = datetime.combine(day, time(), CHINA)
    return start, start + DAY


def decode_statement(raw: bytes) -> str:
    """Decode a statement from UTF-8, GB18030 or UTF-16.

    Raises `Invalid` if it is packed, empty or no text. A wrong guess is
    noticed: the headings are Chinese and would be missing.
    """
    text = decode_text(raw, "utf-8", "gb18030")
    if not text.strip():
        raise Invalid("it is empty: a statement has headings even for a day without payments")
    if "\0" in text:
        raise Invalid("it is not UTF-8 or GB18030 text: pass the file as the provider gave it")
    return text


def check_readable(provider: str, statement: Sequence[StatementLine | str]) -> None:
    """Raise `Invalid` if no line can be read: then the file is another one, and not a single line is bad."""
    unreadable = [line for line in statement if isinstance(line, str)]
    if unreadable and len(unreadable) == len(statement):
        raise Invalid(f"it is not a statement of {provider}: {'; '.join(unreadable[:3])}")


def compare(
    statement: Iterable[StatementLine | str],
    neighbours: Iterable[StatementLine | str],
    records: RecordedDay,
    day: date,
    count_movement: Callable[[], None] = lambda: None,
) -> tuple[ReconciliationReport, list[StatementLine]]:
    """Compare a statement with our records of a day.

    Returns the report, and the lines that are in none of the records: the caller adds what `explain` returns for them.
    `neighbours` are the lines of other days' statements. `count_movement` is called once per movement."""
    lines, differences = _index_statement(statement)
    recorded, around = _index_records(records.day), _index_records(records.around)
    unmatched: list[StatementLine] = []
    matching = 0
    for key, line in lines.items():
        count_movement()
        movement = recorded.get(key) or around.get(key)
        if movement is None:
            unmatched.append(line)
            continue
        mismatches = _mismatches(key, line, movement)
        differences += mismatches
        matching += not mismatches
    neighbour_lines, _ = _index_statement(neighbours)
    early, late = _index_records(records.early), _index_records(records.late)
    for key, movement in recorded.items():
        if key in lines:
            continue
        count_movement()
        if key in neighbour_lines:
            mismatches = _mismatches(key, neighbour_lines[key], movement)
        else:
            mismatches = [_missing_in_statement(key, movement, day, early=key in early, late=key in late)]
        differences += mismatches
        matching += not mismatches
    return ReconciliationReport(len(lines), matching, differences), unmatched


def explain(line: StatementLine, method: str, payment: Payment | None, refund: Refund | None) -> Difference:
    """Explain why a statement line is not in our records of those days, from the rows with its ids."""
    key, amount = (line.payment_id, line.refund_id), format_money(line.amount.amount, line.amount.currency)
    kind: DifferenceKind = "missing_here"
    other_day = "we recorded it on a day further away: correct the accounts of both days"
    if payment is None:
        reason = f"we have no such payment of {amount}: ask {method}; does another shop use this account?"
    elif payment.method != method:
        reason = f"we recorded it as a payment by {payment.method}: see `floodgate payment show {payment.order_id}`"
    elif line.refund_id is None and payment.status == "captured":
        kind, reason = "recorded_on_other_day", other_day
    elif line.refund_id is None:
        reason = (
            f"{amount} was paid, and our payment is {payment.status}: check that a payment worker runs and that it is "
            f"not parked (`floodgate jobs list --order {payment.order_id}`), then see "
            f"`floodgate payment show {payment.order_id}`"
        )
    elif refund is None or refund.payment_id != payment.payment_id:
        number = "" if line.hand_number is None else f" under {line.hand_number[:40]!r}, which is no number of ours"
        reason = (
            f"{amount} was refunded{number}, and we requested no such refund: it was made at {method} by hand; list it "
            "with `floodgate reconcile --post`, then see `floodgate refunds list-by-hand`"
        )
    elif refund.status == "done":
        kind, reason = "recorded_on_other_day", other_day
    else:
        reason = (
            f"{amount} was refunded, and our refund is {refund.status}: check that it is not parked "
            f"(`floodgate jobs list --order {payment.order_id}`), then see `floodgate payment show {payment.order_id}`"
        )
    return Difference(kind, key, reason)


def _index_statement(
    statement: Iterable[StatementLine | str],
) -> tuple[dict[MovementKey, StatementLine], list[Difference]]:
    """Return the first line of each movement, and the differences in the statement itself."""
    lines: dict[MovementKey, StatementLine] = {}
    count: Counter[MovementKey] = Counter()
    differences = []
    for line in statement:
        if isinstance(line, str):
            differences.append(Difference("unreadable", None, line))
            continue
        key = (line.payment_id, line.refund_id)
        lines.setdefault(key, line)
        count[key] += 1
    for key, times in count.items():
        if times > 1:
            reason = f"the statement has {times} lines about it: ask the provider if money moved more than once"
            differences.append(Difference("duplicate", key, reason))
    return lines, differences


def _index_records(movements: Iterable[RecordedMovement]) -> dict[MovementKey, RecordedMovement]:
    return {(movement.payment_id, movement.refund_id): movement for movement in movements}


def _mismatches(key: MovementKey, line: StatementLine, movement: RecordedMovement) -> list[Difference]:
    differences = []
    if line.amount != movement.amount:
        stated, recorded = (format_money(money.amount, money.currency) for money in (line.amount, movement.amount))
        reason = f"the statement has {stated} and we recorded {recorded}: the provider decides, ask it for the reason"
        differences.append(Difference("amount", key, reason))
    is_refund = key[1] is not None
    if line.transaction_id != movement.number and not (is_refund and movement.number is None):
        noun, verb = ("refund", "refunded") if is_refund else ("transaction", "paid")
        reason = (
            f"the statement has {noun} {line.transaction_id} and we recorded {movement.number}: "
            f"was it {verb} twice? Look up both at the provider"
        )
        differences.append(Difference("transaction", key, reason))
    return differences


def _missing_in_statement(
    key: MovementKey, movement: RecordedMovement, day: date, *, early: bool, late: bool
) -> Difference:
    amount = format_money(movement.amount.amount, movement.amount.currency)
    if early or late:
        adjacent_day = day - DAY if early else day + DAY
        reason = f"{amount}, recorded near midnight: look for it on the statement of {adjacent_day} (--neighbour FILE)"
        return Difference("near_midnight", key, reason)
    if key[1] is not None:
        reason = f"we recorded {amount} as refunded: look at the statements of the days before, then ask the provider"
        return Difference("not_in_statement", key, reason)
    reason = f"we recorded {amount} as captured: ask the provider, and hold the order's shipments if none has left yet"
    return Difference("not_in_statement", key, reason)
