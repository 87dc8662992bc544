"""`floodgate draw`: name the randomness of a draw, give its value, export its file, and check a file."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer

from commerce.waiting_rooms.draw import (
    QUICKNET,
    QUICKNET_FIRST_AT,
    QUICKNET_PERIOD_S,
    CheckedDraw,
    DrawError,
    check_file,
    describe,
    drand_time,
)
from commerce.waiting_rooms.model import Room
from commerce.waiting_rooms.service import find_fallback
from ops.commands.console import (
    check_writable,
    exit_on_error,
    fail,
    get_actor,
    print_detail,
    print_line,
    run,
    run_change,
)
from ops.commands.moment_arguments import read_moment
from ops.services import open_cli_services

app = typer.Typer(help="The draw of the places of a waiting room, which anybody can check.", no_args_is_help=True)
SaleId = Annotated[str, typer.Argument(metavar="SALE", help="the sale's id")]
_ROUND_AFTER_CLOSE_S = 10
_UNCONFIRMED_STATUS = 3


@app.command()
def announce(
    sale_id: SaleId,
    source: Annotated[
        str | None,
        typer.Option(help="a public randomness, such as the name of a lottery draw; left out: a round of drand"),
    ] = None,
    at: Annotated[
        datetime | None,
        typer.Option(parser=read_moment, metavar="TIME", help="when it is published: after the list closes"),
    ] = None,
) -> None:
    """Name the public randomness before the list of the room closes.

    Without options it is the round of drand's quicknet that follows the close of the list by 10 seconds; it needs no
    --at, and is the source to prefer. A room for which nothing is named draws by a delay: see docs/operations.md.
    """

    async def work() -> Room:
        async with open_cli_services() as shop:
            named, moment = source, at
            if named is None:
                closes_at = (await shop.rooms.get(sale_id)).list_closes_at
                named, moment = _drand_round(at or closes_at + timedelta(seconds=_ROUND_AFTER_CLOSE_S)), None
            return await shop.rooms.name_source(sale_id, named, moment, get_actor())

    room = run_change(work())
    print_line(f"{sale_id} draws by {_describe_source(room)}")


@app.command("run")
def run_draw(
    sale_id: SaleId,
    randomness: Annotated[str, typer.Option(metavar="VALUE", help="the published value; of drand: 64 hex digits")],
) -> None:
    """Give the value of the named randomness, once. The places follow from it within a second.

    Compare it before: it is final. Numbers of a lottery are given without leading zeros and with one space between.
    """

    async def work() -> Room:
        async with open_cli_services() as shop:
            value = randomness.strip()
            if drand_time((await shop.rooms.get(sale_id)).named_source):
                value = value.lower()
            return await shop.rooms.set_randomness(sale_id, value, get_actor())

    room = run_change(work())
    print_line(f"the {room.entries} places of {sale_id} are drawn by {room.source}: {room.randomness}")


@app.command()
def export(
    sale_id: SaleId,
    file: Annotated[Path, typer.Argument(metavar="FILE", dir_okay=False, callback=check_writable)],
) -> None:
    """Write the file of a draw, as `GET /v1/sales/SALE/room/draw` returns it."""

    async def work() -> None:
        async with open_cli_services() as shop:
            parts = [part async for part in shop.rooms.draw_file(sale_id)]
            file.write_bytes(b"".join(parts))

    run(work())
    print_line(f"the draw of {sale_id} is in {file}; check it with `floodgate draw verify {file}`")


@app.command()
def verify(file: Annotated[Path, typer.Argument(metavar="FILE", exists=True, dir_okay=False, readable=True)]) -> None:
    """Check that the places of a file follow from its list and its randomness. Needs no shop.

    Status 3: they follow, but the shop could have chosen between two results.
    """
    with exit_on_error():
        draw = _read_draw(file)
    print_line(describe(draw))
    for line in draw.advice:
        print_detail(line)
    if not draw.is_confirmed:
        raise typer.Exit(_UNCONFIRMED_STATUS)


def _read_draw(file: Path) -> CheckedDraw:
    try:
        return check_file(str(file))
    except (OSError, DrawError) as error:
        fail(f"cannot confirm the draw: {error}")


def _drand_round(after: datetime) -> str:
    """Return the first round of quicknet that is published after a moment."""
    elapsed_s = int((after - QUICKNET_FIRST_AT).total_seconds())
    return f"drand:{QUICKNET}:{max(0, elapsed_s) // QUICKNET_PERIOD_S + 2}"


def _describe_source(room: Room) -> str:
    fallback, fallback_at = find_fallback(room)
    if room.randomness_at is None or fallback_at is None:
        return room.named_source
    return (
        f"{room.named_source}, published at {room.randomness_at:%Y-%m-%dT%H:%M:%SZ}; "
        f"{fallback} takes its place if `floodgate draw run` does not come before {fallback_at:%Y-%m-%dT%H:%M:%SZ}"
    )
