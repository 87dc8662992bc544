"""Chooses who brings a parcel: the cheapest carrier that keeps the promise, and says why not each of the others."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, timedelta
from typing import NamedTuple

from msgspec.structs import replace

from commerce.kernel.address import Address
from commerce.rates.model import CarrierCandidate, CarrierChoice, Rate, RateTableIndex, WeightSteps


class _Offer(NamedTuple):
    rate: Rate
    arrives: date
    why_not: str | None


def choose_carrier(
    book: RateTableIndex,
    address: Address,
    weight_g: int,
    cod: bool,
    hand_over: date,
    promised: date,
    without: Mapping[str, str],
) -> CarrierChoice:
    """The cheapest carrier whose days after `hand_over` end by `promised`, of equals the quicker one, then by name.

    If none keeps the day, the soonest, of equals the cheaper one, then by name. `without` leaves carriers out, each for
    its reason. There is a `Considered` for every carrier of the table, by name.
    """
    serving = book.carriers_for(address)
    offers: dict[str, _Offer] = {}
    unserved: dict[str, CarrierCandidate] = {}
    for carrier in book.carriers:
        found = _offer(carrier, serving.get(carrier), weight_g, cod, hand_over, without)
        if isinstance(found, _Offer):
            offers[carrier] = found
        else:
            unserved[carrier] = found
    open_ = [offer for offer in offers.values() if offer.why_not is None]
    in_time = [offer for offer in open_ if offer.arrives <= promised]
    best = min(in_time, key=_by_price, default=None) or min(open_, key=_by_days, default=None)
    kept = bool(in_time)
    considered = [unserved.get(carrier) or _told(offers[carrier], best, kept, promised) for carrier in book.carriers]
    choice = CarrierChoice(book.table.table_id, book.table.currency, promised, considered)
    if best is None:
        return choice
    return replace(
        choice, on_time=kept, carrier=best.rate.carrier, price=best.rate.price_minor, expected_on=best.arrives
    )


def _by_price(offer: _Offer) -> tuple[int, int, str]:
    return offer.rate.price_minor, offer.rate.days, offer.rate.carrier


def _by_days(offer: _Offer) -> tuple[int, int, str]:
    return offer.rate.days, offer.rate.price_minor, offer.rate.carrier


def _offer(
    carrier: str, steps: WeightSteps | None, weight_g: int, cod: bool, hand_over: date, without: Mapping[str, str]
) -> _Offer | CarrierCandidate:
    """What the table says comes first: a carrier that is only away for now would be of use later."""
    if steps is None:
        return CarrierCandidate(carrier, "excluded", "does not serve the region")
    rate = steps.at(weight_g)
    if rate is None:
        reason = f"takes up to {steps.ends_g[-1]} g there, and it weighs {weight_g} g"
        return CarrierCandidate(carrier, "excluded", reason, steps.region)
    why_not = "no cash on delivery there" if cod and not rate.cod else without.get(carrier)
    return _Offer(rate, hand_over + timedelta(days=rate.days), why_not)


def _told(offer: _Offer, best: _Offer | None, kept: bool, promised: date) -> CarrierCandidate:
    rate = offer.rate
    told = rate.region, rate.price_minor, rate.days, offer.arrives
    if offer.why_not is not None:
        return CarrierCandidate(rate.carrier, "excluded", offer.why_not, *told)
    assert best is not None  # this offer is open, so there is a best one
    if offer is best:
        why = f"the cheapest that arrives by {promised}" if kept else f"none arrives by {promised}: the soonest"
        return CarrierCandidate(rate.carrier, "chosen", why, *told)
    return CarrierCandidate(rate.carrier, "not_chosen", _why_not(offer, best, kept, promised), *told)


def _why_not(offer: _Offer, best: _Offer, kept: bool, promised: date) -> str:
    if kept and offer.arrives > promised:
        return f"arrives after {promised}"
    dearer, later = offer.rate.price_minor > best.rate.price_minor, offer.arrives > best.arrives
    if not dearer and not later:
        return f"equal to {best.rate.carrier}, which comes first by name"
    if kept:
        return f"dearer than {best.rate.carrier}" if dearer else f"as cheap as {best.rate.carrier}, but later"
    return f"later than {best.rate.carrier}" if later else f"as soon as {best.rate.carrier}, but dearer"
