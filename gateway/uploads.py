"""Uploads of pictures: larger than other bodies, so few at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

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
            raise Overloaded("too many pictures are being uploaded, nothing was stored: repeat the request")
        self._taken += 1
        try:
            yield
        finally:
            self._taken -= 1


async def read_upload(request: web.Request, max_bytes: int, timeout_s: float) -> bytes:
    """Read a picture within the limits of size and time.

    `timeout_s` is for the whole body. Raises `WrongMediaType` if it is compressed, `BodyTooLarge`, `RequestTimeout`, or
    `BadRequest` if the connection ends before the body does.
    """
    content, too_large = bytearray(), BodyTooLarge(f"the picture is larger than {max_bytes} bytes")
    if "Content-Encoding" in request.headers:
        raise WrongMediaType("send the picture without a Content-Encoding")
    if (request.content_length or 0) > max_bytes:
        raise too_large
    try:
        async with asyncio.timeout(timeout_s):
            async for part in request.content.iter_any():
                content += part
                if len(content) > max_bytes:
                    raise too_large
    except ConnectionError:
        raise BadRequest("the connection ended before the body did") from None
    except TimeoutError:
        raise RequestTimeout(f"the body did not arrive within {timeout_s:g} s") from None
    return bytes(content)
