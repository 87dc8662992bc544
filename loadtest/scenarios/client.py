"""HTTP client of simulated customers: checks each answer, and repeats requests that the shop defers."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from locust.contrib.fasthttp import FastHttpSession, LocustBadStatusCode, ResponseContextManager
from locust.exception import RescheduleTask

from loadtest.scenarios.checks import NO_ANSWER, CheckedResponse, ExpectedRefusal, Violation
from loadtest.scenarios.order_generator import chance

T = TypeVar("T")
NETWORK_TIMEOUT_S, CONNECT_TIMEOUT_S = 10.0, 5.0
_MAX_ATTEMPTS = 30


class ViolationReported(RescheduleTask):
    """A violation was found and reported: locust ends the task and starts the next one."""


@dataclass(frozen=True, slots=True)
class Request:
    """A request. The statistics list it under `name`, or under one of `names` by status."""

    method: str
    path: str
    name: str
    names: Mapping[int, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: str | None = None


class CheckingClient:
    """Sends the requests of one customer and checks the answers. `report` gets every violation."""

    def __init__(self, session: FastHttpSession, token: str | None, report: Callable[[Violation], None]) -> None:
        self._session = session
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._report = report

    def send(self, request: Request, check: Callable[[CheckedResponse], T | ExpectedRefusal]) -> T | ExpectedRefusal:
        """Send a request once and return the result of `check`. Raises `ViolationReported` for a violation.

        The statistics list a refusal under the request's name with the code appended.
        """
        result: T | ExpectedRefusal = NO_ANSWER
        violation: Violation | None = None
        headers = {**self._headers, **request.headers}
        if request.body is not None:
            headers["Content-Type"] = "application/json"
        with self._session.request(
            request.method, request.path, request.name, request.body, catch_response=True, headers=headers
        ) as response:
            if _has_response(response):
                name = request.names.get(response.status_code, request.name)
                try:
                    result = check(_read_response(response))
                except Violation as error:
                    violation = error
                    response.failure(error.text)
                else:
                    response.success()
                    if isinstance(result, ExpectedRefusal):
                        name = f"{request.name} ({result.code})"
                response.request_meta["name"] = name
        if violation is not None:
            self._report(violation)
            raise ViolationReported from violation
        return result

    def send_until_final(
        self,
        request: Request,
        check: Callable[[CheckedResponse], T | ExpectedRefusal],
        on_outcome_unknown: Callable[[], None] = lambda: None,
    ) -> T | ExpectedRefusal:
        """Send a request, and repeat it unchanged after the named time while it is deferred or unanswered.

        `on_outcome_unknown` is called after an attempt that may have been carried out without an answer.
        """
        for _ in range(_MAX_ATTEMPTS):
            result = self.send(request, check)
            if not isinstance(result, ExpectedRefusal) or result.wait_s is None:
                break
            if result.is_outcome_unknown:
                on_outcome_unknown()
            time.sleep(result.wait_s * chance.uniform(1, 1.5))
        return result


def _has_response(response: ResponseContextManager) -> bool:
    """Return False if the connection broke before or within the response: locust reports that."""
    error = response.request_meta["exception"]
    return bool(response.status_code) and (error is None or isinstance(error, LocustBadStatusCode))


def _read_response(response: ResponseContextManager) -> CheckedResponse:
    headers = {str(name).lower(): str(value) for name, value in (response.headers or {}).items()}
    return CheckedResponse(response.status_code, headers, response.content or b"")
