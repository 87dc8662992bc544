"""Categories as customers see them, from memory, and as staff change them."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any

import msgspec
from aiohttp import web

from commerce.categories.category_pages import PublicCategory, PublicCategoryDetails
from commerce.categories.model import (
    Attribute,
    AttributeId,
    AttributeInput,
    AttributeSummary,
    Category,
    CategoryAction,
    CategoryChange,
    CategoryId,
    CategoryInput,
    CategoryMerge,
    CategoryMove,
)
from commerce.kernel.languages import read_accept_language
from commerce.kernel.paging import Page
from gateway.cached_content import Content, content_response
from gateway.category_services import ChildCursor
from gateway.endpoints.parameters import IF_NONE_MATCH, LIMIT, cursor_parameter, page_size
from gateway.operations import Call, Handler, Operation, Parameter, json_response


def _response(call: Call, content: Content) -> web.Response:
    response = content_response(call.parameters["If-None-Match"], content)
    response.headers["Vary"] = "Accept-Language"
    return response


def _wanted(call: Call) -> list[str]:
    return read_accept_language(call.parameters["Accept-Language"])


async def list_categories(call: Call) -> web.Response:
    """List the children of a category, or the roots without `parent_id`. Retired ones are left out."""
    parent_id, cursor = call.parameters["parent_id"], call.parameters["cursor"]
    content = await call.services.categories.list_children(parent_id, cursor, page_size(call), _wanted(call))
    return _response(call, content)


async def get_category(call: Call) -> web.Response:
    """Read a category: its path, and the attributes of its products with those that it inherits.

    Of a category that was merged, `merged_into` says where its products went.
    """
    return _response(call, await call.services.categories.get(call.parameters["category_id"], _wanted(call)))


async def show_category(call: Call) -> web.Response:
    """Read a category with all names, its own rules and what it inherits."""
    return json_response(await call.services.categories.changes.get(call.parameters["category_id"]))


async def put_category(call: Call) -> web.Response:
    """Create a category, or change its names and own rules. Another parent needs a move."""
    category_id, changes = call.parameters["category_id"], call.services.categories.changes
    return json_response(await changes.put(category_id, call.body, call.staff_actor))


async def move_category(call: Call) -> web.Response:
    """Move a category with all that is below it."""
    changes = call.services.categories.changes
    return json_response(await changes.move(call.parameters["category_id"], call.body, call.staff_actor))


async def merge_category(call: Call) -> web.Response:
    """Merge a category into another one, which gets its products and children."""
    changes = call.services.categories.changes
    return json_response(await changes.merge(call.parameters["category_id"], call.body, call.staff_actor))


async def retire_category(call: Call) -> web.Response:
    """Retire a category without active children: its products stay, and no product is put into it."""
    changes = call.services.categories.changes
    return json_response(await changes.retire(call.parameters["category_id"], call.body, call.staff_actor))


async def restore_category(call: Call) -> web.Response:
    """Undo the retirement of a category."""
    changes = call.services.categories.changes
    return json_response(await changes.restore(call.parameters["category_id"], call.body, call.staff_actor))


async def list_category_changes(call: Call) -> web.Response:
    """List changes of categories and attributes, newest first: all, or those of one of them."""
    parameters = call.parameters
    category_id, attribute_id = parameters["category_id"], parameters["attribute_id"]
    changes = call.services.categories.changes
    page = await changes.list_changes(category_id, attribute_id, parameters["cursor"], page_size(call))
    return json_response(page)


async def list_attributes(call: Call) -> web.Response:
    """List attributes by id, with the number of their choices."""
    changes = call.services.categories.changes
    return json_response(await changes.list_attributes(call.parameters["cursor"], page_size(call)))


async def show_attribute(call: Call) -> web.Response:
    """Read an attribute with all names and choices."""
    return json_response(await call.services.categories.changes.get_attribute(call.parameters["attribute_id"]))


async def put_attribute(call: Call) -> web.Response:
    """Create or change an attribute. Choices that are left out are retired; its kind stays."""
    attribute_id, changes = call.parameters["attribute_id"], call.services.categories.changes
    return json_response(await changes.put_attribute(attribute_id, call.body, call.staff_actor))


_LANGUAGES = Parameter(
    name="Accept-Language",
    location="header",
    type=Annotated[str, msgspec.Meta(max_length=1_000)],
    description="languages of names, such as `zh-CN, en;q=0.5`; else English, else the first there is",
)
_CATEGORY = Parameter(name="category_id", location="path", type=CategoryId, description="the category's id")
_PARENT = Parameter(name="parent_id", location="query", type=CategoryId, description="the category's id")
_ATTRIBUTE = Parameter(
    name="attribute_id", location="path", type=AttributeId, description="the attribute's id; a slash in it is `%2F`"
)
_CATEGORY_PATH = "/v1/admin/categories/{category_id}"
_ATTRIBUTES_PATH = "/v1/admin/attributes"
_ChangeNumber = Annotated[int, msgspec.Meta(ge=1, le=2**63 - 1)]
_CATEGORY_ANSWER = {200: ("the category", Category)}
_ATTRIBUTE_ANSWER = {200: ("the attribute", Attribute)}
_staff = partial(Operation, tag="staff: catalog", access="catalog")

OPERATIONS = [
    Operation(
        method="GET",
        path="/v1/categories",
        handler=list_categories,
        summary="List categories",
        tag="catalog",
        access="anyone",
        answers={200: ("a page of categories", Page[PublicCategory]), 304: ("unchanged since the client's ETag", None)},
        problems=(404, 503),
        parameters=(_PARENT, cursor_parameter(ChildCursor), LIMIT, _LANGUAGES, IF_NONE_MATCH),
    ),
    Operation(
        method="GET",
        path="/v1/categories/{category_id}",
        handler=get_category,
        summary="Read a category",
        tag="catalog",
        access="anyone",
        answers={200: ("the category", PublicCategoryDetails), 304: ("unchanged since the client's ETag", None)},
        problems=(404, 503),
        parameters=(_CATEGORY, _LANGUAGES, IF_NONE_MATCH),
    ),
]


def _change(action: str, handler: Handler, summary: str, body: Any) -> Operation:
    return _staff(
        method="POST",
        is_one_transaction=True,
        path=f"{_CATEGORY_PATH}/{action}",
        handler=handler,
        summary=summary,
        answers=_CATEGORY_ANSWER,
        problems=(404, 409, 503),
        parameters=(_CATEGORY,),
        body=body,
    )


ADMIN = [
    _staff(
        method="GET",
        path=_CATEGORY_PATH,
        handler=show_category,
        summary="Read a category with its rules",
        answers=_CATEGORY_ANSWER,
        problems=(404, 503),
        parameters=(_CATEGORY,),
    ),
    _staff(
        method="PUT",
        path=_CATEGORY_PATH,
        handler=put_category,
        summary="Put a category",
        answers=_CATEGORY_ANSWER,
        problems=(404, 409, 503),
        parameters=(_CATEGORY,),
        body=CategoryInput,
    ),
    _change("move", move_category, "Move a category", CategoryMove),
    _change("merge", merge_category, "Merge a category", CategoryMerge),
    _change("retire", retire_category, "Retire a category", CategoryAction),
    _change("restore", restore_category, "Restore a category", CategoryAction),
    _staff(
        method="GET",
        path="/v1/admin/category-changes",
        handler=list_category_changes,
        summary="List changes of categories",
        answers={200: ("a page of changes", Page[CategoryChange])},
        problems=(503,),
        parameters=(
            Parameter(name="category_id", location="query", type=CategoryId, description="only those of a category"),
            Parameter(
                name="attribute_id", location="query", type=AttributeId, description="only those of an attribute"
            ),
            cursor_parameter(_ChangeNumber),
            LIMIT,
        ),
    ),
    _staff(
        method="GET",
        path=_ATTRIBUTES_PATH,
        handler=list_attributes,
        summary="List attributes",
        answers={200: ("a page of attributes", Page[AttributeSummary])},
        problems=(503,),
        parameters=(cursor_parameter(AttributeId), LIMIT),
    ),
    _staff(
        method="GET",
        path=f"{_ATTRIBUTES_PATH}/{{attribute_id}}",
        handler=show_attribute,
        summary="Read an attribute",
        answers=_ATTRIBUTE_ANSWER,
        problems=(404, 503),
        parameters=(_ATTRIBUTE,),
    ),
    _staff(
        method="PUT",
        path=f"{_ATTRIBUTES_PATH}/{{attribute_id}}",
        handler=put_attribute,
        summary="Put an attribute",
        answers=_ATTRIBUTE_ANSWER,
        problems=(404, 409, 503),
        parameters=(_ATTRIBUTE,),
        body=AttributeInput,
    ),
]
