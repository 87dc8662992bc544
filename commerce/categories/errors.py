"""Problems of categories and attributes, each with what to do."""

from __future__ import annotations

from commerce.kernel.errors import Conflict, Invalid, NotFound


class NoSuchCategory(NotFound):
    title = "There is no such category"


class NoSuchAttribute(NotFound):
    title = "There is no such attribute"


class CategoryRetired(Conflict):
    """`merged_into` has the category that took its place, null if none did."""

    code = "category_retired"
    title = "The category is retired"


class CategoryLoop(Conflict):
    code = "category_loop"
    title = "A category cannot stand below itself"


class CategoryVersionConflict(Conflict):
    """`version` has the present version."""

    code = "version_conflict"
    title = "It was changed since it was read"


class TooManyCategories(Conflict):
    code = "too_many_categories"
    title = "The tree has no room for it"


class BadCategory(Invalid):
    title = "The category or attribute cannot be stored as it is"


class BadTaxonomy(Invalid):
    """`errors` lists `{"pointer": "FILE:LINE", "detail": text}`."""

    code = "bad_taxonomy"
    title = "The files cannot be imported"
