"""Operations: each is declared once, with path, access, parameters, body and answers.

The server's routes and the OpenAPI document both come from the declaration, so they cannot differ.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from datetime import date
from hashlib import sha256
from time import perf_counter
from typing import Any, Literal

import msgspec
from aiohttp import web

from commerce.kernel.connection_shares import use_share
from commerce.kernel.errors import Invalid
from commerce.kernel.moments import check_years
from commerce.rights.model import SUPPORT_ROLES
from commerce.rights.service import Decider, use_decider
from commerce.staff_requests.model import StaffAnswer
from gateway.auth import Identity, Role
from gateway.decoding import IDEMPOTENCY_KEY_INVALID, IdempotencyKey, decode_json
from gateway.problems import BadRequest, BodyTooLarge, RequestTimeout, WrongMediaType
from gateway.rate_limits import DEVICE_HEADER
from gateway.services import GatewayServices, services_of

Access = Literal["anyone", "customer"] | Role
Share = Literal["customers", "staff", "webhooks", "search"]
_NOBODY = Identity("", frozenset(), 0)
ROOM_TICKET_HEADER = "Room-Ticket"
_KEY_HEADER = "Idempotency-Key"
PDF = "application/pdf"


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """A path, query or header parameter, decoded to `type`; None if it is optional and left out."""

    name: str
    location: Literal["path", "query", "header"]
    type: Any
    description: str
    required: bool = False
    is_repeated: bool = False
    """The query parameter may be sent several times; `type` is a list, empty if it is left out."""
    invalid_message: str = ""
    """The error text for a value that is not of the type; when empty, msgspec's own text."""


@dataclass(slots=True)
class Call:
    """One request to an operation: the caller, its decoded parameters by name, and its decoded body."""

    request: web.Request
    services: GatewayServices
    identity: Identity
    parameters: dict[str, Any]
    body: Any

    @property
    def staff_actor(self) -> str:
        """The staff member of the token, in the form in which changes record their actor."""
        return f"staff {self.identity.subject}"


Handler = Callable[[Call], Awaitable[web.StreamResponse]]
_STAFF_KEY = Parameter(
    name=_KEY_HEADER,
    location="header",
    type=IdempotencyKey | None,
    description="up to 128 printable characters, new for each request; a repeat with it gets the same answer",
    invalid_message=IDEMPOTENCY_KEY_INVALID,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """An operation of the API.

    `answers` maps a status to its description and the type of its body, None for a body without a schema.
    """

    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE"]
    path: str
    handler: Handler
    summary: str
    tag: str
    access: Access
    also_for: tuple[Role, ...] = ()
    """Other roles of staff that may call it."""
    answers: Mapping[int, tuple[str, Any]]
    problems: tuple[int, ...] = ()
    parameters: tuple[Parameter, ...] = ()
    body: Any = None
    is_body_optional: bool = False
    """Take a request without a body; the handler gets None."""
    content_type: str = "application/json"
    admit: bool = False
    """Check overload and the user's rate before the body is read."""
    has_raw_body: bool = False
    """Pass the body on as received, of whatever media type."""
    has_upload: bool = False
    """The handler reads the body itself, with `uploads.read_upload`."""
    upload_type: str = "image/*"
    """Media type of the upload in the OpenAPI document."""
    share: Share | None = None
    """Share of database connections, if not that of the caller: staff or customers."""
    is_one_transaction: bool = False
    """The handler changes only Postgres: its changes and the answer to its key are stored together.

    A staff operation of another kind must change nothing more when it is repeated."""
    has_secrets: bool = False
    """The body has what must be kept nowhere, not even as a digest: no key of staff is taken."""
    links: tuple[str, ...] = ()
    """Operations that take this one's `order_id`."""
    decoder: msgspec.json.Decoder[Any] | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        if self.body is not None:
            object.__setattr__(self, "decoder", msgspec.json.Decoder(self.body))
        if self.takes_staff_key:
            object.__setattr__(self, "parameters", (*self.parameters, _STAFF_KEY))

    @property
    def takes_staff_key(self) -> bool:
        """True for changes by staff, except uploads and those that take a key of their own kind."""
        own_key = any(parameter.name == _KEY_HEADER and parameter is not _STAFF_KEY for parameter in self.parameters)
        is_change_by_staff = self.method == "POST" and self.access not in ("anyone", "customer")
        return is_change_by_staff and not own_key and not self.has_secrets and not self.has_upload

    @property
    def id(self) -> str:
        """The operationId: the handler's name."""
        return self.handler.__name__

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        services = services_of(request)
        if self.admit:
            sent = request.headers
            services.shedder.check(
                perf_counter(), sent.get("Authorization"), sent.get(_KEY_HEADER), sent.get(ROOM_TICKET_HEADER)
            )
        identity = self._identify(request, services)
        if self.admit:
            device_id = request.headers.get(DEVICE_HEADER)
            device = None if device_id is None else device_id.encode(errors="surrogateescape")
            services.admission.rate_limits.check(
                identity.subject, services.client_addresses.find(request).bucket, device
            )
        parameters = {parameter.name: _decode(parameter, request) for parameter in self.parameters}
        body: Any = None
        if self.decoder is not None and (request.can_read_body or not self.is_body_optional):
            body = decode_json(self.decoder, await read_body(request, services))
        elif self.has_raw_body:
            body = await read_raw(request, services)
        call = Call(request, services, identity, parameters, body)
        caller: Share = "customers" if self.access in ("anyone", "customer") else "staff"
        with use_share(self.share or caller), self._judge(call):
            if self.takes_staff_key and parameters[_KEY_HEADER] is not None:
                return await self._answer_with_key(call, parameters[_KEY_HEADER])
            return await self.handler(call)

    async def _answer_with_key(self, call: Call, key: str) -> web.Response:
        """Handle a request of staff once, and answer its repeats as the first time."""
        request, requests = call.request, call.services.staff_requests
        content = msgspec.json.encode(msgspec.to_builtins(call.body, str_keys=True), order="sorted")
        digest = sha256(f"{request.method} {request.raw_path}\n".encode() + content).digest()

        async def handle() -> StaffAnswer:
            response = await self.handler(call)
            assert isinstance(response, web.Response)
            assert response.body is None or isinstance(response.body, bytes)
            location = response.headers.get("Location")
            return StaffAnswer(response.status, response.content_type, location, response.body or b"")

        answer_request = requests.answer_once if self.is_one_transaction else requests.answer_same
        status, content_type, location, body = await answer_request(call.staff_actor, key, digest, handle)
        if not body:
            return web.Response(status=status)
        headers = {"Location": location} if location else None
        return web.Response(status=status, body=body, content_type=content_type, headers=headers)

    def _judge(self, call: Call) -> AbstractContextManager[None]:
        """Judge what support decides in this request by the rights of the person."""
        if self.access not in SUPPORT_ROLES:
            return nullcontext()
        services = call.services
        policy, certificates = services.settings.support, services.certificates
        return use_decider(Decider(call.staff_actor, call.identity.roles, policy, certificates))

    def _identify(self, request: web.Request, services: GatewayServices) -> Identity:
        if self.access == "anyone":
            return _NOBODY
        authorization = request.headers.get("Authorization")
        if self.access == "customer":
            return services.auth.identify_customer(authorization)
        return services.auth.identify_staff(authorization, self.access, *self.also_for)


async def read_body(request: web.Request, services: GatewayServices) -> bytes:
    """Read the whole body of a JSON request.

    Raises `WrongMediaType` if it is not JSON, else as `read_raw` does.
    """
    if request.content_type != "application/json":
        raise WrongMediaType("send the body as application/json")
    return await read_raw(request, services)


async def read_raw(request: web.Request, services: GatewayServices) -> bytes:
    """Read the whole body within the limits of size and time.

    Raises `WrongMediaType` if it is compressed, `BodyTooLarge`, `RequestTimeout`, or `BadRequest` if the connection
    ends before the body does.
    """
    limits = services.settings.limits
    if "Content-Encoding" in request.headers:
        raise WrongMediaType("send the body without a Content-Encoding")
    if (request.content_length or 0) > limits.body_bytes:
        raise BodyTooLarge(f"the body is larger than {limits.body_bytes} bytes")
    try:
        if request.content.is_eof():
            return await request.read()
        async with asyncio.timeout(limits.request_body_timeout_s):
            return await request.read()
    except ConnectionError:
        raise BadRequest("the connection ended before the body did") from None
    except web.HTTPRequestEntityTooLarge:
        raise BodyTooLarge(f"the body is larger than {limits.body_bytes} bytes") from None
    except TimeoutError:
        raise RequestTimeout(f"the body did not arrive within {limits.request_body_timeout_s:g} s") from None


def _decode(parameter: Parameter, request: web.Request) -> Any:
    """Decode a parameter of a request; None if it is optional and left out.

    Raises `BadRequest` if it is repeated or missing, and `Invalid` if it is not of its type.
    """
    match parameter.location:
        case "path":
            raw: str | None = request.match_info[parameter.name]
        case "query":
            values = request.query.getall(parameter.name, [])
            if parameter.is_repeated:
                return _convert(parameter, values)
            if len(values) > 1:
                raise BadRequest(f"the parameter {parameter.name} is repeated; send it once")
            raw = values[0] if values else None
        case "header":
            values = request.headers.getall(parameter.name, [])
            if len(values) > 1:
                raise BadRequest(f"the header {parameter.name} is repeated; send it once")
            raw = values[0] if values else None
    if raw is None:
        if parameter.required:
            raise BadRequest(f"the {parameter.location} parameter {parameter.name} is missing: {parameter.description}")
        return None
    return _convert(parameter, raw)


def _convert(parameter: Parameter, raw: str | list[str]) -> Any:
    try:
        value = msgspec.convert(raw, parameter.type, strict=False)
        if isinstance(value, date):
            check_years(value)
        return value
    except ValueError as error:
        detail = parameter.invalid_message or str(error)
        raise Invalid(f"{parameter.name}: {detail}", errors=[{"pointer": parameter.name, "detail": detail}]) from None


def json_response(body: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """Build a JSON answer from any type that msgspec encodes."""
    return web.Response(body=msgspec.json.encode(body), status=status, content_type="application/json", headers=headers)


def pdf_response(content: bytes) -> web.Response:
    """Build the answer of a document. Nobody may store it, because it has an address."""
    return web.Response(body=content, content_type=PDF, headers={"Cache-Control": "no-store"})
