"""The names of all Redis keys. A sale's keys share a hash tag, so a sale lives in one cluster slot."""

from __future__ import annotations

CHANGE_DEDUP_DAYS = 8
"""days for which Redis recognises the id of a release or stock change; as in `include/changes.lua`"""
GROUP = "writers"
USAGE = b"{sale:}:usage"
"""stream: use of rate limits, as gateways report it; of no sale"""
DUE_JOBS = b"{sale:}:due-jobs"
"""channel: names of queues that have jobs that are due now"""
CHANGED_ORDERS = b"{sale:}:changed-orders"
"""channel: ids of orders (16 bytes each) that have changed, for those who wait for it"""


class SaleKeys:
    """The keys of one sale, as bytes."""

    __slots__ = (
        "_tag", "accepted", "buyers", "fence", "held_back", "meta", "offers", "orders", "proofs", "room", "room_left",
        "room_meta", "stock",
    )  # fmt: skip

    def __init__(self, sale_id: str) -> None:
        self._tag = f"{{sale:{sale_id}}}:"
        self.meta = self._key("meta")
        """hash: the terms, epoch, counted_epoch, change_seq and run_id of a loaded sale"""
        self.stock = self._key("stock")
        """hash: sku → units free"""
        self.buyers = self._key("buyers")
        """hash: user NUL sku → units taken, for SKUs with a limit"""
        self.held_back = self._key("held-back")
        """hash: sku → units returned to a sale with a wait-list that are not offered or on sale yet"""
        self.offers = self._key("offers")
        """hash: user NUL sku → units offered to a customer who waited, until he orders or his time is over"""
        self.accepted = self._key("accepted")
        """hash: order id (16 bytes) → user, from acceptance until the order is in Postgres"""
        self.orders = self._key("orders")
        """stream: one entry per batch, whose field `orders` has its orders packed as `reserve.lua` says"""
        self.fence = self._key("fence")
        """counter: written before WAIT, so that WAIT covers earlier writes of other connections"""
        self.room = self._key("room")
        """hash: ticket hash (32 bytes) → number, 0 while the places are not drawn"""
        self.room_meta = self._key("room-meta")
        """hash: the stage of the waiting room, the length of its closed list, the last number given"""
        self.room_left = self._key("room-left")
        """sorted set: numbers whose holders have left the waiting room"""
        self.proofs = self._key("proofs")
        """sorted set: nonces of solved proofs of work, by the time in ms at which their challenges expire"""

    def _key(self, name: str) -> bytes:
        return (self._tag + name).encode()

    def keys(self, day: int) -> bytes:
        """hash: user NUL idempotency key → record; `day` counts from 1970."""
        return self._key(f"keys:{day}")

    def changes(self, day: int) -> bytes:
        """hash: id of a release or stock change made on that day → its seq within the epoch."""
        return self._key(f"changes:{day}")

    def staged(self, epoch: int, name: str) -> bytes:
        """hash: `stock`, `buyers`, `held-back` or `offers` while a load fills them."""
        return self._key(f"staged:{epoch}:{name}")

    def reserve_keys(self, day: int) -> list[bytes]:
        """List the keys of `reserve.lua` for a batch of that day, in its order."""
        return [self.meta, self.stock, self.buyers, self.accepted, self.orders, self.offers, *self._near_days(day)]

    def recheck_keys(self, day: int) -> list[bytes]:
        """List the keys of `recheck.lua` for a batch of that day, in its order."""
        return [self.meta, self.stock, self.offers, *self._near_days(day)]

    def _near_days(self, day: int) -> list[bytes]:
        return [self.keys(near_day) for near_day in range(day - 2, day + 2)]


def idempotency_field(user_id: str, idempotency_key: str) -> bytes:
    """Build the field of a `keys` hash that holds a user's idempotency key."""
    return f"{user_id}\0{idempotency_key}".encode()


def buyer_field(user_id: str, sku: str) -> bytes:
    """Build the field of a `buyers` or `offers` hash that holds a user's units of a SKU."""
    return f"{user_id}\0{sku}".encode()
