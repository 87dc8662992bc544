"""Payments of simulated customers at the sandbox's providers, and checks of the answers."""

from __future__ import annotations

import time
from http import HTTPStatus
from uuid import UUID

import msgspec

from commerce.payments.model import OrderPayments, PaymentView
from gateway.problems import Problem
from loadtest.scenarios.checks import (
    PAYMENT_REFUSALS,
    CheckedResponse,
    ExpectedRefusal,
    check_refusal,
    decode,
    decode_success,
    expect,
)
from loadtest.scenarios.client import CheckingClient, Request
from loadtest.scenarios.purchase_log import Purchase
from loadtest.set_up import SetUpFault

_POLL_INTERVAL_S = 0.2
_payments = msgspec.json.Decoder(OrderPayments)
_problem = msgspec.json.Decoder(Problem)


class _Trade(msgspec.Struct):
    """A payment as the sandbox shows it."""

    state: str


_trade = msgspec.json.Decoder(_Trade)


def begin_payment(api: CheckingClient, purchase: Purchase, limit_s: float) -> PaymentView | ExpectedRefusal:
    """Begin to pay an order by the method it names, and return the payment once its provider knows it.

    The payment is pending without an action if its provider took longer. Raises `SetUpFault` if the shop does not offer
    the method.
    """
    path = f"/v1/orders/{purchase.order_id}/payments"
    faults: list[SetUpFault] = []

    def check(response: CheckedResponse) -> PaymentView | ExpectedRefusal:
        if response.status == HTTPStatus.UNPROCESSABLE_ENTITY and (fault := _read_method_fault(response)):
            faults.append(fault)
            return ExpectedRefusal("method_not_offered")
        return check_refusal(response, PAYMENT_REFUSALS) or _check_payment(purchase, response)

    deadline = time.monotonic() + limit_s
    payment = api.send_until_final(Request("POST", path, "/v1/orders/{id}/payments", body="{}"), check)
    if faults:
        raise faults[0]
    while _awaits_provider(payment) and time.monotonic() < deadline:
        time.sleep(_POLL_INTERVAL_S)
        payment = api.send_until_final(Request("GET", path, "/v1/orders/{id}/payments"), check)
    return payment


def _awaits_provider(payment: PaymentView | ExpectedRefusal) -> bool:
    return not isinstance(payment, ExpectedRefusal) and payment.status == "pending" and payment.action is None


def _check_payment(purchase: Purchase, response: CheckedResponse) -> PaymentView:
    answer = decode_success(_payments, response)
    expect(answer.order_id == purchase.order_id, "the payments are of another order", answer.order_id)
    expect(answer.total == purchase.total, "the payments have another total", f"{answer.total} for {purchase.total}")
    current = [payment for payment in answer.payments if payment.current]
    tenders = [(tender.method, tender.amount) for tender in purchase.order.payments or ()]
    begun = [(payment.method, payment.amount.amount) for payment in current]
    expect(begun == tenders, "other payments were begun than the order names", f"{begun} for {tenders}")
    return current[0]


def _read_method_fault(response: CheckedResponse) -> SetUpFault | None:
    problem = decode(_problem, response)
    if any(error.pointer.endswith("/method") for error in problem.errors or ()):
        return SetUpFault(f"the shop cannot take this payment: {problem.detail}; give another --method")
    return None


def approve_payment(sandbox: CheckingClient, method: str, payment_id: UUID) -> bool:
    """Pay at the sandbox as the customer. Returns False if it refuses.

    Raises `SetUpFault` if it does not know the payment: then the shop's provider is another.
    """
    path = f"/pay/{method}/{payment_id.hex}/approve"
    request = Request("POST", path, "sandbox: pay", headers={"Accept": "application/json"})
    result = sandbox.send_until_final(request, _check_approval)
    if isinstance(result, ExpectedRefusal) and result.code == "no_trade":
        raise SetUpFault(f"the sandbox knows no payment of this shop by {method}; give the --sandbox of the shop")
    return not isinstance(result, ExpectedRefusal)


def _check_approval(response: CheckedResponse) -> _Trade | ExpectedRefusal:
    if response.status == HTTPStatus.NOT_FOUND:
        return ExpectedRefusal("no_trade")
    if response.status == HTTPStatus.CONFLICT:
        return ExpectedRefusal("refused")
    return decode_success(_trade, response)
