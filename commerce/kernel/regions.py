"""The one form in which countries, provinces, cities and districts are compared."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from functools import lru_cache

from commerce.kernel.types import INVISIBLE_LETTERS

# Without blanks, as the names are when the ending is looked for. Not in the list: city, district and county, since
# Kansas City is not Kansas; and prefectures, since 海南藏族自治州 is not 海南.
_ENDINGS = (
    *("省", "市", "自治区", "壮族自治区", "回族自治区", "维吾尔自治区", "特别行政区", "特別行政區"),
    *("province", "municipality", "autonomousregion", "specialadministrativeregion"),
    *("zhuangautonomousregion", "huiautonomousregion", "uygurautonomousregion", "uyghurautonomousregion"),
)
_ENDING = re.compile(rf"(?<=..)(?:{'|'.join(sorted(_ENDINGS, key=len, reverse=True))})\Z")
_VARIATION_SELECTORS = "\ufe00-\ufe0f\U000e0100-\U000e01ef"
_INVISIBLE = re.compile(rf"[\s{INVISIBLE_LETTERS}{_VARIATION_SELECTORS}]")


@lru_cache(maxsize=10_000)
def normalise_region(text: str) -> str:
    """Return the form in which the name of a country, province, city or district is compared.

    Width, case and composition of letters, blanks and invisible characters make no difference, nor does the ending of a
    province or municipality: 浙江 is 浙江省, 北京 is 北京市, 广西 is 广西壮族自治区, Zhejiang is Zhejiang Province. At
    least two characters stay. A text without visible characters becomes empty. Idempotent.
    """
    folded = _drop_invisible(unicodedata.normalize("NFKC", text)).casefold()
    # Folding may take letters apart, and what was dropped may have kept them apart.
    folded = _drop_invisible(unicodedata.normalize("NFKC", folded))
    while folded != (shorter := _ENDING.sub("", folded)):
        folded = shorter
    return folded


def to_region_path(parts: Iterable[str]) -> tuple[str, ...]:
    """Return the parts of a region as by `normalise_region`, without empty parts."""
    return tuple(region for part in parts if (region := normalise_region(part)))


def parse_region(text: str) -> list[str]:
    """Split `CN/Zhejiang/Hangzhou` into parts in the form of `normalise_region`, empty ones too."""
    return [normalise_region(part) for part in unicodedata.normalize("NFKC", text).split("/")]


def _drop_invisible(text: str) -> str:
    visible = _INVISIBLE.sub("", text)
    if visible.isprintable():  # so it has no format characters
        return visible
    return "".join(char for char in visible if unicodedata.category(char) != "Cf")
