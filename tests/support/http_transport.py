"""The HTTP transport of providers and carriers over a session of the test."""

from __future__ import annotations

from collections.abc import Mapping

import aiohttp

from commerce.kernel.external import ExternalOutcomeUnknown, HttpResponse


class SessionTransport:
    """An `HttpTransport` over an aiohttp session. Redirects are not followed."""

    def __init__(self, session: aiohttp.ClientSession, timeout_s: float = 10) -> None:
        self._session = session
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)

    async def send(self, method: str, url: str, headers: Mapping[str, str], body: bytes = b"") -> HttpResponse:
        try:
            async with self._session.request(
                method, url, headers=headers, data=body, allow_redirects=False, timeout=self._timeout
            ) as answer:
                names = {name.lower(): value for name, value in answer.headers.items()}
                return HttpResponse(answer.status, names, await answer.read())
        except (aiohttp.ClientError, TimeoutError) as error:
            raise ExternalOutcomeUnknown(f"{method} {url}: {error}") from error
