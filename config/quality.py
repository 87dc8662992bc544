"""Settings of the quality of products."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from config.base import Positive, SettingsSection

_Language = Annotated[str, Field(pattern=r"^[a-z]{2,3}(-[A-Za-z0-9]{2,8}){0,3}$")]


class QualitySettings(SettingsSection):
    """Needs of a product, and the grade below which its publication needs a reason."""

    languages: Annotated[tuple[_Language, ...], Field(max_length=20)] = Field(
        default=(), description="in which each product should have a text, such as zh and en"
    )
    publish_from: Literal["A", "B", "C", "D", "E"] = Field(
        default="D", description="publishing a product of a lower grade needs a reason; E: none does"
    )
    min_pictures: Annotated[int, Field(ge=1, le=30)] = 3
    min_picture_px: Annotated[int, Field(ge=1, le=2_048)] = 800
    min_description_chars: Annotated[int, Field(ge=1, le=5_000)] = 80
    debounce_s: Annotated[float, Field(ge=0, le=3_600)] = Field(
        default=5, description="from a change until the product is graded: further changes are graded with it"
    )
    price_level_age_s: Annotated[float, Field(gt=0)] = 3_600
    regrade_days: Annotated[float, Field(gt=0)] = Field(
        default=7, description="a product is graded once more after that, as other products have changed"
    )
    products_per_step: Annotated[Positive, Field(le=1_000)] = 100
