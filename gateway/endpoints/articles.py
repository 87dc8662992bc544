"""Published articles from memory: for everybody, and for staff with the internal ones."""

from __future__ import annotations

from functools import partial
from typing import Any

from aiohttp import web

from commerce.catalog.model import Sku
from commerce.kernel.paging import Page
from commerce.knowledge.article_index import CUSTOMERS, STAFF, ArticleLinks
from commerce.knowledge.model import (
    ArticleId,
    Code,
    FeedbackInput,
    FoundArticle,
    ReadableArticle,
    SuggestionInput,
)
from commerce.text_search.model import QUERY_INVALID, Language, SearchQuery
from gateway.cached_content import content_response, encode_content
from gateway.endpoints.parameters import IF_NONE_MATCH, LIMIT, cursor_parameter, page_size
from gateway.operations import Call, Operation, Parameter, json_response

_CACHE_CONTROL = "public, max-age=5"
_SUGGESTIONS, _MAX_HITS = 5, 50


def _take_token(call: Call) -> str:
    """Take a token of the client's address and return the name under which the caller votes.

    Raises `RateLimited`.
    """
    services = call.services
    client = services.client_addresses.find(call.request)
    if client.address is not None:
        services.admission.rate_limits.articles.take(client.address)
    authorization = call.request.headers.get("Authorization")
    if authorization is not None:
        return f"user {services.auth.identify_customer(authorization).subject}"
    return f"address {client.address}"


async def _find(call: Call, audiences: Any) -> Page[FoundArticle]:
    """Search by `q`, or list by id without it."""
    live, parameters = call.services.articles.live, call.parameters
    query, language, size = parameters["q"], parameters["language"], page_size(call)
    links = ArticleLinks(parameters["reason"], parameters["sku"], parameters["category"])
    if query is not None:
        return Page(await live.search(query, language, audiences, min(size, _MAX_HITS), links), None)
    return live.list_articles(parameters["cursor"], size, language or "zh", links, audiences)


async def list_articles(call: Call) -> web.Response:
    """Search articles with `q`, the best first, or list them by id without it.

    A search finds Chinese and English texts: without `language` in the language of `q`, and where nothing is found in
    the other one too. It has one page of at most 50 articles.
    """
    if call.parameters["q"] is not None:
        _take_token(call)
    content = encode_content(await _find(call, CUSTOMERS), _CACHE_CONTROL)
    return content_response(call.parameters["If-None-Match"], content)


async def read_article(call: Call) -> web.Response:
    """Read an article as Markdown and as safe HTML, about a second old at most.

    Without `language`, or where it is not written in it, the article is in Chinese if it can be.
    """
    article_id, language = call.parameters["article_id"], call.parameters["language"]
    article = await call.services.articles.live.read(article_id, language, CUSTOMERS)
    return content_response(call.parameters["If-None-Match"], encode_content(article, _CACHE_CONTROL))


async def rate_article(call: Call) -> web.Response:
    """Say whether an article has helped.

    A customer or an address counts once per article and day; repeats change nothing. Send the token of a
    customer who is signed in. With `query`, a search whose answer did not help is listed for editors.
    """
    voter, live, body = _take_token(call), call.services.articles.live, call.body
    await live.vote(call.parameters["article_id"], voter, "feedback", helped=body.helped)
    if body.query is not None and not body.helped:
        live.note_miss(body.query, None)
    return web.Response(status=204)


async def count_article_click(call: Call) -> web.Response:
    """Count that an article was opened from a list of results.

    A customer or an address counts once per article and day.
    """
    await call.services.articles.live.vote(call.parameters["article_id"], _take_token(call), "click")
    return web.Response(status=204)


async def suggest_articles(call: Call) -> web.Response:
    """Suggest articles before a case is opened, by its reason, its products and what the customer writes."""
    _take_token(call)
    return json_response(Page(await call.services.articles.live.suggest(call.body, CUSTOMERS, _SUGGESTIONS), None))


async def find_articles(call: Call) -> web.Response:
    """Search or list published articles as customers do, with the internal ones."""
    return json_response(await _find(call, STAFF))


async def suggest_articles_to_staff(call: Call) -> web.Response:
    """Suggest articles for a case or a conversation, with the internal ones."""
    return json_response(Page(await call.services.articles.live.suggest(call.body, STAFF, _SUGGESTIONS), None))


_PATH = "/v1/articles"
ARTICLE = Parameter(name="article_id", location="path", type=ArticleId, description="the article's name")
_QUERY = Parameter(
    name="q",
    location="query",
    type=SearchQuery,
    description="what is sought: a few words, up to 500 characters",
    invalid_message=QUERY_INVALID,
)
LANGUAGE = Parameter(name="language", location="query", type=Language, description="zh or en")
_LINKS = (
    Parameter(name="reason", location="query", type=Code, description="only those about a reason of returns"),
    Parameter(name="sku", location="query", type=Sku, description="only those about a product"),
    Parameter(name="category", location="query", type=Code, description="only those about a category"),
)
_FIND = (_QUERY, LANGUAGE, *_LINKS, cursor_parameter(ArticleId), LIMIT)
_LIST_ANSWER = {200: ("articles", Page[FoundArticle])}
_public = partial(Operation, tag="articles", access="anyone")
_staff = partial(Operation, tag="staff: articles", access="support")

OPERATIONS = [
    _public(
        method="GET",
        path=_PATH,
        handler=list_articles,
        summary="Search or list articles",
        answers={**_LIST_ANSWER, 304: ("unchanged since the ETag of the client", None)},
        problems=(429, 503),
        parameters=(*_FIND, IF_NONE_MATCH),
    ),
    _public(
        method="POST",
        path=f"{_PATH}/suggest",
        handler=suggest_articles,
        summary="Suggest articles for a situation",
        answers=_LIST_ANSWER,
        problems=(401, 429, 503),
        body=SuggestionInput,
    ),
    _public(
        method="GET",
        path=f"{_PATH}/{{article_id}}",
        handler=read_article,
        summary="Read an article",
        answers={200: ("the article", ReadableArticle), 304: ("unchanged since the ETag of the client", None)},
        problems=(404, 503),
        parameters=(ARTICLE, LANGUAGE, IF_NONE_MATCH),
    ),
    _public(
        method="POST",
        path=f"{_PATH}/{{article_id}}/feedback",
        handler=rate_article,
        summary="Rate an article",
        answers={204: ("the rating counts, or an earlier one of the day does", None)},
        problems=(401, 404, 429, 503),
        parameters=(ARTICLE,),
        body=FeedbackInput,
    ),
    _public(
        method="POST",
        path=f"{_PATH}/{{article_id}}/clicks",
        handler=count_article_click,
        summary="Count a click on an article",
        answers={204: ("the click counts, or an earlier one of the day does", None)},
        problems=(401, 404, 429, 503),
        parameters=(ARTICLE,),
    ),
]
ADMIN = [
    _staff(
        access="support_read",
        method="GET",
        path="/v1/admin/published-articles",
        handler=find_articles,
        summary="Search or list published articles, internal ones too",
        answers=_LIST_ANSWER,
        problems=(503,),
        parameters=_FIND,
    ),
    _staff(
        access="support_read",
        method="POST",
        path="/v1/admin/articles/suggest",
        handler=suggest_articles_to_staff,
        summary="Suggest articles, internal ones too",
        answers=_LIST_ANSWER,
        problems=(503,),
        body=SuggestionInput,
    ),
]
