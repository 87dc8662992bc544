"""Rows of teams, templates, saved views and previews of staff."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

import msgspec

from commerce.conversations.model import Language
from commerce.conversations.store import queries
from commerce.conversations.support_model import (
    BulkAction,
    BulkOutcome,
    QueueFilter,
    ReplyTemplate,
    SavedView,
    SupportTeam,
    TemplateInput,
    ViewInput,
)
from commerce.kernel.postgres import Connection

VIEW_NAME_CONSTRAINT = "conversation_views_staff_name_key"


class StoredPreview(NamedTuple):
    """A stored preview of a change of many: conversations with their versions."""

    preview_id: UUID
    action: BulkAction
    conversations: Sequence[tuple[UUID, int]]
    created_at: datetime
    outcome: BulkOutcome | None


async def list_teams(connection: Connection, team_id: str | None, after: str, count: int) -> list[SupportTeam]:
    """List teams by id, or the one with an id."""
    rows = await connection.fetch(queries.list_teams, team_id, after, count)
    return [SupportTeam(**{field: row[field] for field in SupportTeam.__struct_fields__}) for row in rows]


async def put_team(
    connection: Connection, team_id: str, name: str, members: Sequence[str], now: datetime, actor: str
) -> None:
    """Create a team, or replace its name and members."""
    await connection.execute(queries.put_team, team_id, name, now, actor)
    await connection.execute(queries.delete_members, team_id)
    await connection.execute(queries.insert_members, team_id, sorted(set(members)))


async def list_teams_of_member(connection: Connection, staff: str) -> list[str]:
    return [row["team_id"] for row in await connection.fetch(queries.list_teams_of_member, staff)]


async def delete_team(connection: Connection, team_id: str) -> bool:
    """Delete a team. Raises `ForeignKeyViolationError` if a conversation belongs to it."""
    return await connection.fetchval(queries.delete_team, team_id) is not None


async def list_templates(
    connection: Connection, language: Language | None, after: tuple[str, str], count: int
) -> list[ReplyTemplate]:
    rows = await connection.fetch(queries.list_templates, language, *after, count)
    return [ReplyTemplate(**row) for row in rows]


async def get_template(connection: Connection, template_id: str, language: Language) -> ReplyTemplate | None:
    row = await connection.fetchrow(queries.get_template, template_id, language)
    return ReplyTemplate(**row) if row else None


async def put_template(
    connection: Connection, template_id: str, language: Language, template: TemplateInput, now: datetime, actor: str
) -> None:
    """Create a template in a language, or replace it."""
    await connection.execute(queries.put_template, template_id, language, template.title, template.text, now, actor)


async def delete_template(connection: Connection, template_id: str, language: Language) -> bool:
    return await connection.fetchval(queries.delete_template, template_id, language) is not None


async def list_views(connection: Connection, staff: str, after: UUID, count: int) -> list[SavedView]:
    """List the views of a staff member and those that are shared."""
    return [_view(row) for row in await connection.fetch(queries.list_views, staff, after, count)]


async def get_view(connection: Connection, view_id: UUID) -> SavedView | None:
    row = await connection.fetchrow(queries.get_view, view_id)
    return _view(row) if row else None


async def count_views(connection: Connection, staff: str) -> int:
    return int(await connection.fetchval(queries.count_views, staff))


async def insert_view(connection: Connection, view_id: UUID, staff: str, view: ViewInput, now: datetime) -> None:
    """Insert a view. Raises `UniqueViolationError` if the staff member has one of that name."""
    await connection.execute(queries.insert_view, view_id, staff, view.name, view.is_shared, _json(view.filter), now)


async def update_view(connection: Connection, view_id: UUID, staff: str, view: ViewInput, now: datetime) -> bool:
    """Replace a view of a staff member. False if there is none."""
    updated = await connection.fetchval(
        queries.update_view, view_id, staff, view.name, view.is_shared, _json(view.filter), now
    )
    return updated is not None


async def delete_view(connection: Connection, view_id: UUID, staff: str) -> bool:
    return await connection.fetchval(queries.delete_view, view_id, staff) is not None


async def insert_preview(
    connection: Connection,
    preview_id: UUID,
    actor: str,
    action: BulkAction,
    conversations: Sequence[tuple[UUID, int]],
    now: datetime,
) -> None:
    """Insert a preview of conversations, each with the version that was shown."""
    ids, versions = [row[0] for row in conversations], [row[1] for row in conversations]
    await connection.execute(queries.insert_preview, preview_id, actor, _json(action), ids, versions, now)


async def begin_preview(connection: Connection, preview_id: UUID, now: datetime) -> bool:
    """Mark a preview as being applied. False if it was marked before."""
    return await connection.fetchval(queries.begin_preview, preview_id, now) is not None


async def get_preview(connection: Connection, preview_id: UUID, actor: str) -> StoredPreview | None:
    """Read a preview that somebody has had."""
    row = await connection.fetchrow(queries.get_preview, preview_id, actor)
    if row is None:
        return None
    outcome = row["outcome"]
    return StoredPreview(
        row["preview_id"],
        msgspec.json.decode(row["action"], type=BulkAction),
        list(zip(row["ids"], row["versions"], strict=True)),
        row["created_at"],
        None if outcome is None else msgspec.json.decode(outcome, type=BulkOutcome),
    )


async def end_preview(connection: Connection, preview_id: UUID, outcome: BulkOutcome) -> None:
    await connection.execute(queries.end_preview, preview_id, _json(outcome))


async def delete_previews(connection: Connection, before: datetime, count: int) -> None:
    """Delete old previews, at most `count`."""
    await connection.execute(queries.delete_previews, before, count)


def _view(row: Any) -> SavedView:
    values = {field: row[field] for field in SavedView.__struct_fields__}
    return SavedView(**(values | {"filter": msgspec.json.decode(row["filter"], type=QueueFilter)}))


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()
