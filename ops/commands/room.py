"""`floodgate room`: set up and show the waiting room of a sale."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

import msgspec
import typer

from commerce.kernel.clock import from_ms
from commerce.waiting_rooms.errors import NoRoom
from commerce.waiting_rooms.model import Room, RoomMode, RoomSettings
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
from ops.commands.moment_arguments import format_clocks, read_moment
from ops.services import CliServices, open_cli_services

app = typer.Typer(help="Set up and show the waiting room of a sale.", no_args_is_help=True)
SaleId = Annotated[str, typer.Argument(metavar="SALE", help="the sale's id")]
_HIDDEN = ("salt", "steps")


def _moment(help_text: str) -> Any:
    return typer.Option(parser=read_moment, metavar="TIME", help=help_text)


@app.command("set")
def set_room(
    sale_id: SaleId,
    on: Annotated[bool | None, typer.Option("--on/--off", help="orders need a ticket, or not")] = None,
    automatic: Annotated[bool, typer.Option("--automatic", help="orders need a ticket only in a rush")] = False,
    join_opens_at: Annotated[datetime | None, _moment("when people may join; at first: now")] = None,
    list_closes_at: Annotated[datetime | None, _moment("when the draw begins; at first: when the sale opens")] = None,
    min_account_age_s: Annotated[int | None, typer.Option(help="age of an account when the list closes")] = None,
    served_valid_s: Annotated[int | None, typer.Option(help="how long a turn lasts")] = None,
    max_pace_per_s: Annotated[int | None, typer.Option(help="people let in per second at most")] = None,
    max_waiting: Annotated[int | None, typer.Option(help="people in the room at most")] = None,
    served_per_unit: Annotated[float | None, typer.Option(help="people with a turn for each free unit")] = None,
    fallback_after_s: Annotated[int | None, typer.Option(help="wait for a named randomness that is late")] = None,
    fallback_rounds: Annotated[int | None, typer.Option(help="rounds of the delay that takes its place")] = None,
) -> None:
    """Set up the waiting room of a sale, or change the given settings of it."""
    values = {
        "mode": _mode(on, automatic),
        "join_opens_at": join_opens_at,
        "list_closes_at": list_closes_at,
        "min_account_age_s": min_account_age_s,
        "served_valid_s": served_valid_s,
        "max_pace_per_s": max_pace_per_s,
        "max_waiting": max_waiting,
        "served_per_unit": served_per_unit,
        "fallback_after_s": fallback_after_s,
        "fallback_rounds": fallback_rounds,
    }
    changes = {name: value for name, value in values.items() if value is not None}

    async def work() -> Room:
        async with open_cli_services() as shop:
            settings = parse_argument({**await _current(shop, sale_id), **changes}, RoomSettings)
            return await shop.rooms.put(sale_id, settings, get_actor())

    room = run_change(work())
    end = f"list closes at {format_clocks(room.list_closes_at)}" if room.mode == "on" else f"state is {room.state}"
    print_line(f"the waiting room of {sale_id} is {room.mode}; its {end}")


def _mode(on: bool | None, automatic: bool) -> RoomMode | None:
    if automatic and on is not None:
        raise typer.BadParameter("--on, --off and --automatic exclude each other; give one of them")
    return "automatic" if automatic else None if on is None else "on" if on else "off"


async def _current(shop: CliServices, sale_id: str) -> dict[str, Any]:
    """Return the settings of a room, of a new one those that it begins with."""
    try:
        room = await shop.rooms.get(sale_id)
    except NoRoom:
        return {"mode": "on", "join_opens_at": from_ms(shop.clock.now_ms())}
    return {name: getattr(room, name) for name in RoomSettings.__struct_fields__}


@app.command()
def show(sale_id: SaleId, json: JsonOption = False) -> None:
    """Show the settings and the state of a waiting room."""

    async def work() -> Room:
        async with open_cli_services() as shop:
            return await shop.rooms.get(sale_id)

    room = run(work())
    values = {name: getattr(room, name) for name in Room.__struct_fields__ if name not in _HIDDEN}
    values["list_digest"] = None if room.list_digest is None else room.list_digest.hex()
    if json:
        print_json(msgspec.to_builtins(values))
        return
    print_values(
        (name.replace("_", " "), f"{format_time(value)} UTC" if isinstance(value, datetime) else value)
        for name, value in values.items()
        if value not in (None, [])
    )
