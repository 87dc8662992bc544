"""The seal of a sale: what a clean audit found, from which the next one goes on.

Triggers mark what changes in the transaction that changes it, so a snapshot sees a change if and only if it sees its
mark. However late it is committed, it is added to the sealed sums once: the marks that a snapshot sees are deleted with
the seal that it writes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from commerce.audit.model import Finding, Seal, Sums, add_sums, make_finding
from commerce.audit.store import AuditSnapshot


class HistoryNeeded(Exception):
    """The changes do not suffice: there is no seal of this load of the sale, or history was changed."""


@dataclass(frozen=True, slots=True)
class StoredState:
    """Sums and number of all orders in a snapshot, and the ids of what has changed since the seal.

    `new_sums` are those that the next seal writes: of SKUs with changes, or of all if history was read.
    """

    sums: Sums
    new_sums: Sums
    orders: int
    changed: Sequence[UUID]
    whole_at: datetime | None = None


async def read_changes(snapshot: AuditSnapshot, epoch: int) -> StoredState:
    """Add what has changed to what is sealed. Raises `HistoryNeeded`."""
    seal = await snapshot.read_seal()
    if seal is None or seal.epoch != epoch or seal.is_rewritten:
        raise HistoryNeeded
    marked = await snapshot.sum_marked()
    sums = add_sums(seal.sums, marked)
    new_sums = {sku: sums[sku] for sku in marked}
    return StoredState(sums, new_sums, seal.orders, await snapshot.list_marked(), seal.whole_at)


async def read_history(snapshot: AuditSnapshot) -> StoredState:
    """Add up all history."""
    sums = await snapshot.sum_history()
    return StoredState(sums, sums, await snapshot.count_orders(), await snapshot.list_marked())


async def check_seal(snapshot: AuditSnapshot, history: StoredState) -> list[Finding]:
    """Compare the seal and the changes since with history, unless changes of history are known."""
    seal = await snapshot.read_seal()
    if seal is None or seal.is_rewritten:
        return []
    differences = add_sums(history.sums, add_sums(seal.sums, await snapshot.sum_marked()), sign=-1)
    wrong = [f"{sku}: {text}" for sku, units in sorted(differences.items()) if (text := units.format())]
    if history.orders != seal.orders:
        wrong.append(f"orders: {history.orders - seal.orders:+d}")
    return make_finding("P1", "rows were changed without a mark since the seal, or the seal is wrong", wrong)


async def write_seal(
    snapshot: AuditSnapshot, state: StoredState, epoch: int, now: datetime, *, is_resting: bool, has_compared: bool
) -> None:
    """Seal a clean sale in the snapshot that was audited.

    Orders that a waiting job excuses stay marked, and so do those not yet compared with the counts of Redis.
    """
    excused = await snapshot.list_excused(state.changed)
    if state.whole_at is None:
        await snapshot.delete_seal()
    await snapshot.write_seal(
        Seal(epoch, state.orders, state.new_sums, state.whole_at or now),
        is_at_rest=is_resting and has_compared and not excused,
        now=now,
    )
    await snapshot.replace_marks(
        {"changed": excused, "counted": [] if has_compared else state.changed}, keep_counted=not has_compared
    )
