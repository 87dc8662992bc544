"""Checks of the tenders of a request against the order, the providers and the shop's settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from ipaddress import ip_address
from typing import Literal, NamedTuple, Protocol
from urllib.parse import urlsplit
from uuid import UUID

from commerce.kernel.errors import Invalid
from commerce.orders.model import Method
from commerce.orders.store import OrderHeader
from commerce.payments.model import INTERNAL_METHODS, Payment, TenderInput
from commerce.payments.provider_port import PaymentFlow, Provider

_BROWSER_FLOWS: tuple[PaymentFlow, ...] = ("page", "mobile_page")
_ACTION_MARGIN = timedelta(seconds=30)
"""time in which a customer can still make use of an action; with less it is renewed"""


class PaymentPolicy(Protocol):
    """The section `payments` of the settings."""

    @property
    def expiry_margin_s(self) -> float: ...
    @property
    def shop_name(self) -> str: ...
    @property
    def return_urls(self) -> tuple[str, ...]: ...


class PlannedTender(NamedTuple):
    """A tender that fits its order and its provider, with all that its payment stores."""

    method: Method
    amount_minor: int
    flow: PaymentFlow | Literal["none"]
    expires_at: datetime
    payer: str | None = None
    return_url: str | None = None
    payer_ip: str | None = None


class NewPayment(NamedTuple):
    """A payment of a new plan revision, for one tender of its order."""

    payment_id: UUID
    order: OrderHeader
    plan_revision: int
    tender_no: int
    tender: PlannedTender
    subject: str | None


class ActionRenewal(NamedTuple):
    """A payment that is to be requested again for a new action; None keeps its return URL."""

    payment_id: UUID
    return_url: str | None


def check_tenders(
    order: OrderHeader, tenders: Sequence[TenderInput], providers: Mapping[str, Provider], policy: PaymentPolicy
) -> list[TenderInput]:
    """Return the tenders, or those of the order if there are none. Raises `Invalid` if they do not fit."""
    tenders = list(tenders) or [TenderInput(tender.method, tender.amount) for tender in order.plan]
    if not tenders:
        raise Invalid("cannot start payments: the order has no payment plan; send `payments`")
    amount = sum(tender.amount for tender in tenders)
    if amount != order.total.amount:
        detail = f"they add up to {amount} and the total is {order.total.amount} minor units of {order.total.currency}"
        raise Invalid(f"/payments: {detail}", errors=[{"pointer": "/payments", "detail": detail}])
    for tender_no, tender in enumerate(tenders):
        if tender.return_url is not None:
            _check_return_url(tender_no, tender.return_url, policy.return_urls)
        if tender.payer_ip is not None and not _is_address(tender.payer_ip):
            raise _tender_error(tender_no, "payer_ip", "send an IPv4 or IPv6 address")
        if tender.method not in INTERNAL_METHODS:
            _check_provider(tender_no, tender, order.total.currency, providers.get(tender.method))
    return tenders


def _check_provider(tender_no: int, tender: TenderInput, currency: str, provider: Provider | None) -> None:
    if provider is None:
        raise _tender_error(tender_no, "method", f"{tender.method} is not offered here")
    if currency not in provider.currencies:
        raise _tender_error(tender_no, "method", f"{tender.method} does not take {currency}")
    flow = _flow(tender, provider)
    if flow not in provider.flows:
        raise _tender_error(tender_no, "flow", f"{tender.method} has {', '.join(provider.flows)}")
    if flow == "jsapi" and tender.payer is None:
        raise _tender_error(tender_no, "payer", "jsapi needs the customer's id at the provider")


def plan_tender(
    tender: TenderInput,
    tender_no: int,
    order_id: UUID,
    providers: Mapping[str, Provider],
    policy: PaymentPolicy,
    *,
    now: datetime,
    expires_at: datetime,
    client_ip: str | None,
) -> PlannedTender:
    """Complete a checked tender. It expires at `expires_at`, or earlier if its provider requires that.

    Raises `Invalid` if the provider needs the customer's address and it is not known."""
    if tender.method in INTERNAL_METHODS:
        return PlannedTender(tender.method, tender.amount, "none", expires_at)
    provider = providers[tender.method]
    flow = _flow(tender, provider)
    return_url = tender.return_url
    if return_url is None and policy.return_urls:
        return_url = policy.return_urls[0].replace("{order_id}", str(order_id))
    payer_ip = None
    if flow in provider.flows_with_payer_ip:
        payer_ip = tender.payer_ip or client_ip
        if payer_ip is None:
            raise _tender_error(tender_no, "payer_ip", f"{tender.method} needs the customer's network address")
    return PlannedTender(
        method=tender.method,
        amount_minor=tender.amount,
        flow=flow,
        expires_at=min(expires_at, now + provider.max_lifetime),
        payer=tender.payer if flow == "jsapi" else None,
        return_url=return_url if flow in _BROWSER_FLOWS else None,
        payer_ip=payer_ip,
    )


def are_in_progress(current: Sequence[Payment], tenders: Sequence[TenderInput], client_ip: str | None) -> bool:
    """Tell if the current payments are these tenders, and none of them has ended or is being closed."""
    if any(payment.status in ("failed", "closed") or payment.task == "close" for payment in current):
        return False
    return len(current) == len(tenders) and all(
        _is_tender_of(payment, tender, client_ip) for payment, tender in zip(current, tenders, strict=True)
    )


def needs_new_action(payment: Payment, tender: TenderInput, now: datetime) -> bool:
    """Tell if the customer has no use of a payment's action any more, or wants to return to another page."""
    if payment.status != "pending" or payment.action is None or now >= payment.expires_at:
        return False
    is_elsewhere = payment.flow in _BROWSER_FLOWS and tender.return_url not in (None, payment.return_url)
    return is_elsewhere or not is_action_usable(payment, now + _ACTION_MARGIN)


def is_action_usable(payment: Payment, at: datetime) -> bool:
    """Tell if the customer can take a payment's next step at this moment, or if it has no end of its own."""
    action = payment.action
    return action is not None and (action.expires_at is None or at < action.expires_at or at >= payment.expires_at)


def _is_tender_of(payment: Payment, tender: TenderInput, client_ip: str | None) -> bool:
    """Tell if a payment was made for this tender. What a request leaves out is as it was.

    Parameters for another payer, or a page for another network address, are refused by the provider."""
    payer_ip = tender.payer_ip or (client_ip if tender.flow is not None else None)
    return (
        (payment.method, payment.amount_minor) == (tender.method, tender.amount)
        and tender.flow in (None, payment.flow)
        and (payment.flow != "jsapi" or tender.payer in (None, payment.payer))
        and (payment.payer_ip is None or payer_ip in (None, payment.payer_ip))
    )


def _flow(tender: TenderInput, provider: Provider) -> PaymentFlow:
    return tender.flow or ("qr" if "qr" in provider.flows else provider.flows[0])


def _check_return_url(tender_no: int, url: str, allowed: Sequence[str]) -> None:
    if _origin(url) is None or _origin(url) not in [_origin(address) for address in allowed]:
        hosts = ", ".join(sorted({str(_origin(address)) for address in allowed})) or "none: leave it out"
        raise _tender_error(tender_no, "return_url", f"it must be a page of the shop ({hosts})")


def _origin(url: str) -> str | None:
    """Return scheme, host and port of an address; None if it is no page, or has a user name."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return None
    if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc or "\\" in url:
        return None
    return f"{parts.scheme}://{parts.hostname}" + (f":{port}" if port is not None else "")


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _tender_error(tender_no: int, field: str, detail: str) -> Invalid:
    pointer = f"/payments/{tender_no}/{field}"
    return Invalid(f"{pointer}: {detail}", errors=[{"pointer": pointer, "detail": detail}])
