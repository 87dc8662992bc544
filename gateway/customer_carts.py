"""Carts of customers and guests, shown with the prices and free units that this process has in memory."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from uuid import UUID

from commerce.cart.contents import show_cart
from commerce.cart.errors import CartChanged, NoSuchCart
from commerce.cart.guest_ids import GuestIds
from commerce.cart.model import (
    Cart,
    CartLineChange,
    CartLineInput,
    CartOwner,
    CartWarning,
    OfferedSale,
    SalePrice,
    ShopView,
    StoredCart,
)
from commerce.cart.service import Carts
from commerce.kernel.clock import Clock, from_ms
from commerce.kernel.errors import Invalid
from commerce.orders.model import OrderLineInput
from commerce.orders.quotes import QuoteInput, quoted_price
from commerce.sales.errors import NoSuchItem, SaleClosed
from commerce.sales.model import ItemTerms, SaleSnapshot, SaleState
from gateway.problems import Unauthorized
from gateway.public_pages import PublicPages
from gateway.quotes import OrderQuotes
from gateway.sale_snapshots import SaleSnapshots


class CustomerCarts:
    """Carts as customers see them.

    `guest_ids` is None if the shop signs no ids: then guests have no carts.

    Every operation returns the cart as it is now. `CartChanged` has it as `cart`.
    """

    def __init__(
        self,
        carts: Carts,
        snapshots: SaleSnapshots,
        pages: PublicPages,
        quotes: OrderQuotes,
        guest_ids: GuestIds | None,
        clock: Clock,
    ) -> None:
        self._carts = carts
        self._quotes = quotes
        self._snapshots = snapshots
        self._pages = pages
        self._guest_ids = guest_ids
        self._clock = clock

    def find_guest(self, guest_id: str | None) -> CartOwner:
        """Return the owner of a guest's cart, without an id one who has no cart yet.

        Raises `NoSuchCart` if the id was not signed here, `Unauthorized` if this shop has no carts for guests.
        """
        if self._guest_ids is None:
            raise Unauthorized("this shop keeps carts for customers: send a header `Authorization: Bearer TOKEN`")
        if guest_id is None:
            return CartOwner(None)
        cart_id = self._guest_ids.verify(guest_id)
        if cart_id is None:
            raise NoSuchCart("this Cart-Id is not one of this shop; leave it out to begin a new cart")
        return CartOwner(None, cart_id)

    async def read(self, owner: CartOwner) -> Cart:
        """Read a cart; nothing is changed by that."""
        return await self.show(await self._carts.read(owner))

    async def read_stored(self, owner: CartOwner) -> StoredCart:
        """Read a cart as it is stored."""
        return await self._carts.read(owner)

    async def put_line(
        self, owner: CartOwner, sale_id: str, sku: str, line: CartLineInput, expected_version: int | None
    ) -> Cart:
        """Put a line into the cart at the present price.

        Raises `NoSuchSale`, `NoSuchItem`, `SaleClosed`, and as `Carts.put_line` does.
        """
        snapshot = await self._snapshots.get(sale_id)
        item = snapshot.items.get(sku)
        if item is None:
            raise NoSuchItem(f"{sale_id} does not offer {sku}")
        sale = snapshot.sale
        now = from_ms(self._clock.now_ms())
        if sale.state is SaleState.CLOSED or (sale.closes_at is not None and sale.closes_at <= now):
            raise SaleClosed(f"{sale_id} takes no more orders")
        put = self._carts.put_line(owner, (sale_id, sku), line, item.price, expected_version)
        cart = await self._show_changed(owner, put)
        self._pages.visits.note_cart_line(sale_id, sku)
        return cart

    async def change_line(
        self, owner: CartOwner, sale_id: str, sku: str, changes: CartLineChange, expected_version: int | None
    ) -> Cart:
        """Change a line. Raises as `Carts.change_line` does."""
        snapshot = self._snapshots.cached(sale_id)
        item = snapshot.items.get(sku) if snapshot else None
        price = item.price if item else None
        change = self._carts.change_line(owner, (sale_id, sku), changes, price, expected_version)
        return await self._show_changed(owner, change)

    async def delete_line(self, owner: CartOwner, sale_id: str, sku: str, expected_version: int | None) -> Cart:
        """Delete a line, if the cart has it."""
        return await self._show_changed(owner, self._carts.delete_line(owner, (sale_id, sku), expected_version))

    async def merge(self, user_id: str, guest_id: str) -> Cart:
        """Merge a guest's cart into the customer's; its warnings come first.

        Raises as `Carts.merge` does.
        """
        stored, warnings = await self._carts.merge(user_id, self.find_guest(guest_id), self._find_limit)
        return await self.show(stored, warnings)

    async def show(self, stored: StoredCart, warnings: Sequence[CartWarning] = ()) -> Cart:
        """Show a stored cart."""
        return show_cart(stored, await self.view_shop(stored), self._sign(stored), warnings)

    async def view_shop(self, stored: StoredCart) -> ShopView:
        """Return the state of the shop, as far as a cart needs it."""
        sales: dict[str, OfferedSale] = {}
        for sale_id in {line.sale_id for line in stored.lines}:
            snapshot = self._snapshots.cached(sale_id)
            if snapshot is not None:
                sales[sale_id] = _terms_of(snapshot)
        offered = [line.key for line in stored.lines if line.sku in _items_of(sales, line.sale_id)]
        units = await self._pages.read_units(offered) if offered else {}
        names = await self._pages.read_names({line.sku for line in stored.lines}) if stored.lines else {}
        prices = await self._price_selected(stored, sales)
        return ShopView(sales, prices, units, names, from_ms(self._clock.now_ms()))

    async def _price_selected(self, stored: StoredCart, sales: dict[str, OfferedSale]) -> dict[str, SalePrice]:
        """Price the selected lines of each sale, without an address; those that are gone are left out."""
        prices: dict[str, SalePrice] = {}
        for sale_id, sale in sales.items():
            lines = [
                OrderLineInput(line.sku, line.quantity)
                for line in stored.lines
                if line.sale_id == sale_id and line.is_ordered and line.sku in sale.items
            ]
            if not lines:
                continue
            try:
                _, priced, promotions = await self._quotes.price(QuoteInput(sale_id, lines), stored.user_id or "")
            except Invalid:
                continue  # such as a total beyond all bounds: a checkout says so
            prices[sale_id] = SalePrice(quoted_price(priced), priced.total, promotions)
        return prices

    async def _show_changed(self, owner: CartOwner, change: Awaitable[StoredCart]) -> Cart:
        try:
            stored = await change
        except CartChanged as refusal:
            raise CartChanged(refusal.detail, cart=await self.read(owner)) from None
        return await self.show(stored)

    def _find_limit(self, sale_id: str, sku: str) -> int:
        snapshot = self._snapshots.cached(sale_id)
        item = snapshot.items.get(sku) if snapshot else None
        return item.limit if item else 0

    def _sign(self, stored: StoredCart) -> str | None:
        cart_id: UUID | None = stored.cart_id
        is_guests = stored.user_id is None and cart_id is not None
        return self._guest_ids.sign(cart_id) if is_guests and cart_id and self._guest_ids else None


def _terms_of(snapshot: SaleSnapshot) -> OfferedSale:
    sale = snapshot.sale
    return OfferedSale(sale.title, sale.state, sale.opens_at, sale.closes_at, sale.currency, snapshot.items)


def _items_of(sales: dict[str, OfferedSale], sale_id: str) -> dict[str, ItemTerms]:
    return sales[sale_id].items if sale_id in sales else {}
