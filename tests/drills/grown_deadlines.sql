-- Each conversation has a first response that was in time, and a decision that is open or done.
INSERT INTO conversation_clocks (conversation_id, kind, run_no, started_at, allowed_s, due_at, stopped_at, stopped_by,
                                 worked_s, is_late)
SELECT conversation_id, 'first_response', 1, created_at, 7200, created_at + interval '2 hours',
       created_at + interval '1 hour', 'staff anna', 3600, false FROM conversations;
INSERT INTO conversation_clocks (conversation_id, kind, run_no, started_at, allowed_s, due_at, stopped_at, stopped_by,
                                 worked_s, is_late)
SELECT conversation_id, 'decision', 1, created_at, 57600, created_at + interval '16 hours', resolved_at,
       CASE WHEN resolved_at IS NOT NULL THEN 'staff anna' END, 7200, false FROM conversations;
UPDATE conversations SET deadline_generation = (SELECT generation FROM deadline_generation), deadline_policy_id = 'default',
       due_at = CASE WHEN status IN ('new', 'open') THEN created_at + interval '16 hours' END,
       due_kind = CASE WHEN status IN ('new', 'open') THEN 'decision' END;
