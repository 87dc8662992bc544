"""Chooses the cheapest carrier that arrives on time, and keeps a reason for every carrier."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, timedelta
from typing import NamedTuple

from msgspec.structs import replace

from commerce.kernel.address import Address
from commerce.rates.model import CarrierCandidate, CarrierChoice, Rate, RateTableIndex, WeightSteps


class _Offer(NamedTuple):
    """A carrier's rate for a shipment, with the reason to exclude the carrier, if there is one."""

    rate: Rate
    expected_on: date
    excluded_because: str | None


def choose_carrier(
    index: RateTableIndex,
    address: Address,
    weight_g: int,
    *,
    cod: bool,
    dispatch_on: date,
    promised_on: date,
    excluded: Mapping[str, str],
) -> CarrierChoice:
    """Choose the cheapest carrier that arrives by `promised_on`.

    Among equals it is the faster, then the first by name. If none arrives in time, the fastest is chosen; among equals
    the cheaper, then the first by name. `excluded` maps carriers that must not be chosen to the reason. The result has
    a candidate for every carrier of the table, by name.
    """
    serving = index.steps_by_carrier(address)
    offers: dict[str, _Offer] = {}
    without_rate: dict[str, CarrierCandidate] = {}
    for carrier in index.carriers:
        offer = _find_offer(carrier, serving.get(carrier), weight_g, cod, dispatch_on, excluded)
        if isinstance(offer, _Offer):
            offers[carrier] = offer
        else:
            without_rate[carrier] = offer
    open_offers = [offer for offer in offers.values() if offer.excluded_because is None]
    offers_on_time = [offer for offer in open_offers if offer.expected_on <= promised_on]
    best = min(offers_on_time, key=_price_order, default=None) or min(open_offers, key=_speed_order, default=None)
    on_time = bool(offers_on_time)
    candidates = [
        without_rate.get(carrier) or _to_candidate(offers[carrier], best, on_time, promised_on)
        for carrier in index.carriers
    ]
    choice = CarrierChoice(index.table.table_id, index.table.currency, promised_on, candidates)
    if best is None:
        return choice
    return replace(
        choice,
        on_time=on_time,
        carrier=best.rate.carrier,
        price=best.rate.price_minor,
        expected_on=best.expected_on,
    )


def _price_order(offer: _Offer) -> tuple[int, int, str]:
    return offer.rate.price_minor, offer.rate.days, offer.rate.carrier


def _speed_order(offer: _Offer) -> tuple[int, int, str]:
    return offer.rate.days, offer.rate.price_minor, offer.rate.carrier


def _find_offer(
    carrier: str, steps: WeightSteps | None, weight_g: int, cod: bool, dispatch_on: date, excluded: Mapping[str, str]
) -> _Offer | CarrierCandidate:
    """Find a carrier's offer, or the reason why its table has none.

    Reasons of the table come first: a carrier that is excluded for now could be used later, one without a rate cannot.
    """
    if steps is None:
        return CarrierCandidate(carrier, "excluded", "does not serve the region")
    rate = steps.at(weight_g)
    if rate is None:
        reason = f"takes up to {steps.ends_g[-1]} g there, and it weighs {weight_g} g"
        return CarrierCandidate(carrier, "excluded", reason, steps.region)
    excluded_because = "no cash on delivery there" if cod and not rate.cod else excluded.get(carrier)
    return _Offer(rate, dispatch_on + timedelta(days=rate.days), excluded_because)


def _to_candidate(offer: _Offer, best: _Offer | None, on_time: bool, promised_on: date) -> CarrierCandidate:
    rate = offer.rate
    offered = rate.region, rate.price_minor, rate.days, offer.expected_on
    if offer.excluded_because is not None:
        return CarrierCandidate(rate.carrier, "excluded", offer.excluded_because, *offered)
    assert best is not None  # this offer is open, so there is a best one
    if offer is best:
        if on_time:
            reason = f"the cheapest that arrives by {promised_on}"
        else:
            reason = f"none arrives by {promised_on}: the fastest"
        return CarrierCandidate(rate.carrier, "chosen", reason, *offered)
    return CarrierCandidate(rate.carrier, "not_chosen", _compare(offer, best, on_time, promised_on), *offered)


def _compare(offer: _Offer, best: _Offer, on_time: bool, promised_on: date) -> str:
    """Say why an open offer is not the best one."""
    if on_time and offer.expected_on > promised_on:
        return f"arrives after {promised_on}"
    is_dearer, is_later = offer.rate.price_minor > best.rate.price_minor, offer.expected_on > best.expected_on
    if not is_dearer and not is_later:
        return f"equal to {best.rate.carrier}, which comes first by name"
    if on_time:
        return f"dearer than {best.rate.carrier}" if is_dearer else f"as cheap as {best.rate.carrier}, but later"
    return f"later than {best.rate.carrier}" if is_later else f"as fast as {best.rate.carrier}, but dearer"
