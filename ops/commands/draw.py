"""`floodgate draw`: name the randomness of a draw, give its value, export its file, and check a file."""

from __future__ import annotations

import re
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from commerce.kernel.clock import from_ms
from commerce.waiting_rooms.draw import CheckedDraw, DrawError, check_draw
from commerce.waiting_rooms.model import Room
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
# drand's chain `quicknet`: https://api.drand.sh/CHAIN/info
_QUICKNET = "52db9ba70e0cc0f6eaf7803dd07447a1f5477735fd3f661792ba94600c84e971"
_QUICKNET_FIRST_S, _QUICKNET_PERIOD_S = 1_692_803_367, 3
_HEX = re.compile(r"[0-9a-fA-F]{64}")


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

    Without options it is the round of drand's quicknet that follows the close of the list by 10 seconds. A room for
    which nothing is named draws by a delay: see docs/operations.md.
    """

    async def work() -> Room:
        async with open_cli_services() as shop:
            named, moment = source, at
            if named is None:
                closes_at = (await shop.rooms.get(sale_id)).list_closes_at
                named, moment = _drand_round(closes_at if at is None else at, 10 if at is None else 0)
            return await shop.rooms.name_source(sale_id, named, moment, get_actor())

    room = run_change(work())
    print_line(f"{sale_id} draws by {room.named_source}{_at(room)}")


@app.command("run")
def run_draw(
    sale_id: SaleId,
    randomness: Annotated[str, typer.Option(metavar="VALUE", help="the published value; of drand: 64 hex digits")],
) -> None:
    """Give the value of the named randomness. The places follow from it within a second."""

    async def work() -> Room:
        async with open_cli_services() as shop:
            value = randomness.strip()
            if (await shop.rooms.get(sale_id)).named_source.startswith("drand:"):
                if not _HEX.fullmatch(value):
                    fail("cannot draw: a round of drand is 64 hex digits; copy `randomness` of its answer")
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
    """Check that the places of a file follow from its list and its randomness. Needs no shop."""
    with exit_on_error():
        draw = _read_draw(file)
    print_line(f"the places of {draw.entries} tickets of {draw.sale_id} follow from list and randomness")
    for line in draw.advice:
        print_detail(line)


def _read_draw(file: Path) -> CheckedDraw:
    try:
        with file.open(encoding="ascii") as lines:
            return check_draw(lines)
    except (ValueError, DrawError) as error:
        fail(f"cannot confirm the draw: {error}")


def _drand_round(after: datetime, seconds: int) -> tuple[str, datetime]:
    """Return the first round of quicknet that is published `seconds` after a moment, and its time."""
    elapsed_s = int(after.timestamp()) + seconds - _QUICKNET_FIRST_S
    number = max(0, elapsed_s) // _QUICKNET_PERIOD_S + 2
    return f"drand:{_QUICKNET}:{number}", from_ms((_QUICKNET_FIRST_S + (number - 1) * _QUICKNET_PERIOD_S) * 1000)


def _at(room: Room) -> str:
    return "" if room.randomness_at is None else f", published at {room.randomness_at:%Y-%m-%dT%H:%M:%SZ}"
