"""Plans a checkout: one order per sale from the selected lines of a cart."""

from __future__ import annotations

from collections.abc import Sequence

from commerce.cart.errors import NothingSelected
from commerce.cart.model import CheckoutPlan, SaleCheckout, StoredCart, StoredLine
from commerce.kernel.address import Address, address_errors
from commerce.kernel.errors import Invalid
from commerce.orders.model import LineSplit, OrderLineInput, PlaceOrder

_DEFAULT = 0


def invalid(pointer: str, detail: str) -> Invalid:
    """Build the refusal of one value of the request."""
    return Invalid(f"{pointer}: {detail}", errors=[{"pointer": pointer, "detail": detail}])


def plan_orders(
    cart: StoredCart, plan: CheckoutPlan, addresses: Sequence[Address], max_orders: int
) -> list[PlaceOrder]:
    """Make the orders of a checkout, for a quote also without an address.

    Raises `NothingSelected`, or `Invalid` with JSON pointers into the request.
    """
    by_sale: dict[str, list[StoredLine]] = {}
    for line in cart.lines:
        if line.is_ordered:
            by_sale.setdefault(line.sale_id, []).append(line)
    if not by_sale:
        raise NothingSelected("no line of the cart is selected: select what is to be ordered")
    if len(by_sale) > max_orders:
        raise NothingSelected(f"the selected lines are of {len(by_sale)} sales, and {max_orders} are the maximum")
    _check_addresses(plan, addresses)
    details: dict[str, tuple[int, SaleCheckout]] = {}
    for number, sale in enumerate(plan.sales):
        if sale.sale_id not in by_sale:
            raise invalid(f"/sales/{number}/sale_id", "no line of this sale is selected")
        if sale.sale_id in details:
            raise invalid(f"/sales/{number}/sale_id", "the sale occurs twice")
        details[sale.sale_id] = number, sale
    return [
        _plan_order(sale_id, lines, details.get(sale_id, (0, SaleCheckout(sale_id))), addresses)
        for sale_id, lines in sorted(by_sale.items())
    ]


def _check_addresses(plan: CheckoutPlan, addresses: Sequence[Address]) -> None:
    if plan.ship_to and plan.address_ids:
        raise invalid("/ship_to", "send either addresses or address_ids")
    errors = [
        {"pointer": f"/ship_to/{number}/{field}", "detail": detail}
        for number, address in enumerate(addresses)
        for field, detail in address_errors(address)
    ]
    if errors:
        raise Invalid(f"{errors[0]['pointer']}: {errors[0]['detail']}", errors=errors[:20])


def _plan_order(
    sale_id: str, lines: Sequence[StoredLine], details: tuple[int, SaleCheckout], addresses: Sequence[Address]
) -> PlaceOrder:
    """Make one order; of the addresses it has those that its lines use."""
    number, sale = details
    units = {line.sku: line.quantity for line in lines}
    ship_to: dict[str, int | list[LineSplit]] = {}
    for index, line in enumerate(sale.lines):
        pointer = f"/sales/{number}/lines/{index}"
        if line.sku not in units or line.sku in ship_to:
            raise invalid(f"{pointer}/sku", "not a selected line of this sale, or named twice")
        parts = [LineSplit(line.ship_to, units[line.sku])] if isinstance(line.ship_to, int) else line.ship_to
        if any(part.address >= max(1, len(addresses)) for part in parts):
            raise invalid(f"{pointer}/ship_to", "there is no such address; they count from 0")
        if sum(part.quantity for part in parts) != units[line.sku]:
            raise invalid(f"{pointer}/ship_to", f"the parts do not add up to the quantity {units[line.sku]}")
        ship_to[line.sku] = line.ship_to
    used = sorted({part for sku in units for part in _addresses_of(ship_to.get(sku, _DEFAULT))})
    numbers = {address: place for place, address in enumerate(used)}
    return PlaceOrder(
        sale_id,
        [
            OrderLineInput(sku, quantity, _renumber(ship_to.get(sku, _DEFAULT), numbers))
            for sku, quantity in units.items()
        ],
        [addresses[address] for address in used if addresses],
        sale.payments,
        sale.coupons,
    )


def _addresses_of(ship_to: int | list[LineSplit]) -> list[int]:
    return [ship_to] if isinstance(ship_to, int) else [part.address for part in ship_to]


def _renumber(ship_to: int | list[LineSplit], numbers: dict[int, int]) -> int | list[LineSplit]:
    if isinstance(ship_to, int):
        return numbers[ship_to]
    return [LineSplit(numbers[part.address], part.quantity) for part in ship_to]
