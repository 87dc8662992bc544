"""`floodgate aftersales`: cases of customers, decisions on them, and return policies."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, get_args
from uuid import UUID

import msgspec
import typer

from commerce.aftersales.case_actions import CaseActions
from commerce.aftersales.model import ApprovalInput, Case, CaseSummary, OfferInput, PolicyTerms, ReturnPolicy, View
from commerce.kernel.errors import Invalid
from commerce.kernel.money import format_money
from commerce.kernel.text_files import read_file
from ops.commands.console import (
    JsonOption,
    format_time,
    get_actor,
    list_all,
    parse_argument,
    print_json,
    print_line,
    print_table,
    print_values,
    run,
    run_change,
)
from ops.commands.safe_console import Table
from ops.services import open_cli_services

app = typer.Typer(help="Show returns and claims, decide on them, and set return policies.", no_args_is_help=True)
policy_app = typer.Typer(help="Show and set the terms of returns and claims.", no_args_is_help=True)
app.add_typer(policy_app, name="policy")
CaseId = Annotated[UUID, typer.Argument(metavar="CASE", help="the case's id")]
PolicyName = Annotated[str, typer.Argument(metavar="POLICY", help="the policy's name")]
ReasonOption = Annotated[str, typer.Option(help="the reason, which the customer reads")]
VersionOption = Annotated[int | None, typer.Option(help="the version that you have read; left out: whatever it is now")]
ViewName = StrEnum("ViewName", {name: name for name in get_args(View)})  # type: ignore[misc]
_PAGE_SIZE = 200
_Action = Callable[[CaseActions, int], Awaitable[None]]


@app.command("list")
def list_cases(
    view: Annotated[ViewName, typer.Option(help="open cases by whoever must act; all: also ended ones")] = (
        ViewName["staff"]
    ),
    json: JsonOption = False,
) -> None:
    """List cases by deadline, earliest first."""

    async def work() -> list[CaseSummary]:
        async with open_cli_services() as shop:
            name: Any = view.value
            return await list_all(
                lambda cursor: shop.aftersales.list_view(name, UUID(cursor) if cursor else None, _PAGE_SIZE)
            )

    cases = run(work())
    if json:
        print_json(cases)
        return
    table = Table("case", "kind", "status", "waits for", "until", "money", "version")
    table.columns[0].no_wrap = True
    for case in cases:
        until = format_time(case.due_at) + (" (escalated)" if case.is_escalated else "")
        table.add_row(
            *(str(case.case_id), case.kind, case.status, case.waits_for, until, case.money_state, str(case.version))
        )
    print_table(table, "no cases")


@app.command()
def show(case_id: CaseId, json: JsonOption = False) -> None:
    """Show a case with its lines and events."""

    async def work() -> Case:
        async with open_cli_services() as shop:
            return await shop.aftersales.get(case_id, None)

    case = run(work())
    if json:
        print_json(case)
    else:
        _print_case(case)


@app.command()
def approve(
    case_id: CaseId,
    reason: ReasonOption,
    amount: Annotated[int | None, typer.Option(help="minor units for all lines together, less than was paid")] = None,
    freight: Annotated[int | None, typer.Option(help="minor units of freight to refund")] = None,
    fee: Annotated[int | None, typer.Option(help="minor units to withhold")] = None,
    items_back: Annotated[
        bool | None, typer.Option("--items-back/--keep", help="the products are sent back, or kept")
    ] = None,
    version: VersionOption = None,
) -> None:
    """Approve a request, which fixes its amounts: by default what was paid, by the policy."""
    values = {"amount": amount, "freight": freight, "fee": fee, "items_back": items_back, "reason": reason}
    given_values = {name: value for name, value in values.items() if value is not None}

    async def act(actions: CaseActions, read_version: int) -> None:
        approval = parse_argument({**given_values, "version": read_version}, ApprovalInput)
        await actions.approve(case_id, approval, get_actor())

    _change(case_id, version, act)


@app.command()
def offer(
    case_id: CaseId,
    reason: ReasonOption,
    amount: Annotated[int, typer.Option(help="minor units for all lines together")],
    version: VersionOption = None,
) -> None:
    """Offer a part of the money without sending anything back, in place of what was requested."""

    async def act(actions: CaseActions, read_version: int) -> None:
        values = {"version": read_version, "reason": reason, "amount": amount}
        await actions.offer(case_id, parse_argument(values, OfferInput), get_actor())

    _change(case_id, version, act)


@app.command()
def decline(case_id: CaseId, reason: ReasonOption, version: VersionOption = None) -> None:
    """Decline a request."""
    _change(case_id, version, lambda actions, read: actions.decline(case_id, read, get_actor(), reason))


@app.command()
def resolve(case_id: CaseId, reason: ReasonOption, version: VersionOption = None) -> None:
    """Resolve a case: the money of its accepted units is refunded."""
    _change(case_id, version, lambda actions, read: actions.resolve(case_id, read, get_actor(), reason))


@app.command()
def reopen(case_id: CaseId, reason: ReasonOption, version: VersionOption = None) -> None:
    """Reopen a declined or cancelled case, or a resolved one without money."""
    _change(case_id, version, lambda actions, read: actions.reopen(case_id, read, get_actor(), reason))


@app.command()
def cancel(case_id: CaseId, reason: ReasonOption, version: VersionOption = None) -> None:
    """Cancel a case before anything was received."""
    _change(case_id, version, lambda actions, read: actions.cancel(case_id, read, get_actor(), reason, None))


def _change(case_id: UUID, version: int | None, act: _Action) -> None:
    async def work() -> Case:
        async with open_cli_services() as shop:
            read = version or (await shop.aftersales.get(case_id, None)).case.version
            await act(shop.aftersales.actions, read)
            return await shop.aftersales.get(case_id, None)

    _print_case(run_change(work()))


def _print_case(case: Case) -> None:
    summary = case.case

    def money(amount: int | None) -> str:
        return "not decided" if amount is None else format_money(amount, summary.currency)

    until = f" until {format_time(summary.due_at)}" if summary.due_at else ""
    print_values(
        [
            ("case", summary.case_id),
            ("order", summary.order_id),
            ("customer", summary.user_id),
            ("kind", f"{summary.kind} ({summary.claim})" if summary.claim else summary.kind),
            ("reason", f"{summary.reason} {summary.text}".strip()),
            ("status", f"{summary.status}, version {summary.version}"),
            ("waits for", f"{summary.waits_for}{until}"),
            ("products", summary.items_state),
            ("money", f"{summary.money_state}: {money(summary.amount)}"),
            ("freight", money(summary.freight)),
            ("withheld", money(summary.fee)),
        ]
    )
    table = Table("line", "SKU", "units", "received", "resellable", "damaged", "rejected", "amount")
    for line in case.lines:
        counts = (line.quantity, line.received, line.resellable, line.damaged, line.rejected)
        table.add_row(str(line.case_line_no), line.sku, *map(str, counts), money(line.amount))
    print_table(table)
    events = Table("version", "at", "status", "actor", "reason")
    for event in case.events:
        events.add_row(*(str(event.version), format_time(event.at), event.to_status or "", event.actor, event.reason))
    print_table(events)


@policy_app.command("list")
def list_policies(json: JsonOption = False) -> None:
    """List return policies."""

    async def work() -> list[ReturnPolicy]:
        async with open_cli_services() as shop:
            return await list_all(lambda cursor: shop.aftersales.policies.list_policies(cursor, _PAGE_SIZE))

    policies = run(work())
    if json:
        print_json(policies)
        return
    table = Table("policy", "sale", "SKUs", "return days", "claim days", "freight", "version")
    for policy in policies:
        terms = policy.terms
        table.add_row(
            *(policy.policy_id, terms.sale_id or "all", str(len(terms.skus)) if terms.skus else "all"),
            *(str(terms.return_days or "none"), str(terms.claim_days), terms.freight_payer, str(policy.version)),
        )
    print_table(table)


@policy_app.command("show")
def show_policy(policy_id: PolicyName) -> None:
    """Print a return policy as JSON, in the form that `set` reads."""

    async def work() -> ReturnPolicy:
        async with open_cli_services() as shop:
            return await shop.aftersales.policies.get(policy_id)

    print_json(msgspec.to_builtins(run(work()).terms))


@policy_app.command("set")
def set_policy(
    policy_id: PolicyName,
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, readable=True, help="its terms as JSON")],
) -> None:
    """Create a return policy, or replace it whole. Open cases keep the terms of their request."""

    async def work() -> ReturnPolicy:
        try:
            terms = msgspec.json.decode(read_file(file), type=PolicyTerms)
        except msgspec.MsgspecError as error:
            raise Invalid(f"cannot read {file}: {error}; `floodgate aftersales policy show` prints the form") from None
        async with open_cli_services() as shop:
            return await shop.aftersales.policies.put(policy_id, terms, get_actor())

    policy = run_change(work())
    print_line(f"the policy {policy.policy_id} has version {policy.version}")


@policy_app.command("delete")
def delete_policy(policy_id: PolicyName) -> None:
    """Delete a return policy. The one called default stays."""

    async def work() -> None:
        async with open_cli_services() as shop:
            await shop.aftersales.policies.delete(policy_id)

    run_change(work())
    print_line(f"the policy {policy_id} is deleted")
