"""Errors of pictures."""

from __future__ import annotations

from commerce.kernel.errors import Conflict, NotFound


class NoSuchPicture(NotFound):
    title = "There is no such picture"


class TooManyProductPictures(Conflict):
    code = "too_many_product_pictures"
    title = "The product has as many pictures as it can have"


class OtherPictures(Conflict):
    code = "other_pictures"
    title = "The product has other pictures than those that were named"
