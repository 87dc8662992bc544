"""The one way out: `Outside` over one pooled aiohttp session for each system that is called."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import aiohttp

from commerce.kernel.external import ExternalOutcomeUnknown, HttpResponse

_MOST_BYTES = 8 * 2**20


class AiohttpTransport:
    """An `Outside` that gives up after the session's time. Redirects are answers and not followed."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def send(self, method: str, url: str, headers: Mapping[str, str], body: bytes = b"") -> HttpResponse:
        try:
            async with self._session.request(method, url, headers=headers, data=body, allow_redirects=False) as answer:
                whole = await answer.content.read(_MOST_BYTES + 1)
                while not answer.content.at_eof() and len(whole) <= _MOST_BYTES:
                    whole += await answer.content.read(_MOST_BYTES + 1 - len(whole))
                if len(whole) > _MOST_BYTES:
                    raise ExternalOutcomeUnknown(f"the answer is longer than {_MOST_BYTES} bytes")
                return HttpResponse(
                    answer.status, {name.lower(): value for name, value in answer.headers.items()}, whole
                )
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise ExternalOutcomeUnknown(
                f"no answer from {urlsplit(url).hostname}: {type(error).__name__} {error}"
            ) from None


@asynccontextmanager
async def open_transport(*, timeout_s: float, connections: int) -> AsyncIterator[AiohttpTransport]:
    """A session of its own, so that one slow system cannot use up the connections to another."""
    connector = aiohttp.TCPConnector(limit=connections)
    timeout = aiohttp.ClientTimeout(total=timeout_s, connect=timeout_s / 2)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout, cookie_jar=aiohttp.DummyCookieJar()) as one:
        yield AiohttpTransport(one)
