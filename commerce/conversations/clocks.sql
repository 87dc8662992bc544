-- name: list_clock_events
-- Those that may concern a clock, with the details that do.
SELECT at, actor, kind, details->>'status' AS status, details->>'from' AS from_status,
       details->>'case_status' AS case_status, details->>'money_state' AS money_state,
       (details->>'waiting_since')::timestamptz AS waiting_since, details ? 'is_answer' AS is_answer
FROM conversation_events
WHERE conversation_id = $1 AND (kind NOT IN ('note', 'assigned', 'changed', 'satisfaction') OR details ? 'from')
ORDER BY version;

-- name: put_clocks
-- A run that has stopped stays as it was judged.
WITH conversation AS (
    UPDATE conversations SET due_at = $2, due_kind = $3, deadline_policy_id = $4, deadline_generation = $5
    WHERE conversation_id = $1
)
INSERT INTO conversation_clocks (conversation_id, kind, run_no, started_at, allowed_s, due_at, stopped_at, stopped_by,
                                 worked_s, is_late)
SELECT $1, kind, run_no, started_at, allowed_s, due_at, stopped_at, stopped_by, worked_s, is_late
FROM unnest($6::text[], $7::integer[], $8::timestamptz[], $9::integer[], $10::timestamptz[], $11::timestamptz[],
            $12::text[], $13::integer[], $14::boolean[])
     AS input (kind, run_no, started_at, allowed_s, due_at, stopped_at, stopped_by, worked_s, is_late)
ON CONFLICT (conversation_id, kind, run_no) DO UPDATE SET
    started_at = excluded.started_at, allowed_s = excluded.allowed_s, due_at = excluded.due_at,
    stopped_at = excluded.stopped_at, stopped_by = excluded.stopped_by, worked_s = excluded.worked_s,
    is_late = excluded.is_late
WHERE conversation_clocks.stopped_at IS NULL;

-- name: delete_running_clocks
-- Of a conversation that was merged: its messages wait in the other one.
DELETE FROM conversation_clocks WHERE conversation_id = $1 AND stopped_at IS NULL;

-- name: get_waiting_since
SELECT started_at FROM conversation_clocks
WHERE conversation_id = $1 AND kind = 'first_response' AND stopped_at IS NULL;

-- name: lock_outdated
-- Open conversations whose deadlines are of an older generation. Those that others change are skipped.
SELECT conversation_id FROM conversations
WHERE (status NOT IN ('resolved', 'closed') OR due_at IS NOT NULL) AND deadline_generation < $1
ORDER BY deadline_generation, conversation_id LIMIT $2 FOR NO KEY UPDATE SKIP LOCKED;

-- name: lock_late
-- Conversations of a policy past their deadline that were not escalated yet.
SELECT conversation_id FROM conversations
WHERE deadline_policy_id = $1 AND due_at < $2 AND escalated_on IS NULL
ORDER BY due_at, conversation_id LIMIT $3 FOR NO KEY UPDATE SKIP LOCKED;

-- name: count_overdue
SELECT due_kind, count(*) AS conversations FROM conversations WHERE due_at < $1 GROUP BY due_kind;

-- name: count_outdated
SELECT count(*) FROM conversations
WHERE (status NOT IN ('resolved', 'closed') OR due_at IS NOT NULL) AND deadline_generation < $1;

-- name: count_unanswered
SELECT count(*) FROM conversation_clocks WHERE kind = 'first_response' AND stopped_at IS NULL;

-- name: find_oldest_unanswered
SELECT started_at, deadline_policy_id FROM conversation_clocks JOIN conversations USING (conversation_id)
WHERE conversation_clocks.kind = 'first_response' AND stopped_at IS NULL ORDER BY started_at LIMIT 1;
