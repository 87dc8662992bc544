-- outside a transaction
-- Working calendars, deadlines of conversations, and the runs of their clocks. Open conversations get their deadlines from
-- the worker, in small steps: generation 0 is older than the first one.

CREATE TABLE IF NOT EXISTS working_calendars (
    calendar_id text PRIMARY KEY CHECK (calendar_id ~ '^[a-z0-9][a-z0-9-]{0,63}$'),
    version     integer NOT NULL CHECK (version > 0),
    terms       jsonb NOT NULL CHECK (jsonb_typeof(terms) = 'object'),
    changed_at  timestamptz NOT NULL,
    actor       text NOT NULL CHECK (length(actor) BETWEEN 1 AND 100)
);
CREATE TABLE IF NOT EXISTS deadline_policies (
    policy_id           text PRIMARY KEY CHECK (policy_id ~ '^[a-z0-9][a-z0-9-]{0,63}$'),
    version             integer NOT NULL CHECK (version > 0),
    team_id             text REFERENCES support_teams ON DELETE CASCADE,
    kind                text CHECK (kind IN ('question', 'return', 'exchange', 'claim', 'refund_only')),
    priority            smallint CHECK (priority BETWEEN 1 AND 4),
    calendar_id         text NOT NULL REFERENCES working_calendars,
    first_response_s    integer CHECK (first_response_s BETWEEN 60 AND 5184000),
    decision_s          integer CHECK (decision_s BETWEEN 60 AND 5184000),
    money_s             integer CHECK (money_s BETWEEN 60 AND 5184000),
    escalation_priority smallint CHECK (escalation_priority BETWEEN 1 AND 4),
    escalation_team_id  text REFERENCES support_teams ON DELETE SET NULL,
    changed_at          timestamptz NOT NULL,
    actor               text NOT NULL CHECK (length(actor) BETWEEN 1 AND 100),
    CONSTRAINT deadline_policies_selectors UNIQUE NULLS NOT DISTINCT (team_id, kind, priority),
    CHECK (policy_id <> 'default' OR (team_id IS NULL AND kind IS NULL AND priority IS NULL))
);
CREATE TABLE IF NOT EXISTS deadline_generation (
    is_only    boolean PRIMARY KEY DEFAULT true CHECK (is_only),
    generation bigint NOT NULL CHECK (generation > 0)
);
INSERT INTO deadline_generation (generation) VALUES (1) ON CONFLICT DO NOTHING;

CREATE OR REPLACE FUNCTION raise_deadline_generation() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN UPDATE deadline_generation SET generation = generation + 1; RETURN NULL; END $$;
CREATE OR REPLACE TRIGGER raise_generation AFTER INSERT OR UPDATE OR DELETE ON working_calendars
    FOR EACH STATEMENT EXECUTE FUNCTION raise_deadline_generation();
CREATE OR REPLACE TRIGGER raise_generation AFTER INSERT OR UPDATE OR DELETE ON deadline_policies
    FOR EACH STATEMENT EXECUTE FUNCTION raise_deadline_generation();

ALTER TABLE conversations ADD COLUMN IF NOT EXISTS deadline_policy_id text;
ALTER TABLE conversations ADD COLUMN IF NOT EXISTS deadline_generation bigint NOT NULL DEFAULT 0;
CREATE INDEX CONCURRENTLY IF NOT EXISTS conversations_to_compute ON conversations (deadline_generation, conversation_id)
    WHERE status NOT IN ('resolved', 'closed') OR due_at IS NOT NULL;
CREATE INDEX CONCURRENTLY IF NOT EXISTS conversations_to_escalate
    ON conversations (deadline_policy_id, due_at, conversation_id) WHERE due_at IS NOT NULL AND escalated_on IS NULL;
CREATE INDEX CONCURRENTLY IF NOT EXISTS conversations_by_deadline ON conversations (due_at) WHERE due_at IS NOT NULL;
CREATE INDEX CONCURRENTLY IF NOT EXISTS conversations_rated ON conversations (satisfaction_at)
    WHERE satisfaction_at IS NOT NULL;

CREATE TABLE IF NOT EXISTS conversation_clocks (
    conversation_id uuid NOT NULL REFERENCES conversations ON DELETE CASCADE,
    kind            text NOT NULL CHECK (kind IN ('first_response', 'decision', 'money')),
    run_no          integer NOT NULL CHECK (run_no > 0),
    started_at      timestamptz NOT NULL,
    allowed_s       integer CHECK (allowed_s > 0),
    due_at          timestamptz,
    stopped_at      timestamptz,
    stopped_by      text,
    worked_s        integer NOT NULL CHECK (worked_s >= 0),
    is_late         boolean NOT NULL,
    PRIMARY KEY (conversation_id, kind, run_no),
    CHECK ((stopped_at IS NULL) = (stopped_by IS NULL)),
    CHECK (allowed_s IS NOT NULL OR (due_at IS NULL AND NOT is_late))
);
CREATE INDEX IF NOT EXISTS conversation_clocks_stopped ON conversation_clocks (stopped_at) WHERE stopped_at IS NOT NULL;
CREATE INDEX IF NOT EXISTS conversation_clocks_unanswered ON conversation_clocks (started_at)
    WHERE kind = 'first_response' AND stopped_at IS NULL;

COMMENT ON TABLE working_calendars IS 'Working hours, holidays and exceptions; a change raises the generation of deadlines';
COMMENT ON TABLE deadline_policies IS
    'Working time that support has for an answer, a decision and the money; the most specific row counts';
COMMENT ON COLUMN deadline_policies.escalation_priority IS 'Priority of a late conversation, if it was lower';
COMMENT ON COLUMN deadline_policies.escalation_team_id IS 'Team that gets a late conversation';
COMMENT ON TABLE deadline_generation IS 'Counts changes of calendars and policies of deadlines';
COMMENT ON COLUMN conversations.deadline_policy_id IS 'The policy by which its deadlines were computed last';
COMMENT ON COLUMN conversations.deadline_generation IS 'The generation by which its deadlines were computed last';
COMMENT ON TABLE conversation_clocks IS 'Runs of the clocks of conversations, computed from their events';
COMMENT ON COLUMN conversation_clocks.allowed_s IS 'Working time of the policy; null: the clock only measures';
COMMENT ON COLUMN conversation_clocks.due_at IS 'Null without a deadline, and while the clock is paused in time';
COMMENT ON COLUMN conversation_clocks.worked_s IS 'Working time without pauses, until the stop or the last pause';
COMMENT ON COLUMN conversation_clocks.is_late IS 'Stopped or paused after its deadline';

INSERT INTO working_calendars (calendar_id, version, terms, changed_at, actor) VALUES ('default', 1, '{
    "zone": "Asia/Shanghai", "public_holidays": "china", "hours": {
        "monday": ["09:00-12:00", "13:00-18:00"], "tuesday": ["09:00-12:00", "13:00-18:00"],
        "wednesday": ["09:00-12:00", "13:00-18:00"], "thursday": ["09:00-12:00", "13:00-18:00"],
        "friday": ["09:00-12:00", "13:00-18:00"]}}', now(), 'migration') ON CONFLICT DO NOTHING;
INSERT INTO deadline_policies (policy_id, version, calendar_id, first_response_s, decision_s, money_s, escalation_priority,
                               changed_at, actor)
VALUES ('default', 1, 'default', 7200, 57600, 86400, 1, now(), 'migration') ON CONFLICT DO NOTHING;
