-- Each case has a conversation with its id, and of ten orders one has a question; most of them have long been closed.
INSERT INTO support_teams (team_id, name, changed_at, actor)
SELECT 'team-' || n, 'Team', '{now}', 'staff' FROM generate_series(0, 4) AS n;
INSERT INTO support_team_members (staff, team_id) SELECT 'staff-' || n, 'team-' || n % 5 FROM generate_series(0, 49) AS n;
INSERT INTO conversations (conversation_id, user_id, order_id, case_id, previous_id, kind, subject, language, status,
                           case_waits_for, priority, assignee, team_id, tags, version, created_at, active_at, due_at, due_kind,
                           last_message_no, first_response_at, resolved_at, closed_at, merged_into)
SELECT id, user_id, id, case_id, CASE WHEN n % 100 = 11 AND case_id IS NULL THEN md5(id::text)::uuid END, kind, 'A subject', 'zh',
       CASE WHEN age >= 60000 THEN 'closed' WHEN n % 400 = 31 THEN 'new' WHEN n % 40 = 11 THEN 'open' ELSE 'waiting_customer' END,
       CASE WHEN case_id IS NOT NULL THEN 'customer' END, 1 + n / 10 % 4,
       CASE WHEN n % 400 <> 31 THEN 'staff-' || n / 10 % 50 END, CASE WHEN n % 3 = 0 THEN 'team-' || n / 10 % 5 END,
       CASE WHEN n % 200 = 11 THEN ARRAY['fire'] ELSE '{{}}' END, 2, at, at, CASE WHEN age < 60000 THEN at + interval '1 day' END,
       CASE WHEN age < 60000 THEN 'decision' END, 2, at, CASE WHEN age >= 60000 THEN at END, CASE WHEN age >= 60000 THEN at END,
       CASE WHEN age >= 60000 AND n % 100 = 21 AND case_id IS NULL THEN md5(id::text)::uuid END
FROM (SELECT n, id, at, age, user_id, NULL::uuid AS case_id, 'question' AS kind FROM fill.orders WHERE n % 10 = 1
      UNION ALL
      SELECT n, id, at, age, cases.user_id, case_id, kind FROM cases JOIN fill.orders ON id = case_id) AS opened;
INSERT INTO conversation_messages (conversation_id, message_no, at, author, actor, text, idempotency_key, body_digest)
SELECT conversation_id, number, created_at + number * interval '1 minute', CASE number WHEN 1 THEN 'customer' ELSE 'staff' END,
       CASE number WHEN 1 THEN 'customer ' || user_id ELSE 'staff sue' END, 'A text',
       CASE number WHEN 1 THEN 'key ' || conversation_id END, CASE number WHEN 1 THEN decode(repeat('00', 32), 'hex') END
FROM conversations, generate_series(1, 2) AS number;
INSERT INTO conversation_events (conversation_id, version, at, actor, kind, details)
SELECT conversation_id, version, at, actor, CASE author WHEN 'customer' THEN 'opened' ELSE 'reply' END, '{{}}'
FROM (SELECT conversation_id, message_no AS version, at, actor, author FROM conversation_messages) AS messages;
INSERT INTO conversation_attachments (attachment_id, uploaded_by, conversation_id, message_no, sha256, media_type, size_bytes,
                                      created_at)
SELECT conversation_id, 'customer ' || user_id, CASE WHEN is_sent THEN conversation_id END, CASE WHEN is_sent THEN 1 END,
       sha256(conversation_id::text::bytea), 'application/pdf', 9, created_at
FROM (SELECT *, right(conversation_id::text, 1) > '0' AS is_sent FROM conversations) AS uploads;
