"""Content with an ETag, which a client that has it already need not receive again (RFC 9110, 13.1.2)."""

from __future__ import annotations

import hashlib
from typing import Any, NamedTuple

import msgspec
from aiohttp import web

_encode = msgspec.json.Encoder().encode


class Content(NamedTuple):
    """The body of an answer, its ETag and its Cache-Control."""

    body: bytes
    tag: str
    cache_control: str
    read_at: float | None = None
    """monotonic time at which its oldest part was read; None if it follows the snapshots of the sales"""


def encode_content(
    value: Any, cache_control: str, *, read_at: float | None = None, same_content: Any = None
) -> Content:
    """Encode a value as content.

    With `same_content` the ETag is a weak one: bodies that differ only elsewhere have the same.
    """
    body = _encode(value)
    is_weak = same_content is not None
    digest = hashlib.blake2b(_encode(same_content) if is_weak else body, digest_size=12).hexdigest()
    return Content(body, f'{"W/" if is_weak else ""}"{digest}"', cache_control, read_at)


def has_content(client_tags: str | None, tag: str) -> bool:
    """Tell whether the client's If-None-Match names this content. Weak and strong ETags compare alike."""
    if not client_tags:
        return False
    opaque = tag.removeprefix("W/")
    return client_tags == "*" or opaque in (part.strip().removeprefix("W/") for part in client_tags.split(","))


def content_response(client_tags: str | None, content: Content) -> web.Response:
    """Build the answer with this content, or 304 if the client has it."""
    headers = {"ETag": content.tag, "Cache-Control": content.cache_control}
    if has_content(client_tags, content.tag):
        return web.Response(status=304, headers=headers)
    return web.Response(body=content.body, content_type="application/json", headers=headers)
