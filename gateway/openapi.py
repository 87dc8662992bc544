"""OpenAPI 3.1 and a page to read, both made from the operations and the types that decode the requests."""

from __future__ import annotations

import html
import inspect
from collections.abc import Iterable, Sequence
from http import HTTPStatus
from typing import Any

import msgspec

from config.settings import LimitSettings
from gateway.operations import Operation, Parameter
from gateway.problems import CONTENT_TYPE, Problem, codes

_REF = "#/components/schemas/{name}"
_ALWAYS = (400, 500)
_WITH_BODY = (408, 413, 415, 422)
_RETRY_AFTER = (429, 503)


def document(operations: Sequence[Operation], limits: LimitSettings, version: str) -> dict[str, Any]:
    """The OpenAPI document of these operations."""
    types = list(_types(operations))
    schemas, components = msgspec.json.schema_components(types, ref_template=_REF)
    by_type = dict(zip(map(_hashable, types), schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(operation, by_type)
    made = {
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
    _put_limits(components, limits)
    return _strict_ends(made)  # type: ignore[no-any-return]


def _types(operations: Iterable[Operation]) -> Iterable[Any]:
    seen = {}
    for operation in operations:
        wanted = [parameter.type for parameter in operation.parameters]
        wanted += [type_ for _, type_ in operation.answers.values() if type_ is not None]
        if operation.body is not None:
            wanted.append(operation.body)
        for type_ in wanted:
            seen[_hashable(type_)] = type_
    seen[_hashable(Problem)] = Problem
    return seen.values()


def _hashable(type_: Any) -> str:
    return repr(type_)


def _operation(operation: Operation, schemas: dict[str, Any]) -> dict[str, Any]:
    made: dict[str, Any] = {
        "operationId": operation.id,
        "summary": operation.summary,
        "description": inspect.getdoc(operation.handler) or operation.summary,
        "tags": [operation.tag],
        "security": _security(operation),
        "responses": _responses(operation, schemas),
    }
    if operation.parameters:
        made["parameters"] = [_parameter(parameter, schemas) for parameter in operation.parameters]
    if operation.body is not None:
        content = {"application/json": {"schema": schemas[_hashable(operation.body)]}}
        made["requestBody"] = {"required": True, "content": content}
    elif operation.has_raw_body:
        made["requestBody"] = {"required": True, "content": {"*/*": {"schema": {"type": "string"}}}}
    return made


def _security(operation: Operation) -> list[dict[str, list[str]]]:
    if operation.access == "anyone":
        return []
    return [{"customer" if operation.access == "customer" else "staff": []}]


def _parameter(parameter: Parameter, schemas: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": parameter.name,
        "in": parameter.location,
        "required": parameter.required or parameter.location == "path",
        "description": parameter.description,
        "schema": schemas[_hashable(parameter.type)],
    }


def _responses(operation: Operation, schemas: dict[str, Any]) -> dict[str, Any]:
    request_id = {"description": "names the request in the log", "schema": {"type": "string"}}
    made: dict[str, Any] = {}
    for status, (description, type_) in operation.answers.items():
        made[str(status)] = {"description": description, "headers": {"X-Request-Id": request_id}}
        if type_ is not None:
            made[str(status)]["content"] = {operation.content_type: {"schema": schemas[_hashable(type_)]}}
            if operation.links:
                made[str(status)]["links"] = {name: _link_to(name) for name in operation.links}
        elif operation.content_type != "application/json":
            made[str(status)]["content"] = {operation.content_type: {"schema": {"type": "string"}}}
    for status in sorted(_problem_statuses(operation)):
        headers: dict[str, Any] = {"X-Request-Id": request_id}
        if status in _RETRY_AFTER:
            headers["Retry-After"] = {"description": "seconds", "schema": {"type": "integer"}}
        made[str(status)] = {
            "description": HTTPStatus(status).phrase,
            "headers": headers,
            "content": {CONTENT_TYPE: {"schema": schemas[_hashable(Problem)]}},
        }
    return made


def _link_to(operation_id: str) -> dict[str, Any]:
    return {"operationId": operation_id, "parameters": {"order_id": "$response.body#/order_id"}}


def _problem_statuses(operation: Operation) -> set[int]:
    statuses = {*_ALWAYS, *operation.problems}
    if operation.body is not None or operation.has_raw_body:
        statuses |= {*_WITH_BODY}
    if operation.parameters:
        statuses |= {422}
    if operation.access != "anyone":
        statuses |= {401}
        if operation.access != "customer":
            statuses |= {403}
    return statuses - set(operation.answers)


def _put_limits(components: dict[str, Any], limits: LimitSettings) -> None:
    """The limits that settings can change stand in the document as they are in force."""
    if "PlaceOrder" in components:
        properties = components["PlaceOrder"]["properties"]
        properties["lines"]["maxItems"] = limits.lines_per_order
        properties["ship_to"]["maxItems"] = limits.addresses_per_order
        properties["payments"]["maxItems"] = limits.payments_per_order
        components["OrderLineInput"]["properties"]["quantity"]["maximum"] = limits.quantity_per_line


def _strict_ends(part: Any) -> Any:
    r"""Python's `$` also matches before a last newline, so our patterns end in `\Z`; JSON Schema's `$` does not."""
    if isinstance(part, dict):
        return {key: _end(value) if key == "pattern" else _strict_ends(value) for key, value in part.items()}
    if isinstance(part, list):
        return [_strict_ends(item) for item in part]
    return part


def _end(pattern: Any) -> Any:
    return pattern.removesuffix(r"\Z") + "$" if isinstance(pattern, str) and pattern.endswith(r"\Z") else pattern


def page(made: dict[str, Any]) -> str:
    """The document as a page: no scripts, nothing loaded from elsewhere."""
    parts = [_HEAD]
    for path, methods in made["paths"].items():
        for method, operation in methods.items():
            parts.append(_section(path, method, operation))
    parts.append("<h2>Types</h2>")
    for name, schema in sorted(made["components"]["schemas"].items()):
        parts.append(f'<h3 id="{html.escape(name)}">{html.escape(name)}</h3>{_schema_text(schema)}')
    parts.append(_problems())
    parts.append("</main></body></html>")
    return "\n".join(parts)


def _section(path: str, method: str, operation: dict[str, Any]) -> str:
    access = next((name for part in operation["security"] for name in part), "anyone")
    rows = "".join(
        f"<tr><td><code>{html.escape(item['name'])}</code></td><td>{item['in']}{', required' * item['required']}</td>"
        f"<td>{html.escape(item['description'])}</td></tr>"
        for item in operation.get("parameters", [])
    )
    body = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema")
    answers = "".join(
        f"<tr><td>{status}</td><td>{html.escape(answer['description'])}</td><td>{_link(_content_schema(answer))}</td></tr>"
        for status, answer in operation["responses"].items()
    )
    return (
        f'<section><h2 id="{operation["operationId"]}"><b>{method.upper()}</b> <code>{html.escape(path)}</code></h2>'
        f"<p>{html.escape(operation['description'])}</p><p>Who: {access}</p>"
        + (f"<table>{rows}</table>" if rows else "")
        + (f"<p>Body: {_link(body)}</p>" if body else "")
        + f"<table>{answers}</table></section>"
    )


def _content_schema(answer: dict[str, Any]) -> Any:
    return next((content["schema"] for content in answer.get("content", {}).values()), None)


def _link(schema: Any) -> str:
    if not schema or "$ref" not in schema:
        return ""
    name = html.escape(schema["$ref"].rpartition("/")[2])
    return f'<a href="#{name}">{name}</a>'


def _schema_text(schema: dict[str, Any]) -> str:
    text = msgspec.json.format(msgspec.json.encode(schema), indent=2).decode()
    return f"<pre>{html.escape(text)}</pre>"


def _problems() -> str:
    rows = "".join(
        f'<tr id="problem-{code}"><td><code>{code}</code></td><td>{status}</td><td>{html.escape(title)}</td></tr>'
        for code, (status, title) in sorted(codes().items())
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
