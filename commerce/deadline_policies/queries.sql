-- name: list_policies
-- Those after an id, or the one with an id.
SELECT {deadline_policies} FROM deadline_policies
WHERE ($1::text IS NULL OR policy_id = $1) AND policy_id > $2 ORDER BY policy_id LIMIT $3;

-- name: find_policy
-- The generation is of the same snapshot: whoever computes by an older policy has an older generation.
SELECT generation, terms::text AS calendar_terms, {deadline_policies}
FROM deadline_generation
CROSS JOIN LATERAL (
    SELECT policy_id FROM deadline_policies AS candidate
    WHERE (team_id IS NULL OR team_id = $1) AND (kind IS NULL OR kind = $2) AND (priority IS NULL OR priority = $3)
    ORDER BY team_id IS NULL, kind IS NULL, priority IS NULL LIMIT 1) AS specific
JOIN deadline_policies USING (policy_id)
JOIN working_calendars USING (calendar_id);

-- name: list_with_calendars
SELECT generation, terms::text AS calendar_terms, {deadline_policies}
FROM deadline_generation CROSS JOIN deadline_policies JOIN working_calendars USING (calendar_id) ORDER BY policy_id;

-- name: read_generation
SELECT generation FROM deadline_generation;

-- name: put_policy
INSERT INTO deadline_policies (policy_id, version, team_id, kind, priority, calendar_id, first_response_s, decision_s,
                               money_s, escalation_priority, escalation_team_id, changed_at, actor)
VALUES ($1, 1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
ON CONFLICT (policy_id) DO UPDATE SET
    version = deadline_policies.version + 1, team_id = excluded.team_id, kind = excluded.kind,
    priority = excluded.priority, calendar_id = excluded.calendar_id, first_response_s = excluded.first_response_s,
    decision_s = excluded.decision_s, money_s = excluded.money_s, escalation_priority = excluded.escalation_priority,
    escalation_team_id = excluded.escalation_team_id, changed_at = excluded.changed_at, actor = excluded.actor;

-- name: count_policies
SELECT count(*) FROM deadline_policies WHERE policy_id <> $1;

-- name: delete_policy
DELETE FROM deadline_policies WHERE policy_id = $1 RETURNING policy_id;
