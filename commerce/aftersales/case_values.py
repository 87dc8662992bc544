"""Amounts of cases: what was paid for their units, freight, and what a policy withholds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from commerce.aftersales.eligibility import withheld_fee
from commerce.aftersales.model import CaseKind, CaseLine, PolicyTerms
from commerce.kernel.postgres import Connection
from commerce.orders.store import OrderHeader
from commerce.refunds import service as refunds
from commerce.refunds.model import FreightRule, GrantLine, GrantRequest


class ValuedLine(NamedTuple):
    """Units of a case line, of which `quantity` are to be refunded."""

    line_no: int
    address_no: int
    sku: str
    quantity: int


class CaseValue(NamedTuple):
    """Amounts of a case in minor units, and of its lines in their sequence. amount = sum of the lines."""

    amount: int
    freight: int
    fee: int
    lines: Sequence[int]


NOTHING = CaseValue(0, 0, 0, ())


def grant_lines(lines: Iterable[ValuedLine]) -> list[GrantLine]:
    """Add up units by order line and address: several shipments may have brought them."""
    units = Counter[tuple[int, int]]()
    for line in lines:
        units[line.line_no, line.address_no] += line.quantity
    return [GrantLine(*place, quantity) for place, quantity in sorted(units.items()) if quantity]


def take_units(
    lines: Sequence[CaseLine], units: Mapping[int, int], left: Mapping[tuple[int, int], int]
) -> dict[int, int]:
    """Return the units by `case_line_no`, as far as their order lines have so many left."""
    rest, taken = dict(left), dict[int, int]()
    for line in lines:
        place = line.line_no, line.ship_to
        taken[line.case_line_no] = min(units[line.case_line_no], rest.get(place, 0))
        rest[place] = rest.get(place, 0) - taken[line.case_line_no]
    return taken


def share_amounts(lines: Sequence[ValuedLine], amounts: Mapping[tuple[int, int], int]) -> list[int]:
    """Share the amounts of order lines out to case lines, by units, so that they add up."""
    units = Counter[tuple[int, int]]()
    for line in lines:
        units[line.line_no, line.address_no] += line.quantity
    shares, counted = [], Counter[tuple[int, int]]()
    for line in lines:
        place = (line.line_no, line.address_no)
        amount, before = amounts.get(place, 0), counted[place]
        counted[place] += line.quantity
        whole = units[place] or 1
        shares.append(amount * counted[place] // whole - amount * before // whole)
    return shares


async def value_lines(
    connection: Connection,
    order: OrderHeader,
    kind: CaseKind,
    lines: Sequence[ValuedLine],
    policies: Mapping[str, PolicyTerms],
    *,
    is_shop_liable: bool,
) -> CaseValue:
    """Compute what units are worth now. Raises as `refunds.value_grant` if they are refunded already.

    If the shop is liable, freight is refunded too and nothing is withheld."""
    if not any(line.quantity for line in lines):
        return CaseValue(0, 0, 0, [0] * len(lines))
    freight: FreightRule = "rest" if is_shop_liable and kind is not CaseKind.EXCHANGE else "none"
    request = GrantRequest("case", None, "-", "-", grant_lines(lines), freight)
    grant = await refunds.preview(connection, order, request)
    shares = share_amounts(lines, {(line.line_no, line.ship_to): line.amount for line in grant.lines})
    amount = sum(shares)
    fee = sum(
        withheld_fee(share, policies[line.sku], is_shop_liable=is_shop_liable, kind=kind)
        for line, share in zip(lines, shares, strict=True)
        if line.sku in policies
    )
    # What the payments no longer hold is withheld as well.
    return CaseValue(amount, grant.freight, min(max(fee, grant.fee), amount + grant.freight), shares)
