"""Articles of the knowledge base for staff who write and publish them."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any

import msgspec
from aiohttp import web

from commerce.kernel.paging import Page
from commerce.knowledge.model import (
    Article,
    ArticleId,
    ArticleInput,
    ArticleStatus,
    ArticleVersion,
    MissedSearch,
    VersionInput,
    VersionNo,
    VersionStep,
)
from commerce.text_search.model import QUERY_INVALID, Language, SearchQuery
from gateway.endpoints.articles import ARTICLE, LANGUAGE
from gateway.endpoints.parameters import LIMIT, cursor_parameter, page_size
from gateway.operations import Call, Operation, Parameter, json_response


async def show_articles(call: Call) -> web.Response:
    """List articles by id with their versions that are not retired.

    `status` restricts them to those with such a version, `overdue` to published ones past the day of their review.
    """
    parameters = call.parameters
    page = await call.services.articles.knowledge.list_articles(
        parameters["cursor"],
        page_size(call),
        status=parameters["status"],
        only_overdue=parameters["overdue"] is True,
    )
    return json_response(page)


async def show_article(call: Call) -> web.Response:
    """Read an article with all its versions, without their texts."""
    return json_response(await call.services.articles.knowledge.get(call.parameters["article_id"]))


async def show_article_version(call: Call) -> web.Response:
    """Read a version with its text, as Markdown and as the HTML that readers get."""
    parameters = call.parameters
    version = await call.services.articles.knowledge.get_version(
        parameters["article_id"], parameters["language"], parameters["version"]
    )
    return json_response(version)


async def put_article(call: Call) -> web.Response:
    """Create an article without texts, or change its terms with the version that was read.

    A repeat changes nothing.
    """
    knowledge = call.services.articles.knowledge
    return json_response(await knowledge.put(call.parameters["article_id"], call.body, call.staff_actor))


async def add_article_version(call: Call) -> web.Response:
    """Add a draft in a language, in the place of one that is not published yet."""
    article_id, body = call.parameters["article_id"], call.body
    knowledge = call.services.articles.knowledge
    version = await knowledge.add_version(article_id, body.language, body.text, call.staff_actor)
    location = f"{_PATH}/{article_id}/{body.language}/{version}"
    return json_response(await knowledge.get(article_id), 201, {"Location": location})


async def submit_article_version(call: Call) -> web.Response:
    """Let a draft wait for a reviewer."""
    return await _step(call, call.services.articles.knowledge.submit)


async def publish_article_version(call: Call) -> web.Response:
    """Publish a version in review, whose author is somebody else, in the place of the published one."""
    return await _step(call, call.services.articles.knowledge.publish)


async def retire_article_version(call: Call) -> web.Response:
    """Retire a version: a published one is not found any more, another one is given up."""
    return await _step(call, call.services.articles.knowledge.retire)


async def _step(call: Call, step: Any) -> web.Response:
    article_id = call.parameters["article_id"]
    await step(article_id, call.body, call.staff_actor)
    return json_response(await call.services.articles.knowledge.get(article_id))


async def list_missed_searches(call: Call) -> web.Response:
    """List searches that found nothing or did not help, the most frequent first.

    There is one page, without a cursor.
    """
    misses = await call.services.articles.knowledge.list_misses(call.parameters["language"], page_size(call))
    return json_response(Page(misses, None))


async def delete_missed_search(call: Call) -> web.Response:
    """Delete a search from the list, when an article answers it now."""
    await call.services.articles.knowledge.delete_miss(call.parameters["language"], call.parameters["q"])
    return web.Response(status=204)


_PATH = "/v1/admin/articles"
_ANSWER = {200: ("the article", Article)}
_staff = partial(Operation, tag="staff: articles", access="support")
_is_true = Annotated[bool, msgspec.Meta(description="true or false")]

ADMIN = [
    _staff(
        access="support_read",
        method="GET",
        path=_PATH,
        handler=show_articles,
        summary="List articles with their versions",
        answers={200: ("a page", Page[Article])},
        problems=(503,),
        parameters=(
            Parameter(name="status", location="query", type=ArticleStatus, description="of one of its versions"),
            Parameter(name="overdue", location="query", type=_is_true, description="only those to be reviewed now"),
            cursor_parameter(ArticleId),
            LIMIT,
        ),
    ),
    _staff(
        access="support_read",
        method="GET",
        path=f"{_PATH}/{{article_id}}",
        handler=show_article,
        summary="Read an article with its versions",
        answers=_ANSWER,
        problems=(404, 503),
        parameters=(ARTICLE,),
    ),
    _staff(
        method="PUT",
        path=f"{_PATH}/{{article_id}}",
        handler=put_article,
        summary="Put an article",
        answers=_ANSWER,
        problems=(404, 409, 503),
        parameters=(ARTICLE,),
        body=ArticleInput,
    ),
    _staff(
        method="POST",
        path=f"{_PATH}/{{article_id}}/versions",
        handler=add_article_version,
        summary="Add a version of an article",
        answers={201: ("the article", Article)},
        problems=(404, 409, 503),
        parameters=(ARTICLE,),
        body=VersionInput,
        is_one_transaction=True,
    ),
    _staff(
        access="support_read",
        method="GET",
        path=f"{_PATH}/{{article_id}}/{{language}}/{{version}}",
        handler=show_article_version,
        summary="Read a version of an article",
        answers={200: ("the version", ArticleVersion)},
        problems=(404, 503),
        parameters=(
            ARTICLE,
            Parameter(name="language", location="path", type=Language, description="zh or en"),
            Parameter(name="version", location="path", type=VersionNo, description="its number in the language"),
        ),
    ),
    *(
        _staff(
            method="POST",
            path=f"{_PATH}/{{article_id}}/{action}",
            handler=handler,
            summary=summary,
            answers=_ANSWER,
            problems=(404, 409, 503),
            parameters=(ARTICLE,),
            body=VersionStep,
            is_one_transaction=True,
        )
        for action, handler, summary in (
            ("review", submit_article_version, "Submit a version for review"),
            ("publish", publish_article_version, "Publish a reviewed version"),
            ("retire", retire_article_version, "Retire a version"),
        )
    ),
    _staff(
        access="support_read",
        method="GET",
        path="/v1/admin/missed-searches",
        handler=list_missed_searches,
        summary="List searches that found nothing",
        answers={200: ("the list", Page[MissedSearch])},
        problems=(503,),
        parameters=(LANGUAGE, LIMIT),
    ),
    _staff(
        method="DELETE",
        path="/v1/admin/missed-searches",
        handler=delete_missed_search,
        summary="Delete a search that found nothing",
        answers={204: ("the list does not have it", None)},
        problems=(400, 503),
        parameters=(
            Parameter(
                name="language", location="query", type=Language, description="the language of its row", required=True
            ),
            Parameter(
                name="q",
                location="query",
                type=SearchQuery,
                description="the query as listed",
                required=True,
                invalid_message=QUERY_INVALID,
            ),
        ),
    ),
]
