"""Validates orders against the sale and the limits, and prices them. The server computes every price."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

import msgspec

from commerce.coupons.coupon_checks import check_coupons
from commerce.coupons.issued_codes import IssuedCodes
from commerce.kernel.address import address_errors
from commerce.kernel.coupon_skus import coupon_sku
from commerce.kernel.money import MAX_MINOR, MoneyError, minor_digits
from commerce.kernel.stream_payload import AcceptedLine, AcceptedOrder, PriceParts, encode_accepted
from commerce.orders.field_errors import FieldErrors
from commerce.orders.model import LineSplit, OrderLineInput, PlaceOrder
from commerce.orders.price_parts import PricingContext, find_price_parts
from commerce.sales.model import ItemTerms, SaleSnapshot
from lua import Reservation

_encode_json, _encode_msgpack = msgspec.json.Encoder().encode, msgspec.msgpack.Encoder().encode


@dataclass(frozen=True, slots=True)
class OrderLimits:
    """Maximum lines, addresses, payments and coupons of an order, and maximum quantity per line."""

    lines: int
    addresses: int
    payments: int
    coupons: int
    quantity: int


class PricedOrder(msgspec.Struct, gc=False):
    """A valid order with its price; `units` are those of products by SKU, `total` is in minor units."""

    lines: list[AcceptedLine]
    units: dict[str, int]
    coupons: Sequence[str]
    parts: PriceParts | None
    total: int


def price_order(
    order: PlaceOrder,
    snapshot: SaleSnapshot,
    limits: OrderLimits,
    user_id: str,
    idempotency_key: str,
    order_id: UUID,
    traceparent: str = "",
    *,
    now_ms: int = 0,
    is_new_customer: bool = False,
    codes: IssuedCodes | None = None,
) -> Reservation:
    """Validate an order, price it and return its reservation for Redis.

    `now_ms` decides which promotions are in force, `codes` which issued coupons are the customer's. Raises `Invalid`
    that lists up to twenty field errors by JSON pointer, or `CouponKeyMissing`.
    """
    errors = FieldErrors()
    check_sizes(order, limits, errors)
    priced = compute_price(order, snapshot, limits, user_id, errors, now_ms, is_new_customer, codes)
    sale, total, parts = snapshot.sale, priced.total, priced.parts
    if order.payments and not errors.entries:
        _check_payments(order, total, sale.currency, errors)
    if errors.entries:
        raise errors.to_invalid()
    ship_to, payments = _encode_json(order.ship_to), _encode_json(order.payments)
    digest = _digest(order, ship_to, payments)
    # Positional: keywords for a struct of this size cost as much as the rest of this function.
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
        priced.lines,
        traceparent,
        parts,
    )
    items = snapshot.items
    reserved = [(sku, count, items[sku].limit) for sku, count in priced.units.items()]
    if parts is not None:
        for code in parts.coupons:
            terms = snapshot.coupons.get(code)
            reserved.append((coupon_sku(code), 1, 1 if terms is None else terms.limit))
    return Reservation(
        sale.generation, user_id, idempotency_key, order_id, digest, total, encode_accepted(accepted), reserved
    )


def compute_price(
    order: PlaceOrder,
    snapshot: SaleSnapshot,
    limits: OrderLimits,
    user_id: str,
    errors: FieldErrors,
    now_ms: int,
    is_new_customer: bool,
    codes: IssuedCodes | None,
) -> PricedOrder:
    """Price an order. What is wrong with it is added to the errors, and then the price means nothing."""
    for number, address in enumerate(order.ship_to):
        for name, detail in address_errors(address):
            errors.add(f"/ship_to/{number}/{name}", detail)
    lines: list[AcceptedLine] = []
    units: dict[str, int] = {}
    total = _price_lines(order, snapshot, limits, lines, units, errors)
    coupons: Sequence[str] = ()
    if order.coupons:
        coupons = check_coupons(order.coupons, snapshot.coupons, codes, order.sale_id, user_id, errors.add)
    parts = None
    if (coupons or snapshot.promotions is not None or snapshot.freight is not None) and not errors.entries:
        context = PricingContext(now_ms, is_new_customer, coupons)
        parts = find_price_parts(lines, units, order.ship_to, order.payments, snapshot, context, errors)
    if parts is not None:
        total += sum(parts.freight) + parts.cod_fee - sum([discount.amount for discount in parts.discounts])
        if total > MAX_MINOR:
            errors.add("/lines", f"the total with freight is more than {MAX_MINOR} minor units: send several orders")
    return PricedOrder(lines, units, coupons, parts, total)


def _price_lines(
    order: PlaceOrder,
    snapshot: SaleSnapshot,
    limits: OrderLimits,
    lines: list[AcceptedLine],
    units: dict[str, int],
    errors: FieldErrors,
) -> int:
    """Fill in the accepted lines and the units by SKU. Returns the total in minor units."""
    total, addresses = 0, len(order.ship_to) or 1  # a quote may have no address
    for number, line in enumerate(order.lines):
        sku, quantity = line.sku, line.quantity
        item = snapshot.items.get(sku)
        if item is None:
            errors.add(f"/lines/{number}/sku", f"{sku[:80]!r} is not in this sale")
            continue
        if quantity > limits.quantity:
            errors.add(f"/lines/{number}/quantity", f"more than {limits.quantity} on one line")
        units[sku] = units.get(sku, 0) + quantity
        total += quantity * item.price
        ship_to = line.ship_to
        if isinstance(ship_to, int):
            if ship_to >= addresses:
                errors.add(f"/lines/{number}/ship_to", f"there is no address {ship_to}; they count from 0")
            lines.append(AcceptedLine(number, ship_to, sku, quantity, item.price, item.list_price))
        else:
            _price_split_line(line, ship_to, number, item, addresses, lines, errors)
    if len(lines) > limits.lines:
        errors.add("/lines", f"more than {limits.lines} lines once they are split over the addresses")
    if total > MAX_MINOR:
        errors.add("/lines", f"the total is more than {MAX_MINOR} minor units")
    return total


def body_digest(order: PlaceOrder) -> bytes:
    """Return 16 bytes (BLAKE2b) that are equal for equal orders, however their JSON is spaced or sorted."""
    return _digest(order, _encode_json(order.ship_to), _encode_json(order.payments))


def _digest(order: PlaceOrder, ship_to: bytes, payments: bytes) -> bytes:
    """Compute `body_digest` from addresses and payments that are encoded already.

    MessagePack is self-delimiting and JSON has no NUL, so different orders never yield the same bytes.
    """
    content = (order.sale_id, order.lines, order.coupons) if order.coupons else (order.sale_id, order.lines)
    encoded = b"\0".join((_encode_msgpack(content), ship_to, payments))
    return hashlib.blake2b(encoded, digest_size=16).digest()


def check_sizes(order: PlaceOrder, limits: OrderLimits, errors: FieldErrors) -> None:
    """Raise `Invalid` at once if the order is too large to be validated further."""
    if len(order.lines) > limits.lines:
        errors.add("/lines", f"more than {limits.lines} lines: send several orders")
    if len(order.ship_to) > limits.addresses:
        errors.add("/ship_to", f"more than {limits.addresses} addresses: send several orders")
    if len(order.payments) > limits.payments:
        errors.add("/payments", f"more than {limits.payments} payments")
    if len(order.coupons) > limits.coupons:
        errors.add("/coupons", f"more than {limits.coupons} coupons")
    if errors.entries:
        raise errors.to_invalid()


def _price_split_line(
    line: OrderLineInput,
    splits: list[LineSplit],
    number: int,
    item: ItemTerms,
    addresses: int,
    lines: list[AcceptedLine],
    errors: FieldErrors,
) -> None:
    """Add one accepted line for each address of a split line."""
    if sum(split.quantity for split in splits) != line.quantity:
        errors.add(f"/lines/{number}/ship_to", f"the parts do not add up to the quantity {line.quantity}")
    if len({split.address for split in splits}) != len(splits):
        errors.add(f"/lines/{number}/ship_to", "an address occurs twice")
    for index, split in enumerate(splits):
        if split.address >= addresses:
            errors.add(f"/lines/{number}/ship_to/{index}/address", f"there is no address {split.address}")
        lines.append(AcceptedLine(number, split.address, line.sku, split.quantity, item.price, item.list_price))


def _check_payments(order: PlaceOrder, total: int, currency: str, errors: FieldErrors) -> None:
    planned = 0
    for number, payment in enumerate(order.payments):
        planned += payment.amount
        if payment.currency is None or payment.currency == currency:
            continue
        try:
            minor_digits(payment.currency)
            errors.add(f"/payments/{number}/currency", f"this sale is in {currency}")
        except MoneyError as error:
            errors.add(f"/payments/{number}/currency", str(error))
    if planned != total:
        errors.add("/payments", f"they add up to {planned} and the total is {total} minor units of {currency}")
