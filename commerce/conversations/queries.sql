-- name: get_conversation
SELECT {conversations} FROM conversations WHERE conversation_id = $1;

-- name: lock_conversation
-- Rows that only refer to it may be inserted meanwhile.
SELECT {conversations} FROM conversations WHERE conversation_id = $1 FOR NO KEY UPDATE;

-- name: insert_conversation
-- With its first event. A case has one conversation, with the case's id.
WITH opened AS (
    INSERT INTO conversations (conversation_id, user_id, order_id, case_id, previous_id, kind, subject, language, status,
                               case_waits_for, amount_minor, currency, created_at, active_at, resolved_at, closed_at,
                               first_response_at)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $13, $14, NULL, $15)
    ON CONFLICT DO NOTHING RETURNING conversation_id
)
INSERT INTO conversation_events (conversation_id, version, at, actor, kind, details)
SELECT conversation_id, 1, $13, $16, 'opened', $17 FROM opened RETURNING version;

-- name: update_conversation
-- Of the version that was read; each change inserts the event of the next one.
WITH changed AS (
    UPDATE conversations SET version = version + 1, subject = $3, language = $4, status = $5, case_waits_for = $6,
        amount_minor = $7, currency = $8, priority = $9, assignee = $10, team_id = $11, tags = $12, active_at = $13,
        due_at = $14, due_kind = $15, escalated_on = $16, last_message_no = $17, unanswered = $18,
        read_by_customer_no = $19, first_response_at = $20, resolved_at = $21, closed_at = $22, merged_into = $23,
        reopens = $24, satisfaction = $25, satisfaction_text = $26, satisfaction_requested_at = $27, satisfaction_at = $28
    WHERE conversation_id = $1 AND version = $2
    RETURNING conversation_id, version
)
INSERT INTO conversation_events (conversation_id, version, at, actor, kind, details)
SELECT conversation_id, version, $29, $30, $31, $32 FROM changed RETURNING version;

-- name: take_next
-- The first that waits for staff and that nobody has, of these teams ('' stands for none). Rows that others are taking
-- are skipped; of each team as many are looked at as people may take at once.
WITH next AS (
    SELECT conversation_id FROM conversations
    WHERE assignee IS NULL AND status IN ('new', 'open') AND conversation_id IN (
        SELECT first.conversation_id FROM unnest($1::text[]) AS wanted (team) CROSS JOIN LATERAL (
            SELECT conversation_id FROM conversations
            WHERE coalesce(team_id, '') = wanted.team AND assignee IS NULL AND status IN ('new', 'open')
            ORDER BY priority, queue_at, conversation_id LIMIT $2) AS first)
    ORDER BY priority, queue_at, conversation_id LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED
), taken AS (
    UPDATE conversations SET assignee = $3, status = 'open', version = version + 1
    FROM next WHERE conversations.conversation_id = next.conversation_id
    RETURNING conversations.conversation_id, version
)
INSERT INTO conversation_events (conversation_id, version, at, actor, kind, details)
SELECT conversation_id, version, $4, $5, 'assigned', $6 FROM taken RETURNING conversation_id;

-- name: has_unassigned
SELECT EXISTS (
    SELECT FROM conversations
    WHERE assignee IS NULL AND status IN ('new', 'open') AND coalesce(team_id, '') = ANY($1::text[]));

-- name: list_queue
-- Of each status and priority the first ones after the cursor, then the first of all of them.
SELECT {conversations} FROM unnest($1::text[]) AS wanted (status) CROSS JOIN generate_series(1, 4) AS wanted_priority
CROSS JOIN LATERAL (
    SELECT conversation_id FROM conversations AS candidates
    WHERE candidates.status = wanted.status AND priority = wanted_priority AND wanted_priority >= $2::integer
      AND (queue_at, conversation_id)
          > (CASE WHEN wanted_priority = $2 THEN $3 ELSE '-infinity'::timestamptz END, $4::uuid)
      AND ($5::timestamptz IS NULL OR (queue_at < $5 AND due_at IS NOT NULL))
      AND ($6::text IS NULL OR kind = $6) AND (NOT $7::boolean OR assignee IS NULL)
    ORDER BY queue_at, conversation_id LIMIT $8) AS first
JOIN conversations USING (conversation_id)
ORDER BY conversations.priority, conversations.queue_at, conversations.conversation_id LIMIT $8;

-- name: list_queue_of_team
-- The same of a team.
SELECT {conversations} FROM unnest($1::text[]) AS wanted (status) CROSS JOIN generate_series(1, 4) AS wanted_priority
CROSS JOIN LATERAL (
    SELECT conversation_id FROM conversations AS candidates
    WHERE team_id = $9 AND candidates.status = wanted.status AND priority = wanted_priority AND wanted_priority >= $2::integer
      AND (queue_at, conversation_id)
          > (CASE WHEN wanted_priority = $2 THEN $3 ELSE '-infinity'::timestamptz END, $4::uuid)
      AND ($5::timestamptz IS NULL OR (queue_at < $5 AND due_at IS NOT NULL))
      AND ($6::text IS NULL OR kind = $6) AND (NOT $7::boolean OR assignee IS NULL)
    ORDER BY queue_at, conversation_id LIMIT $8) AS first
JOIN conversations USING (conversation_id)
ORDER BY conversations.priority, conversations.queue_at, conversations.conversation_id LIMIT $8;

-- name: list_queue_of_assignee
-- The same of a staff member.
SELECT {conversations} FROM unnest($1::text[]) AS wanted (status) CROSS JOIN generate_series(1, 4) AS wanted_priority
CROSS JOIN LATERAL (
    SELECT conversation_id FROM conversations AS candidates
    WHERE assignee = $9 AND candidates.status = wanted.status AND priority = wanted_priority AND wanted_priority >= $2::integer
      AND (queue_at, conversation_id)
          > (CASE WHEN wanted_priority = $2 THEN $3 ELSE '-infinity'::timestamptz END, $4::uuid)
      AND ($5::timestamptz IS NULL OR (queue_at < $5 AND due_at IS NOT NULL))
      AND ($6::text IS NULL OR kind = $6) AND (NOT $7::boolean OR assignee IS NULL)
      AND ($10::text IS NULL OR team_id = $10) AND ($11::text IS NULL OR tags @> ARRAY[$11])
    ORDER BY queue_at, conversation_id LIMIT $8) AS first
JOIN conversations USING (conversation_id)
ORDER BY conversations.priority, conversations.queue_at, conversations.conversation_id LIMIT $8;

-- name: list_queue_of_tag
-- Only of those that have not ended, which the index holds.
SELECT {conversations} FROM conversations
WHERE tags @> ARRAY[$9::text] AND tags <> '{}' AND status NOT IN ('resolved', 'closed')
  AND status = ANY($1::text[])
  AND (priority, queue_at, conversation_id) > ($2::integer, $3::timestamptz, $4::uuid)
  AND ($5::timestamptz IS NULL OR due_at < $5) AND ($6::text IS NULL OR kind = $6)
  AND (NOT $7::boolean OR assignee IS NULL) AND ($10::text IS NULL OR team_id = $10)
ORDER BY priority, queue_at, conversation_id LIMIT $8;

-- name: list_of_user
-- Newest activity first; the index is walked backwards. Those that are merged are shown as the one they became.
SELECT {conversations} FROM conversations
WHERE user_id = $1 AND merged_into IS NULL AND (active_at, conversation_id) < ($2, $3)
ORDER BY active_at DESC, conversation_id DESC LIMIT $4;

-- name: list_of_order
SELECT {conversations} FROM conversations WHERE order_id = $1 ORDER BY conversation_id LIMIT $2;

-- name: count_open_questions
-- Those of a customer that have not ended, up to a number.
SELECT count(*) FROM (
    SELECT FROM conversations WHERE user_id = $1 AND kind = 'question' AND status NOT IN ('resolved', 'closed')
    LIMIT $2) AS questions;

-- name: count_unread
-- Messages of the shop that the customer has not read, up to 100 of each conversation.
SELECT conversation_id, unread FROM conversations CROSS JOIN LATERAL (
    SELECT count(*) AS unread FROM (
        SELECT FROM conversation_messages AS message
        WHERE message.conversation_id = conversations.conversation_id AND message_no > read_by_customer_no
          AND NOT is_internal AND author <> 'customer' LIMIT 100) AS messages) AS counted
WHERE conversation_id = ANY($1::uuid[]);

-- name: find_following
-- The conversation with which the customer went on after a closed one.
SELECT conversation_id FROM conversations WHERE previous_id = $1 ORDER BY conversation_id DESC LIMIT 1;

-- name: insert_message
INSERT INTO conversation_messages (conversation_id, message_no, at, author, actor, is_internal, text, template_id,
                                   idempotency_key, body_digest)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10);

-- name: find_message_by_key
SELECT conversation_id, message_no, body_digest FROM conversation_messages WHERE actor = $1 AND idempotency_key = $2;

-- name: list_messages
-- The newest before a place in time; the index is walked backwards.
SELECT {conversation_messages} FROM conversation_messages
WHERE conversation_id = $1 AND (at, message_no) < ($2, $3) AND ($4::boolean OR NOT is_internal)
ORDER BY at DESC, message_no DESC LIMIT $5;

-- name: get_messages
SELECT {conversation_messages} FROM conversation_messages WHERE conversation_id = $1 AND message_no = ANY($2::integer[]);

-- name: list_latest_of_customer
-- The index is walked backwards.
SELECT message_no FROM conversation_messages WHERE conversation_id = $1 AND author = 'customer'
ORDER BY at DESC, message_no DESC LIMIT $2;

-- name: move_messages
-- Under the numbers after $3, in the sequence of their time; their attachments follow.
WITH moved AS (
    SELECT message_no, $3 + row_number() OVER (ORDER BY at, message_no) AS new_no FROM conversation_messages
    WHERE conversation_id = $1 AND ($4::integer[] IS NULL OR message_no = ANY($4))
)
UPDATE conversation_messages SET conversation_id = $2, message_no = new_no, moved_from = coalesce(moved_from, $1)
FROM moved WHERE conversation_id = $1 AND conversation_messages.message_no = moved.message_no
RETURNING new_no;

-- name: redirect_merged
-- What was merged into the one that is merged now.
UPDATE conversations SET merged_into = $2 WHERE merged_into = $1;

-- name: list_events
-- The newest ones.
SELECT {conversation_events} FROM conversation_events WHERE conversation_id = $1 ORDER BY version DESC LIMIT $2;

-- name: list_events_after
SELECT {conversation_events} FROM conversation_events
WHERE conversation_id = $1 AND version > $2 ORDER BY version LIMIT $3;

-- name: latest_versions
SELECT conversation_id, version FROM conversations WHERE conversation_id = ANY($1::uuid[]);

-- name: mark_read
UPDATE conversations SET read_by_customer_no = least($3, last_message_no)
WHERE conversation_id = $1 AND user_id = $2 AND read_by_customer_no < least($3, last_message_no);

-- name: insert_attachment
INSERT INTO conversation_attachments (attachment_id, uploaded_by, sha256, media_type, size_bytes, width_px, height_px,
                                      created_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8);

-- name: count_unsent
SELECT count(*) FROM conversation_attachments WHERE uploaded_by = $1 AND conversation_id IS NULL;

-- name: send_attachments
UPDATE conversation_attachments SET conversation_id = $1, message_no = $2
WHERE attachment_id = ANY($3::uuid[]) AND uploaded_by = $4 AND conversation_id IS NULL RETURNING attachment_id;

-- name: list_attachments
SELECT {conversation_attachments}, message_no FROM conversation_attachments
WHERE conversation_id = $1 AND message_no = ANY($2::integer[]) ORDER BY created_at, attachment_id;

-- name: find_attachment_file
-- With whose conversation it is in, and whether it is in an internal note.
SELECT uploaded_by, sha256, media_type, user_id, coalesce(is_internal, false) AS is_internal
FROM conversation_attachments LEFT JOIN conversation_messages USING (conversation_id, message_no)
     LEFT JOIN conversations USING (conversation_id)
WHERE attachment_id = $1;

-- name: delete_unused_attachments
DELETE FROM conversation_attachments WHERE attachment_id = ANY(ARRAY(
    SELECT attachment_id FROM conversation_attachments WHERE conversation_id IS NULL AND created_at < $1
    ORDER BY created_at LIMIT $2 FOR UPDATE SKIP LOCKED))
RETURNING sha256;

-- name: list_unused_files
SELECT DISTINCT sha256 FROM unnest($1::bytea[]) AS input (sha256)
WHERE NOT EXISTS (SELECT FROM conversation_attachments WHERE conversation_attachments.sha256 = input.sha256);

-- name: count_unended
SELECT status, count(*) AS conversations FROM conversations
WHERE status IN ('new', 'open', 'waiting_customer', 'waiting_carrier', 'waiting_warehouse') GROUP BY status;

-- name: oldest_unassigned
SELECT min(created_at) FROM conversations WHERE assignee IS NULL AND status IN ('new', 'open');

-- name: list_attachment_files
SELECT DISTINCT sha256 FROM conversation_attachments WHERE sha256 > $1 ORDER BY sha256 LIMIT $2;
