"""Parameters that several endpoints declare."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

import msgspec

from commerce.catalog.model import Sku
from commerce.sales.model import SaleId
from commerce.waiting_rooms.tickets import MAX_TICKET_CHARS
from gateway.operations import ROOM_TICKET_HEADER, Call, Parameter
from gateway.proof_of_work import MAX_PROOF_CHARS

LIMIT = Parameter(
    name="limit",
    location="query",
    type=Annotated[int, msgspec.Meta(ge=1, le=1000)],
    description="maximum number of items per page",
)
ROOM_TICKET = Parameter(
    name=ROOM_TICKET_HEADER,
    location="header",
    type=Annotated[str, msgspec.Meta(max_length=MAX_TICKET_CHARS)],
    description="the customer's ticket of the sale's waiting room, if it has one",
)
PROOF_OF_WORK = Parameter(
    name="Proof-Of-Work",
    location="header",
    type=Annotated[str, msgspec.Meta(max_length=MAX_PROOF_CHARS)],
    description="the solution of the challenge of a `proof_required`, in the form of ALTCHA: base64 of JSON",
)
SKU = Parameter(name="sku", location="path", type=Sku, description="the product's SKU")
SALE = Parameter(name="sale_id", location="path", type=SaleId, description="the sale's id")
ORDER = Parameter(name="order_id", location="path", type=UUID, description="the order's id")
IF_NONE_MATCH = Parameter(
    name="If-None-Match", location="header", type=str, description="the ETag of the client's stored answer"
)

ACCEPT_LANGUAGE = Parameter(
    name="Accept-Language",
    location="header",
    type=str,
    description="languages of the reader, the best first; without one that is there: English, else any",
)


def cursor_parameter(type_: Any) -> Parameter:
    """Declare the cursor of a list whose pages are continued after a key of `type_`."""
    return Parameter(name="cursor", location="query", type=type_, description="`next` of the previous page")


def page_size(call: Call) -> int:
    """Return the requested page size, at most `limits.page_items`."""
    max_items = call.services.settings.limits.page_items
    return min(call.parameters["limit"] or max_items, max_items)
