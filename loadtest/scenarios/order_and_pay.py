"""Order and pay: one unit, paid at the sandbox's provider, and followed until the order is paid.

It needs the order writer, the payment worker and the sandbox, as `make run` has them.
"""

from __future__ import annotations

from argparse import Namespace
from http import HTTPStatus
from typing import Any

from locust import events, task
from locust.contrib.fasthttp import FastHttpSession
from locust.exception import StopUser

from commerce.orders.model import Order, OrderStatus
from loadtest.scenarios import order_generator
from loadtest.scenarios.checks import ExpectedRefusal
from loadtest.scenarios.client import CONNECT_TIMEOUT_S, NETWORK_TIMEOUT_S, CheckingClient
from loadtest.scenarios.customer import SimulatedCustomer
from loadtest.scenarios.payments import approve_payment, begin_payment
from loadtest.scenarios.preflight import Preflight
from loadtest.scenarios.purchase_log import Purchase
from loadtest.scenarios.run import listen, positive_number, run
from loadtest.set_up import SetUpFault

_METHODS = ("alipay", "wechatpay")
_UNPAID = (OrderStatus.ACCEPTED, OrderStatus.AWAITING_PAYMENT)


class PayingCustomer(SimulatedCustomer):
    """Orders one unit after the other and pays for each."""

    def on_start(self) -> None:
        super().on_start()
        session = FastHttpSession(
            run.sandbox_url,
            self.environment.events.request,
            user=None,
            network_timeout=NETWORK_TIMEOUT_S,
            connection_timeout=CONNECT_TIMEOUT_S,
        )
        self.sandbox = CheckingClient(session, None, run.report)

    @task
    def order_and_pay(self) -> None:
        """Order one unit, pay for it, and wait until the order is paid."""
        offers = self.log.filter_available(run.offers) or run.offers
        offer = offers[order_generator.chance.choice(list(offers))]
        order = order_generator.paid_order(self.options.sale, offer, self.options.method)
        purchase = self.create_purchase(order, offers)
        result = self.place(purchase)
        if isinstance(result, ExpectedRefusal):
            if result.code == "over_limit":
                self.become_new_customer()
            return
        run.orders["accepted"] += 1
        try:
            run.orders[self.pay(purchase)] += 1
        except SetUpFault as fault:
            run.abort(self.environment, fault)
            raise StopUser from None

    def pay(self, purchase: Purchase) -> str:
        """Pay an accepted order. Returns what became of it.

        Raises `SetUpFault` if the shop or the sandbox cannot take such a payment, `ViolationReported` for an order
        that was paid for and is not paid in time.
        """
        limit_s = self.options.paid_within_s
        payment = begin_payment(self.api, purchase, limit_s)
        if isinstance(payment, ExpectedRefusal) or payment.action is None:
            return "not paid"
        purchase.is_payment_begun = True
        if not approve_payment(self.sandbox, payment.method, payment.payment_id):
            return "not paid"
        status = None

        def is_decided(order: Order | ExpectedRefusal) -> bool:
            nonlocal status
            status = None if isinstance(order, ExpectedRefusal) else order.status
            return status is not None and status not in _UNPAID

        self.wait_until("paid", purchase, is_decided, limit_s)
        return "paid" if status is not OrderStatus.CANCELLED else "not paid"


def _add_options(parser: Any, **_: object) -> None:
    parser.add_argument("--method", choices=_METHODS, default=_METHODS[0], help="the payment method (default: alipay)")
    parser.add_argument("--sandbox", default="", help="URL of the sandbox; left out: by the settings, on this machine")
    parser.add_argument("--paid-within-s", type=positive_number, default=60.0, help="time until an order must be paid")


def _check_sandbox(options: Namespace) -> None:
    run.sandbox_url = options.sandbox or run.sandbox_url
    response = Preflight(run.sandbox_url, "--sandbox").fetch(f"/faults/{options.method}")
    if response.status != HTTPStatus.OK:
        raise SetUpFault(f"{run.sandbox_url} is no sandbox with {options.method}; give another --sandbox")


run.start_checks.append(_check_sandbox)
listen(events.init_command_line_parser, _add_options)
