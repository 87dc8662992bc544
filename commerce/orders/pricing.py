"""Checks an order against the sale and the limits and puts a price on it. The server computes every price."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from uuid import UUID

import msgspec

from commerce.kernel.address import address_errors
from commerce.kernel.errors import Invalid
from commerce.kernel.money import MAX_MINOR, MoneyError, minor_digits
from commerce.kernel.stream_payload import AcceptedLine, AcceptedOrder, encode_accepted
from commerce.orders.model import LineSplit, OrderLineInput, PlaceOrder
from commerce.sales.model import SaleSnapshot
from lua import Reservation

_MAX_REPORTED = 20
_encode, _encode_rest = msgspec.json.Encoder().encode, msgspec.msgpack.Encoder().encode


@dataclass(frozen=True, slots=True)
class OrderLimits:
    """What one order may hold at most."""

    lines: int
    addresses: int
    payments: int
    quantity: int


class _Faults:
    """Collects what is wrong, so that one answer names all of it."""

    __slots__ = ("found",)

    def __init__(self) -> None:
        self.found: list[dict[str, str]] = []

    def add(self, at: str, detail: str) -> None:
        if len(self.found) < _MAX_REPORTED:
            self.found.append({"pointer": at, "detail": detail})

    def refusal(self) -> Invalid:
        detail = "; ".join(f"{fault['pointer']}: {fault['detail']}" for fault in self.found[:3])
        return Invalid(detail, errors=self.found)


def price_order(
    order: PlaceOrder,
    snapshot: SaleSnapshot,
    limits: OrderLimits,
    user_id: str,
    idempotency_key: str,
    order_id: UUID,
    traceparent: str = "",
) -> Reservation:
    """The order as Redis takes it. Raises `Invalid` that names every fault it finds, up to twenty, by JSON pointer."""
    faults = _Faults()
    _check_sizes(order, limits, faults)
    for number, address in enumerate(order.ship_to):
        for name, detail in address_errors(address):
            faults.add(f"/ship_to/{number}/{name}", detail)
    lines: list[AcceptedLine] = []
    units: dict[str, int] = {}
    total = _price_lines(order, snapshot, limits, lines, units, faults)
    sale = snapshot.sale
    if order.payments and not faults.found:
        _check_payments(order, total, sale.currency, faults)
    if faults.found:
        raise faults.refusal()
    ship_to, payments = _encode(order.ship_to), _encode(order.payments)
    digest = _digest(order, ship_to, payments)
    # By position: for a struct of this size names cost as much as the rest of this function.
    accepted = AcceptedOrder(
        order_id,
        user_id,
        idempotency_key,
        digest,
        order.sale_id,
        sale.generation,
        sale.currency,
        total,
        sale.pay_within_s,
        ship_to.decode(),
        payments.decode(),
        lines,
        traceparent,
    )
    return Reservation(
        sale.generation,
        user_id,
        idempotency_key,
        order_id,
        digest,
        total,
        encode_accepted(accepted),
        [(sku, count, snapshot.items[sku][1]) for sku, count in units.items()],
    )


def _price_lines(
    order: PlaceOrder,
    snapshot: SaleSnapshot,
    limits: OrderLimits,
    lines: list[AcceptedLine],
    units: dict[str, int],
    faults: _Faults,
) -> int:
    """Fill in the lines as they are stored and the units by SKU; gives the total."""
    total, addresses = 0, len(order.ship_to)
    for number, line in enumerate(order.lines):
        sku, quantity = line.sku, line.quantity
        item = snapshot.items.get(sku)
        if item is None:
            faults.add(f"/lines/{number}/sku", f"{sku[:80]!r} is not in this sale")
            continue
        if quantity > limits.quantity:
            faults.add(f"/lines/{number}/quantity", f"more than {limits.quantity} on one line")
        units[sku] = units.get(sku, 0) + quantity
        total += quantity * item[0]
        ship_to = line.ship_to
        if isinstance(ship_to, int):
            if ship_to >= addresses:
                faults.add(f"/lines/{number}/ship_to", f"there is no address {ship_to}; they count from 0")
            lines.append(AcceptedLine(number, ship_to, sku, quantity, item[0]))
        else:
            _split(line, ship_to, number, item[0], addresses, lines, faults)
    if len(lines) > limits.lines:
        faults.add("/lines", f"more than {limits.lines} lines once they are split over the addresses")
    if total > MAX_MINOR:
        faults.add("/lines", f"the total is more than {MAX_MINOR} minor units")
    return total


def body_digest(order: PlaceOrder) -> bytes:
    """16 bytes (BLAKE2b) that are equal for equal orders, however their JSON was spaced or sorted."""
    return _digest(order, _encode(order.ship_to), _encode(order.payments))


def _digest(order: PlaceOrder, ship_to: bytes, payments: bytes) -> bytes:
    """The same where the addresses and payments are encoded anyway. MessagePack says where it ends, and JSON has no
    NUL, so no two orders run together to the same bytes."""
    whole = b"\0".join((_encode_rest((order.sale_id, order.lines)), ship_to, payments))
    return hashlib.blake2b(whole, digest_size=16).digest()


def _check_sizes(order: PlaceOrder, limits: OrderLimits, faults: _Faults) -> None:
    """An order that is too large is looked at no further."""
    if len(order.lines) > limits.lines:
        faults.add("/lines", f"more than {limits.lines} lines: send several orders")
    if len(order.ship_to) > limits.addresses:
        faults.add("/ship_to", f"more than {limits.addresses} addresses: send several orders")
    if len(order.payments) > limits.payments:
        faults.add("/payments", f"more than {limits.payments} payments")
    if faults.found:
        raise faults.refusal()


def _split(
    line: OrderLineInput,
    shares: list[LineSplit],
    number: int,
    price: int,
    addresses: int,
    lines: list[AcceptedLine],
    faults: _Faults,
) -> None:
    """Add the line's part for each of its addresses."""
    if sum(share.quantity for share in shares) != line.quantity:
        faults.add(f"/lines/{number}/ship_to", f"the parts do not add up to the quantity {line.quantity}")
    if len({share.address for share in shares}) != len(shares):
        faults.add(f"/lines/{number}/ship_to", "an address is named twice")
    for part, share in enumerate(shares):
        if share.address >= addresses:
            faults.add(f"/lines/{number}/ship_to/{part}/address", f"there is no address {share.address}")
        lines.append(AcceptedLine(number, share.address, line.sku, share.quantity, price))


def _check_payments(order: PlaceOrder, total: int, currency: str, faults: _Faults) -> None:
    paid = 0
    for number, payment in enumerate(order.payments):
        paid += payment.amount
        if payment.currency is None or payment.currency == currency:
            continue
        try:
            minor_digits(payment.currency)
            faults.add(f"/payments/{number}/currency", f"this sale is in {currency}")
        except MoneyError as error:
            faults.add(f"/payments/{number}/currency", str(error))
    if paid != total:
        faults.add("/payments", f"they add up to {paid} and the total is {total} minor units of {currency}")
