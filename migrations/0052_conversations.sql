-- outside a transaction
-- Conversations of customers with support: questions, and one for each case. Cases from before get theirs here, and one
-- that a process of the version before opens later gets it with its next change.

CREATE TABLE IF NOT EXISTS support_teams (
    team_id    text PRIMARY KEY CHECK (team_id ~ '^[a-z0-9][a-z0-9-]{0,63}$'),
    name       text NOT NULL CHECK (length(name) BETWEEN 1 AND 200),
    changed_at timestamptz NOT NULL,
    actor      text NOT NULL CHECK (length(actor) BETWEEN 1 AND 100)
);
CREATE TABLE IF NOT EXISTS support_team_members (
    staff   text NOT NULL CHECK (length(staff) BETWEEN 1 AND 64),
    team_id text NOT NULL REFERENCES support_teams ON DELETE CASCADE,
    PRIMARY KEY (staff, team_id)
);
CREATE INDEX IF NOT EXISTS support_team_members_of_team ON support_team_members (team_id);

CREATE TABLE IF NOT EXISTS conversations (
    conversation_id       uuid PRIMARY KEY,
    user_id               text NOT NULL,
    -- No foreign keys: their checks lock the order or the case after the conversation. Changes of a case lock them in
    -- the opposite sequence, so that both would wait for each other. Orders and cases are never deleted.
    order_id              uuid,
    case_id               uuid UNIQUE,
    previous_id           uuid REFERENCES conversations,
    kind                  text NOT NULL CHECK (kind IN ('question', 'return', 'exchange', 'claim', 'refund_only')),
    subject               text NOT NULL CHECK (length(subject) BETWEEN 1 AND 200),
    language              text NOT NULL CHECK (language IN ('zh', 'en')),
    status                text NOT NULL CHECK (status IN (
        'new', 'open', 'waiting_customer', 'waiting_carrier', 'waiting_warehouse', 'resolved', 'closed')),
    case_waits_for        text CHECK (case_waits_for IN (
        'customer', 'staff', 'carrier', 'warehouse', 'provider', 'nobody')),
    amount_minor          bigint CHECK (amount_minor >= 0),
    currency              text CHECK (currency ~ '^[A-Z]{3}$'),
    priority              smallint NOT NULL DEFAULT 3 CHECK (priority BETWEEN 1 AND 4),
    assignee              text CHECK (length(assignee) BETWEEN 1 AND 64),
    team_id               text REFERENCES support_teams,
    tags                  text[] NOT NULL DEFAULT '{}' CHECK (cardinality(tags) <= 20),
    version               integer NOT NULL DEFAULT 1 CHECK (version > 0),
    created_at            timestamptz NOT NULL,
    active_at             timestamptz NOT NULL,
    due_at                timestamptz,
    due_kind              text CHECK (due_kind IN ('first_response', 'decision', 'money')),
    queue_at              timestamptz NOT NULL GENERATED ALWAYS AS (coalesce(due_at, created_at)) STORED,
    escalated_on          date,
    last_message_no       integer NOT NULL DEFAULT 0 CHECK (last_message_no >= 0),
    unanswered            integer NOT NULL DEFAULT 0 CHECK (unanswered >= 0),
    read_by_customer_no   integer NOT NULL DEFAULT 0,
    first_response_at     timestamptz,
    resolved_at           timestamptz,
    closed_at             timestamptz,
    merged_into           uuid REFERENCES conversations,
    reopens               integer NOT NULL DEFAULT 0 CHECK (reopens >= 0),
    satisfaction          smallint CHECK (satisfaction BETWEEN 1 AND 5),
    satisfaction_text     text CHECK (length(satisfaction_text) <= 1000),
    satisfaction_requested_at timestamptz,
    satisfaction_at       timestamptz,
    CHECK ((kind = 'question') = (case_id IS NULL)),
    CHECK ((case_id IS NULL) = (case_waits_for IS NULL)),
    CHECK (case_id IS NULL OR case_id = conversation_id),
    CHECK ((amount_minor IS NULL) = (currency IS NULL)),
    CHECK ((due_at IS NULL) = (due_kind IS NULL)),
    CHECK (read_by_customer_no BETWEEN 0 AND last_message_no),
    CHECK ((status IN ('resolved', 'closed')) = (resolved_at IS NOT NULL)),
    CHECK ((status = 'closed') = (closed_at IS NOT NULL)),
    CHECK (merged_into IS NULL OR (status = 'closed' AND case_id IS NULL AND merged_into <> conversation_id)),
    CHECK ((satisfaction IS NULL) = (satisfaction_at IS NULL)),
    CHECK (satisfaction_text IS NULL OR satisfaction IS NOT NULL),
    CHECK (satisfaction IS NULL OR satisfaction_requested_at IS NOT NULL)
);
CREATE INDEX IF NOT EXISTS conversations_queue
    ON conversations (status, priority, queue_at, conversation_id);
CREATE INDEX IF NOT EXISTS conversations_unassigned
    ON conversations (coalesce(team_id, ''), priority, queue_at, conversation_id)
    WHERE assignee IS NULL AND status IN ('new', 'open');
CREATE INDEX IF NOT EXISTS conversations_of_assignee
    ON conversations (assignee, status, priority, queue_at, conversation_id) WHERE assignee IS NOT NULL;
CREATE INDEX IF NOT EXISTS conversations_of_team
    ON conversations (team_id, status, priority, queue_at, conversation_id) WHERE team_id IS NOT NULL;
CREATE INDEX IF NOT EXISTS conversations_with_tags
    ON conversations USING gin (tags) WHERE tags <> '{}' AND status NOT IN ('resolved', 'closed');
CREATE INDEX IF NOT EXISTS conversations_of_user ON conversations (user_id, active_at, conversation_id);
CREATE INDEX IF NOT EXISTS conversations_of_order ON conversations (order_id) WHERE order_id IS NOT NULL;
CREATE INDEX IF NOT EXISTS conversations_merged ON conversations (merged_into) WHERE merged_into IS NOT NULL;
CREATE INDEX IF NOT EXISTS conversations_following ON conversations (previous_id) WHERE previous_id IS NOT NULL;

CREATE TABLE IF NOT EXISTS conversation_messages (
    conversation_id uuid NOT NULL REFERENCES conversations,
    message_no      integer NOT NULL CHECK (message_no > 0),
    at              timestamptz NOT NULL,
    author          text NOT NULL CHECK (author IN ('customer', 'staff', 'shop')),
    actor           text NOT NULL CHECK (length(actor) BETWEEN 1 AND 100),
    is_internal     boolean NOT NULL DEFAULT false,
    text            text NOT NULL CHECK (length(text) BETWEEN 1 AND 4000),
    template_id     text,
    moved_from      uuid REFERENCES conversations,
    idempotency_key text CHECK (length(idempotency_key) BETWEEN 1 AND 128),
    body_digest     bytea CHECK (length(body_digest) = 32),
    PRIMARY KEY (conversation_id, message_no),
    CHECK (NOT is_internal OR author = 'staff'),
    CHECK ((idempotency_key IS NULL) = (body_digest IS NULL))
);
CREATE UNIQUE INDEX IF NOT EXISTS conversation_messages_by_key
    ON conversation_messages (actor, idempotency_key) WHERE idempotency_key IS NOT NULL;
CREATE INDEX IF NOT EXISTS conversation_messages_by_time
    ON conversation_messages (conversation_id, at, message_no);

CREATE TABLE IF NOT EXISTS conversation_attachments (
    attachment_id   uuid PRIMARY KEY,
    uploaded_by     text NOT NULL CHECK (length(uploaded_by) BETWEEN 1 AND 100),
    conversation_id uuid,
    message_no      integer,
    sha256          bytea NOT NULL CHECK (length(sha256) = 32),
    media_type      text NOT NULL CHECK (media_type IN ('image/jpeg', 'application/pdf')),
    size_bytes      integer NOT NULL CHECK (size_bytes > 0),
    width_px        integer CHECK (width_px > 0),
    height_px       integer CHECK (height_px > 0),
    created_at      timestamptz NOT NULL,
    FOREIGN KEY (conversation_id, message_no) REFERENCES conversation_messages ON UPDATE CASCADE,
    CHECK ((conversation_id IS NULL) = (message_no IS NULL)),
    CHECK ((media_type = 'image/jpeg') = (width_px IS NOT NULL) AND (width_px IS NULL) = (height_px IS NULL))
);
CREATE INDEX IF NOT EXISTS conversation_attachments_of_message
    ON conversation_attachments (conversation_id, message_no) WHERE conversation_id IS NOT NULL;
CREATE INDEX IF NOT EXISTS conversation_attachments_unsent
    ON conversation_attachments (uploaded_by) WHERE conversation_id IS NULL;
CREATE INDEX IF NOT EXISTS conversation_attachments_unused
    ON conversation_attachments (created_at) WHERE conversation_id IS NULL;
CREATE INDEX IF NOT EXISTS conversation_attachments_of_file ON conversation_attachments (sha256);

CREATE TABLE IF NOT EXISTS conversation_events (
    conversation_id uuid NOT NULL REFERENCES conversations,
    version         integer NOT NULL CHECK (version > 0),
    at              timestamptz NOT NULL,
    actor           text NOT NULL CHECK (length(actor) BETWEEN 1 AND 100),
    kind            text NOT NULL CHECK (kind ~ '^[a-z_]{1,40}$'),
    details         jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(details) = 'object'),
    PRIMARY KEY (conversation_id, version)
);

CREATE TABLE IF NOT EXISTS reply_templates (
    template_id text NOT NULL CHECK (template_id ~ '^[a-z0-9][a-z0-9-]{0,63}$'),
    language    text NOT NULL CHECK (language IN ('zh', 'en')),
    title       text NOT NULL CHECK (length(title) BETWEEN 1 AND 200),
    text        text NOT NULL CHECK (length(text) BETWEEN 1 AND 4000),
    version     integer NOT NULL CHECK (version > 0),
    changed_at  timestamptz NOT NULL,
    actor       text NOT NULL CHECK (length(actor) BETWEEN 1 AND 100),
    PRIMARY KEY (template_id, language)
);

CREATE TABLE IF NOT EXISTS conversation_views (
    view_id    uuid PRIMARY KEY,
    staff      text NOT NULL CHECK (length(staff) BETWEEN 1 AND 64),
    name       text NOT NULL CHECK (length(name) BETWEEN 1 AND 200),
    is_shared  boolean NOT NULL,
    filter     jsonb NOT NULL CHECK (jsonb_typeof(filter) = 'object'),
    changed_at timestamptz NOT NULL,
    UNIQUE (staff, name)
);
CREATE INDEX IF NOT EXISTS conversation_views_shared ON conversation_views (view_id) WHERE is_shared;

CREATE TABLE IF NOT EXISTS bulk_previews (
    preview_id uuid PRIMARY KEY,
    actor      text NOT NULL CHECK (length(actor) BETWEEN 1 AND 100),
    action     jsonb NOT NULL CHECK (jsonb_typeof(action) = 'object'),
    ids        uuid[] NOT NULL,
    versions   integer[] NOT NULL,
    created_at timestamptz NOT NULL,
    applied_at timestamptz,
    outcome    jsonb CHECK (jsonb_typeof(outcome) = 'object'),
    CHECK (cardinality(ids) = cardinality(versions)),
    CHECK (outcome IS NULL OR applied_at IS NOT NULL)
);
CREATE INDEX IF NOT EXISTS bulk_previews_by_age ON bulk_previews (created_at);

COMMENT ON TABLE support_teams IS 'Teams of support; a conversation may belong to one';
COMMENT ON TABLE support_team_members IS 'Staff of a team, by the subject of their token';
COMMENT ON TABLE conversations IS 'Questions of customers, and one for each case, which has the id of the case';
COMMENT ON COLUMN conversations.previous_id IS 'The closed conversation that the customer went on with';
COMMENT ON COLUMN conversations.case_waits_for IS 'Whoever must act next on the case; null for a question';
COMMENT ON COLUMN conversations.amount_minor IS 'What the decided case comes to, for replies';
COMMENT ON COLUMN conversations.priority IS '1 urgent to 4 low';
COMMENT ON COLUMN conversations.assignee IS 'Subject of the token of the staff member who answers it';
COMMENT ON COLUMN conversations.version IS 'Version of the last event: each change has one';
COMMENT ON COLUMN conversations.active_at IS 'When the customer could last read something new';
COMMENT ON COLUMN conversations.due_at IS 'The next deadline of support, if one runs';
COMMENT ON COLUMN conversations.queue_at IS 'Place in the queue within its priority';
COMMENT ON COLUMN conversations.escalated_on IS 'Day on which its missed deadline was escalated';
COMMENT ON COLUMN conversations.unanswered IS 'Messages of the customer since the last reply';
COMMENT ON COLUMN conversations.read_by_customer_no IS 'Number of the last message that the customer has read';
COMMENT ON COLUMN conversations.merged_into IS 'The conversation that has its messages now';
COMMENT ON COLUMN conversations.satisfaction_requested_at IS 'When it was first closed: the customer is asked once';
COMMENT ON TABLE conversation_messages IS 'Messages by number; read them by time: a merge adds older ones';
COMMENT ON COLUMN conversation_messages.is_internal IS 'A note of staff, which no customer reads';
COMMENT ON COLUMN conversation_messages.moved_from IS 'The conversation it was in before a merge or a split';
COMMENT ON TABLE conversation_attachments IS 'Pictures and PDF files of messages, stored as files by their digest';
COMMENT ON COLUMN conversation_attachments.conversation_id IS 'Null: uploaded, and not sent yet';
COMMENT ON TABLE conversation_events IS 'Each change of a conversation: time, actor, and what it was';
COMMENT ON TABLE reply_templates IS 'Texts of replies with placeholders, by language';
COMMENT ON TABLE conversation_views IS 'Filters of the queue that staff have saved, for themselves or for all';
COMMENT ON COLUMN conversation_views.staff IS 'The staff member who may change it';
COMMENT ON TABLE bulk_previews IS 'What a change of many conversations has shown before it is applied; kept for a day';

INSERT INTO conversations (conversation_id, user_id, order_id, case_id, kind, subject, language, status, case_waits_for,
                           amount_minor, currency, created_at, active_at, last_message_no, first_response_at,
                           resolved_at, closed_at)
SELECT case_id, user_id, order_id, case_id, kind, replace(kind, '_', ' ') || coalesce(' (' || claim || ')', ''),
       CASE WHEN customer_text = '' OR customer_text ~ '[\u3400-\u9fff]' THEN 'zh' ELSE 'en' END,
       CASE WHEN ended_at IS NOT NULL THEN 'closed'
            WHEN waits_for = 'provider' THEN 'resolved'
            WHEN waits_for <> 'staff' THEN 'waiting_' || waits_for
            WHEN decided_at IS NULL THEN 'new' ELSE 'open' END,
       waits_for, greatest(amount_minor + freight_minor - fee_minor, 0),
       CASE WHEN amount_minor IS NOT NULL THEN currency END, created_at, coalesce(ended_at, decided_at, created_at),
       CASE WHEN trim(customer_text) = '' THEN 0 ELSE 1 END, decided_at,
       CASE WHEN ended_at IS NOT NULL OR waits_for = 'provider' THEN coalesce(ended_at, decided_at, created_at) END,
       ended_at
FROM cases WHERE NOT EXISTS (SELECT FROM conversations WHERE conversation_id = cases.case_id)
ON CONFLICT DO NOTHING;
INSERT INTO conversation_messages (conversation_id, message_no, at, author, actor, text)
SELECT conversation_id, 1, cases.created_at, 'customer', created_by, customer_text
FROM conversations JOIN cases USING (case_id) WHERE trim(customer_text) <> ''
ON CONFLICT DO NOTHING;
INSERT INTO conversation_events (conversation_id, version, at, actor, kind, details)
SELECT conversation_id, 1, cases.created_at, created_by, 'opened', jsonb_build_object('status', conversations.status)
FROM conversations JOIN cases USING (case_id)
ON CONFLICT DO NOTHING;
