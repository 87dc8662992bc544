"""Checkouts as rows: begun before the first order is placed, ended with the change of the cart."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import UUID

import msgspec

from commerce.cart import store
from commerce.cart.errors import CheckoutInProgress
from commerce.cart.model import CartOwner, CheckoutOrder, CheckoutRequest, StoredCheckout, StoredCheckoutOrder
from commerce.cart.service import check_open, check_version
from commerce.kernel.clock import Clock, from_ms
from commerce.kernel.ids import IdGenerator
from commerce.kernel.postgres import Database


class Checkouts:
    """Checkouts over Postgres.

    One request at a time goes on with a checkout, under a lease of `lease_s` seconds. A lease is longer than an order
    takes, and is renewed with each. All methods raise `CheckoutInProgress` if another request has the lease.
    """

    def __init__(self, db: Database, clock: Clock, ids: IdGenerator, lease_s: float) -> None:
        self._db = db
        self._clock = clock
        self._ids = ids
        self._lease = timedelta(seconds=lease_s)

    async def find(self, user_id: str, version: int) -> StoredCheckout | None:
        """Read the checkout of a version of the customer's cart."""
        async with self._db.snapshot() as connection:
            return await store.find_checkout(connection, user_id, version)

    async def get(self, checkout_id: UUID) -> StoredCheckout | None:
        """Read a checkout."""
        async with self._db.snapshot() as connection:
            return await store.get_checkout(connection, checkout_id)

    async def begin(
        self, user_id: str, version: int, request_digest: bytes, orders: Sequence[StoredCheckoutOrder]
    ) -> StoredCheckout:
        """Write down the orders that are to be placed. Until the checkout ends its cart does not change.

        Raises `CartChanged` if the cart has another version.
        """
        async with self._db.transaction() as connection:
            cart = await store.lock(connection, CartOwner(user_id))
            check_version(cart, version)
            assert cart is not None
            assert cart.cart_id is not None
            check_open(cart)
            checkout = StoredCheckout(
                self._ids.new(), cart.cart_id, version, user_id, request_digest, "placing", 1, self._now(), [*orders]
            )
            await store.insert_checkout(connection, checkout, self._now() + self._lease)
        return checkout

    async def claim(self, checkout: StoredCheckout) -> StoredCheckout:
        """Claim a checkout that a request has left, and return it as it is now."""
        async with self._db.connection() as connection:
            now = self._now()
            attempt = await store.claim_checkout(connection, checkout.checkout_id, now, now + self._lease)
            # Only the request with the lease writes, so nothing changes between the two statements.
            current = await store.get_checkout(connection, checkout.checkout_id)
        if attempt is None or current is None or current.attempt != attempt:
            raise _in_progress(checkout)
        return current

    async def record(self, checkout: StoredCheckout, order: CheckoutOrder) -> None:
        """Record the outcome of an order, and renew the lease."""
        async with self._db.connection() as connection:
            if not await store.record_order(connection, checkout, order, self._now() + self._lease):
                raise _in_progress(checkout)

    async def leave(self, checkout: StoredCheckout) -> None:
        """Let the next request go on with a checkout at once."""
        async with self._db.connection() as connection:
            await store.return_checkout(connection, checkout, self._now())

    async def end(self, checkout: StoredCheckout, orders: Sequence[CheckoutOrder]) -> None:
        """End a checkout: what was bought leaves the cart, whose version rises, in one transaction."""
        bodies = {order.sale_id: order.body for order in checkout.orders}
        bought = [
            (order.sale_id, line.sku)
            for order in orders
            if order.outcome == "placed" and (body := bodies[order.sale_id]) is not None
            for line in body.lines
        ]
        async with self._db.transaction() as connection:
            await store.lock(connection, CartOwner(checkout.user_id))
            if not await store.end_checkout(connection, checkout, self._now()):
                raise _in_progress(checkout)
            if bought:
                await store.delete_lines(connection, checkout.cart_id, bought)

    def _now(self) -> datetime:
        return from_ms(self._clock.now_ms())


def digest_request(request: CheckoutRequest) -> bytes:
    """Return the SHA-256 of what is ordered. Tickets of waiting rooms are not in it: they may be renewed."""
    content = msgspec.structs.replace(request, room_tickets={})
    return hashlib.sha256(msgspec.json.encode(content, order="sorted")).digest()


def derive_key(checkout: StoredCheckout, sale_id: str) -> str:
    """Return the Idempotency-Key of a sale's order, the same one for each repeat of a checkout."""
    content = f"cart:{checkout.cart_id}:{checkout.cart_version}:{sale_id}".encode()
    return f"cart-{hashlib.sha256(content).hexdigest()}"


def _in_progress(checkout: StoredCheckout) -> CheckoutInProgress:
    return CheckoutInProgress(
        f"another request goes on with the checkout of version {checkout.cart_version}; repeat this one in a moment"
    )
