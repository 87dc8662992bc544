"""OpenAPI 3.1 document and its page, built from the operations and the types that decode requests."""

from __future__ import annotations

import html
import inspect
from collections.abc import Iterable, Sequence
from http import HTTPStatus
from typing import Any

import msgspec

from config.settings import LimitSettings
from gateway.operations import Operation, Parameter
from gateway.problems import CONTENT_TYPE, Problem, problem_codes

_REF = "#/components/schemas/{name}"
_ALWAYS_STATUSES = (400, 500)
_BODY_STATUSES = (408, 413, 415, 422)
_RETRY_AFTER_STATUSES = (429, 503)


def build_document(operations: Sequence[Operation], limits: LimitSettings, version: str) -> dict[str, Any]:
    """Build the OpenAPI document of these operations, with the limits in force."""
    types = list(_list_types(operations))
    schemas, components = msgspec.json.schema_components(types, ref_template=_REF)
    for component in components.values():
        if text := component.get("description"):
            component["description"] = inspect.cleandoc(text)  # msgspec keeps a docstring's indentation
    schemas_by_type = dict(zip(map(_type_key, types), schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _describe_operation(operation, schemas_by_type)
    document = {
        "openapi": "3.1.0",
        "info": {
            "title": "Floodgate",
            "version": version,
            "description": "Orders for flash sales. Money is in minor units, times are RFC 3339 in UTC.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": name} for name in sorted({operation.tag for operation in operations})],
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {
                "customer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
                "staff": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
            },
        },
    }
    _set_limits(components, limits)
    return _translate_patterns(document)  # type: ignore[no-any-return]


def _list_types(operations: Iterable[Operation]) -> Iterable[Any]:
    types = {}
    for operation in operations:
        used = [parameter.type for parameter in operation.parameters]
        used += [type_ for _, type_ in operation.answers.values() if type_ is not None]
        if operation.body is not None:
            used.append(operation.body)
        for type_ in used:
            types[_type_key(type_)] = type_
    types[_type_key(Problem)] = Problem
    return types.values()


def _type_key(type_: Any) -> str:
    return repr(type_)


def _describe_operation(operation: Operation, schemas: dict[str, Any]) -> dict[str, Any]:
    description: dict[str, Any] = {
        "operationId": operation.id,
        "summary": operation.summary,
        "description": inspect.getdoc(operation.handler) or operation.summary,
        "tags": [operation.tag],
        "security": _describe_security(operation),
        "responses": _describe_responses(operation, schemas),
    }
    if operation.parameters:
        description["parameters"] = [_describe_parameter(parameter, schemas) for parameter in operation.parameters]
    if operation.body is not None:
        content = {"application/json": {"schema": schemas[_type_key(operation.body)]}}
        description["requestBody"] = {"required": not operation.is_body_optional, "content": content}
    elif operation.has_upload:
        content = {operation.upload_type: {"schema": {"type": "string", "format": "binary"}}}
        description["requestBody"] = {"required": True, "content": content}
    elif operation.has_raw_body:
        description["requestBody"] = {"required": True, "content": {"*/*": {"schema": {"type": "string"}}}}
    return description


def _describe_security(operation: Operation) -> list[dict[str, list[str]]]:
    if operation.access == "anyone":
        return []
    return [{"customer" if operation.access == "customer" else "staff": []}]


def _describe_parameter(parameter: Parameter, schemas: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": parameter.name,
        "in": parameter.location,
        "required": parameter.required or parameter.location == "path",
        "description": parameter.description,
        "schema": schemas[_type_key(parameter.type)],
    }


def _describe_content(content_type: str) -> dict[str, Any]:
    """Describe a body that is not JSON.

    A stream has no schema: OpenAPI 3.1 knows none for a sequence of events."""
    if content_type == "text/event-stream":
        return {}
    # `format` makes generated clients keep the bytes of a document that is no text.
    binary = {} if content_type.startswith("text/") else {"format": "binary"}
    return {"schema": {"type": "string", **binary}}


def _describe_responses(operation: Operation, schemas: dict[str, Any]) -> dict[str, Any]:
    request_id = {"description": "identifies the request in the log", "schema": {"type": "string"}}
    responses: dict[str, Any] = {}
    for status, (description, type_) in operation.answers.items():
        responses[str(status)] = {"description": description, "headers": {"X-Request-Id": request_id}}
        if type_ is not None:
            responses[str(status)]["content"] = {operation.content_type: {"schema": schemas[_type_key(type_)]}}
            if operation.links:
                responses[str(status)]["links"] = {name: _link_to_operation(name) for name in operation.links}
        elif operation.content_type != "application/json":
            responses[str(status)]["content"] = {operation.content_type: _describe_content(operation.content_type)}
    for status in sorted(_problem_statuses(operation)):
        headers: dict[str, Any] = {"X-Request-Id": request_id}
        if status in _RETRY_AFTER_STATUSES:
            headers["Retry-After"] = {"description": "seconds", "schema": {"type": "integer"}}
        if status == HTTPStatus.TOO_MANY_REQUESTS and operation.admit:
            for name, content in (("RateLimit-Policy", "tokens and window of the limit"), ("RateLimit", "tokens left")):
                headers[name] = {"description": content, "schema": {"type": "string"}}
        responses[str(status)] = {
            "description": HTTPStatus(status).phrase,
            "headers": headers,
            "content": {CONTENT_TYPE: {"schema": schemas[_type_key(Problem)]}},
        }
    return responses


def _link_to_operation(operation_id: str) -> dict[str, Any]:
    return {"operationId": operation_id, "parameters": {"order_id": "$response.body#/order_id"}}


def _problem_statuses(operation: Operation) -> set[int]:
    statuses = {*_ALWAYS_STATUSES, *operation.problems}
    if operation.body is not None or operation.has_raw_body:
        statuses |= {*_BODY_STATUSES}
    if operation.parameters:
        statuses |= {422}
    if operation.access != "anyone":
        statuses |= {401}
        if operation.access != "customer":
            statuses |= {403}
    return statuses - set(operation.answers)


def _set_limits(components: dict[str, Any], limits: LimitSettings) -> None:
    """Write the limits that settings can change into the schemas."""
    if "PlaceOrder" in components:
        properties = components["PlaceOrder"]["properties"]
        properties["lines"]["maxItems"] = limits.lines_per_order
        properties["ship_to"]["maxItems"] = limits.addresses_per_order
        properties["payments"]["maxItems"] = limits.payments_per_order
        properties["coupons"]["maxItems"] = limits.coupons_per_order
        if "QuoteInput" in components:
            components["QuoteInput"]["properties"] |= {
                name: properties[name] for name in ("lines", "payments", "coupons")
            } | {
                "ship_to": {**components["QuoteInput"]["properties"]["ship_to"], "maxItems": limits.addresses_per_order}
            }
        components["OrderLineInput"]["properties"]["quantity"]["maximum"] = limits.quantity_per_line


def _translate_patterns(part: Any) -> Any:
    r"""Replace the end `\Z` of patterns by `$`.

    Python's `$` also matches before a last newline, so our patterns end in `\Z`; JSON Schema's `$` does not.
    """
    if isinstance(part, dict):
        return {
            key: _translate_end(value) if key == "pattern" else _translate_patterns(value)
            for key, value in part.items()
        }
    if isinstance(part, list):
        return [_translate_patterns(item) for item in part]
    return part


def _translate_end(pattern: Any) -> Any:
    return pattern.removesuffix(r"\Z") + "$" if isinstance(pattern, str) and pattern.endswith(r"\Z") else pattern


def render_page(document: dict[str, Any]) -> str:
    """Render the document as a page without scripts; it loads nothing from elsewhere."""
    parts = [_HEAD]
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            parts.append(_render_section(path, method, operation))
    parts.append("<h2>Types</h2>")
    for name, schema in sorted(document["components"]["schemas"].items()):
        parts.append(f'<h3 id="{html.escape(name)}">{html.escape(name)}</h3>{_render_schema(schema)}')
    parts.append(_render_problems())
    parts.append("</main></body></html>")
    return "\n".join(parts)


def _render_section(path: str, method: str, operation: dict[str, Any]) -> str:
    access = next((name for part in operation["security"] for name in part), "anyone")
    rows = "".join(
        f"<tr><td><code>{html.escape(parameter['name'])}</code></td>"
        f"<td>{parameter['in']}{', required' * parameter['required']}</td>"
        f"<td>{html.escape(parameter['description'])}</td></tr>"
        for parameter in operation.get("parameters", [])
    )
    body = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema")
    answers = "".join(
        f"<tr><td>{status}</td><td>{html.escape(answer['description'])}</td>"
        f"<td>{_render_link(_content_schema(answer))}</td></tr>"
        for status, answer in operation["responses"].items()
    )
    return (
        f'<section><h2 id="{operation["operationId"]}"><b>{method.upper()}</b> <code>{html.escape(path)}</code></h2>'
        f"<p>{html.escape(operation['description'])}</p><p>Access: {access}</p>"
        + (f"<table>{rows}</table>" if rows else "")
        + (f"<p>Body: {_render_link(body)}</p>" if body else "")
        + f"<table>{answers}</table></section>"
    )


def _content_schema(answer: dict[str, Any]) -> Any:
    return next((content.get("schema") for content in answer.get("content", {}).values()), None)


def _render_link(schema: Any) -> str:
    if not schema or "$ref" not in schema:
        return ""
    name = html.escape(schema["$ref"].rpartition("/")[2])
    return f'<a href="#{name}">{name}</a>'


def _render_schema(schema: dict[str, Any]) -> str:
    text = msgspec.json.format(msgspec.json.encode(schema), indent=2).decode()
    return f"<pre>{html.escape(text)}</pre>"


def _render_problems() -> str:
    rows = "".join(
        f'<tr id="problem-{code}"><td><code>{code}</code></td><td>{status}</td><td>{html.escape(title)}</td></tr>'
        for code, (status, title) in sorted(problem_codes().items())
    )
    return f"<h2>Problem codes</h2><table>{rows}</table>"


_HEAD = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Floodgate API</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
body { font: 16px/1.5 system-ui, sans-serif; margin: 0; color: #1c2733; background: #fbfbf9 }
main { max-width: 60rem; margin: 0 auto; padding: 1rem 1.5rem 4rem }
h1 { font-size: 1.6rem } h2 { font-size: 1.1rem; margin-top: 2.2rem; border-top: 1px solid #d8d8d0; padding-top: 1rem }
h2 b { color: #0b6b50; font-size: .9rem } table { border-collapse: collapse; margin: .5rem 0 }
td { padding: .15rem .9rem .15rem 0; vertical-align: top } pre { background: #f0f0ea; padding: .7rem; overflow: auto }
code, pre { font: 14px/1.45 ui-monospace, monospace } a { color: #0b5c8a }
</style></head><body><main><h1>Floodgate API</h1>
<p>Machine-readable: <a href="/openapi.json">/openapi.json</a>. Money is in minor units, times are RFC 3339 in UTC.
Errors are <code>application/problem+json</code> with a stable <code>code</code>.</p>"""
