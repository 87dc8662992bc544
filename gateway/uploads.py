"""Uploads of pictures and files: larger than other bodies, so few at a time."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

from aiohttp import web

from commerce.kernel.errors import Overloaded
from gateway.problems import BadRequest, BodyTooLarge, RequestTimeout, WrongMediaType


class UploadSlots:
    """Counts the uploads of this process."""

    def __init__(self) -> None:
        self._taken = 0

    @contextmanager
    def take(self, max_uploads: int) -> Iterator[None]:
        """Take one of so many slots. Raises `Overloaded` if none is free."""
        if self._taken >= max_uploads:
            raise Overloaded("too many files are being sent, nothing was stored: repeat the request")
        self._taken += 1
        try:
            yield
        finally:
            self._taken -= 1


async def read_upload(request: web.Request, max_bytes: int, timeout_s: float) -> bytes:
    """Read a picture as `receive_upload` does."""
    content = io.BytesIO()
    await receive_upload(request, content, max_bytes, timeout_s, "picture")
    return content.getvalue()


async def receive_upload(request: web.Request, target: BinaryIO, max_bytes: int, timeout_s: float, noun: str) -> None:
    """Write a body to `target` within the limits of size and time. `noun` is what it is.

    `timeout_s` is for the whole body. Raises `WrongMediaType` if it is compressed, `BodyTooLarge`, `RequestTimeout`, or
    `BadRequest` if the connection ends before the body does.
    """
    size, too_large = 0, BodyTooLarge(f"the {noun} is larger than {max_bytes} bytes")
    if "Content-Encoding" in request.headers:
        raise WrongMediaType(f"send the {noun} without a Content-Encoding")
    if (request.content_length or 0) > max_bytes:
        raise too_large
    try:
        async with asyncio.timeout(timeout_s):
            async for part in request.content.iter_any():
                size += len(part)
                if size > max_bytes:
                    raise too_large
                target.write(part)
    except ConnectionError:
        raise BadRequest("the connection ended before the body did") from None
    except TimeoutError:
        raise RequestTimeout(f"the body did not arrive within {timeout_s:g} s") from None
