"""Makes rows of a table fail, whatever is done with them, as a defect would."""

from __future__ import annotations

from commerce.kernel.postgres import Connection


async def refuse_updates(
    connection: Connection, table: str, condition: str, *, event: str = "UPDATE", sqlstate: str = "P0001"
) -> None:
    """Make Postgres refuse updates of OLD to NEW, until the trigger `refuse_some` is dropped.

    With the event INSERT it refuses new rows."""
    await connection.execute(
        f"CREATE FUNCTION refuse_some() RETURNS trigger LANGUAGE plpgsql AS "
        f"$$ BEGIN RAISE EXCEPTION 'this row is refused' USING ERRCODE = '{sqlstate}'; END $$; "
        f"CREATE TRIGGER refuse_some BEFORE {event} ON {table} FOR EACH ROW "
        f"WHEN ({condition}) EXECUTE FUNCTION refuse_some()"
    )
