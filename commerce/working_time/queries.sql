-- name: list_calendars
-- Those after an id, or the one with an id.
SELECT calendar_id, version, terms::text, changed_at, actor FROM working_calendars
WHERE ($1::text IS NULL OR calendar_id = $1) AND calendar_id > $2 ORDER BY calendar_id LIMIT $3;

-- name: put_calendar
INSERT INTO working_calendars (calendar_id, version, terms, changed_at, actor) VALUES ($1, 1, $2, $3, $4)
ON CONFLICT (calendar_id) DO UPDATE SET version = working_calendars.version + 1, terms = excluded.terms,
    changed_at = excluded.changed_at, actor = excluded.actor;

-- name: count_calendars
SELECT count(*) FROM working_calendars WHERE calendar_id <> $1;

-- name: delete_calendar
DELETE FROM working_calendars WHERE calendar_id = $1 RETURNING calendar_id;
