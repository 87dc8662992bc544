-- Teams, templates, saved views and previews of staff.

-- name: list_teams
SELECT {support_teams}, ARRAY(SELECT staff FROM support_team_members AS member
                              WHERE member.team_id = support_teams.team_id ORDER BY staff) AS members
FROM support_teams WHERE ($1::text IS NULL OR team_id = $1) AND team_id > $2 ORDER BY team_id LIMIT $3;

-- name: put_team
INSERT INTO support_teams (team_id, name, changed_at, actor) VALUES ($1, $2, $3, $4)
ON CONFLICT (team_id) DO UPDATE SET name = excluded.name, changed_at = excluded.changed_at, actor = excluded.actor;

-- name: delete_members
DELETE FROM support_team_members WHERE team_id = $1;

-- name: insert_members
INSERT INTO support_team_members (team_id, staff) SELECT $1, staff FROM unnest($2::text[]) AS input (staff);

-- name: list_teams_of_member
SELECT team_id FROM support_team_members WHERE staff = $1;

-- name: delete_team
DELETE FROM support_teams WHERE team_id = $1 RETURNING team_id;

-- name: list_templates
SELECT {reply_templates} FROM reply_templates
WHERE ($1::text IS NULL OR language = $1) AND (template_id, language) > ($2, $3)
ORDER BY template_id, language LIMIT $4;

-- name: get_template
SELECT {reply_templates} FROM reply_templates WHERE template_id = $1 AND language = $2;

-- name: put_template
INSERT INTO reply_templates (template_id, language, title, text, version, changed_at, actor)
VALUES ($1, $2, $3, $4, 1, $5, $6)
ON CONFLICT (template_id, language) DO UPDATE SET title = excluded.title, text = excluded.text,
    version = reply_templates.version + 1, changed_at = excluded.changed_at, actor = excluded.actor;

-- name: delete_template
DELETE FROM reply_templates WHERE template_id = $1 AND language = $2 RETURNING template_id;

-- name: list_views
-- Those of a staff member and those that are shared.
SELECT {conversation_views} FROM conversation_views WHERE (staff = $1 OR is_shared) AND view_id > $2
ORDER BY view_id LIMIT $3;

-- name: get_view
SELECT {conversation_views} FROM conversation_views WHERE view_id = $1;

-- name: count_views
SELECT count(*) FROM conversation_views WHERE staff = $1;

-- name: insert_view
INSERT INTO conversation_views (view_id, staff, name, is_shared, filter, changed_at) VALUES ($1, $2, $3, $4, $5, $6);

-- name: update_view
UPDATE conversation_views SET name = $3, is_shared = $4, filter = $5, changed_at = $6
WHERE view_id = $1 AND staff = $2 RETURNING view_id;

-- name: delete_view
DELETE FROM conversation_views WHERE view_id = $1 AND staff = $2 RETURNING view_id;

-- name: insert_preview
INSERT INTO bulk_previews (preview_id, actor, action, ids, versions, created_at) VALUES ($1, $2, $3, $4, $5, $6);

-- name: begin_preview
-- Once; null if it was begun before.
UPDATE bulk_previews SET applied_at = $2 WHERE preview_id = $1 AND applied_at IS NULL RETURNING preview_id;

-- name: get_preview
SELECT {bulk_previews} FROM bulk_previews WHERE preview_id = $1 AND actor = $2;

-- name: end_preview
UPDATE bulk_previews SET outcome = $2 WHERE preview_id = $1;

-- name: delete_previews
DELETE FROM bulk_previews WHERE preview_id = ANY(ARRAY(
    SELECT preview_id FROM bulk_previews WHERE created_at < $1 ORDER BY created_at LIMIT $2 FOR UPDATE SKIP LOCKED));
