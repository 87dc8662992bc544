"""Finding products: by words and filters, with counts, and completions while a customer types."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Annotated, Any, Literal

import msgspec
from aiohttp import web

from commerce.catalog.model import Brand
from commerce.categories.model import CategoryId
from commerce.kernel.errors import Invalid
from commerce.kernel.languages import read_accept_language
from commerce.kernel.money import Currency, Minor, MoneyError, minor_digits
from commerce.kernel.paging import Page
from commerce.kernel.types import query_text
from commerce.product_search.answers import SearchSuggestion
from commerce.product_search.cursors import MAX_CURSOR_CHARS
from commerce.product_search.model import (
    MAX_FILTERS,
    MAX_HITS,
    MAX_SUGGESTIONS,
    MAX_TEXT_CHARS,
    NumberRange,
    PriceRange,
    SearchSort,
    SearchTerms,
)
from gateway.cached_content import content_response, encode_content
from gateway.endpoints.parameters import ACCEPT_LANGUAGE, IF_NONE_MATCH, cursor_parameter
from gateway.operations import Call, Operation, Parameter
from gateway.pictured_products import CoveredAnswer, cover_answer
from gateway.public_pages import SALE_CACHE_CONTROL

_ID = r"[a-z0-9][a-z0-9_/+#.-]{0,99}"
_CHOICE = r"[a-z0-9][a-z0-9_/+#.-]{0,149}"
_NUMBER = r"-?[0-9]{1,15}(?:\.[0-9]{1,6})?"
_DEFAULT_HITS, _DEFAULT_SUGGESTIONS = 20, 8
_TEXT_INVALID = f"not 1 to {MAX_TEXT_CHARS} characters of which one can be seen; search for a few words"
AttributeFilter = Annotated[str, msgspec.Meta(pattern=rf"^{_ID}:{_CHOICE}\Z", examples=["color:color__red"])]
NumberFilter = Annotated[
    str, msgspec.Meta(pattern=rf"^{_ID}:(?:{_NUMBER})?\.\.(?:{_NUMBER})?\Z", examples=["weight:200..500"])
]
_Attributes = Annotated[list[AttributeFilter], msgspec.Meta(max_length=MAX_FILTERS)]
_Numbers = Annotated[list[NumberFilter], msgspec.Meta(max_length=MAX_FILTERS)]
_Brands = Annotated[list[Brand], msgspec.Meta(max_length=MAX_FILTERS)]


def _take_token(call: Call) -> None:
    """Take a token of the client's address. Raises `RateLimited`."""
    services = call.services
    client = services.client_addresses.find(call.request)
    if client.address is not None:
        services.admission.rate_limits.searches.take(client.address)


async def search_products(call: Call) -> web.Response:
    """Find products on sale by words, in all their languages, and by filters that must all fit.

    Of several brands, or values of one attribute, one is enough. Names are in the best language for `Accept-Language`,
    else in English, else in any. A mistyped word is corrected only if no product has it; `corrected_text` says so. With
    `facets` the answer counts what other choices would find.
    """
    _take_token(call)
    parameters, search = call.parameters, call.services.search
    terms = read_terms(parameters)
    wanted = read_accept_language(parameters["Accept-Language"])
    async with search.open_turn():
        if terms.is_available:
            terms = replace(terms, available=await search.availability.read())
        elif terms.with_facets:
            terms = replace(terms, available=await search.availability.read_to_count())
        answer = await search.products.search(terms, parameters["cursor"], wanted)
    covers = await call.services.public_pages.read_covers([hit.product_id for hit in answer.items])
    content = encode_content(cover_answer(answer, covers, wanted), SALE_CACHE_CONTROL)
    response = content_response(parameters["If-None-Match"], content)
    response.headers["Vary"] = "Accept-Language"
    return response


async def suggest_products(call: Call) -> web.Response:
    """Complete what a customer types: names of categories, and of products with its words.

    The last word may be the beginning of one."""
    _take_token(call)
    wanted = read_accept_language(call.parameters["Accept-Language"])
    limit = call.parameters["limit"] or _DEFAULT_SUGGESTIONS
    async with call.services.search.open_turn():
        suggestions = await call.services.search.products.suggest(call.parameters["q"], wanted, limit)
    content = encode_content(Page(suggestions, None), SALE_CACHE_CONTROL)
    response = content_response(call.parameters["If-None-Match"], content)
    response.headers["Vary"] = "Accept-Language"
    return response


def read_terms(parameters: Mapping[str, Any]) -> SearchTerms:
    """Return the search that the parameters of a request describe. Raises `Invalid`."""
    attributes: dict[str, list[str]] = {}
    for text in parameters["attribute"]:
        attribute_id, _, value = text.partition(":")
        attributes.setdefault(attribute_id, []).append(value)
    numbers: dict[str, NumberRange] = {}
    for text in parameters["number"]:
        attribute_id, _, bounds = text.partition(":")
        if attribute_id in numbers:
            raise _refuse("number", f"{attribute_id} has two ranges; send one")
        numbers[attribute_id] = _read_range(bounds)
    price = _read_price(parameters)
    is_available = parameters["available"] == "true"
    values = len(parameters["attribute"]) + len(numbers) + len(parameters["brand"])
    filters = values + (parameters["category_id"] is not None) + (price is not None) + is_available
    if filters > MAX_FILTERS:
        raise _refuse("", f"{filters} filters; send at most {MAX_FILTERS}")
    return SearchTerms(
        text=parameters["q"] or "",
        category_id=parameters["category_id"],
        price=price,
        attributes=attributes,
        numbers=numbers,
        brands=parameters["brand"],
        is_available=is_available,
        sort=parameters["sort"] or "relevance",
        limit=parameters["limit"] or _DEFAULT_HITS,
        with_facets=parameters["facets"] == "true",
    )


def _read_range(bounds: str) -> NumberRange:
    low, _, high = bounds.partition("..")
    range_ = NumberRange(float(low) if low else None, float(high) if high else None)
    if range_.min is not None and range_.max is not None and range_.min > range_.max:
        raise _refuse("number", f"the range {bounds} is empty; put the smaller number first")
    return range_


def _read_price(parameters: Mapping[str, Any]) -> PriceRange | None:
    currency, low, high = parameters["currency"], parameters["min_price"], parameters["max_price"]
    if currency is None:
        if low is not None or high is not None:
            raise _refuse("currency", "missing: prices are in minor units of a currency; send it too")
        return None
    try:
        minor_digits(currency)
    except MoneyError as error:
        raise _refuse("currency", str(error)) from error
    if low is not None and high is not None and low > high:
        raise _refuse("min_price", "above max_price; put the smaller amount first")
    return PriceRange(currency, low, high)


def _refuse(pointer: str, detail: str) -> Invalid:
    return Invalid.at(pointer, detail)


def _query(name: str, type_: Any, description: str, **more: Any) -> Parameter:
    return Parameter(name=name, location="query", type=type_, description=description, **more)


_TEXT = Annotated[str, query_text(MAX_TEXT_CHARS)]
_ONLY_TRUE = Literal["true", "false"]
_PARAMETERS = (
    _query(
        "q", _TEXT, f"what is sought: a few words, up to {MAX_TEXT_CHARS} characters", invalid_message=_TEXT_INVALID
    ),
    _query("category_id", CategoryId, "only those of this category and its descendants"),
    _query("brand", _Brands, "only those of this brand; may be repeated", is_repeated=True),
    _query(
        "attribute",
        _Attributes,
        "only those with a value of an attribute, as `attribute:choice` or `attribute:true`; may be repeated",
        is_repeated=True,
    ),
    _query(
        "number",
        _Numbers,
        "only those with a number of an attribute in a range, as `attribute:min..max`; an end may be left out; may be "
        "repeated",
        is_repeated=True,
    ),
    _query("currency", Currency, "only those that are priced in this currency"),
    _query("min_price", Minor, "only those with a variant of this list price or more, in minor units of `currency`"),
    _query("max_price", Minor, "only those with a variant of this list price or less"),
    _query("available", _ONLY_TRUE, "`true`: only those of which an open sale has units now"),
    _query("sort", SearchSort, "`relevance` by default; without `q` that is `newest`"),
    _query("facets", _ONLY_TRUE, "`true`: count what other choices would find"),
    cursor_parameter(Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_CURSOR_CHARS)]),
    _query("limit", Annotated[int, msgspec.Meta(ge=1, le=MAX_HITS)], "maximum number of items per page; 20 by default"),
    ACCEPT_LANGUAGE,
    IF_NONE_MATCH,
)
_SUGGESTED = Annotated[int, msgspec.Meta(ge=1, le=MAX_SUGGESTIONS)]
_public = partial(Operation, method="GET", tag="catalog", access="anyone", problems=(429, 503), share="search")
_UNCHANGED = {304: ("unchanged since the ETag of the client", None)}

OPERATIONS = [
    _public(
        path="/v1/product-search",
        handler=search_products,
        summary="Search products",
        answers={200: ("a page", CoveredAnswer), **_UNCHANGED},
        parameters=_PARAMETERS,
    ),
    _public(
        path="/v1/product-suggestions",
        handler=suggest_products,
        summary="Complete what a customer types",
        answers={200: ("completions, the best first", Page[SearchSuggestion]), **_UNCHANGED},
        parameters=(
            _query("q", _TEXT, "what was typed so far", required=True, invalid_message=_TEXT_INVALID),
            _query("limit", _SUGGESTED, "maximum number of completions; 8 by default"),
            ACCEPT_LANGUAGE,
            IF_NONE_MATCH,
        ),
    ),
]
