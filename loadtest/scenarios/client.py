"""Asks the shop, has each answer checked, and repeats a request as long as the shop says 'later'."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from locust.contrib.fasthttp import FastHttpSession, LocustBadStatusCode, ResponseContextManager
from locust.exception import RescheduleTask

from loadtest.scenarios.checks import NO_ANSWER, CheckedResponse, Refused, Violation
from loadtest.scenarios.order_generator import chance

T = TypeVar("T")
NETWORK_TIMEOUT_S, CONNECT_TIMEOUT_S = 10.0, 5.0
_ATTEMPTS = 30


class Broken(RescheduleTask):
    """A violation was found and reported: locust ends the task and starts the next one."""


@dataclass(frozen=True, slots=True)
class Request:
    """What is sent; in the statistics it is `name`, or for some statuses one of `names`."""

    method: str
    path: str
    name: str
    names: Mapping[int, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: str | None = None


class Client:
    """One shopper's connection to the shop; `report` is told of every violation."""

    def __init__(self, session: FastHttpSession, token: str | None, report: Callable[[Violation], None]) -> None:
        self._session = session
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._report = report

    def ask(self, request: Request, check: Callable[[CheckedResponse], T | Refused]) -> T | Refused:
        """Send it once and give what `check` makes of the answer. Raises `Broken` for a violation.

        A refusal has a name of its own in the statistics: its code stands behind that of the request.
        """
        verdict: T | Refused = NO_ANSWER
        violation: Violation | None = None
        headers = {**self._headers, **request.headers}
        if request.body is not None:
            headers["Content-Type"] = "application/json"
        with self._session.request(
            request.method, request.path, request.name, request.body, catch_response=True, headers=headers
        ) as response:
            if _answered(response):
                name = request.names.get(response.status_code, request.name)
                try:
                    verdict = check(_answer(response))
                except Violation as found:
                    violation = found
                    response.failure(found.text)
                else:
                    response.success()
                    if isinstance(verdict, Refused):
                        name = f"{request.name} ({verdict.code})"
                response.request_meta["name"] = name
        if violation is not None:
            self._report(violation)
            raise Broken from violation
        return verdict

    def insist(
        self,
        request: Request,
        check: Callable[[CheckedResponse], T | Refused],
        unclear: Callable[[], None] = lambda: None,
    ) -> T | Refused:
        """Ask, and when the shop says 'later' or nothing at all, the very same again, after the time it names.

        `unclear` is called after an attempt that may have been carried out without a word of it.
        """
        for _ in range(_ATTEMPTS):
            verdict = self.ask(request, check)
            if not isinstance(verdict, Refused) or verdict.wait_s is None:
                break
            if verdict.unclear:
                unclear()
            time.sleep(verdict.wait_s * chance.uniform(1, 1.5))
        return verdict


def _answered(response: ResponseContextManager) -> bool:
    """False if the connection broke, before the head or in the body: locust reports that by itself."""
    error = response.request_meta["exception"]
    return bool(response.status_code) and (error is None or isinstance(error, LocustBadStatusCode))


def _answer(response: ResponseContextManager) -> CheckedResponse:
    headers = {str(name).lower(): str(value) for name, value in (response.headers or {}).items()}
    return CheckedResponse(response.status_code, headers, response.content or b"")
