"""A crowd of which a part cannot wait: refused, it sends the same order again at once.

All order single units for as long as the run lasts. `--impatient-share` of them ignore `Retry-After`; the others wait
as it says. Both have lines of their own in the table, which show what impatience gains, and what it costs the patient.
"""

from __future__ import annotations

import argparse
from functools import partial
from itertools import count
from math import floor
from typing import Any

from locust import events, task

from loadtest.scenarios import order_generator
from loadtest.scenarios.checks import ExpectedRefusal
from loadtest.scenarios.customer import SimulatedCustomer, create_order_request
from loadtest.scenarios.purchase_log import Purchase
from loadtest.scenarios.run import listen, run
from loadtest.scenarios.sku_option import add_sku_option

_IMPATIENT_NAME = "/v1/orders by the impatient"
_numbers = count()


class RushCustomer(SimulatedCustomer):
    """Orders one unit after the other, patiently or not."""

    def on_start(self) -> None:
        super().on_start()
        number, share = next(_numbers), self.options.impatient_share
        self.is_impatient = floor((number + 1) * share) > floor(number * share)
        self.refused_purchase: Purchase | None = None

    def wait_time(self) -> float:
        """Return no pause for an impatient customer."""
        return 0.0 if self.is_impatient else super().wait_time()

    @task
    def order_unit(self) -> None:
        """Order one unit, or press again; continue as another customer when the limit is reached."""
        purchase, self.refused_purchase = self.refused_purchase, None
        if purchase is None:
            order = order_generator.single_item_order(self.options.sale, self.options.sku)
            purchase = self.create_purchase(order, run.offers)
        result = self.press(purchase) if self.is_impatient else self.place(purchase)
        if isinstance(result, ExpectedRefusal) and result.code == "over_limit":
            self.become_new_customer()

    def press(self, purchase: Purchase) -> object:
        """Send an order once. One that is refused for now is kept to be sent again."""
        request = create_order_request(purchase, _IMPATIENT_NAME)
        result = self.api.send(request, partial(self.log.check_placed, purchase))
        if isinstance(result, ExpectedRefusal) and result.wait_s is not None:
            self.refused_purchase = purchase
            if result.is_outcome_unknown:
                purchase.mark_outcome_unknown()
        return result


def _share(text: str) -> float:
    share = float(text)
    if not 0 <= share <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return share


def _add_options(parser: Any, **_: object) -> None:
    parser.add_argument(
        "--impatient-share", type=_share, default=0.8, help="part that ignores Retry-After (default: 0.8)"
    )


add_sku_option()
listen(events.init_command_line_parser, _add_options)
