"""The HTTP client for external systems: `HttpTransport` over one pooled aiohttp session per system."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import aiohttp

from commerce.kernel.external import AnswerTooLong, ExternalOutcomeUnknown, HttpResponse

MAX_RESPONSE_BYTES = 8 * 2**20


class AiohttpTransport:
    """An `HttpTransport` over an aiohttp session with its timeout; redirects are not followed."""

    def __init__(self, session: aiohttp.ClientSession, max_response_bytes: int = MAX_RESPONSE_BYTES) -> None:
        self._session = session
        self._max_response_bytes = max_response_bytes

    async def send(self, method: str, url: str, headers: Mapping[str, str], body: bytes = b"") -> HttpResponse:
        """Send one request and read the response.

        Raises `ExternalOutcomeUnknown` if no response comes in time or if it is too long.
        """
        max_bytes = self._max_response_bytes
        try:
            async with self._session.request(
                method, url, headers=headers, data=body, allow_redirects=False
            ) as response:
                content = await response.content.read(max_bytes + 1)
                while not response.content.at_eof() and len(content) <= max_bytes:
                    content += await response.content.read(max_bytes + 1 - len(content))
                if len(content) > max_bytes:
                    raise AnswerTooLong(f"the answer is longer than {max_bytes} bytes")
                return HttpResponse(
                    response.status, {name.lower(): value for name, value in response.headers.items()}, content
                )
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise ExternalOutcomeUnknown(
                f"no answer from {urlsplit(url).hostname}: {type(error).__name__} {error}"
            ) from None


@asynccontextmanager
async def open_transport(
    *, timeout_s: float, connections: int, max_response_bytes: int = MAX_RESPONSE_BYTES
) -> AsyncIterator[AiohttpTransport]:
    """Open a transport with its own session, so that one slow system cannot use up another's connections."""
    connector = aiohttp.TCPConnector(limit=connections)
    timeout = aiohttp.ClientTimeout(total=timeout_s, connect=timeout_s / 2)
    async with aiohttp.ClientSession(
        connector=connector, timeout=timeout, cookie_jar=aiohttp.DummyCookieJar()
    ) as session:
        yield AiohttpTransport(session, max_response_bytes)
