"""`floodgate order`: cancel an order, and fix what keeps it from being planned."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

import msgspec
import typer

from commerce.audit.missing_orders import MissingOrder, MissingOrders
from commerce.cancellations.model import (
    Cancellation,
    CancellationPreview,
    CancelRequest,
    OpenCancellation,
    UnitsToCancel,
)
from commerce.cancellations.open_cancellations import OpenCancellations
from commerce.kernel.errors import Invalid
from commerce.kernel.failures import Failures
from commerce.kernel.money import format_money
from commerce.kernel.types import Reason
from commerce.orders.model import Order, OrderDetails
from commerce.shipping.model import UnplannedOrder
from ops.commands.console import (
    JsonOption,
    exit_on_error,
    format_time,
    get_actor,
    parse_argument,
    print_json,
    print_line,
    print_table,
    print_values,
    run,
    run_change,
)
from ops.commands.safe_console import Table
from ops.services import CliServices, open_cancellations, open_cli_services, open_fulfilment

app = typer.Typer(help="Find, show and cancel orders; list those that cannot be planned.", no_args_is_help=True)
OrderId = Annotated[UUID, typer.Argument(metavar="ORDER", help="the order's id")]
_STORED_TIMEOUT_S = 5.0


@app.command()
def cancel(
    order_id: OrderId,
    reason: Annotated[str, typer.Option(help="recorded, and shown to the customer")],
    line: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LINE[:ADDRESS]=UNITS",
            help="units of an order line, such as 0=2, or 0:1=2 for address 1; repeat it for other lines",
        ),
    ] = None,
    key: Annotated[str | None, typer.Option(help="a repeat with the same key cancels units once")] = None,
    preview: Annotated[bool, typer.Option("--preview", help="only show the effect")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="do not ask for confirmation")] = False,
) -> None:
    """Cancel an order, or units of it, on behalf of its customer: what has not left the warehouse.

    Stock and limit are released, and the money is refunded, once shipments that hold the units are stopped.
    """
    message = "--reason: give 1 to 200 characters, on one line, with a letter or digit"
    with exit_on_error():
        checked_reason = parse_argument(reason, Reason, message)
        lines = [_parse_line(text) for text in line] if line else None
    request = CancelRequest(order_id, get_actor(), None, checked_reason, lines, key)
    if preview:
        _print_preview(run(_preview(request)))
        return
    if not yes:
        typer.confirm(f"Cancel {'units of ' if lines else ''}order {order_id}?", abort=True)

    async def work() -> tuple[OrderDetails, Cancellation | None]:
        async with open_cli_services() as shop, open_cancellations(shop) as cancellations:
            sales = await list_opened_sales(shop)
            cancelled = await cancellations.cancel(request, sales, _STORED_TIMEOUT_S)
            return await shop.orders.get_details(order_id, sales), cancelled.cancellation

    details, cancellation = run_change(work())
    _print(details)
    if cancellation is not None and cancellation.status == "open":
        print_line("a carrier must cancel its booking first: `floodgate order show` tells how that ends")


async def _preview(request: CancelRequest) -> CancellationPreview:
    async with open_cli_services() as shop, open_cancellations(shop) as cancellations:
        return await cancellations.preview(request)


def _print_preview(preview: CancellationPreview) -> None:
    table = Table("line", "address", "SKU", "units", "at once")
    for line in preview.lines:
        table.add_row(str(line.line_no), str(line.ship_to), line.sku, str(line.quantity), str(line.cancelled))
    print_table(table)
    print_line(f"shipments to stop: {preview.shipments_to_stop}")
    refund = preview.refund
    print_line(f"refund: {format_money(refund.amount, refund.currency) if refund else 'none'}")


def _parse_line(text: str) -> UnitsToCancel:
    """Parse LINE[:ADDRESS]=UNITS."""
    place, _, units = text.partition("=")
    line_no, _, address_no = place.partition(":")
    values = {"line_no": line_no, "ship_to": address_no or "0", "quantity": units}
    try:
        return msgspec.convert(values, UnitsToCancel, strict=False)
    except msgspec.ValidationError:
        raise Invalid(f"--line: {text} is not LINE=UNITS or LINE:ADDRESS=UNITS, such as 0=2 or 0:1=2") from None


@app.command()
def cancelling(json: JsonOption = False) -> None:
    """List cancellations that wait for a shipment to be stopped, with what last went wrong."""

    async def work() -> list[OpenCancellation]:
        async with open_cli_services() as shop:
            return await OpenCancellations(shop.db, shop.clock).list_oldest()

    waiting = run(work())
    if json:
        print_json(waiting)
        return
    table = Table("order", "since (UTC)", "units left", "last error")
    for item in waiting:
        cancellation = item.cancellation
        left = sum(line.quantity - line.cancelled - line.kept for line in cancellation.lines)
        since = format_time(cancellation.created_at)
        table.add_row(str(cancellation.order_id), since, str(left), item.last_error or "")
    print_table(table, "no cancellation waits for a shipment")


@app.command()
def unplanned(json: JsonOption = False) -> None:
    """List paid orders for which no shipments can be planned, with the reasons.

    Fix the cause, then `floodgate jobs retry fulfilments ORDER`.
    """

    async def work() -> list[UnplannedOrder]:
        async with open_cli_services() as shop, open_fulfilment(shop) as fulfilment:
            return await fulfilment.list_unplanned_orders()

    orders = run(work())
    if json:
        print_json(orders)
        return
    table = Table("order", "paid (UTC)", "attempts", "reason")
    table.columns[0].no_wrap = True
    for order in orders:
        table.add_row(str(order.order_id), format_time(order.paid_at), str(order.attempts), order.reason)
    print_table(table, "every paid order has its shipments, or gets them in a moment")


@app.command()
def missing(json: JsonOption = False) -> None:
    """List orders that Redis knows and a restored Postgres does not.

    Run it before any rebuild. Redis knows orders by their idempotency keys, for at least a day. Status 1 if there are
    any.
    """

    async def work() -> list[MissingOrder]:
        async with open_cli_services() as shop:
            comparison = MissingOrders(shop.db, shop.redis, shop.clock)
            orders: list[MissingOrder] = []
            for sale in await shop.sales.list_opened():
                with failures.catch(sale_id=sale.sale_id):
                    orders += await comparison.list_missing(sale)
            return orders

    failures = Failures("list the missing orders")
    orders = run(work())
    if orders or not failures.count:  # an empty list would be the all-clear for sales that could not be compared
        _print_missing(orders, json)
    with exit_on_error():
        failures.raise_any()
    if orders:
        raise typer.Exit(1)


def _print_missing(orders: list[MissingOrder], json: bool) -> None:
    if json:
        print_json(orders)
        return
    table = Table("order", "sale", "customer", "idempotency key", "total", "accepted (UTC)")
    for order in orders:
        total = format_money(order.total.amount, order.total.currency) if order.total else "?"
        table.add_row(
            str(order.order_id),
            order.sale_id,
            order.user_id,
            order.idempotency_key or "?",
            total,
            format_time(order.accepted_at),
        )
    print_table(table, "Postgres has every order that Redis knows")


@app.command()
def replan(order_id: OrderId) -> None:
    """Plan an order that was stopped for a refund which has failed since.

    Others that are not planned have a parked job: `floodgate order unplanned`.
    """

    async def work() -> None:
        async with open_cli_services() as shop, open_fulfilment(shop) as fulfilment:
            await fulfilment.replan(order_id)

    run_change(work())
    print_line(f"{order_id} is about to be planned")


async def list_opened_sales(shop: CliServices) -> list[str]:
    """List the ids of the sales that may be loaded in Redis."""
    return [sale.sale_id for sale in await shop.sales.list_opened()]


def _list_price_rows(order: Order) -> list[tuple[str, str]]:
    """List the lines of a stored order with their prices, and the other parts of its price."""
    price, total = order.price, order.total
    if price is None or total is None:
        return []
    currency = total.currency
    rows = [
        (f"line {line.line_no}", f"{line.quantity} {line.sku}: {format_money(line.paid, currency)}")
        for line in order.lines or ()
    ]
    fees = [(f"freight to address {freight.ship_to}", freight.amount) for freight in price.freight_by_address]
    if price.cod_fee:
        fees.append(("cash on delivery", price.cod_fee))
    rows += [(name, format_money(amount, currency)) for name, amount in fees]
    for discount in price.discounts:
        amount = format_money(discount.amount, currency)
        rows.append(("discount of lines", f"{amount} by {discount.promotion_id}: {discount.label}"))
    return [*rows, *(("coupon", code) for code in price.coupons)]


def _list_states(order: Order) -> list[tuple[str, str]]:
    """List the states of a stored order beside its status, and its refunds."""
    if order.payment_state is None or order.total is None:
        return []
    rows: list[tuple[str, str]] = [
        ("payment", order.payment_state),
        ("delivery", order.delivery_state or ""),
        ("returns", order.return_state or ""),
    ]
    for part in order.refunds.parts if order.refunds else ():
        done, requested = (format_money(amount, order.total.currency) for amount in (part.done, part.requested))
        rows.append((f"refunds of {part.method}", f"{done} of {requested} by {part.way.replace('_', ' ')}"))
    return [(name, value.replace("_", " ")) for name, value in rows]


def print_order(user_id: str | None, order: Order) -> None:
    """Print an order with its customer, states and price."""
    status = f"{order.status} ({order.cancel_reason})" if order.cancel_reason else order.status
    values = (
        ("order", order.order_id),
        ("customer", user_id),
        ("sale", order.sale_id),
        ("status", status),
        *_list_states(order),
        ("total", order.total and format_money(order.total.amount, order.total.currency)),
        ("pay by (UTC)", format_time(order.pay_by)),
    )
    print_values([*((name, value or "?") for name, value in values), *_list_price_rows(order)])


def _print(details: OrderDetails) -> None:
    print_order(details.user_id, details.order)
    events = Table("at (UTC)", "status", "actor", "reason")
    for event in details.events:
        status = event.status if event.kind == "status" else f"{event.status} ({event.kind})"
        events.add_row(format_time(event.at), status, event.actor, event.reason)
    print_table(events)
