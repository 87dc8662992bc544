"""Parts of an order's price besides its products: discounts, freight, the fee for cash on delivery."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from commerce.freight.errors import NoFreight
from commerce.freight.model import CompiledFreight
from commerce.kernel.address import Address
from commerce.kernel.coupon_skus import first_order_code
from commerce.kernel.stream_payload import AcceptedDiscount, AcceptedLine, PriceParts
from commerce.orders.field_errors import FieldErrors
from commerce.orders.model import Tender
from commerce.promotions.evaluation import CompiledPromotions
from commerce.promotions.explanation import explain
from commerce.promotions.model import NO_DISCOUNTS
from commerce.promotions.sharing import share_to_lines
from commerce.sales.model import ItemTerms, SaleSnapshot


class PricingContext(NamedTuple):
    """The moment of pricing, and what promotions depend on besides the lines.

    `coupons` are the codes that the order presents, checked already.
    """

    now_ms: int
    is_new_customer: bool
    coupons: Sequence[str] = ()


def find_price_parts(
    lines: list[AcceptedLine],
    units: Mapping[str, int],
    ship_to: Sequence[Address],
    tenders: Sequence[Tender],
    snapshot: SaleSnapshot,
    context: PricingContext,
    errors: FieldErrors,
) -> PriceParts | None:
    """Find what promotions and freight change in the price of lines, and write the discounts into these.

    Returns None if they change nothing. Adds an error for a coupon that takes nothing off, and for an address to which
    the shop does not deliver.
    """
    discounts = _discount_lines(lines, units, snapshot, context, errors)
    coupons = list(context.coupons)
    if context.is_new_customer and snapshot.promotions is not None:
        coupons += _list_first_order_codes(discounts, snapshot.promotions)
    freight, cod_fee = [], 0
    if snapshot.freight is not None:
        freight = _charge_addresses(snapshot.freight, ship_to, lines, snapshot.items, errors)
        if snapshot.freight.cod_fee_minor and "cod" in [tender.method for tender in tenders]:
            cod_fee = snapshot.freight.cod_fee_minor
    if not (discounts or cod_fee or coupons or any(freight)):
        return None
    return PriceParts(discounts, freight, cod_fee, coupons)


def _list_first_order_codes(discounts: Sequence[AcceptedDiscount], promotions: CompiledPromotions) -> list[str]:
    ids = promotions.new_customer_ids
    return [first_order_code(discount.promotion_id) for discount in discounts if discount.promotion_id in ids]


def _discount_lines(
    lines: list[AcceptedLine],
    units: Mapping[str, int],
    snapshot: SaleSnapshot,
    context: PricingContext,
    errors: FieldErrors,
) -> list[AcceptedDiscount]:
    promotions, coupons, evaluation = snapshot.promotions, snapshot.coupons, NO_DISCOUNTS
    presented = [coupons[code].promotion_id for code in context.coupons]
    if promotions is not None:
        evaluation = promotions.evaluate(units, presented, context.is_new_customer, context.now_ms)
    if presented:
        applied = {discount.promotion_id for discount in evaluation.discounts}
        if not applied.issuperset(presented):
            _add_useless_coupons(units, snapshot, presented, applied, context, errors)
    if not evaluation.amount:
        return []
    for number, discount in enumerate(share_to_lines(lines, evaluation.by_sku)):
        if discount:
            line = lines[number]
            lines[number] = AcceptedLine(
                line.line_no, line.address_no, line.sku, line.quantity, line.unit_price, line.list_price, discount
            )
    return [
        AcceptedDiscount(discount.promotion_id, discount.label, discount.amount) for discount in evaluation.discounts
    ]


def _add_useless_coupons(
    units: Mapping[str, int],
    snapshot: SaleSnapshot,
    presented: Sequence[str],
    applied: Collection[str],
    context: PricingContext,
    errors: FieldErrors,
) -> None:
    """Add an error for each coupon whose promotion takes nothing off.

    The coupon would be used up for nothing.
    """
    reasons: dict[str, str] = {}
    if snapshot.promotions is not None:
        currency = snapshot.sale.currency
        explanations = explain(snapshot.promotions, units, presented, context.is_new_customer, context.now_ms, currency)
        reasons = {explanation.promotion_id: explanation.message for explanation in explanations}
    for number, promotion_id in enumerate(presented):
        if promotion_id not in applied:
            reason = reasons.get(promotion_id, "its promotion is not in force")
            errors.add(f"/coupons/{number}", f"it takes nothing off this order, so leave it out: {reason}")


def _charge_addresses(
    freight: CompiledFreight,
    ship_to: Sequence[Address],
    lines: Sequence[AcceptedLine],
    items: Mapping[str, ItemTerms],
    errors: FieldErrors,
) -> list[int]:
    """Return the freight of each address; an address without lines has none."""
    if len(ship_to) == 1:  # as most orders have it
        grams_of_all = pieces_of_all = amount_of_all = 0
        for line in lines:
            quantity = line.quantity
            grams_of_all += quantity * items[line.sku].weight_g
            pieces_of_all += quantity
            amount_of_all += quantity * line.unit_price - line.discount
        return [_charge(freight, 0, ship_to[0], grams_of_all, pieces_of_all, amount_of_all, errors)]
    grams, pieces, amounts = [0] * len(ship_to), [0] * len(ship_to), [0] * len(ship_to)
    for line in lines:
        number, quantity = line.address_no, line.quantity
        if number < len(ship_to):  # else it is an error already
            grams[number] += quantity * items[line.sku].weight_g
            pieces[number] += quantity
            amounts[number] += quantity * line.unit_price - line.discount
    return [
        _charge(freight, number, address, grams[number], pieces[number], amounts[number], errors)
        for number, address in enumerate(ship_to)
    ]


def _charge(
    freight: CompiledFreight, number: int, address: Address, grams: int, pieces: int, amount: int, errors: FieldErrors
) -> int:
    if not pieces:
        return 0
    try:
        return freight.charge(address.country, address.province, address.city, grams, pieces, amount)
    except NoFreight as refusal:
        errors.add(f"/ship_to/{number}", refusal.detail)
        return 0
