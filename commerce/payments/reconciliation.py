"""A provider's daily statement against our own books of that day: every difference, with what a person can do about it.

Pure: whoever calls has read the statement and the books. A statement is of a day in China, from midnight to midnight.
Captures are booked by the provider's time; refunds are booked when we learn of them, which may be after midnight.
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
from commerce.payments.model import Payment, Refund
from commerce.payments.provider_port import StatementLine
from commerce.payments.store import RecordedMovement

DAY = timedelta(days=1)
NEAR = timedelta(minutes=30)
"""How far from midnight a movement may stand on the statement of the day on its other side."""

Key = tuple[UUID, UUID | None]
"""A payment, or one of its refunds."""
Kind = Literal[
    "not_with_us", "other_day", "not_in_statement", "near_midnight", "amount", "transaction", "twice", "unreadable"
]


class Difference(NamedTuple):
    """Something to look at. `key` is None where a line cannot be read."""

    kind: Kind
    key: Key | None
    reason: str


class ReconciliationReport(NamedTuple):
    """How many movements the statement has, how many of either side agree, and what does not."""

    movements: int
    matching: int
    differences: list[Difference]


@dataclass(frozen=True)
class RecordedDay:
    """What we have booked of a provider on a day, on the days around it, and close to that day's two midnights."""

    day: Sequence[RecordedMovement]
    around: Sequence[RecordedMovement]
    early: Sequence[RecordedMovement]
    late: Sequence[RecordedMovement]


def bounds(day: date) -> tuple[datetime, datetime]:
    """When a day begins and ends in China."""
    start = datetime.combine(day, time(), CHINA)
    return start, start + DAY


def decode(raw: bytes) -> str:
    """The text of a statement, in UTF-8 or GB18030. Raises `Invalid` where there is none to read."""
    if raw.startswith((b"PK\x03\x04", b"\x1f\x8b")):
        raise Invalid("it is packed: unpack it, and give the file with the single movements (of Alipay 业务明细)")
    for encoding in ("utf-8-sig", "gb18030"):
        try:
            text = raw.decode(encoding)
        except UnicodeDecodeError:
            continue
        if not text.strip():
            raise Invalid("it is empty: a statement has headings even for a day without payments")
        if "\0" in text:
            break
        return text
    raise Invalid("it is neither UTF-8 nor GB18030 text, so it is no statement")


def check_readable(provider: str, statement: Sequence[StatementLine | str]) -> None:
    """Raises `Invalid` for a file of which not one line can be read: then it is another file, not a bad line."""
    wrong = [line for line in statement if isinstance(line, str)]
    if wrong and len(wrong) == len(statement):
        raise Invalid(f"it is no statement of {provider}: {'; '.join(wrong[:3])}")


def compare(
    statement: Iterable[StatementLine | str],
    neighbours: Iterable[StatementLine | str],
    ours: RecordedDay,
    day: date,
    seen: Callable[[], None] = lambda: None,
) -> tuple[ReconciliationReport, list[StatementLine]]:
    """All differences but those of the lines that we have nowhere near that day, which are given as well: `explain`
    says what they are. `neighbours` are the lines of other days' statements; `seen` is called for each movement."""
    first, differences = _indexed(statement)
    booked, around = _by_key(ours.day), _by_key(ours.around)
    unknown: list[StatementLine] = []
    agreed = 0
    for key, line in first.items():
        seen()
        mine = booked.get(key) or around.get(key)
        if mine is None:
            unknown.append(line)
            continue
        found = _unlike(key, line, mine)
        differences += found
        agreed += not found
    others, _ = _indexed(neighbours)
    early, late = _by_key(ours.early), _by_key(ours.late)
    for key in [key for key in booked if key not in first]:
        seen()
        if key in others:
            found = _unlike(key, others[key], booked[key])
        else:
            found = [_missing(key, booked[key], day, early=key in early, late=key in late)]
        differences += found
        agreed += not found
    return ReconciliationReport(len(first), agreed, differences), unknown


def explain(line: StatementLine, method: str, paid: Payment | None, refund: Refund | None) -> Difference:
    """Why a line of the statement is not in our books of those days, from the rows that bear its ids."""
    key, amount = (line.payment_id, line.refund_id), format_money(line.amount.amount, line.amount.currency)
    kind: Kind = "not_with_us"
    if paid is None:
        why = f"we have no such payment: find out at {method} whose {amount} it is; does another shop use this account?"
    elif paid.method != method:
        why = f"with us it is a payment by {paid.method}: show it with `floodgate payment show {paid.order_id}`"
    elif line.refund_id is None and paid.status == "captured":
        kind, why = "other_day", "we have it on a day further away: mind it in the accounts of both days"
    elif line.refund_id is None:
        why = (
            f"{amount} was paid and with us it is {paid.status}: see that a payment driver runs and whether it is "
            f"parked (`floodgate parked list`), then `floodgate payment show {paid.order_id}`"
        )
    elif refund is None or refund.payment_id != paid.payment_id:
        why = f"{amount} went back and we asked for no such refund: did somebody give it back at {method} by hand?"
    elif refund.status == "done":
        kind, why = "other_day", "we have it on a day further away: mind it in the accounts of both days"
    else:
        why = (
            f"{amount} went back and with us the refund is {refund.status}: see whether it is parked "
            f"(`floodgate parked list`), then `floodgate payment show {paid.order_id}`"
        )
    return Difference(kind, key, why)


def _indexed(statement: Iterable[StatementLine | str]) -> tuple[dict[Key, StatementLine], list[Difference]]:
    """The first line of each movement, and what is wrong with the statement itself."""
    first: dict[Key, StatementLine] = {}
    count: Counter[Key] = Counter()
    wrong = []
    for line in statement:
        if isinstance(line, str):
            wrong.append(Difference("unreadable", None, line))
            continue
        key = (line.payment_id, line.refund_id)
        first.setdefault(key, line)
        count[key] += 1
    for key, times in count.items():
        if times > 1:
            why = f"{times} lines of the statement are about it: ask the provider whether money moved more than once"
            wrong.append(Difference("twice", key, why))
    return first, wrong


def _by_key(booked: Iterable[RecordedMovement]) -> dict[Key, RecordedMovement]:
    return {(one.payment_id, one.refund_id): one for one in booked}


def _unlike(key: Key, line: StatementLine, mine: RecordedMovement) -> list[Difference]:
    found = []
    if line.amount != mine.amount:
        theirs, have = (format_money(money.amount, money.currency) for money in (line.amount, mine.amount))
        why = f"the statement says {theirs} and we have {have}: the provider's word decides, ask for the reason"
        found.append(Difference("amount", key, why))
    # On the line of a refund it is the payment's number at one provider and the refund's at another, which we keep not.
    if key[1] is None and line.transaction_id != mine.transaction_id:
        why = (
            f"the statement says transaction {line.transaction_id} and we have {mine.transaction_id}: "
            "was it paid twice? Look up both at the provider"
        )
        found.append(Difference("transaction", key, why))
    return found


def _missing(key: Key, mine: RecordedMovement, day: date, *, early: bool, late: bool) -> Difference:
    amount = format_money(mine.amount.amount, mine.amount.currency)
    if early or late:
        other = day - DAY if early else day + DAY
        why = f"{amount}, booked close to midnight: look for it on the statement of {other} (--neighbour FILE)"
        return Difference("near_midnight", key, why)
    if key[1] is not None:
        why = f"we have {amount} as given back: look at the statements of the days before, then ask the provider"
        return Difference("not_in_statement", key, why)
    why = f"we have {amount} as captured: ask the provider, and hold the goods back if they are not sent yet"
    return Difference("not_in_statement", key, why)
