"""Who gets a parcel: against a choice that looks at every row, and the reasons that are given."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta

import msgspec
import pytest

from commerce.kernel.address import Address
from commerce.rates.carrier_choice import choose_carrier
from commerce.rates.model import CarrierChoice, Rate, RateTable, RateTableIndex

TODAY = date(2026, 11, 16)
PLACES = [
    ("CN", "Zhejiang", "Hangzhou", "Xihu"),
    ("CN", "Zhejiang", "Hangzhou", ""),
    ("CN", " ZHEJIANG ", "Ningbo", "Haishu"),
    ("CN", "浙江", "杭州", "西湖"),
    ("CN", "", "Beijing", "Haidian"),
    ("CN", "Zhejiangwest", "Hangzhou", ""),
    ("GB", "", "London", ""),
    ("DE", "Hessen", "GIEẞEN", ""),
]
REGIONS = [
    *("cn", "cn/zhejiang", "cn/zhejiang/hangzhou", "cn/zhejiang/hangzhou/xihu", "cn/zhejiang/ningbo", "cn/浙江/杭州"),
    *("cn/beijing", "cn/hangzhou", "gb/london", "de", "de/hessen/giessen"),
]


def address(country: str, province: str, city: str, district: str) -> Address:
    return Address("Zhang San", "13800000000", country, city, "Wenyi West Road 969", province, district)


def table_index(rates: Sequence[Rate]) -> RateTableIndex:
    return RateTableIndex(RateTable(7, datetime(2026, 11, 1, tzinfo=UTC), "test", "t.csv", "CNY", len(rates)), rates)


def generated(chance: random.Random) -> list[Rate]:
    """Few prices and days, so that there are ties; steps that end at round weights, so that parcels meet the ends."""
    rates = []
    for carrier in chance.sample(["yto", "sf", "zto", "own", "jd", "db"], chance.randint(1, 6)):
        for region in chance.sample(REGIONS, chance.randint(1, len(REGIONS))):
            ends = sorted(chance.sample([500, 1000, 2000, 5000, 20_000], chance.randint(1, 4)))
            for start, end in zip([0, *ends], ends, strict=False):
                rates.append(
                    Rate(
                        carrier,
                        region,
                        start,
                        end,
                        chance.choice([800, 1000, 1200]),
                        chance.randint(0, 4),
                        chance.random() < 0.7,
                    )
                )
    chance.shuffle(rates)
    return rates


def within(rate: Rate, parts: Sequence[str]) -> bool:
    region = rate.region.split("/")
    return list(parts[: len(region)]) == region


def beats(one: Rate, other: Rate, *order: str) -> bool:
    for name in order:
        if getattr(one, name) != getattr(other, name):
            return bool(getattr(one, name) < getattr(other, name))
    return False


def expected_choice(
    rates: Sequence[Rate], to: tuple[str, ...], weight_g: int, cod: bool, days: int, without: Mapping[str, str]
) -> tuple[str | None, int | None, bool]:
    """The carrier, its price, and whether it keeps the promise of so many days, by going through the rows."""
    parts = [part.strip().casefold() for part in to if part.strip()]
    fitting = [rate for rate in rates if within(rate, parts)]
    in_time: Rate | None = None
    at_all: Rate | None = None
    for rate in fitting:
        if any(other.carrier == rate.carrier and len(other.region) > len(rate.region) for other in fitting):
            continue
        if rate.carrier in without or (cod and not rate.cod) or not rate.from_g < weight_g <= rate.to_g:
            continue
        if rate.days <= days and (in_time is None or beats(rate, in_time, "price_minor", "days", "carrier")):
            in_time = rate
        if at_all is None or beats(rate, at_all, "days", "price_minor", "carrier"):
            at_all = rate
    best = in_time or at_all
    return (best.carrier, best.price_minor, best is in_time) if best else (None, None, False)


@pytest.mark.parametrize("seed", range(10))
def test_a_thousand_parcels_go_where_every_row_says(seed: int) -> None:
    chance = random.Random(seed)
    rates = generated(chance)
    book = table_index(rates)
    carriers = sorted({rate.carrier for rate in rates})
    ends = set()
    for _ in range(1000):
        to = chance.choice(PLACES)
        weight_g = chance.choice([1, 500, 501, 1000, 1001, 2000, 5000, 5001, 20_000, 20_001, chance.randint(1, 25_000)])
        cod, days = chance.random() < 0.3, chance.randint(-1, 5)
        without = {name: "it is down" for name in carriers if chance.random() < 0.2}
        choice = choose_carrier(
            book,
            address(*to),
            weight_g,
            cod=cod,
            dispatch_on=TODAY,
            promised_on=TODAY + timedelta(days=days),
            excluded=without,
        )
        wanted = expected_choice(rates, to, weight_g, cod, days, without)
        assert (choice.carrier, choice.price, choice.on_time) == wanted, (to, weight_g, cod, days, without)
        assert [one.carrier for one in choice.candidates] == carriers
        assert [one.carrier for one in choice.candidates if one.verdict == "chosen"] == [wanted[0]] * bool(wanted[0])
        assert {one.carrier for one in choice.candidates if one.reason == "it is down"} <= set(without)
        ends.add((choice.carrier is not None, choice.on_time))
    assert ends == {(True, True), (True, False), (False, False)}


def reasons(choice: CarrierChoice) -> dict[str, str]:
    return {one.carrier: f"{one.verdict}: {one.reason}" for one in choice.candidates}


def test_each_carrier_has_its_reason() -> None:
    rates = [
        Rate("best", "cn", 0, 5000, 900, 3, True),
        Rate("dear", "cn", 0, 5000, 1000, 1, True),
        Rate("equal", "cn", 0, 5000, 900, 3, True),
        Rate("later", "cn", 0, 5000, 900, 4, True),
        Rate("slow", "cn", 0, 5000, 100, 5, True),
        Rate("nocash", "cn", 0, 5000, 100, 1, False),
        Rate("light", "cn", 0, 1000, 100, 1, True),
        Rate("refused", "cn", 0, 5000, 100, 1, True),
        Rate("town", "cn", 0, 5000, 100, 1, True),
        Rate("town", "cn/zhejiang/hangzhou", 0, 1000, 100, 1, True),
        Rate("abroad", "gb", 0, 5000, 100, 1, True),
    ]
    promised = TODAY + timedelta(days=4)
    hangzhou = address(*PLACES[0])
    without = {"refused": "it refused this shipment", "abroad": "it is down"}
    choice = choose_carrier(
        table_index(rates), hangzhou, 1001, cod=True, dispatch_on=TODAY, promised_on=promised, excluded=without
    )
    assert reasons(choice) == {
        "abroad": "excluded: does not serve the region",
        "best": "chosen: the cheapest that arrives by 2026-11-20",
        "dear": "not_chosen: dearer than best",
        "equal": "not_chosen: equal to best, which comes first by name",
        "later": "not_chosen: as cheap as best, but later",
        "light": "excluded: takes up to 1000 g there, and it weighs 1001 g",
        "nocash": "excluded: no cash on delivery there",
        "refused": "excluded: it refused this shipment",
        "slow": "not_chosen: arrives after 2026-11-20",
        "town": "excluded: takes up to 1000 g there, and it weighs 1001 g",
    }
    assert (choice.carrier, choice.price, choice.expected_on) == ("best", 900, date(2026, 11, 19))
    assert msgspec.json.decode(msgspec.json.encode(choice), type=CarrierChoice) == choice


def test_a_promise_that_nobody_keeps_goes_to_the_soonest() -> None:
    rates = [
        Rate("cheap", "cn", 0, 5000, 100, 4, True),
        Rate("quick", "cn", 0, 5000, 900, 2, True),
        Rate("quicker", "cn", 0, 5000, 900, 2, True),
        Rate("quickdear", "cn", 0, 5000, 950, 2, True),
    ]
    choice = choose_carrier(
        table_index(rates), address(*PLACES[0]), 10, cod=False, dispatch_on=TODAY, promised_on=TODAY, excluded={}
    )
    assert (choice.carrier, choice.on_time, choice.expected_on) == ("quick", False, date(2026, 11, 18))
    assert reasons(choice) == {
        "cheap": "not_chosen: later than quick",
        "quick": "chosen: none arrives by 2026-11-16: the fastest",
        "quickdear": "not_chosen: as fast as quick, but dearer",
        "quicker": "not_chosen: equal to quick, which comes first by name",
    }


def test_nobody_takes_it() -> None:
    choice = choose_carrier(
        table_index([Rate("sf", "cn", 0, 5, 1, 1, True)]),
        address(*PLACES[0]),
        6,
        cod=False,
        dispatch_on=TODAY,
        promised_on=TODAY,
        excluded={},
    )
    assert (choice.carrier, choice.price, choice.expected_on, choice.on_time) == (None, None, None, False)
    assert reasons(choice) == {"sf": "excluded: takes up to 5 g there, and it weighs 6 g"}
