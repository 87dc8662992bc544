"""`floodgate returns`: return shipments, receipts, inspections and worklists."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from enum import StrEnum
from typing import Annotated, Any, TypeVar, get_args
from uuid import UUID

import typer

from commerce.aftersales.model import CaseSummary
from commerce.aftersales.receipt_model import (
    CollectionInput,
    InspectionInput,
    MatchInput,
    ReceiptInput,
    ReceiptResult,
    ReturnedCase,
    ReturnOutcomeInput,
    SendBackInput,
    ShipmentWorklist,
    SurplusInstruction,
)
from commerce.kernel.errors import Invalid
from commerce.return_receipts.model import Receipt, SurplusDecision
from commerce.return_shipments.model import ReturnShipmentDetails
from commerce.shipping.carriers import open_carriers
from gateway.return_services import ReturnServices, build_returns
from ops.commands.console import (
    JsonOption,
    format_time,
    get_actor,
    parse_argument,
    print_json,
    print_line,
    print_table,
    run,
    run_change,
)
from ops.commands.documents import PdfFile, write_pdf
from ops.commands.safe_console import Table
from ops.commands.shipment_actions import parse_warehouse_id
from ops.services import open_cli_services

app = typer.Typer(help="Receive and inspect returns.", no_args_is_help=True)
CaseId = Annotated[UUID, typer.Argument(metavar="CASE", help="the case's id")]
ReturnId = Annotated[UUID, typer.Argument(metavar="ID", help="the return shipment's id")]
ReasonOption = Annotated[str, typer.Option("--reason", help="recorded, and shown to the customer")]
LinesOption = Annotated[
    list[str] | None, typer.Option("--line", metavar="NO=QTY", help="units of a line of the case; may be repeated")
]
VersionOption = Annotated[int | None, typer.Option(help="of the case as you have read it; left out: as it is now")]
OutcomeStatus = StrEnum("OutcomeStatus", {name: name for name in ("delivered", "lost")})  # type: ignore[misc]
Decision = StrEnum("Decision", {name: name for name in get_args(SurplusDecision)})  # type: ignore[misc]
WorklistName = StrEnum("WorklistName", {name: name for name in get_args(ShipmentWorklist)})  # type: ignore[misc]
_DEFAULT_WORKLIST = WorklistName("arrived")
_UNITS = re.compile(r"([0-9]{1,5})=([0-9]{1,6})")
_RESULTS = re.compile(r"([0-9]{1,5})=([0-9]{1,6})/([0-9]{1,6})/([0-9]{1,6})")
_SURPLUS = re.compile(r"(.{1,200})=([0-9]{1,6})")
_MAX_ITEMS = 1_000
Result = TypeVar("Result")


@asynccontextmanager
async def _open_returns() -> AsyncIterator[ReturnServices]:
    """Open the services of returns. No carrier is called: calls are jobs for the fulfilment worker."""
    async with open_cli_services() as shop:
        shipping, timeout_s = shop.settings.shipping, shop.settings.jobs.call_timeout_s
        async with open_carriers(shipping, shop.clock, timeout_s=timeout_s, connections=1) as carriers:
            yield build_returns(shop.db, shop.clock, shop.ids, carriers, shipping, shop.settings.aftersales)


def _work(step: Callable[[ReturnServices], Coroutine[Any, Any, Result]]) -> Coroutine[Any, Any, Result]:
    async def work() -> Result:
        async with _open_returns() as returns:
            return await step(returns)

    return work()


@app.command()
def receive(
    target: Annotated[
        str, typer.Argument(metavar="TRACKING_NO|CASE", help="the number on the label, or the case's id")
    ],
    warehouse: Annotated[str, typer.Option(help="where it has arrived, such as hz-1")],
    line: LinesOption = None,
    surplus: Annotated[
        list[str] | None,
        typer.Option(metavar="SKU=QTY", help="units that the case does not expect; may be repeated"),
    ] = None,
    other: Annotated[
        list[str] | None,
        typer.Option(metavar="DESCRIPTION=QTY", help="units of a product that the shop does not sell"),
    ] = None,
    note: Annotated[str, typer.Option(help="recorded with the receipt")] = "",
    version: VersionOption = None,
) -> None:
    """Receive units, in as many parts as they come.

    More than the case expects are surplus. A receipt of no case, or of one that has ended, is matched later.
    """

    async def step(returns: ReturnServices) -> ReceiptResult:
        case_id = _parse_id(target)
        found_id = case_id or await returns.shipments.find_case(target)
        content: dict[str, object] = {
            "warehouse": parse_warehouse_id(warehouse),
            "lines": _parse_units(line),
            "surplus": [*_parse_surplus(surplus, "sku"), *_parse_surplus(other, "description")],
            "note": note,
        }
        if found_id is not None:
            content["version"] = version or (await returns.shipments.get(found_id)).case.version
        content |= {"case_id": case_id} if case_id else {"tracking_no": target}
        return await returns.receipts.receive(parse_argument(content, ReceiptInput), get_actor())

    result = run_change(_work(step))
    if result.unmatched_because:
        print_line(f"receipt {result.receipt.receipt_id} has no case: {result.unmatched_because}")
    else:
        print_line(f"receipt {result.receipt.receipt_id}: {sum(result.receipt.lines.values())} units of the case")
    for part in result.receipt.surplus:
        print_line(f"surplus {part.surplus_id}: {part.quantity} {part.sku or part.description}")
    _print_case(result.case)


@app.command()
def inspect(
    case_id: CaseId,
    line: Annotated[
        list[str] | None,
        typer.Option(metavar="NO=RESELLABLE/DAMAGED/REJECTED", help="such as 0=2/1/0; may be repeated"),
    ] = None,
    nothing_more: Annotated[
        bool, typer.Option("--nothing-more", help="do not wait for units that have not come: they are not refunded")
    ] = False,
    reason: Annotated[str, typer.Option(help="recorded, and shown to the customer")] = "inspected",
    version: VersionOption = None,
) -> None:
    """Record results of an inspection; they may be corrected until the case is resolved."""

    async def step(returns: ReturnServices) -> CaseSummary:
        current = version or (await returns.shipments.get(case_id)).case.version
        content = {"version": current, "reason": reason, "nothing_more": nothing_more, "lines": _parse_results(line)}
        return await returns.inspections.inspect(case_id, parse_argument(content, InspectionInput), get_actor())

    _print_case(run_change(_work(step)))


@app.command()
def match(
    receipt_id: Annotated[UUID, typer.Argument(metavar="RECEIPT", help="a receipt without a case")],
    case_id: CaseId,
    reason: ReasonOption,
    line: LinesOption = None,
    version: VersionOption = None,
) -> None:
    """Count the units of a receipt without a case as received by one: by SKU, or as --line says."""

    async def step(returns: ReturnServices) -> ReceiptResult:
        current = version or (await returns.shipments.get(case_id)).case.version
        lines = _parse_units(line) if line else None
        content = {"case_id": case_id, "version": current, "reason": reason, "lines": lines}
        return await returns.receipts.match(receipt_id, parse_argument(content, MatchInput), get_actor())

    _print_case(run_change(_work(step)).case)


@app.command()
def decide(
    surplus_id: Annotated[UUID, typer.Argument(metavar="SURPLUS", help="units that no case expected")],
    decision: Annotated[Decision, typer.Option(help="what becomes of them")],
    reason: ReasonOption,
    case_id: Annotated[UUID | None, typer.Option("--case", help="the other case that takes them")] = None,
) -> None:
    """Decide on surplus: send it back, keep it, or count it as received by another case."""

    async def step(returns: ReturnServices) -> None:
        content: dict[str, object] = {"decision": str(decision), "reason": reason}
        if case_id is not None:
            content |= {"case_id": case_id, "version": (await returns.shipments.get(case_id)).case.version}
        await returns.receipts.decide(surplus_id, parse_argument(content, SurplusInstruction), get_actor())

    run_change(_work(step))
    print_line(f"{surplus_id}: {decision.replace('_', ' ')}")


@app.command("sent-back")
def sent_back(
    send_back_id: Annotated[UUID, typer.Argument(metavar="ID", help="units of `floodgate returns worklists`")],
    carrier: Annotated[str | None, typer.Option(help="left out: they were handed out")] = None,
    tracking_no: Annotated[str | None, typer.Option(help="the carrier's number")] = None,
) -> None:
    """Record that units went to the customer again. A repeat changes nothing."""

    async def step(returns: ReturnServices) -> None:
        outcome = "handed_out" if carrier is None and tracking_no is None else "sent"
        content = {"outcome": outcome, "carrier": carrier, "tracking_no": tracking_no}
        await returns.receipts.end_send_back(send_back_id, parse_argument(content, SendBackInput), get_actor())

    run_change(_work(step))
    print_line(f"{send_back_id} is recorded")


@app.command()
def collect(case_id: CaseId, line: LinesOption = None, version: VersionOption = None) -> None:
    """Have a carrier collect the products of an approved case at the customer."""

    async def step(returns: ReturnServices) -> ReturnShipmentDetails:
        current = version or (await returns.shipments.get(case_id)).case.version
        content = {"version": current, "lines": _parse_units(line) if line else None}
        return await returns.shipments.collect(case_id, parse_argument(content, CollectionInput), get_actor())

    _print_shipment(run_change(_work(step)))


@app.command()
def cancel(return_shipment_id: ReturnId, reason: ReasonOption) -> None:
    """Cancel a return shipment that its carrier has not collected. A repeat changes nothing."""
    _print_shipment(
        run_change(_work(lambda returns: returns.shipments.cancel(return_shipment_id, reason, get_actor())))
    )


@app.command()
def label(return_shipment_id: ReturnId, file: PdfFile) -> None:
    """Print the label of a return shipment that a carrier is booked for. May be repeated."""
    write_pdf(file, run(_work(lambda returns: returns.labels.print_label(return_shipment_id))))


@app.command("set-outcome")
def set_outcome(
    return_shipment_id: ReturnId,
    status: Annotated[OutcomeStatus, typer.Option(help="final status")],
    reason: ReasonOption,
) -> None:
    """Set a return shipment's final status where its tracking reports none."""

    async def step(returns: ReturnServices) -> ReturnShipmentDetails:
        outcome = parse_argument({"status": str(status), "reason": reason}, ReturnOutcomeInput)
        return await returns.shipments.set_outcome(return_shipment_id, outcome, get_actor())

    _print_shipment(run_change(_work(step)))


@app.command()
def show(case_id: CaseId, json: JsonOption = False) -> None:
    """Show what came back for a case, and what is still expected."""
    returned: ReturnedCase = run(_work(lambda returns: returns.shipments.get(case_id)))
    if json:
        print_json(returned)
        return
    _print_case(returned.case)
    lines = Table("line", "SKU", "units", "received", "resellable", "damaged", "rejected")
    for line in returned.lines:
        counts = line.quantity, line.received, line.resellable, line.damaged, line.rejected
        lines.add_row(str(line.case_line_no), line.sku, *map(str, counts))
    print_table(lines)
    for details in returned.shipments:
        _print_shipment(details)
    for send_back in returned.send_backs:
        print_line(f"to send back {send_back.send_back_id}: {send_back.quantity} units, {send_back.outcome or 'open'}")


@app.command("list")
def list_shipments(
    worklist: Annotated[WorklistName, typer.Option(help="which return shipments")] = _DEFAULT_WORKLIST,
    warehouse: Annotated[str | None, typer.Option(help="only of this warehouse")] = None,
    json: JsonOption = False,
) -> None:
    """List return shipments, oldest first, at most 1000."""

    async def step(returns: ReturnServices) -> list[ReturnShipmentDetails]:
        warehouse_id = None if warehouse is None else parse_warehouse_id(warehouse)
        name: Any = str(worklist)
        return (await returns.shipments.list_worklist(name, warehouse_id, None, _MAX_ITEMS)).items

    items = run(_work(step))
    if json:
        print_json(items)
        return
    table = Table("return shipment, its case", "carrier, number", "status", "since (UTC)", "reason")
    table.columns[0].no_wrap = True
    for item in items:
        shipment = item.shipment
        table.add_row(
            f"{shipment.return_shipment_id}\n{shipment.case_id}",
            f"{shipment.carrier or ''}\n{shipment.tracking_no or ''}",
            shipment.status.replace("_", " "),
            format_time(shipment.last_event_at or shipment.created_at),
            item.job_error or "",
        )
    print_table(table, f"no return shipment is {worklist}")


@app.command()
def worklists(json: JsonOption = False) -> None:
    """Show the lengths of the worklists, and what is unmatched, surplus or to be sent back."""

    async def step(returns: ReturnServices) -> tuple[Any, list[Receipt], list[Any], list[Any]]:
        shipments = returns.shipments
        return (
            await shipments.count_worklists(),
            (await shipments.list_unmatched(None, None, _MAX_ITEMS)).items,
            (await shipments.list_surplus(None, _MAX_ITEMS)).items,
            (await shipments.list_send_backs(None, _MAX_ITEMS)).items,
        )

    counts, unmatched, surplus, send_backs = run(_work(step))
    if json:
        print_json({"counts": counts, "unmatched": unmatched, "surplus": surplus, "send_backs": send_backs})
        return
    table = Table("worklist", "items")
    for name in counts.__struct_fields__:
        table.add_row(name, str(getattr(counts, name)))
    print_table(table)
    for receipt in unmatched:
        print_line(f"unmatched receipt {receipt.receipt_id} at {receipt.warehouse_id}: {receipt.note}")
    for part in surplus:
        print_line(f"surplus {part.surplus_id}: {part.quantity} {part.sku or part.description}")
    for send_back in send_backs:
        print_line(f"to send back {send_back.send_back_id}: {send_back.quantity} units of case {send_back.case_id}")


def _print_case(case: CaseSummary | None) -> None:
    if case is not None:
        print_line(f"case {case.case_id} is {case.status}, version {case.version}; it waits for {case.waits_for}")


def _print_shipment(details: ReturnShipmentDetails) -> None:
    shipment, parts = details.shipment, []
    if shipment.carrier is not None:
        parts.append(f"with {shipment.carrier}" + (f" as {shipment.tracking_no}" if shipment.tracking_no else ""))
    if details.is_parked:
        parts.append(f"parked: {details.job_error}")
    elif shipment.is_cancelling:
        parts.append("waits for the carrier to confirm the cancellation")
    status = shipment.status.replace("_", " ")
    print_line(", ".join([f"return shipment {shipment.return_shipment_id} is {status}", *parts]))


def _parse_id(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None


def _parse_units(lines: list[str] | None) -> dict[int, int]:
    units = dict[int, int]()
    for text in lines or ():
        parts = _UNITS.fullmatch(text)
        if parts is None:
            raise Invalid(f"--line {text}: give a line of the case and its units, such as 0=2")
        units[int(parts[1])] = units.get(int(parts[1]), 0) + int(parts[2])
    return units


def _parse_results(lines: list[str] | None) -> dict[int, dict[str, int]]:
    results = dict[int, dict[str, int]]()
    for text in lines or ():
        parts = _RESULTS.fullmatch(text)
        if parts is None:
            raise Invalid(f"--line {text}: give resellable, damaged and rejected units of a line, such as 0=2/1/0")
        no, *counts = map(int, parts.groups())
        results[no] = dict(zip(("resellable", "damaged", "rejected"), counts, strict=True))
    return results


def _parse_surplus(lines: list[str] | None, field: str) -> list[dict[str, object]]:
    surplus = list[dict[str, object]]()
    for text in lines or ():
        parts = _SURPLUS.fullmatch(text)
        if parts is None:
            raise Invalid(f"{text}: give the product and its units, such as 85123A=2")
        surplus.append({field: parts[1], "quantity": int(parts[2])})
    return surplus
