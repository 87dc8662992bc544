"""Checks of a shop before the first customer starts. They are not in the statistics."""

from __future__ import annotations

import time
from http import HTTPStatus
from urllib.parse import quote, urlsplit

import msgspec
from locust.contrib.fasthttp import FastHttpSession
from locust.event import EventHook

from commerce.kernel.paging import Page
from commerce.sales.model import Offer, PublicSale
from gateway.problems import Problem
from loadtest.scenarios.checks import (
    READ_REFUSALS,
    CheckedResponse,
    ExpectedRefusal,
    Violation,
    check_refusal,
    check_tagged,
)
from loadtest.scenarios.client import CONNECT_TIMEOUT_S, NETWORK_TIMEOUT_S, CheckingClient, Request
from loadtest.set_up import SetUpFault

_MAX_OFFER_PAGES = 200
_READY_TIMEOUT_S = 60.0
_offers = msgspec.json.Decoder(Page[Offer])
_sale = msgspec.json.Decoder(PublicSale)
_problem = msgspec.json.Decoder(Problem)


class Preflight:
    """Requests to one server before a run. Each raises `SetUpFault` if the run cannot be made."""

    def __init__(self, base: str | None, option: str) -> None:
        """`option` is the name of the option that holds the server's address."""
        parts = urlsplit(base or "")
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise SetUpFault(f"{base or 'the address'} is no URL of a server; give it with {option} http://HOST:PORT")
        self._base, self._option = str(base), option
        self._errors: list[object] = []
        request_event = EventHook()  # type: ignore[no-untyped-call]
        request_event.add_listener(lambda exception, **_: self._errors.append(exception))  # type: ignore[no-untyped-call]
        self._session = FastHttpSession(
            self._base,
            request_event,
            user=None,
            network_timeout=NETWORK_TIMEOUT_S,
            connection_timeout=CONNECT_TIMEOUT_S,
        )

    def fetch(self, path: str, token: str | None = None) -> CheckedResponse:
        """Read a path once; the server must answer."""
        client = CheckingClient(self._session, token, _raise)
        response = client.send(Request("GET", path, path), lambda response: response)
        if isinstance(response, ExpectedRefusal):
            reason = str(self._errors[-1]) if self._errors else "the connection broke"
            raise SetUpFault(f"no answer from {self._base}: {reason}; start the server, or give another {self._option}")
        return response

    def fetch_from_shop(self, path: str, token: str | None = None) -> CheckedResponse:
        """Read a path of the shop, again while it is not ready. Raises `Violation` for a broken promise."""
        deadline = time.monotonic() + _READY_TIMEOUT_S
        while True:
            response = self.fetch(path, token)
            if response.status in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE):
                wait_s = self._read_wait_s(response)
                if time.monotonic() + wait_s > deadline:
                    raise SetUpFault(f"{self._base} is not ready: {_read_detail(response)}; see its /health/ready")
                time.sleep(wait_s)
                continue
            if "x-request-id" not in response.headers:
                raise SetUpFault(f"{self._base} is no shop of Floodgate; give another {self._option}")
            return response

    def _read_wait_s(self, response: CheckedResponse) -> float:
        try:
            refusal = check_refusal(response, READ_REFUSALS | {"too_many_requests"})
        except Violation as violation:  # such as a proxy's own page
            raise SetUpFault(f"{self._base} answers {response.status}: {violation}") from None
        return (refusal and refusal.wait_s) or 1.0

    def check_token(self, token: str) -> None:
        """Read the orders of a new customer: the shop must take the token."""
        response = self.fetch_from_shop("/v1/orders?limit=1", token)
        if response.status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            raise SetUpFault(
                f"{self._base} refuses the token: {_read_detail(response)}; it is signed by these settings: "
                "set FLOODGATE_DATA_DIR or FLOODGATE_AUTH__KEYS as for the shop"
            )

    def read_offers(self, sale_id: str) -> dict[str, Offer]:
        """Return the offers of a sale that can be ordered from, now or later."""
        path = f"/v1/sales/{quote(sale_id, safe='')}"
        response = self.fetch_from_shop(path)
        if response.status in (HTTPStatus.NOT_FOUND, HTTPStatus.BAD_REQUEST, HTTPStatus.UNPROCESSABLE_ENTITY):
            raise SetUpFault(f"{self._base} has no sale {sale_id!r}; give another --sale")
        sale = check_tagged(response, _sale, lambda sale: sale.sale_id == sale_id)
        if not isinstance(sale, ExpectedRefusal) and sale.value.state == "closed":
            raise SetUpFault(f"the sale {sale_id!r} is closed; give another --sale")
        if not isinstance(sale, ExpectedRefusal) and sale.value.state == "paused":
            raise SetUpFault(
                f"the sale {sale_id!r} is paused; open it with `floodgate sale open`, or give another --sale"
            )
        offers: dict[str, Offer] = {}
        cursor = ""
        for _page in range(_MAX_OFFER_PAGES):
            page = check_tagged(self.fetch_from_shop(f"{path}/offers{cursor}"), _offers)
            if isinstance(page, ExpectedRefusal):  # it became not ready between two requests
                raise SetUpFault(f"{self._base} is {page.code}; see its /health/ready")
            offers.update((offer.sku, offer) for offer in page.value.items)
            if page.value.next is None:
                break
            cursor = f"?cursor={quote(page.value.next, safe='')}"
        if not offers:
            raise SetUpFault(f"the sale {sale_id!r} offers nothing; add items to it, or give another --sale")
        return offers


def _read_detail(response: CheckedResponse) -> str:
    try:
        return _problem.decode(response.body).detail
    except msgspec.MsgspecError:
        return str(response.status)


def _raise(violation: Violation) -> None:
    raise violation
