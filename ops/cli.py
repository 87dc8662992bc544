"""The `floodgate` command."""

from __future__ import annotations

from importlib.metadata import entry_points, version
from typing import Annotated

import typer

from ops.commands import (
    aftersales,
    audit,
    backups,
    case_rules,
    cash,
    catalog,
    categories,
    conversation,
    coupon,
    dead_letters,
    deadlines,
    draw,
    freight,
    jobs,
    knowledge,
    order_search,
    orders,
    payments,
    processes,
    promotion,
    rates,
    redis_files,
    refunds,
    reports,
    returns,
    room,
    routes,
    sale,
    screening,
    shipments,
    stock,
    store_credit,
    stuck_refunds,
    tokens,
    training,
    vehicles,
    wait_list,
    warehouses,
    waves,
)
from ops.commands.console import print_line, run_app
from workers.__main__ import NAMES

_ENTRY_POINT_GROUP = "floodgate.commands"
"""commands of packages that ops must not import, such as loadtest"""

app = typer.Typer(
    name="floodgate",
    help="An order system for flash sales. Start with `floodgate up`.",
    epilog=f"Workers of `floodgate worker`: {', '.join(NAMES)}.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print_line(f"floodgate {version('floodgate')}")
        raise typer.Exit


@app.callback()
def _read_global_options(
    show_version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="print the version and exit")
    ] = False,
) -> None:
    """Read the options that stand before the command."""


for command in (
    processes.up,
    processes.gateway,
    processes.worker,
    processes.migrate,
    audit.audit,
    audit.rebuild,
    backups.backup,
    backups.restore,
    payments.reconcile,
    tokens.settings,
):
    app.command()(command)
for entry_point in sorted(entry_points(group=_ENTRY_POINT_GROUP), key=lambda entry_point: entry_point.name):
    app.command(entry_point.name)(entry_point.load())
payments.app.command()(refunds.refund)
payments.app.command()(refunds.refund_list)
orders.app.command()(order_search.find)
orders.app.command()(order_search.show)
catalog.app.add_typer(categories.category_app, name="category")
catalog.app.add_typer(categories.taxonomy_app, name="taxonomy")
for group_name, group in (
    ("catalog", catalog.app),
    ("sale", sale.app),
    ("promotion", promotion.app),
    ("coupon", coupon.app),
    ("room", room.app),
    ("screening", screening.app),
    ("draw", draw.app),
    ("wait-list", wait_list.app),
    ("order", orders.app),
    ("payment", payments.app),
    ("refunds", stuck_refunds.app),
    ("cash", cash.app),
    ("store-credit", store_credit.app),
    ("jobs", jobs.app),
    ("aftersales", aftersales.app),
    ("knowledge", knowledge.app),
    ("conversation", conversation.app),
    ("deadlines", deadlines.app),
    ("report", reports.app),
    ("case-rule", case_rules.app),
    ("training", training.app),
    ("rates", rates.app),
    ("freight", freight.app),
    ("warehouse", warehouses.app),
    ("stock", stock.app),
    ("shipment", shipments.app),
    ("returns", returns.app),
    ("wave", waves.app),
    ("vehicle", vehicles.app),
    ("route", routes.app),
    ("dead-letters", dead_letters.app),
    ("redis-files", redis_files.app),
    ("token", tokens.app),
):
    app.add_typer(group, name=group_name)


def main() -> None:
    """Run the command line; the installed entry point."""
    run_app(app)
