"""The origin of a request: address, device, and the form of the request."""

from __future__ import annotations

from typing import NamedTuple

from aiohttp import web

from gateway.client_addresses import ClientAddresses
from gateway.rate_limits import DEVICE_HEADER, Bucket
from gateway.request_head import HeaderLayout, Values, compute_form


class RequestOrigin(NamedTuple):
    """The address under which a client is counted, the device's id, and the form of the request."""

    address: str | None
    device: str | None
    form: int


def origin_of_head(address: Bucket | None, layout: HeaderLayout, values: Values) -> RequestOrigin:
    """Return the origin of a request from its head; `address` is the bucket of its client."""
    device = values[layout.device_id]
    return RequestOrigin(
        None if address is None else address.name, None if device is None else device.decode("latin-1"), layout.form
    )


def origin_of_request(request: web.Request, client_addresses: ClientAddresses) -> RequestOrigin:
    """Return the origin of a request at aiohttp: the same as that of its head."""
    form = compute_form(name for name, _ in request.raw_headers)
    return RequestOrigin(client_addresses.find(request).address, request.headers.get(DEVICE_HEADER), form)
