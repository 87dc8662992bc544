"""Joins of waiting rooms without aiohttp: everybody joins within seconds, and again after the draw.

Only the common form is taken, without a body. aiohttp answers all others, in the same way.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from time import perf_counter

from commerce.kernel.errors import ProblemError
from commerce.waiting_rooms.tickets import MAX_TICKET_CHARS
from gateway import problems
from gateway.client_addresses import Client
from gateway.fast_path_responses import encode
from gateway.proof_of_work import MAX_PROOF_CHARS
from gateway.request_head import RequestHead
from gateway.request_origin import origin_of_head
from gateway.room_entrance import JoinRequest, PlaceOrProblem
from gateway.services import GatewayServices

_ROOM = re.compile(rb"/v1/sales/([a-z0-9][a-z0-9-]{0,63})/room")
_ROUTE = "/v1/sales/{sale_id}/room"


def take_join(
    services: GatewayServices,
    target: bytes,
    head: RequestHead,
    client: Client,
    request_id: str,
    send: Callable[[bytes], None],
) -> bool:
    """Answer a join: call `send` once, now or later. Returns False if aiohttp is to answer the POST."""
    match, layout, values = _ROOM.fullmatch(target), head.layout, head.values
    ticket = (values[layout.room_ticket] or b"").decode("latin-1")
    proof = values[layout.proof_of_work]
    is_too_long = len(ticket) > MAX_TICKET_CHARS or (proof is not None and len(proof) > MAX_PROOF_CHARS)
    if match is None or is_too_long or services.stopping.is_set():
        return False
    answer = partial(_answer, services, request_id, send, perf_counter())
    try:
        services.shedder.check(perf_counter(), values[layout.authorization], None)
        identity = services.auth.identify_customer(values[layout.authorization])
        address = client.bucket or services.client_addresses.find_bucket(client, layout, values)
        services.admission.rate_limits.check(identity.subject, address, values[layout.device_id])
        request = JoinRequest(
            identity,
            ticket or None,
            None if proof is None else proof.decode("latin-1"),
            origin_of_head(address, layout, values),
        )
        services.room_entrance.submit(match[1].decode(), request, answer)
    except ProblemError as refusal:
        answer(refusal)
    return True


def _answer(
    services: GatewayServices,
    request_id: str,
    send: Callable[[bytes], None],
    started: float,
    outcome: PlaceOrProblem,
) -> None:
    now = perf_counter()
    if isinstance(outcome, ProblemError):
        response = problems.raw_problem(outcome, request_id)
        status, content_type, body = response.status, response.content_type, response.body
        headers = "".join(f"{name}: {value}\r\n" for name, value in response.headers)
    else:
        status, content_type, body, headers = 200, "application/json", encode(outcome), "Cache-Control: no-store\r\n"
    services.metrics_buffer.count_request(_ROUTE, "POST", status, now - started)
    start = services.response_heads.response_head(status, now, content_type)
    send(f"{start}{len(body)}\r\n{headers}X-Request-Id: {request_id}\r\n\r\n".encode("latin-1") + body)
