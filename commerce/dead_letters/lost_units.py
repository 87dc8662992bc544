"""Units of dead letters that Redis lost, which a retry reacquires.

Redis is asked under an id of the retry, committed before the call, so that a call with an unknown outcome is repeated
and not made twice. It is not the order's id: under that the order's stock is released later.
"""

from __future__ import annotations

from uuid import uuid5

from redis.asyncio import Redis

from commerce.dead_letters import store
from commerce.dead_letters.store import StoredDeadLetter
from commerce.kernel.errors import Conflict
from commerce.kernel.postgres import Connection
from commerce.kernel.redis_client import REDIS_UNAVAILABLE
from commerce.kernel.stream_payload import AcceptedOrder
from lua import (
    ReacquireOutcome,
    ReacquireResult,
    Reacquisition,
    Release,
    ReleaseOutcome,
    SaleKeys,
    reacquire,
    release,
)

_APPLIED = (ReacquireOutcome.APPLIED, ReacquireOutcome.ALREADY_APPLIED)
_REFUSALS = {
    ReacquireOutcome.REFUSED: "cannot take the units of the order: they are sold, or its customer has reached the "
    "limit; retry after stock was added, or discard it and tell the customer",
    ReacquireOutcome.TOO_OLD: "cannot take the units of the order: the last retry was too long ago for Redis to know "
    "its outcome; retry again (a rebuild of the sale returns units that it may have taken)",
}


async def reacquire_units(
    connection: Connection, redis: Redis, stored: StoredDeadLetter, order: AcceptedOrder
) -> str | None:
    """Reacquire the units of an order from the present stock, once. Returns the reason if Redis refuses.

    Call inside a transaction that holds the dead letter's lock, and commit it after a refusal: then the next retry
    asks again. Raises `Conflict` if the outcome is unknown or the stock is not loaded.
    """
    result = await _request_units(connection, redis, stored, order)
    if reason := _REFUSALS.get(result.outcome):
        await store.forget_retry(connection, order.order_id)
        return reason
    await store.mark_reacquired(connection, order.order_id, result.epoch, result.seq)
    return None


async def hold_units_of_retry(
    connection: Connection, redis: Redis, stored: StoredDeadLetter, order: AcceptedOrder
) -> dict[str, int] | None:
    """Make the dead letter hold what an unfinished retry has taken.

    Returns the units, None if it took nothing. Call inside a transaction that holds the dead letter's lock. Raises
    `Conflict` if that cannot be found out.
    """
    result = await _request_units(connection, redis, stored, order)
    if result.outcome not in _APPLIED:
        return None
    await store.mark_reacquired(connection, order.order_id, result.epoch, result.seq)
    await store.hold_units(connection, order.order_id, order.units())
    return order.units()


async def return_units_of_retry(
    connection: Connection, redis: Redis, stored: StoredDeadLetter, order: AcceptedOrder
) -> None:
    """Return what an unfinished retry has taken for an order that was stored with units of its own.

    Call inside a transaction that holds the dead letter's lock. Raises `Conflict` if Redis cannot do it now.
    """
    assert stored.retry is not None
    retry_id, retry_ms = stored.retry
    if (await _request_units(connection, redis, stored, order)).outcome not in _APPLIED:
        return
    job = Release(uuid5(retry_id, "release"), retry_ms, order.user_id, order.units())
    try:
        epoch, [result] = await release(redis, SaleKeys(stored.letter.sale_id), [job])
    except REDIS_UNAVAILABLE:
        raise _no_answer() from None
    if result.outcome not in (ReleaseOutcome.APPLIED, ReleaseOutcome.ALREADY_APPLIED):
        raise _not_loaded(stored)
    await store.mark_reacquired(connection, order.order_id, epoch, result.seq)


async def _request_units(
    connection: Connection, redis: Redis, stored: StoredDeadLetter, order: AcceptedOrder
) -> ReacquireResult:
    """Ask Redis for the units under the retry's id, in the sale's current load. It answers the same again."""
    if stored.retry is None:
        raise Conflict("cannot take the units of the order: another retry has just ended; retry again")
    retry_id, retry_ms = stored.retry
    sale_id = stored.letter.sale_id
    locked_epoch = await store.lock_epoch(connection, sale_id)  # no load begins until the transaction ends
    limits = await store.read_limits(connection, sale_id, [*order.units()])
    units = {sku: (count, limits.get(sku, 0)) for sku, count in order.units().items()}
    try:
        result = await reacquire(redis, SaleKeys(sale_id), Reacquisition(retry_id, retry_ms, order.user_id, units))
    except REDIS_UNAVAILABLE:
        raise _no_answer() from None
    if result.outcome is ReacquireOutcome.NOT_READY or result.epoch != locked_epoch:
        raise _not_loaded(stored)
    return result


def _no_answer() -> Conflict:
    return Conflict("cannot ask for the units of the order: Redis does not answer; repeat this later")


def _not_loaded(stored: StoredDeadLetter) -> Conflict:
    return Conflict(f"cannot ask for the units of the order: {stored.letter.sale_id} is not loaded; repeat this later")
