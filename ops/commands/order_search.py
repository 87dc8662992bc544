"""`floodgate order find` and `floodgate order show`."""

from __future__ import annotations

from datetime import date
from typing import Annotated
from uuid import UUID
from zoneinfo import ZoneInfo

import typer

from commerce.kernel.money import format_money
from commerce.kernel.paging import Page
from commerce.order_search.model import OrderMatch, OrderSearch, StoryEntry, WholeOrder
from commerce.order_search.service import OrderFinder
from commerce.order_search.whole_orders import WholeOrders
from ops.commands.console import (
    JsonOption,
    format_time,
    get_actor,
    parse_argument,
    print_detail,
    print_json,
    print_table,
    print_values,
    run,
)
from ops.commands.moment_arguments import read_day
from ops.commands.orders import OrderId, app, list_opened_sales, print_order
from ops.commands.safe_console import Table
from ops.services import open_cli_services

_Day = Annotated[date | None, typer.Option(parser=read_day, metavar="YYYY-MM-DD", help="in the shop's time zone")]
_PAGE = 50


@app.command()
def find(
    order: Annotated[str | None, typer.Option(help="the order's id, or at least its first 8 digits")] = None,
    user: Annotated[str | None, typer.Option(help="the customer")] = None,
    phone: Annotated[str | None, typer.Option(help="a recipient's whole number")] = None,
    phone_end: Annotated[str | None, typer.Option(help="its last four digits")] = None,
    name: Annotated[str | None, typer.Option(help="a recipient's whole name")] = None,
    tracking: Annotated[str | None, typer.Option(help="tracking number, of either way")] = None,
    transaction: Annotated[
        str | None, typer.Option(help="number of a payment or refund, the provider's or ours")
    ] = None,
    status: Annotated[str | None, typer.Option(help="with another condition")] = None,
    day: _Day = None,
    last_day: _Day = None,
    cursor: Annotated[UUID | None, typer.Option(help="from here on, as the previous page says")] = None,
    json: JsonOption = False,
) -> None:
    """Find orders by what a customer knows of them, newest first. All conditions must fit."""
    values = {
        "order": order,
        "user_id": user,
        "phone": phone,
        "phone_end": phone_end,
        "name": name,
        "tracking_no": tracking,
        "transaction_no": transaction,
        "status": status,
        "first_day": day and f"{day:%Y-%m-%d}",
        "last_day": last_day and f"{last_day:%Y-%m-%d}",
        "cursor": cursor and str(cursor),
    }

    async def work() -> Page[OrderMatch]:
        search = parse_argument({key: value for key, value in values.items() if value is not None}, OrderSearch)
        async with open_cli_services() as shop:
            return await OrderFinder(shop.db, ZoneInfo(shop.settings.shipping.timezone)).find(search, _PAGE)

    page = run(work())
    if json:
        print_json(page)
        return
    table = Table("order", "accepted (UTC)", "status", "customer", "recipients", "total")
    table.columns[0].no_wrap = True
    for match in page.items:
        total = format_money(match.total.amount, match.total.currency)
        recipients = ", ".join(match.recipients)
        table.add_row(
            str(match.order_id), format_time(match.accepted_at), match.status, match.user_id, recipients, total
        )
    print_table(table, "no order fits" if page.next is None else "none of those that were examined fits")
    if page.next is not None:
        print_detail(f"older ones: --cursor {page.next}")


@app.command()
def show(
    order_id: OrderId,
    json: Annotated[bool, typer.Option("--json", help="print everything as JSON, with the address")] = False,
) -> None:
    """Show an order whole: customer, price, money, shipments, returns, cases, and its story.

    The view is recorded.
    """

    async def work() -> WholeOrder:
        async with open_cli_services() as shop:
            orders = WholeOrders(shop.db, shop.clock, shop.orders, shop.payments, shop.shipping)
            return await orders.read(order_id, await list_opened_sales(shop), get_actor())

    whole = run(work())
    if json:
        print_json(whole)
        return
    print_order(whole.user_id, whole.order)
    print_values(_list_parts(whole))
    story = Table("at (UTC)", "of", "status", "actor", "event")
    for entry in whole.story:
        story.add_row(format_time(entry.at), entry.subject.replace("_", " "), _status(entry), entry.actor, entry.text)
    print_table(story)


def _status(entry: StoryEntry) -> str:
    return f"{entry.status} ({entry.kind})" if entry.kind not in (None, "status") else entry.status or ""


def _list_parts(whole: WholeOrder) -> list[tuple[str, str]]:
    """List payments, grants, shipments, returns, cases and conversations, a row each."""
    numbers = {item.payment_id: item.transaction_id for item in whole.transactions}
    rows = [(f"recipient {contact.ship_to}", f"{contact.name}, {contact.phone}") for contact in whole.contacts]
    for payment in whole.payments.payments if whole.payments else ():
        amount, number = payment.amount, numbers.get(payment.payment_id) or "no number"
        money = format_money(amount.amount, amount.currency)
        rows.append((f"payment by {payment.method}", f"{money}, {payment.status}, {payment.payment_id} ({number})"))
        rows += [
            (f"refund by {payment.method}", f"{format_money(refund.amount, amount.currency)}, {refund.status}")
            for refund in payment.refunds
        ]
    rows += [
        ("granted", f"{format_money(grant.amount, grant.currency)} by {grant.actor}: {grant.reason}")
        for grant in whole.grants
    ]
    for posting in whole.postings:
        entries = ", ".join(f"{name} {format_money(sum_, posting.currency)}" for name, sum_ in posting.entries.items())
        rows.append((f"posting {posting.kind}", entries))
    for shipment in whole.shipments.shipments if whole.shipments else ():
        carrier = f"{shipment.carrier or 'no carrier'} {shipment.tracking_no or ''}".strip()
        rows.append((f"shipment {shipment.parcel_no}", f"{shipment.status}, {carrier}"))
    for details in whole.return_shipments:
        carrier = f"{details.shipment.carrier or 'no carrier'} {details.shipment.tracking_no or ''}".strip()
        rows.append(("return shipment", f"{details.shipment.status}, {carrier}"))
    for case in whole.cases:
        due = f" until {format_time(case.due_at)}" if case.due_at else ""
        rows.append((f"case {case.kind}", f"{case.status}, waits for {case.waits_for}{due}: {case.case_id}"))
    rows += [("conversation", f"{item.status}: {item.subject}") for item in whole.conversations]
    return rows
