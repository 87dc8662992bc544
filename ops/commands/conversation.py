"""`floodgate conversation`: conversations of customers with support."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from enum import StrEnum
from typing import Annotated, Any, get_args
from uuid import UUID

import typer

from commerce.conversations.model import Conversation, ConversationStatus, ConversationSummary
from commerce.conversations.support_actions import SupportActions
from commerce.conversations.support_model import (
    AssignInput,
    ConversationChange,
    ConversationMerge,
    NoteInput,
    QueueFilter,
    ReplyInput,
    StatusInput,
    TakeInput,
)
from ops.commands.console import (
    JsonOption,
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
from ops.services import open_cli_services

app = typer.Typer(help="Show and answer conversations with customers.", no_args_is_help=True)
ConversationId = Annotated[UUID, typer.Argument(metavar="CONVERSATION", help="the conversation's id")]
StaffOption = Annotated[str, typer.Option(help="the staff member, as in the subject of a token")]
VersionOption = Annotated[int | None, typer.Option(help="the version that you have read; left out: whatever it is now")]
ReasonOption = Annotated[str, typer.Option(help="the reason, for the record")]
StatusName = StrEnum("StatusName", {name: name for name in get_args(ConversationStatus)})  # type: ignore[misc]
_Action = Callable[[SupportActions, int], Awaitable[None]]


@app.command("list")
def list_conversations(
    status: Annotated[StatusName | None, typer.Option(help="only with this status; left out: not ended")] = None,
    team: Annotated[str | None, typer.Option(help="only of this team")] = None,
    assignee: Annotated[str | None, typer.Option(help="only of this staff member")] = None,
    tag: Annotated[str | None, typer.Option(help="only with this tag")] = None,
    overdue: Annotated[bool, typer.Option("--overdue", help="only those past their deadline")] = False,
    limit: Annotated[int, typer.Option(min=1, max=1_000, help="at most so many")] = 50,
    json: JsonOption = False,
) -> None:
    """List conversations by priority, then due time."""
    options = {"team_id": team, "assignee": assignee, "tag": tag, "is_overdue": overdue}
    values: dict[str, Any] = {name: value for name, value in options.items() if value}
    filter_ = parse_argument(values | {"statuses": [status.value] if status else []}, QueueFilter)

    async def work() -> list[ConversationSummary]:
        async with open_cli_services() as shop:
            return (await shop.conversations.list_queue(filter_, None, limit)).items

    conversations = run(work())
    if json:
        print_json(conversations)
        return
    table = Table("conversation", "priority", "status", "kind", "subject", "due (UTC)", "assignee", "unanswered")
    table.columns[0].no_wrap = True
    for each in conversations:
        table.add_row(
            *(str(each.conversation_id), str(each.priority), each.status, each.kind, each.subject),
            *(format_time(each.due_at), each.assignee or "", str(each.unanswered)),
        )
    print_table(table, "no conversations")


@app.command()
def show(conversation_id: ConversationId, json: JsonOption = False) -> None:
    """Show a conversation with its newest messages and events."""

    async def work() -> Conversation:
        async with open_cli_services() as shop:
            return await shop.conversations.get(conversation_id)

    conversation = run(work())
    if json:
        print_json(conversation)
    else:
        _print(conversation)


@app.command()
def reply(
    conversation_id: ConversationId,
    text: Annotated[str | None, typer.Option(help="the text")] = None,
    template: Annotated[str | None, typer.Option(help="a template in place of a text")] = None,
    resolve: Annotated[bool, typer.Option("--resolve", help="resolve the conversation with it")] = False,
    version: VersionOption = None,
) -> None:
    """Reply to the customer."""
    options = {"text": text, "template": template, "status": "resolved" if resolve else None}
    values = {name: value for name, value in options.items() if value is not None}

    async def act(actions: SupportActions, read_version: int) -> None:
        parsed = parse_argument({**values, "version": read_version}, ReplyInput)
        await actions.reply(conversation_id, parsed, get_actor(), get_actor())

    _change(conversation_id, version, act)


@app.command()
def note(
    conversation_id: ConversationId, text: Annotated[str, typer.Option(help="the text")], version: VersionOption = None
) -> None:
    """Add an internal note, which no customer reads."""

    async def act(actions: SupportActions, read_version: int) -> None:
        values = {"text": text, "version": read_version}
        await actions.note(conversation_id, parse_argument(values, NoteInput), get_actor())

    _change(conversation_id, version, act)


@app.command()
def take(staff: StaffOption, team: Annotated[str | None, typer.Option(help="of this team")] = None) -> None:
    """Assign the next conversation that nobody has."""
    wanted = parse_argument({"team_id": team}, TakeInput)
    taker = parse_argument({"version": 1, "assignee": staff}, AssignInput).assignee or ""

    async def work() -> UUID | None:
        async with open_cli_services() as shop:
            return await shop.conversations.actions.take(wanted.team_id, taker, get_actor())

    taken = run_change(work())
    print_line(f"{staff} has {taken}" if taken else "no conversation waits that nobody has")


@app.command()
def assign(
    conversation_id: ConversationId,
    staff: Annotated[str | None, typer.Option(help="the staff member; left out: released")] = None,
    version: VersionOption = None,
) -> None:
    """Assign a conversation to a staff member, or release it."""

    async def act(actions: SupportActions, read_version: int) -> None:
        values = {"version": read_version, "assignee": staff}
        await actions.assign(conversation_id, parse_argument(values, AssignInput), get_actor())

    _change(conversation_id, version, act)


@app.command()
def change(
    conversation_id: ConversationId,
    team: Annotated[str | None, typer.Option(help="the team")] = None,
    priority: Annotated[int | None, typer.Option(help="1 urgent to 4 low")] = None,
    tag: Annotated[list[str] | None, typer.Option(help="all of its tags; several times")] = None,
    version: VersionOption = None,
) -> None:
    """Change team, priority or tags."""
    options = {"team_id": team, "priority": priority, "tags": tag}
    values = {name: value for name, value in options.items() if value is not None}

    async def act(actions: SupportActions, read_version: int) -> None:
        parsed = parse_argument({**values, "version": read_version}, ConversationChange)
        await actions.change(conversation_id, parsed, get_actor())

    _change(conversation_id, version, act)


@app.command()
def resolve(conversation_id: ConversationId, reason: ReasonOption, version: VersionOption = None) -> None:
    """Resolve a conversation; it is closed in time."""
    _set_status(conversation_id, "resolved", reason, version)


@app.command()
def close(conversation_id: ConversationId, reason: ReasonOption, version: VersionOption = None) -> None:
    """Close a conversation; its customer is asked how satisfied he is, once."""
    _set_status(conversation_id, "closed", reason, version)


@app.command()
def reopen(conversation_id: ConversationId, reason: ReasonOption, version: VersionOption = None) -> None:
    """Reopen a conversation."""
    _set_status(conversation_id, "open", reason, version)


@app.command()
def merge(
    conversation_id: ConversationId,
    into: Annotated[UUID, typer.Option(help="the conversation of the same customer that gets the messages")],
) -> None:
    """Move all messages to another conversation of the same customer."""

    async def work() -> Conversation:
        async with open_cli_services() as shop:
            conversations = shop.conversations
            source, target = await conversations.get(conversation_id), await conversations.get(into)
            versions = source.conversation.version, target.conversation.version
            wanted = ConversationMerge(version=versions[0], into=into, into_version=versions[1])
            await conversations.actions.merge(conversation_id, wanted, get_actor())
            return await conversations.get(into)

    _print(run_change(work()))


def _set_status(conversation_id: UUID, status: str, reason: str, version: int | None) -> None:
    async def act(actions: SupportActions, read_version: int) -> None:
        values = {"version": read_version, "status": status, "reason": reason}
        await actions.set_status(conversation_id, parse_argument(values, StatusInput), get_actor())

    _change(conversation_id, version, act)


def _change(conversation_id: UUID, version: int | None, act: _Action) -> None:
    async def work() -> Conversation:
        async with open_cli_services() as shop:
            read = version or (await shop.conversations.get(conversation_id)).conversation.version
            await act(shop.conversations.actions, read)
            return await shop.conversations.get(conversation_id)

    _print(run_change(work()))


def _print(conversation: Conversation) -> None:
    summary = conversation.conversation
    print_values(
        [
            ("conversation", summary.conversation_id),
            ("customer", summary.user_id),
            ("order", summary.order_id or ""),
            ("kind", summary.kind),
            ("subject", summary.subject),
            ("status", f"{summary.status}, version {summary.version}"),
            ("case waits for", summary.case_waits_for or ""),
            ("priority", summary.priority),
            ("assignee", summary.assignee or "nobody"),
            ("team", summary.team_id or ""),
            ("tags", " ".join(summary.tags)),
            ("due", format_time(summary.due_at)),
            ("merged into", summary.merged_into or ""),
        ]
    )
    messages = Table("no", "at (UTC)", "by", "text")
    for message in conversation.messages:
        author = f"{message.actor} (note)" if message.is_internal else message.actor
        messages.add_row(str(message.message_no), format_time(message.at), author, message.text)
    print_table(messages, "no messages")
    events = Table("version", "at (UTC)", "event", "by")
    for event in conversation.events:
        events.add_row(str(event.version), format_time(event.at), event.kind, event.actor)
    print_table(events)
