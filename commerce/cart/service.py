"""Reads, changes and merges carts."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from msgspec import UNSET

from commerce.cart import store
from commerce.cart.errors import CartChanged, CartFull, CartMerged, CheckoutInProgress, NoSuchCart, NoSuchLine
from commerce.cart.merging import FindLimit, merge_lines
from commerce.cart.model import (
    CartLimits,
    CartLineChange,
    CartLineInput,
    CartOwner,
    CartWarning,
    StoredCart,
    StoredLine,
)
from commerce.kernel.clock import Clock, from_ms
from commerce.kernel.errors import Invalid
from commerce.kernel.ids import IdGenerator
from commerce.kernel.postgres import Connection, Database

_Key = tuple[str, str]


class Carts:
    """Carts over Postgres: one per customer, and those of guests.

    Each change raises the version; one that changes nothing does not. `expected_version` is the one that the client
    knows, None if it does not care; another one raises `CartChanged`. A cart with a checkout under way raises
    `CheckoutInProgress`, a guest's cart that was merged `CartMerged`.
    """

    def __init__(self, db: Database, clock: Clock, ids: IdGenerator, limits: CartLimits) -> None:
        self._db = db
        self._clock = clock
        self._ids = ids
        self._limits = limits

    async def read(self, owner: CartOwner) -> StoredCart:
        """Read a cart, which is empty if there is none yet."""
        if owner == CartOwner(None):
            return _empty(owner)
        async with self._db.connection() as connection:
            return await store.get(connection, owner) or _empty(owner)

    async def put_line(
        self, owner: CartOwner, key: _Key, line: CartLineInput, price: int, expected_version: int | None
    ) -> StoredCart:
        """Put a line at a price in minor units into a cart, in place of the one of the same sale and SKU.

        Raises `Invalid` for too many units, `CartFull` for too many lines.
        """
        self._check_quantity(line.quantity)

        def change(present: StoredLine | None) -> StoredLine:
            added_at = present.added_at if present else self._now()
            return StoredLine(*key, line.quantity, line.selected, line.saved, price, added_at)

        return await self._change(owner, key, change, expected_version)

    async def change_line(
        self, owner: CartOwner, key: _Key, changes: CartLineChange, price: int | None, expected_version: int | None
    ) -> StoredCart:
        """Change a line. A new quantity or `accept_price` accepts the present price, None if there is none.

        Raises `NoSuchLine`, or `Invalid` for too many units.
        """
        if changes.quantity is not UNSET:
            self._check_quantity(changes.quantity)

        def change(present: StoredLine | None) -> StoredLine:
            if present is None:
                raise NoSuchLine(f"the cart has no {key[1]} of {key[0]}")
            accepts = changes.accept_price or changes.quantity is not UNSET
            return present._replace(
                quantity=present.quantity if changes.quantity is UNSET else changes.quantity,
                selected=present.selected if changes.selected is UNSET else changes.selected,
                saved=present.saved if changes.saved is UNSET else changes.saved,
                accepted_price_minor=price if accepts and price is not None else present.accepted_price_minor,
            )

        return await self._change(owner, key, change, expected_version)

    async def delete_line(self, owner: CartOwner, key: _Key, expected_version: int | None) -> StoredCart:
        """Delete a line, if the cart has it."""
        return await self._change(owner, key, lambda present: None, expected_version)

    async def merge(
        self, user_id: str, guest: CartOwner, find_limit: FindLimit
    ) -> tuple[StoredCart, list[CartWarning]]:
        """Merge a guest's cart into the customer's. Returns it, and what was cut or left.

        A repeat merges nothing more and returns the same warnings. Raises `NoSuchCart` if the guest's cart was merged
        into another customer's.
        """
        owner = CartOwner(user_id)
        async with self._db.transaction() as connection:
            cart = await store.lock(connection, owner)
            if cart is None:
                cart, _ = await self._add(connection, owner)
            guest_cart = await store.lock(connection, guest)
            if guest_cart is None or guest_cart.cart_id is None or cart.cart_id is None:
                return cart, []
            if guest_cart.merged_into is not None:
                if guest_cart.merged_into != cart.cart_id:
                    raise NoSuchCart("this guest's cart was merged into the cart of another customer")
                return cart, await store.get_merge_warnings(connection, guest_cart.cart_id)
            _check_no_checkout(cart)
            merge = merge_lines(cart.lines, guest_cart.lines, self._limits, find_limit)
            now = self._now()
            if merge.changed:
                await store.put_lines(connection, cart.cart_id, merge.changed)
                await store.raise_version(connection, cart.cart_id, now)
            if merge.moved:
                await store.delete_lines(connection, guest_cart.cart_id, merge.moved)
            await store.mark_merged(connection, guest_cart.cart_id, cart.cart_id, merge.warnings, now)
            return await store.lock(connection, owner) or cart, merge.warnings

    async def _change(
        self,
        owner: CartOwner,
        key: _Key,
        change: Callable[[StoredLine | None], StoredLine | None],
        expected_version: int | None,
    ) -> StoredCart:
        """Write what `change` makes of a line, in a new cart if there is none. None deletes the line."""
        async with self._db.transaction() as connection:
            cart, is_new = await store.lock(connection, owner), False
            if cart is None:
                if change(None) is None:
                    check_version(None, expected_version)
                    return _empty(owner)
                if owner.user_id is None and owner.cart_id is None:
                    owner = CartOwner(None, self._ids.new())
                cart, is_new = await self._add(connection, owner)
            check_version(None if is_new else cart, expected_version)
            check_open(cart)
            present = next((line for line in cart.lines if line.key == key), None)
            line = change(present)
            if line == present:
                return cart
            if present is None and len(cart.lines) >= self._limits.lines:
                raise CartFull(f"cannot add {key[1]}: the cart has {len(cart.lines)} lines; delete or order some first")
            assert cart.cart_id is not None
            if line is None:
                await store.delete_lines(connection, cart.cart_id, [key])
            else:
                await store.put_lines(connection, cart.cart_id, [line])
            if not is_new:
                await store.raise_version(connection, cart.cart_id, self._now())
            return await store.lock(connection, owner) or cart

    async def _add(self, connection: Connection, owner: CartOwner) -> tuple[StoredCart, bool]:
        """Add a cart and lock it. Returns False with one that another request has added at this moment."""
        cart_id = self._ids.new() if owner.user_id is not None else owner.cart_id
        assert cart_id is not None
        is_new = await store.add_cart(connection, cart_id, owner.user_id, self._now())
        cart = await store.lock(connection, owner)
        assert cart is not None
        return cart, is_new

    def _check_quantity(self, quantity: int) -> None:
        if quantity > self._limits.quantity:
            detail = f"more than {self._limits.quantity} on one line"
            raise Invalid(f"/quantity: {detail}", errors=[{"pointer": "/quantity", "detail": detail}])

    def _now(self) -> datetime:
        return from_ms(self._clock.now_ms())


def check_version(cart: StoredCart | None, expected_version: int | None) -> None:
    """Raise `CartChanged` if a cart does not have the version that the client knows."""
    version = cart.version if cart else 0
    if expected_version is not None and version != expected_version:
        raise CartChanged(f"the cart has version {version} and not {expected_version}; look at it and repeat")


def check_open(cart: StoredCart) -> None:
    """Raise `CartMerged` or `CheckoutInProgress` if a cart cannot be changed now."""
    if cart.merged_into is not None:
        raise CartMerged("this cart was merged into a customer's; leave out Cart-Id to begin a new one")
    _check_no_checkout(cart)


def _check_no_checkout(cart: StoredCart) -> None:
    if cart.checkout is not None:
        raise CheckoutInProgress(
            f"a checkout of version {cart.checkout.version} is under way; repeat its request to finish it, or wait: "
            "minutes later the next change ends it, with the orders that it has"
        )


def _empty(owner: CartOwner) -> StoredCart:
    return StoredCart(owner.cart_id, owner.user_id, 0, None, None, [])
