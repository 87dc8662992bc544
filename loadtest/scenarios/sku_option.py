"""Option `--sku` of scenarios in which everybody orders the same."""

from __future__ import annotations

from argparse import Namespace
from typing import Any

from locust import events

from loadtest.scenarios import order_generator
from loadtest.scenarios.run import listen, run
from loadtest.set_up import SetUpFault


def add_sku_option() -> None:
    """Add the option, and a check that the sale offers the SKU."""
    listen(events.init_command_line_parser, _add_option)
    run.start_checks.append(_check_sku)


def _add_option(parser: Any, **_: object) -> None:
    parser.add_argument(
        "--sku", default=order_generator.DEMO_SKU, help=f"the SKU to order (default: {order_generator.DEMO_SKU})"
    )


def _check_sku(options: Namespace) -> None:
    if options.sku not in run.offers:
        raise SetUpFault(f"the sale {options.sale!r} does not offer {options.sku!r}; give another --sku")
