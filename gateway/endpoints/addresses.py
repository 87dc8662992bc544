"""The address book: list, save, read, replace and delete addresses, and choose the default."""

from __future__ import annotations

from functools import partial
from uuid import UUID

from aiohttp import web

from commerce.addresses.model import SavedAddress
from commerce.kernel.address import Address
from commerce.kernel.paging import Page
from gateway.operations import Call, Operation, Parameter, json_response

_PATH = "/v1/addresses"
_ADDRESS_PATH = f"{_PATH}/{{address_id}}"
_NO_STORE = {"Cache-Control": "no-store"}
_ADDRESS_ID = Parameter(name="address_id", location="path", type=UUID, description="the address's id")


async def list_addresses(call: Call) -> web.Response:
    """List all your saved addresses: the default first, then the newest."""
    addresses = await call.services.shopping.addresses.list_addresses(call.identity.subject)
    return json_response(Page(addresses, None), headers=_NO_STORE)


async def add_address(call: Call) -> web.Response:
    """Save an address; your first one becomes the default. A repeat adds no second one."""
    saved, is_new = await call.services.shopping.addresses.add(call.identity.subject, call.body)
    return json_response(saved, 201 if is_new else 200, {"Location": f"{_PATH}/{saved.address_id}", **_NO_STORE})


async def get_address(call: Call) -> web.Response:
    """Read one of your addresses."""
    saved = await call.services.shopping.addresses.get(call.identity.subject, call.parameters["address_id"])
    return json_response(saved, headers=_NO_STORE)


async def replace_address(call: Call) -> web.Response:
    """Replace an address as a whole. It stays the default if it is; orders keep the old one."""
    saved = await call.services.shopping.addresses.replace(
        call.identity.subject, call.parameters["address_id"], call.body
    )
    return json_response(saved, headers=_NO_STORE)


async def set_default_address(call: Call) -> web.Response:
    """Make an address the default. A repeat changes nothing."""
    saved = await call.services.shopping.addresses.set_default(call.identity.subject, call.parameters["address_id"])
    return json_response(saved, headers=_NO_STORE)


async def delete_address(call: Call) -> web.Response:
    """Delete an address. A repeat changes nothing; after the default no other one takes its place."""
    await call.services.shopping.addresses.delete(call.identity.subject, call.parameters["address_id"])
    return web.Response(status=204)


_operation = partial(Operation, tag="addresses", access="customer")

OPERATIONS = [
    _operation(
        method="GET",
        path=_PATH,
        handler=list_addresses,
        summary="List your addresses",
        answers={200: ("all of them", Page[SavedAddress])},
        problems=(503,),
    ),
    _operation(
        method="POST",
        path=_PATH,
        handler=add_address,
        summary="Save an address",
        answers={201: ("saved", SavedAddress), 200: ("you have it already", SavedAddress)},
        problems=(409, 429, 503),
        body=Address,
        admit=True,
    ),
    _operation(
        method="GET",
        path=_ADDRESS_PATH,
        handler=get_address,
        summary="Read an address",
        answers={200: ("the address", SavedAddress)},
        problems=(404, 503),
        parameters=(_ADDRESS_ID,),
    ),
    _operation(
        method="PUT",
        path=_ADDRESS_PATH,
        handler=replace_address,
        summary="Replace an address",
        answers={200: ("the new content", SavedAddress)},
        problems=(404, 429, 503),
        parameters=(_ADDRESS_ID,),
        body=Address,
        admit=True,
    ),
    _operation(
        method="PUT",
        path=f"{_ADDRESS_PATH}/default",
        handler=set_default_address,
        summary="Choose the default address",
        answers={200: ("the default address", SavedAddress)},
        problems=(404, 429, 503),
        parameters=(_ADDRESS_ID,),
        admit=True,
    ),
    _operation(
        method="DELETE",
        path=_ADDRESS_PATH,
        handler=delete_address,
        summary="Delete an address",
        answers={204: ("you do not have it any more", None)},
        problems=(429, 503),
        parameters=(_ADDRESS_ID,),
        admit=True,
    ),
]
