"""The choice of a carrier: compared with a search of all rows, and the reasons of the candidates."""

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


def generate_rates(rng: random.Random) -> list[Rate]:
    """Generate rates with few prices and days, so that ties occur, and with steps at used weights."""
    rates = []
    for carrier in rng.sample(["yto", "sf", "zto", "own", "jd", "db"], rng.randint(1, 6)):
        for region in rng.sample(REGIONS, rng.randint(1, len(REGIONS))):
            ends = sorted(rng.sample([500, 1000, 2000, 5000, 20_000], rng.randint(1, 4)))
            for start, end in zip([0, *ends], ends, strict=False):
                rates.append(
                    Rate(
                        carrier,
                        region,
                        start,
                        end,
                        rng.choice([800, 1000, 1200]),
                        rng.randint(0, 4),
                        rng.random() < 0.7,
                    )
                )
    rng.shuffle(rates)
    return rates


def contains(rate: Rate, parts: Sequence[str]) -> bool:
    region = rate.region.split("/")
    return list(parts[: len(region)]) == region


def is_better(rate: Rate, other: Rate, *order: str) -> bool:
    for name in order:
        if getattr(rate, name) != getattr(other, name):
            return bool(getattr(rate, name) < getattr(other, name))
    return False


def expected_choice(
    rates: Sequence[Rate], to: tuple[str, ...], weight_g: int, cod: bool, days: int, excluded: Mapping[str, str]
) -> tuple[str | None, int | None, bool]:
    """Find (carrier, price, on time) for a promise of `days` by a search of all rows."""
    parts = [part.strip().casefold() for part in to if part.strip()]
    fitting = [rate for rate in rates if contains(rate, parts)]
    best_on_time: Rate | None = None
    fastest: Rate | None = None
    for rate in fitting:
        if any(other.carrier == rate.carrier and len(other.region) > len(rate.region) for other in fitting):
            continue
        if rate.carrier in excluded or (cod and not rate.cod) or not rate.from_g < weight_g <= rate.to_g:
            continue
        if rate.days <= days and (
            best_on_time is None or is_better(rate, best_on_time, "price_minor", "days", "carrier")
        ):
            best_on_time = rate
        if fastest is None or is_better(rate, fastest, "days", "price_minor", "carrier"):
            fastest = rate
    best = best_on_time or fastest
    return (best.carrier, best.price_minor, best is best_on_time) if best else (None, None, False)


@pytest.mark.parametrize("seed", range(10))
def test_choose_carrier_for_random_shipments_equals_search_of_all_rows(seed: int) -> None:
    rng = random.Random(seed)
    rates = generate_rates(rng)
    index = table_index(rates)
    carriers = sorted({rate.carrier for rate in rates})
    outcomes = set()
    for _ in range(1000):
        to = rng.choice(PLACES)
        weight_g = rng.choice([1, 500, 501, 1000, 1001, 2000, 5000, 5001, 20_000, 20_001, rng.randint(1, 25_000)])
        cod, days = rng.random() < 0.3, rng.randint(-1, 5)
        excluded = {name: "it is unavailable" for name in carriers if rng.random() < 0.2}
        choice = choose_carrier(
            index,
            address(*to),
            weight_g,
            cod=cod,
            dispatch_on=TODAY,
            promised_on=TODAY + timedelta(days=days),
            excluded=excluded,
        )
        expected = expected_choice(rates, to, weight_g, cod, days, excluded)
        assert (choice.carrier, choice.price, choice.on_time) == expected, (to, weight_g, cod, days, excluded)
        assert [candidate.carrier for candidate in choice.candidates] == carriers
        assert [candidate.carrier for candidate in choice.candidates if candidate.verdict == "chosen"] == [
            expected[0]
        ] * bool(expected[0])
        assert {candidate.carrier for candidate in choice.candidates if candidate.reason == "it is unavailable"} <= set(
            excluded
        )
        outcomes.add((choice.carrier is not None, choice.on_time))
    assert outcomes == {(True, True), (True, False), (False, False)}


@pytest.mark.parametrize(
    ("stored", "to"),
    [
        ("cn/浙江省/杭州市", ("CN", "浙江", "杭州", "西湖区")),
        ("cn/浙江/杭州", ("CN", "浙江省", "杭州市", "")),
        ("cn/广西壮族自治区", ("CN", "广西", "南宁市", "")),
        ("cn/zhejiang province", ("CN", "Zhejiang", "Hangzhou", "")),
        ("us/new york", ("US", " NEW\u00a0York ", "Albany", "")),
        ("ch/zu\u0308rich", ("CH", "Z\u00fcrich", "Winterthur", "")),
    ],
)
def test_stored_rate_matches_region_written_in_another_way(stored: str, to: tuple[str, str, str, str]) -> None:
    steps = table_index([Rate("sf", stored, 0, 1000, 800, 2, False)]).steps_by_carrier(address(*to))
    assert steps["sf"].region == stored


def test_stored_region_in_two_forms_counts_in_the_longer_one() -> None:
    rates = [Rate("sf", region, 0, 1000, price, 2, False) for region, price in (("cn/浙江省", 9), ("cn/浙江", 7))]
    rate = table_index(rates).steps_by_carrier(address("CN", "浙江", "杭州", ""))["sf"].at(500)
    assert rate is not None
    assert rate.price_minor == 9


def reasons_of(choice: CarrierChoice) -> dict[str, str]:
    return {candidate.carrier: f"{candidate.verdict}: {candidate.reason}" for candidate in choice.candidates}


def test_choose_carrier_gives_each_candidate_a_reason() -> None:
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
    excluded = {"refused": "it refused this shipment", "abroad": "it is unavailable"}
    choice = choose_carrier(
        table_index(rates), hangzhou, 1001, cod=True, dispatch_on=TODAY, promised_on=promised, excluded=excluded
    )
    assert reasons_of(choice) == {
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


def test_choose_carrier_without_any_on_time_takes_fastest() -> None:
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
    assert reasons_of(choice) == {
        "cheap": "not_chosen: later than quick",
        "quick": "chosen: none arrives by 2026-11-16: the fastest",
        "quickdear": "not_chosen: as fast as quick, but dearer",
        "quicker": "not_chosen: equal to quick, which comes first by name",
    }


def test_choose_carrier_without_any_offer_returns_none() -> None:
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
    assert reasons_of(choice) == {"sf": "excluded: takes up to 5 g there, and it weighs 6 g"}
