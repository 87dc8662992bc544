"""Errors of promotions, for staff."""

from __future__ import annotations

from commerce.kernel.errors import Conflict, NotFound


class NoSuchPromotion(NotFound):
    title = "The sale has no such promotion"


class TooManyPromotions(Conflict):
    code = "too_many_promotions"
    title = "The sale has as many promotions as are allowed"
