"""`floodgate deadlines`: working calendars, and policies of deadlines."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from commerce.deadline_policies.model import DeadlinePolicy, DeadlineTerms
from commerce.deadline_policies.service import DeadlinePolicies
from commerce.kernel.errors import Invalid
from commerce.kernel.text_files import read_file
from commerce.working_time.model import CalendarTerms, StoredCalendar
from commerce.working_time.service import WorkingCalendars
from ops.commands.console import (
    JsonOption,
    get_actor,
    list_all,
    print_json,
    print_line,
    print_table,
    run,
    run_change,
)
from ops.commands.safe_console import Table
from ops.services import open_cli_services

app = typer.Typer(help="Set working calendars and the deadlines of support.", no_args_is_help=True)
calendar_app = typer.Typer(help="Show and set working hours, holidays and exceptions.", no_args_is_help=True)
policy_app = typer.Typer(help="Show and set the working time that support has.", no_args_is_help=True)
app.add_typer(calendar_app, name="calendar")
app.add_typer(policy_app, name="policy")
CalendarName = Annotated[str, typer.Argument(metavar="CALENDAR", help="the calendar's name")]
PolicyName = Annotated[str, typer.Argument(metavar="POLICY", help="the policy's name")]
TermsFile = Annotated[Path, typer.Argument(exists=True, dir_okay=False, readable=True, help="its terms as JSON")]
_PAGE_SIZE = 200


@calendar_app.command("list")
def list_calendars(json: JsonOption = False) -> None:
    """List working calendars. Holidays are not known from the day in the last column on."""

    async def work() -> list[StoredCalendar]:
        async with open_cli_services() as shop:
            calendars = WorkingCalendars(shop.db, shop.clock)
            return await list_all(lambda cursor: calendars.list_calendars(cursor, _PAGE_SIZE))

    calendars = run(work())
    if json:
        print_json(calendars)
        return
    table = Table("calendar", "zone", "public holidays", "exceptions", "version", "uncertain from")
    for calendar in calendars:
        terms = calendar.terms
        values = (calendar.calendar_id, terms.zone, terms.public_holidays, len(terms.exceptions), calendar.version)
        table.add_row(*map(str, values), str(calendar.uncertain_from or ""))
    print_table(table)


@calendar_app.command("show")
def show_calendar(calendar_id: CalendarName) -> None:
    """Print a working calendar as JSON, in the form that `set` reads."""

    async def work() -> StoredCalendar:
        async with open_cli_services() as shop:
            return await WorkingCalendars(shop.db, shop.clock).get(calendar_id)

    print_json(msgspec.to_builtins(run(work()).terms))


@calendar_app.command("set")
def set_calendar(calendar_id: CalendarName, file: TermsFile) -> None:
    """Create a working calendar, or replace it whole. Open deadlines follow."""

    async def work() -> StoredCalendar:
        terms = _read_terms(file, CalendarTerms, "calendar")
        async with open_cli_services() as shop:
            return await WorkingCalendars(shop.db, shop.clock).put(calendar_id, terms, get_actor())

    calendar = run_change(work())
    print_line(f"the calendar {calendar.calendar_id} has version {calendar.version}")


@calendar_app.command("delete")
def delete_calendar(calendar_id: CalendarName) -> None:
    """Delete a working calendar that no policy uses."""

    async def work() -> None:
        async with open_cli_services() as shop:
            await WorkingCalendars(shop.db, shop.clock).delete(calendar_id)

    run_change(work())
    print_line(f"the calendar {calendar_id} is deleted")


@policy_app.command("list")
def list_policies(json: JsonOption = False) -> None:
    """List policies of deadlines, with working time in hours."""

    async def work() -> list[DeadlinePolicy]:
        async with open_cli_services() as shop:
            policies = DeadlinePolicies(shop.db, shop.clock)
            return await list_all(lambda cursor: policies.list_policies(cursor, _PAGE_SIZE))

    policies = run(work())
    if json:
        print_json(policies)
        return
    table = Table("policy", "team", "kind", "priority", "calendar", "response", "decision", "money", "version")
    for policy in policies:
        terms = policy.terms
        hours = ("none" if time_s is None else f"{time_s / 3600:g} h" for time_s in _times(terms))
        selectors = (terms.team_id or "all", terms.kind or "all", terms.priority or "all", terms.calendar_id)
        table.add_row(policy.policy_id, *map(str, selectors), *hours, str(policy.version))
    print_table(table)


@policy_app.command("show")
def show_policy(policy_id: PolicyName) -> None:
    """Print a policy of deadlines as JSON, in the form that `set` reads."""

    async def work() -> DeadlinePolicy:
        async with open_cli_services() as shop:
            return await DeadlinePolicies(shop.db, shop.clock).get(policy_id)

    print_json(msgspec.to_builtins(run(work()).terms))


@policy_app.command("set")
def set_policy(policy_id: PolicyName, file: TermsFile) -> None:
    """Create a policy of deadlines, or replace it whole. Open deadlines follow."""

    async def work() -> DeadlinePolicy:
        terms = _read_terms(file, DeadlineTerms, "policy")
        async with open_cli_services() as shop:
            return await DeadlinePolicies(shop.db, shop.clock).put(policy_id, terms, get_actor())

    policy = run_change(work())
    print_line(f"the policy {policy.policy_id} has version {policy.version}")


@policy_app.command("delete")
def delete_policy(policy_id: PolicyName) -> None:
    """Delete a policy of deadlines. The one called default stays."""

    async def work() -> None:
        async with open_cli_services() as shop:
            await DeadlinePolicies(shop.db, shop.clock).delete(policy_id)

    run_change(work())
    print_line(f"the policy {policy_id} is deleted")


def _times(terms: DeadlineTerms) -> tuple[int | None, ...]:
    return terms.first_response_s, terms.decision_s, terms.money_s


def _read_terms(file: Path, type_: type[Any], group: str) -> Any:
    try:
        return msgspec.json.decode(read_file(file), type=type_)
    except msgspec.MsgspecError as error:
        raise Invalid(f"cannot read {file}: {error}; `floodgate deadlines {group} show` prints the form") from None
