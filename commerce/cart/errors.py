"""Errors of carts."""

from __future__ import annotations

from commerce.kernel.errors import Conflict, NotFound


class NoSuchCart(NotFound):
    title = "There is no such cart, or it is not yours"


class NoSuchLine(NotFound):
    title = "The cart has no such line"


class CartFull(Conflict):
    code = "cart_full"
    title = "The cart takes no more lines"


class CartChanged(Conflict):
    """The cart or its prices are not those that the client knows. `cart` is the cart as it is now."""

    code = "cart_changed"
    title = "The cart has changed"


class CartMerged(Conflict):
    code = "cart_merged"
    title = "This guest's cart was merged into a customer's"


class NothingSelected(Conflict):
    code = "nothing_selected"
    title = "No line of the cart is selected"


class CheckoutInProgress(Conflict):
    code = "checkout_in_progress"
    title = "A checkout of this cart is under way"
    retry_after_s = 1
