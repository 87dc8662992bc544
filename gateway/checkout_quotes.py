"""Quotes of carts: plans a checkout and prices its orders as they would be placed now."""

from __future__ import annotations

from commerce.cart.cart_quotes import CartQuote, add_up
from commerce.cart.errors import CartChanged
from commerce.cart.model import CartOwner, CheckoutPlan, StoredCart
from commerce.kernel.errors import Invalid
from commerce.orders.model import PlaceOrder
from commerce.orders.quotes import Quote, QuoteInput
from gateway.checkout_plan import invalid, plan_orders
from gateway.services import GatewayServices

_OF_SALE = ("/payments", "/coupons")


async def quote_cart(services: GatewayServices, user_id: str, plan: CheckoutPlan) -> CartQuote:
    """Quote a checkout of the customer's cart. Raises as `quote_plan` does."""
    stored = await services.shopping.carts.read_stored(CartOwner(user_id))
    return (await quote_plan(services, user_id, stored, plan))[1]


async def quote_plan(
    services: GatewayServices, user_id: str, stored: StoredCart, plan: CheckoutPlan
) -> tuple[list[PlaceOrder], CartQuote]:
    """Make the orders of a checkout, and quote each of them.

    Raises `CartChanged` if a selected line is gone, `NothingSelected`, `NoSuchAddress`, `Invalid` with JSON pointers
    into the request, or `NotReady`.
    """
    limits = services.settings.limits
    for pointer, count in (("/ship_to", len(plan.ship_to)), ("/address_ids", len(plan.address_ids))):
        if count > limits.addresses_per_order:
            raise invalid(pointer, f"more than {limits.addresses_per_order} addresses: order in several steps")
    addresses = plan.ship_to
    if plan.address_ids:
        saved = await services.shopping.addresses.get_many(user_id, plan.address_ids)
        addresses = addresses or [entry.address for entry in saved]
    orders = plan_orders(stored, plan, addresses, limits.orders_per_checkout)
    for line in stored.lines:
        snapshot = services.snapshots.cached(line.sale_id)
        if line.is_ordered and (snapshot is None or line.sku not in snapshot.items):
            cart = await services.shopping.carts.show(stored)
            raise CartChanged(f"{line.sale_id} does not offer {line.sku} any more: delete the line", cart=cart)
    quotes: list[Quote] = []
    for order in orders:
        quoted = QuoteInput(order.sale_id, order.lines, order.ship_to, order.payments, order.coupons)
        try:
            quotes.append(await services.shopping.quotes.quote(quoted, user_id))
        except Invalid as refusal:
            raise relocate(refusal, plan, order.sale_id) from None
    return orders, CartQuote(stored.version, quotes, add_up(quote.total for quote in quotes))


def relocate(refusal: Invalid, plan: CheckoutPlan, sale_id: str) -> Invalid:
    """Return the refusal of an order with pointers into the request of its checkout."""
    number = next((number for number, sale in enumerate(plan.sales) if sale.sale_id == sale_id), None)
    place = "/sales" if number is None else f"/sales/{number}"
    errors = []
    for error in refusal.extra.get("errors", []):
        is_of_sale = number is not None and error["pointer"].startswith(_OF_SALE)
        errors.append({**error, "pointer": f"{place}{error['pointer']}" if is_of_sale else place})
    return Invalid(f"{sale_id}: {refusal.detail}", errors=errors)
