"""`floodgate wait-list`: set up and show the wait-list of a sale, check a customer's ticket."""

from __future__ import annotations

from typing import Annotated

import msgspec
import typer

from commerce.kernel.errors import Invalid, NotReady
from commerce.wait_lists.errors import NoWaitList
from commerce.wait_lists.model import ChangedWaitListSettings, WaitList, WaitListEntry, WaitListSettings
from commerce.waiting_rooms.tickets import RoomTickets
from gateway.auth import room_ticket_key
from ops.commands.console import (
    JsonOption,
    format_time,
    get_actor,
    parse_argument,
    print_json,
    print_line,
    print_values,
    run,
    run_change,
)
from ops.services import open_cli_services

app = typer.Typer(help="Set up and show the wait-list of a sale, check tickets.", no_args_is_help=True)
SaleId = Annotated[str, typer.Argument(metavar="SALE", help="the sale's id")]
Sku = Annotated[str, typer.Argument(metavar="SKU", help="the product's SKU")]


@app.command("set")
def set_wait_list(
    sale_id: SaleId,
    on: Annotated[bool | None, typer.Option("--on/--off", help="returned units are offered, or on sale")] = None,
    accept_s: Annotated[int | None, typer.Option(help="how long an offer is valid")] = None,
    max_people_per_sku: Annotated[int | None, typer.Option(help="people who wait for one SKU at most")] = None,
) -> None:
    """Set up the wait-list of a sale, or change the given settings of it; the others stay."""
    values = {
        "mode": None if on is None else "on" if on else "off",
        "accept_s": accept_s,
        "max_people_per_sku": max_people_per_sku,
    }
    changed = {name: value for name, value in values.items() if value is not None}

    async def work() -> WaitList:
        changes = parse_argument(changed, ChangedWaitListSettings)
        async with open_cli_services() as shop:
            try:
                return await shop.wait_lists.change(sale_id, changes, get_actor())
            except NoWaitList:
                return await shop.wait_lists.put(sale_id, parse_argument(changed, WaitListSettings), get_actor())

    wait_list = run_change(work())
    print_line(f"the wait-list of {sale_id} is {wait_list.mode}; an offer is valid for {wait_list.accept_s} s")


@app.command()
def show(sale_id: SaleId, json: JsonOption = False) -> None:
    """Show the settings of a wait-list, and by SKU who waits and what is on offer."""

    async def work() -> WaitList:
        async with open_cli_services() as shop:
            return await shop.wait_lists.get(sale_id)

    wait_list = run(work())
    if json:
        print_json(msgspec.to_builtins(wait_list))
        return
    ran = "never" if wait_list.ran_at is None else format_time(wait_list.ran_at)
    print_values(
        [
            ("mode", wait_list.mode),
            ("accept s", wait_list.accept_s),
            ("max people per SKU", wait_list.max_people_per_sku),
            ("last step of a keeper", ran),
            *(
                (
                    counts.sku,
                    f"{counts.waiting} wait, {counts.offered_units} units on offer, offered up to number "
                    f"{counts.offered_number} of {counts.last_number}",
                )
                for counts in wait_list.skus
            ),
        ]
    )


@app.command("check-ticket")
def check_ticket(
    sale_id: SaleId,
    sku: Sku,
    user_id: Annotated[str, typer.Argument(metavar="USER", help="the customer")],
    ticket: Annotated[str, typer.Argument(metavar="TICKET", help="the ticket that the customer shows")],
) -> None:
    """Tell which number a customer's ticket proves, and what became of his place."""

    async def work() -> tuple[int, WaitListEntry]:
        async with open_cli_services() as shop:
            key = room_ticket_key(shop.settings.auth)
            if key is None:
                raise NotReady("cannot check tickets: set FLOODGATE_AUTH__ROOM_TICKET_KEY")
            number = RoomTickets(key).verify(sale_id, user_id, ticket, shop.clock.now_ms() / 1000, sku)
            if number is None:
                raise Invalid("this ticket is not this customer's for this sale and SKU, or has expired")
            return number, await shop.wait_lists.get_place(sale_id, sku, user_id)

    number, place = run(work())
    print_line(f"the ticket is genuine: number {number}; the last place of {user_id} is {place.number}: {place.state}")
