"""`floodgate case-rule`: the rules that decide cases, their budgets, the switch, and dry runs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID
from zoneinfo import ZoneInfo

import msgspec
import typer

from commerce.case_rules.model import (
    DryRun,
    DryRunInput,
    RuleActivation,
    RuleBudgetInput,
    RuleDecisions,
    RuleSet,
    RuleSetInput,
    RuleSetSummary,
    RuleState,
    RuleSwitch,
)
from commerce.case_rules.service import CaseRules
from commerce.kernel.money import format_money
from commerce.kernel.text_files import read_file
from gateway.decoding import decode_json
from ops.commands.console import (
    JsonOption,
    format_time,
    get_actor,
    list_all,
    parse_argument,
    print_json,
    print_line,
    print_table,
    run,
    run_change,
)
from ops.commands.moment_arguments import read_moment
from ops.commands.safe_console import Table
from ops.services import CliServices, open_cli_services

app = typer.Typer(help="Show, try and change the rules that decide cases.", no_args_is_help=True)
RuleFile = Annotated[Path, typer.Argument(exists=True, dir_okay=False, metavar="FILE.json")]
Version = Annotated[int, typer.Argument(min=1, max=2**31 - 1, metavar="VERSION", help="the version of the rules")]
ReasonOption = Annotated[str, typer.Option(help="the reason, which is recorded")]
Position = StrEnum("Position", {"on": "on", "off": "off"})
_PAGE_SIZE = 100


class _RuleList(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The content of a file of rules."""

    rules: list[Any]


@app.command()
def show(
    version: Annotated[int | None, typer.Option(min=1, help="print the rules of a version")] = None,
    json: JsonOption = False,
) -> None:
    """Show the switch, the version that decides and today's budgets; or the rules of a version."""

    async def work() -> RuleState | RuleSet:
        async with open_cli_services() as shop:
            rules = _rules(shop)
            return await (rules.get_state() if version is None else rules.get_set(version))

    result = run(work())
    if json or isinstance(result, RuleSet):
        print_json(result)
    else:
        _print_state(result)


@app.command("list")
def list_sets(json: JsonOption = False) -> None:
    """List the versions of the rules, newest first."""

    async def work() -> list[RuleSetSummary]:
        async with open_cli_services() as shop:
            rules = _rules(shop)
            return await list_all(lambda cursor: rules.list_sets(int(cursor) if cursor else None, _PAGE_SIZE))

    sets = run(work())
    if json:
        print_json(sets)
        return
    table = Table("version", "rules", "added (UTC)", "by", "reason")
    for each in sets:
        table.add_row(str(each.version), str(each.rule_count), format_time(each.created_at), each.actor, each.reason)
    print_table(table, "no rules: floodgate case-rule add FILE.json")


@app.command()
def add(file: RuleFile, reason: ReasonOption) -> None:
    """Store rules as the next version, which does not decide before it is activated.

    FILE.json is {"rules": […]}, for example with the row {"outcome": "approve", "reason": "send it back", "conditions":
    {"kinds": ["return"], "max_amount": {"CNY": 5000}}}. The last row leaves the rest to a person.
    """

    async def work() -> RuleSet:
        new = parse_argument({"rules": _read_rules(file), "reason": reason}, RuleSetInput)
        async with open_cli_services() as shop:
            return await _rules(shop).add_set(new, get_actor())

    version = run_change(work()).version
    print_line(
        f"version {version} is stored and does not decide yet: floodgate case-rule activate {version} --reason …"
    )


@app.command()
def activate(version: Version, reason: ReasonOption) -> None:
    """Have a version decide from now on."""
    _activate(version, reason)


@app.command()
def deactivate(reason: ReasonOption) -> None:
    """Have no version decide."""
    _activate(None, reason)


@app.command()
def switch(position: Annotated[Position, typer.Argument(metavar="on|off")], reason: ReasonOption) -> None:
    """Stop all rules at once, or let them decide again."""
    values = {"is_on": position.value == "on", "reason": reason}
    _change(lambda rules: rules.switch(parse_argument(values, RuleSwitch), get_actor()))


@app.command()
def budget(
    currency: Annotated[str, typer.Argument(metavar="CURRENCY", help="such as CNY")],
    max_amount: Annotated[int, typer.Option(min=0, help="minor units per day of the shop")],
    max_cases: Annotated[int, typer.Option(min=0, help="cases per day of the shop")],
    reason: ReasonOption,
) -> None:
    """Set what rules may approve in a day."""
    values = {"max_amount": max_amount, "max_cases": max_cases, "reason": reason}
    _change(lambda rules: rules.put_budget(currency, parse_argument(values, RuleBudgetInput), get_actor()))


@app.command()
def decisions(
    case_id: Annotated[UUID, typer.Argument(metavar="CASE", help="the case's id")], json: JsonOption = False
) -> None:
    """Show what rules have decided on a case, and why."""

    async def work() -> RuleDecisions:
        async with open_cli_services() as shop:
            return await _rules(shop).list_decisions(case_id)

    result = run(work())
    if json:
        print_json(result)
        return
    table = Table("at (UTC)", "rule", "outcome", "reasons", "overturned by")
    for each in result.items:
        number = "-" if each.rule_no is None else each.rule_no
        rule = f"{number} of set {each.rule_set_version}"
        table.add_row(format_time(each.at), rule, each.outcome, "; ".join(each.reasons), each.overturned_by or "")
    print_table(table, "no rule has decided on this case")


@app.command("try")
def try_rules(
    file: RuleFile,
    from_: Annotated[datetime, typer.Option("--from", parser=read_moment, metavar="TIME", help="the first request")],
    to: Annotated[datetime, typer.Option("--to", parser=read_moment, metavar="TIME", help="requests before it")],
    json: JsonOption = False,
) -> None:
    """Show what rules would have decided on past cases. Changes nothing."""

    async def work() -> DryRun:
        trial = parse_argument({"rules": _read_rules(file), "from": from_, "to": to}, DryRunInput)
        async with open_cli_services() as shop:
            return await _rules(shop).try_rules(trial)

    report = run(work())
    if json:
        print_json(report)
    else:
        _print_report(report)


def _rules(shop: CliServices) -> CaseRules:
    return CaseRules(shop.db, shop.clock, ZoneInfo(shop.settings.shipping.timezone))


def _read_rules(file: Path) -> list[Any]:
    return decode_json(msgspec.json.Decoder(_RuleList), read_file(file)).rules


def _activate(version: int | None, reason: str) -> None:
    values = {"version": version, "reason": reason}
    _change(lambda rules: rules.activate(parse_argument(values, RuleActivation), get_actor()))


def _change(act: Callable[[CaseRules], Awaitable[RuleState]]) -> None:
    async def work() -> RuleState:
        async with open_cli_services() as shop:
            return await act(_rules(shop))

    _print_state(run_change(work()))


def _print_state(state: RuleState) -> None:
    version = "no version" if state.active_version is None else f"version {state.active_version}"
    print_line(f"{version} decides" if state.is_on else f"rules are switched off; {version} is active")
    table = Table("currency", "day", "used", "of", "cases", "of", "left to a person")
    for each in state.budgets:
        amounts = [format_money(amount, each.currency) for amount in (each.amount, each.max_amount)]
        counts = str(each.cases), str(each.max_cases), str(each.refused_cases)
        table.add_row(each.currency, each.day.isoformat(), *amounts, *counts)
    print_table(table, "no budget, so rules approve nothing: floodgate case-rule budget CURRENCY")


def _print_report(report: DryRun) -> None:
    print_line(f"{report.cases} cases, and {report.without_inputs} without stored inputs")
    table = Table("rule", "outcome", "cases")
    for row in report.rows:
        table.add_row(str(row.rule_no), row.outcome, str(row.cases))
    print_table(table)
    table = Table("was", "would be", "cases", "amounts", "for example")
    for each in report.differences:
        was = f"{each.was} (by rule)" if each.was_by_rule else each.was
        amounts = ", ".join(format_money(amount, currency) for currency, amount in each.amounts.items())
        table.add_row(was, each.would_be, str(each.cases), amounts, str(each.sample[0]))
    print_table(table, "nothing would have been decided otherwise")
    for day in report.busiest_days:
        amount = format_money(day.amount, day.currency)
        print_line(f"busiest day: {day.day.isoformat()} with {amount} in {day.cases} cases")
