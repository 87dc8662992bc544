-- Rules that decide cases: their versions, what they decided, and what they may spend in a day.

CREATE TABLE case_rule_sets (
    version    integer PRIMARY KEY CHECK (version > 0),
    rules      jsonb NOT NULL CHECK (jsonb_typeof(rules) = 'array'),
    created_at timestamptz NOT NULL,
    actor      text NOT NULL CHECK (length(actor) BETWEEN 1 AND 100),
    reason     text NOT NULL CHECK (length(reason) BETWEEN 1 AND 200)
);
CREATE FUNCTION keep_case_rule_set() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'rule set % cannot be changed: add a new version', OLD.version USING ERRCODE = 'check_violation';
END $$;
CREATE TRIGGER keep_case_rule_set BEFORE UPDATE OR DELETE ON case_rule_sets
    FOR EACH ROW EXECUTE FUNCTION keep_case_rule_set();

CREATE TABLE case_rule_state (
    is_only_row    boolean PRIMARY KEY DEFAULT true CHECK (is_only_row),
    is_on          boolean NOT NULL,
    active_version integer REFERENCES case_rule_sets
);
INSERT INTO case_rule_state (is_on) VALUES (true);

CREATE TABLE case_rule_budgets (
    currency         text PRIMARY KEY CHECK (currency ~ '^[A-Z]{3}$'),
    max_amount_minor bigint NOT NULL CHECK (max_amount_minor >= 0),
    max_cases        integer NOT NULL CHECK (max_cases >= 0)
);
CREATE TABLE case_rule_spending (
    currency      text NOT NULL CHECK (currency ~ '^[A-Z]{3}$'),
    day           date NOT NULL,
    amount_minor  bigint NOT NULL DEFAULT 0 CHECK (amount_minor >= 0),
    cases         integer NOT NULL DEFAULT 0 CHECK (cases >= 0),
    refused_cases integer NOT NULL DEFAULT 0 CHECK (refused_cases >= 0),
    PRIMARY KEY (day, currency)
);

CREATE TABLE case_rule_events (
    event_no integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at       timestamptz NOT NULL,
    kind     text NOT NULL CHECK (kind IN (
        'set_added', 'activated', 'deactivated', 'switched_on', 'switched_off', 'budget_set')),
    details  jsonb NOT NULL CHECK (jsonb_typeof(details) = 'object'),
    actor    text NOT NULL CHECK (length(actor) BETWEEN 1 AND 100),
    reason   text NOT NULL CHECK (length(reason) BETWEEN 1 AND 200)
);

CREATE TABLE case_inputs (
    case_id uuid PRIMARY KEY REFERENCES cases,
    at      timestamptz NOT NULL,
    inputs  jsonb NOT NULL CHECK (jsonb_typeof(inputs) = 'object')
);
CREATE INDEX case_inputs_by_time ON case_inputs (at, case_id);

CREATE TABLE case_decisions (
    case_id          uuid NOT NULL REFERENCES cases,
    decision_no      smallint NOT NULL CHECK (decision_no > 0),
    at               timestamptz NOT NULL,
    rule_set_version integer NOT NULL REFERENCES case_rule_sets,
    rule_no          smallint CHECK (rule_no > 0),
    outcome          text NOT NULL CHECK (outcome IN (
        'approve', 'refund_without_return', 'ask_for_evidence', 'by_hand', 'decline')),
    inputs           jsonb NOT NULL CHECK (jsonb_typeof(inputs) = 'object'),
    reasons          text[] NOT NULL CHECK (cardinality(reasons) > 0),
    case_version     integer NOT NULL CHECK (case_version > 0),
    amount_minor     bigint CHECK (amount_minor >= 0),
    overturned_at    timestamptz,
    overturned_by    text CHECK (length(overturned_by) BETWEEN 1 AND 100),
    PRIMARY KEY (case_id, decision_no),
    CHECK (rule_no IS NOT NULL OR outcome = 'by_hand'),
    CHECK ((amount_minor IS NOT NULL) = (outcome IN ('approve', 'refund_without_return'))),
    CHECK ((overturned_at IS NULL) = (overturned_by IS NULL))
);
-- A case is asked for evidence once, so rules cannot go in a circle.
CREATE UNIQUE INDEX case_decisions_evidence_once ON case_decisions (case_id) WHERE outcome = 'ask_for_evidence';
CREATE INDEX case_decisions_by_time ON case_decisions (at);

-- A person has overturned a rule that declined: by reopening the case, or by approving it once it was escalated.
-- One that approved: by ending the case, or by leaving the products to the customer before anything was received.
CREATE FUNCTION mark_overturned_decision() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE case_decisions SET overturned_at = NEW.at, overturned_by = NEW.actor
    WHERE case_id = NEW.case_id AND case_version < NEW.version AND overturned_at IS NULL AND CASE outcome
        WHEN 'decline' THEN NEW.to_status = 'approved'
            OR (NEW.from_status = 'declined' AND NEW.actor NOT LIKE 'customer %')
        WHEN 'approve' THEN NEW.actor NOT LIKE 'customer %' AND (
            NEW.to_status = 'cancelled' OR (NEW.to_status = 'resolved' AND NEW.from_status IN ('approved', 'in_transit')))
        ELSE false END;
    RETURN NULL;
END $$;
CREATE TRIGGER mark_overturned_decision AFTER INSERT ON case_events FOR EACH ROW
    WHEN (NEW.from_status IS NOT NULL AND NEW.actor NOT LIKE 'rule %' AND NEW.actor <> 'aftersales_worker')
    EXECUTE FUNCTION mark_overturned_decision();

COMMENT ON TABLE case_rule_sets IS 'Versions of the ordered rules that decide cases; they never change';
COMMENT ON TABLE case_rule_state IS 'One row: whether rules decide, and which version';
COMMENT ON COLUMN case_rule_state.is_on IS 'The switch that stops all rules at once';
COMMENT ON COLUMN case_rule_state.active_version IS 'Null: no rules decide';
COMMENT ON TABLE case_rule_budgets IS 'What rules may pay out in one day of the shop; without a row nothing in that currency';
COMMENT ON TABLE case_rule_spending IS 'What rules have approved on a day of the shop';
COMMENT ON COLUMN case_rule_spending.refused_cases IS 'Cases that were left to a person because of the budget';
COMMENT ON TABLE case_rule_events IS 'Each change of the rules, the switch and the budgets: time, actor, reason';
COMMENT ON TABLE case_inputs IS 'What rules were given about each request when it came; dry runs read them';
COMMENT ON COLUMN case_inputs.at IS 'When the case was requested';
COMMENT ON TABLE case_decisions IS 'What rules have decided, from what, and which of it a person has overturned';
COMMENT ON COLUMN case_decisions.rule_no IS 'The row of the rule set; null: the rules were switched off';
COMMENT ON COLUMN case_decisions.case_version IS 'Version of the case after the decision';
COMMENT ON COLUMN case_decisions.amount_minor IS 'Approved amount + freight - fee';
