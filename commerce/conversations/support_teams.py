"""Teams of support, and the views of the queue that staff save."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from asyncpg import ForeignKeyViolationError, UniqueViolationError

from commerce.conversations import support_store
from commerce.conversations.conversation_policy import ConversationPolicy
from commerce.conversations.errors import NoSuchTeam, NoSuchView
from commerce.conversations.support_model import SavedView, SupportTeam, TeamInput, ViewInput
from commerce.conversations.support_store import VIEW_NAME_CONSTRAINT
from commerce.kernel.clock import Clock, from_ms
from commerce.kernel.errors import Conflict
from commerce.kernel.ids import IdGenerator
from commerce.kernel.paging import Page, to_page
from commerce.kernel.postgres import Database

_FIRST = UUID(int=0)


class SupportTeams:
    """Teams, whose members take their conversations."""

    def __init__(self, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock

    async def list_teams(self, cursor: str | None, count: int) -> Page[SupportTeam]:
        """List teams by id."""
        async with self._db.connection() as connection:
            teams = await support_store.list_teams(connection, None, cursor or "", count + 1)
        return to_page(teams, count, lambda team: team.team_id)

    async def put(self, team_id: str, team: TeamInput, actor: str) -> SupportTeam:
        """Create a team, or replace it with its members."""
        async with self._db.transaction() as connection:
            now = from_ms(self._clock.now_ms())
            await support_store.put_team(connection, team_id, team.name, team.members, now, actor)
            [stored] = await support_store.list_teams(connection, team_id, "", 1)
        return stored

    async def delete(self, team_id: str) -> None:
        """Delete a team that has no conversations. Raises `NoSuchTeam`, `Conflict` if it has some."""
        try:
            async with self._db.transaction() as connection:
                if not await support_store.delete_team(connection, team_id):
                    raise NoSuchTeam(f"there is no team {team_id}")
        except ForeignKeyViolationError:
            raise Conflict(f"cannot delete the team {team_id}: it has conversations; give them to another") from None


class SavedViews:
    """Filters of the queue, of one staff member or shared with all."""

    def __init__(self, db: Database, clock: Clock, ids: IdGenerator, policy: ConversationPolicy) -> None:
        self._db = db
        self._clock = clock
        self._ids = ids
        self._policy = policy

    async def list_views(self, staff: str, cursor: UUID | None, count: int) -> Page[SavedView]:
        """List the views of a staff member and those that are shared, oldest first."""
        async with self._db.connection() as connection:
            views = await support_store.list_views(connection, staff, cursor or _FIRST, count + 1)
        return to_page(views, count, lambda view: str(view.view_id))

    async def get(self, view_id: UUID, staff: str) -> SavedView:
        """Read a view that a staff member may use. Raises `NoSuchView`."""
        async with self._db.connection() as connection:
            view = await support_store.get_view(connection, view_id)
        if view is None or not (view.is_shared or view.staff == staff):
            raise NoSuchView(f"there is no view {view_id}")
        return view

    async def add(self, staff: str, view: ViewInput) -> SavedView:
        """Save a view. Raises `Conflict` if the staff member has one of that name, or as many as are allowed."""
        view_id = self._ids.new()
        try:
            async with self._db.transaction() as connection:
                limit = self._policy.views_per_staff
                if await support_store.count_views(connection, staff) >= limit:
                    raise Conflict(f"cannot save the view: you have {limit}; delete some")
                await support_store.insert_view(connection, view_id, staff, view, self._now())
        except UniqueViolationError as error:
            if error.constraint_name != VIEW_NAME_CONSTRAINT:
                raise
            raise _name_taken(view.name) from None
        return await self.get(view_id, staff)

    async def replace(self, view_id: UUID, staff: str, view: ViewInput) -> SavedView:
        """Replace one's own view. Raises `NoSuchView`, `Conflict` as `add`."""
        try:
            async with self._db.transaction() as connection:
                if not await support_store.update_view(connection, view_id, staff, view, self._now()):
                    raise NoSuchView(f"there is no view {view_id} of yours")
        except UniqueViolationError as error:
            if error.constraint_name != VIEW_NAME_CONSTRAINT:
                raise
            raise _name_taken(view.name) from None
        return await self.get(view_id, staff)

    async def delete(self, view_id: UUID, staff: str) -> None:
        """Delete one's own view. Raises `NoSuchView`."""
        async with self._db.connection() as connection:
            if not await support_store.delete_view(connection, view_id, staff):
                raise NoSuchView(f"there is no view {view_id} of yours")

    def _now(self) -> datetime:
        return from_ms(self._clock.now_ms())


def _name_taken(name: str) -> Conflict:
    return Conflict(f"cannot save the view: you have one called {name!r}; replace it, or choose another name")
