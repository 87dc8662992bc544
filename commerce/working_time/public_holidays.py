"""Public holidays and make-up working days, from the library `chinese-calendar`.

China decides on them in the autumn before, so no rule can compute them.
"""

from __future__ import annotations

from datetime import date
from functools import lru_cache
from typing import Literal

import chinese_calendar
from chinese_calendar import constants

SpecialDay = Literal["holiday", "make_up_day"]
FIRST_YEAR = min(constants.holidays).year
LAST_YEAR = max(constants.holidays).year
"""the last year whose holidays the installed library knows"""


@lru_cache(maxsize=4_096)
def special_day(day: date) -> SpecialDay | None:
    """Return which special day a day in China is. None for all others, and in unknown years."""
    if not FIRST_YEAR <= day.year <= LAST_YEAR:
        return None
    is_free, name = chinese_calendar.get_holiday_detail(day)
    if name is None:
        return None  # a plain weekday or weekend
    return "holiday" if is_free else "make_up_day"
