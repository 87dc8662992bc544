"""Scores: which signals add up to what, and that what innocent people share never condemns them."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from commerce.screening.model import POINTS, MarkKind, SignalLimits, score_customer
from config.screening import ScreeningSettings

LIMITS = SignalLimits(50, 3, 5, 100, 20, 8)


def _score(*kinds: MarkKind, peak_per_s: int = 1, fastest_ms: int | None = None) -> int:
    return score_customer(dict.fromkeys(kinds, 1_000), peak_per_s, fastest_ms, LIMITS).score


def test_reasons_have_points_and_measures_heaviest_first() -> None:
    score = score_customer({"address": 51, "device": 4}, 9, 12, LIMITS)
    assert score.score == 100, "115 points are 100"
    assert [(reason.signal, reason.points, reason.measured) for reason in score.reasons] == [
        *(("device", 40, 4), ("rate", 30, 9), ("address", 25, 51), ("fast", 20, 12)),
    ]
    assert score_customer({}, 8, None, LIMITS) == (0, ())


@pytest.mark.parametrize(
    ("action", "kinds"),
    [
        ("proof_of_work", ("address",)),
        ("wait", ("address",)),
        ("refuse", ("address",)),
        ("refuse", ("address", "form")),
        ("refuse", ("device",)),
        ("refuse", ("phone",)),
    ],
)
def test_no_setting_acts_on_marks_that_innocent_people_share(action: str, kinds: tuple[MarkKind, ...]) -> None:
    with pytest.raises(ValidationError):
        ScreeningSettings(**{f"{action}_min_score": _score(*kinds)})
    lowest = 60 if action == "refuse" else 30
    assert getattr(ScreeningSettings(**{f"{action}_min_score": lowest}), f"{action}_min_score") == lowest
    with pytest.raises(ValidationError):
        ScreeningSettings(**{f"{action}_min_score": lowest - 1})


def test_program_behind_one_address_reaches_refusal() -> None:
    assert _score("address", "form", "device") == 85
    assert _score("address", "form", peak_per_s=9) == 75
    assert set(POINTS) == {"address", "form", "device", "phone", "fast", "rate"}


@pytest.mark.parametrize(
    ("members", "addresses", "was_crowded", "is_crowded"),
    [
        (100, 1, False, False),
        (10_000, 0, False, False),  # addresses are not known
        (10_000, 0, True, False),
        (101, 1, False, True),
        (10_000, 500, False, False),
        (10_001, 500, False, True),
        (10_000, 999, True, True),
        (10_000, 1_000, True, False),
    ],
)
def test_form_is_crowded_if_few_addresses_use_it(
    members: int, addresses: int, was_crowded: bool, is_crowded: bool
) -> None:
    assert LIMITS.is_crowded("form", members, addresses, was_crowded) is is_crowded
    assert not LIMITS.is_crowded("form_address", members)
