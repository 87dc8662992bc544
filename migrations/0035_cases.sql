-- Returns, exchanges, claims and refunds without a return: cases on an order.

CREATE TABLE return_policies (
    policy_id         text PRIMARY KEY CHECK (policy_id ~ '^[a-z0-9][a-z0-9-]{0,63}$'),
    version           integer NOT NULL CHECK (version > 0),
    sale_id           text REFERENCES sales,
    return_days       smallint CHECK (return_days BETWEEN 1 AND 3650),
    claim_days        smallint NOT NULL CHECK (claim_days BETWEEN 1 AND 3650),
    excluded_because  text CHECK (length(excluded_because) BETWEEN 1 AND 200),
    accepts_opened    boolean NOT NULL,
    freight_payer     text NOT NULL CHECK (freight_payer IN ('shop', 'customer')),
    fee_basis_points  smallint NOT NULL CHECK (fee_basis_points BETWEEN 0 AND 10000),
    needs_evidence    boolean NOT NULL,
    is_resold         boolean NOT NULL,
    max_cases_per_sku smallint NOT NULL CHECK (max_cases_per_sku BETWEEN 1 AND 100),
    changed_at        timestamptz NOT NULL,
    actor             text NOT NULL CHECK (length(actor) BETWEEN 1 AND 100)
);
CREATE TABLE return_policy_skus (
    policy_id text NOT NULL REFERENCES return_policies ON DELETE CASCADE,
    sku       text NOT NULL REFERENCES products,
    PRIMARY KEY (policy_id, sku)
);
CREATE INDEX return_policy_skus_of_product ON return_policy_skus (sku);

CREATE TABLE case_transitions (
    from_status text NOT NULL,
    to_status   text NOT NULL,
    PRIMARY KEY (from_status, to_status)
);
INSERT INTO case_transitions VALUES
    ('requested', 'approved'), ('requested', 'declined'), ('requested', 'cancelled'),
    ('approved', 'in_transit'), ('approved', 'received'), ('approved', 'resolved'), ('approved', 'cancelled'),
    ('in_transit', 'approved'), ('in_transit', 'received'), ('in_transit', 'resolved'), ('in_transit', 'cancelled'),
    ('received', 'inspected'),
    ('inspected', 'received'), ('inspected', 'resolved'),
    ('declined', 'requested'), ('cancelled', 'requested'), ('resolved', 'approved');

CREATE TABLE cases (
    case_id           uuid PRIMARY KEY,
    order_id          uuid NOT NULL REFERENCES orders,
    user_id           text NOT NULL,
    kind              text NOT NULL CHECK (kind IN ('return', 'exchange', 'claim', 'refund_only')),
    claim             text CHECK (claim IN ('lost', 'damaged', 'wrong', 'missing')),
    items_back        boolean NOT NULL,
    status            text NOT NULL DEFAULT 'requested' CHECK (status IN (
        'requested', 'approved', 'in_transit', 'received', 'inspected', 'resolved', 'declined', 'cancelled')),
    items_state       text NOT NULL CHECK (items_state IN (
        'not_expected', 'expected', 'in_transit', 'partly_received', 'received', 'inspected')),
    money_state       text NOT NULL DEFAULT 'undecided' CHECK (money_state IN (
        'undecided', 'fixed', 'nothing_due', 'granted', 'needs_other_way', 'done')),
    version           integer NOT NULL DEFAULT 1 CHECK (version > 0),
    is_escalated      boolean NOT NULL DEFAULT false,
    is_opened         boolean NOT NULL,
    reason_code       text NOT NULL CHECK (reason_code ~ '^[a-z0-9_]{1,64}$'),
    customer_text     text NOT NULL CHECK (length(customer_text) <= 1000),
    policy            jsonb NOT NULL CHECK (jsonb_typeof(policy) = 'object'),
    freight_payer     text NOT NULL CHECK (freight_payer IN ('shop', 'customer')),
    currency          text NOT NULL CHECK (currency ~ '^[A-Z]{3}$'),
    amount_minor      bigint CHECK (amount_minor >= 0),
    freight_minor     bigint CHECK (freight_minor >= 0),
    fee_minor         bigint CHECK (fee_minor >= 0),
    offer             jsonb CHECK (jsonb_typeof(offer) = 'object'),
    grant_id          uuid UNIQUE REFERENCES refund_grants,
    exchange_order_id uuid UNIQUE REFERENCES orders (order_id),
    waits_for         text NOT NULL CHECK (waits_for IN (
        'customer', 'staff', 'carrier', 'warehouse', 'provider', 'nobody')),
    due_at            timestamptz,
    idempotency_key   text NOT NULL CHECK (length(idempotency_key) BETWEEN 1 AND 255),
    body_digest       bytea NOT NULL CHECK (length(body_digest) = 32),
    created_by        text NOT NULL CHECK (length(created_by) BETWEEN 1 AND 100),
    created_at        timestamptz NOT NULL,
    decided_at        timestamptz,
    ended_at          timestamptz,
    UNIQUE (user_id, idempotency_key),
    CHECK ((kind = 'claim') = (claim IS NOT NULL)),
    CHECK (kind <> 'refund_only' OR NOT items_back),
    CHECK (kind NOT IN ('return', 'exchange') OR items_back),
    CHECK (items_back OR items_state = 'not_expected'),
    CHECK ((amount_minor IS NULL) = (freight_minor IS NULL) AND (amount_minor IS NULL) = (fee_minor IS NULL)),
    CHECK (amount_minor IS NOT NULL OR status IN ('requested', 'declined', 'cancelled')),
    CHECK ((grant_id IS NOT NULL) = (money_state IN ('granted', 'needs_other_way', 'done'))),
    CHECK ((waits_for = 'nobody') = (ended_at IS NOT NULL)),
    CHECK ((due_at IS NULL) = (ended_at IS NOT NULL)),
    CHECK (ended_at IS NULL OR status IN ('resolved', 'declined', 'cancelled')),
    CHECK (ended_at IS NOT NULL OR status NOT IN ('declined', 'cancelled')),
    CHECK (status <> 'resolved' OR (ended_at IS NOT NULL) = (money_state IN ('nothing_due', 'done')))
);
CREATE INDEX cases_of_order ON cases (order_id);
CREATE INDEX cases_of_user ON cases (user_id, case_id);
CREATE INDEX cases_open ON cases (due_at, case_id) WHERE ended_at IS NULL;
CREATE INDEX cases_decided ON cases (decided_at) WHERE decided_at IS NOT NULL;

CREATE TABLE case_lines (
    case_id      uuid NOT NULL REFERENCES cases,
    case_line_no smallint NOT NULL CHECK (case_line_no >= 0),
    order_id     uuid NOT NULL,
    line_no      smallint NOT NULL,
    address_no   smallint NOT NULL,
    shipment_id  uuid,
    sku          text NOT NULL,
    quantity     integer NOT NULL CHECK (quantity > 0),
    received     integer NOT NULL DEFAULT 0,
    resellable   integer NOT NULL DEFAULT 0 CHECK (resellable >= 0),
    damaged      integer NOT NULL DEFAULT 0 CHECK (damaged >= 0),
    rejected     integer NOT NULL DEFAULT 0 CHECK (rejected >= 0),
    amount_minor bigint CHECK (amount_minor >= 0),
    wanted_sku   text,
    PRIMARY KEY (case_id, case_line_no),
    FOREIGN KEY (order_id, line_no, address_no) REFERENCES order_lines,
    FOREIGN KEY (shipment_id, line_no) REFERENCES shipment_lines,
    CHECK (received BETWEEN resellable + damaged + rejected AND quantity)
);
CREATE UNIQUE INDEX case_lines_once ON case_lines (case_id, line_no, address_no, shipment_id) NULLS NOT DISTINCT;
CREATE INDEX case_lines_of_order ON case_lines (order_id, line_no, address_no);

CREATE TABLE case_events (
    case_id     uuid NOT NULL REFERENCES cases,
    version     integer NOT NULL CHECK (version > 0),
    at          timestamptz NOT NULL,
    from_status text,
    to_status   text,
    actor       text NOT NULL CHECK (length(actor) BETWEEN 1 AND 100),
    reason      text NOT NULL CHECK (length(reason) BETWEEN 1 AND 500),
    details     jsonb CHECK (jsonb_typeof(details) = 'object'),
    PRIMARY KEY (case_id, version),
    FOREIGN KEY (from_status, to_status) REFERENCES case_transitions,
    CHECK ((from_status IS NULL) = (to_status IS NULL))
);

CREATE TABLE case_evidence (
    evidence_id uuid PRIMARY KEY,
    order_id    uuid NOT NULL REFERENCES orders,
    user_id     text NOT NULL,
    case_id     uuid REFERENCES cases,
    sha256      bytea NOT NULL CHECK (length(sha256) = 32),
    media_type  text NOT NULL CHECK (media_type IN ('image/jpeg', 'image/png', 'image/webp')),
    size_bytes  integer NOT NULL CHECK (size_bytes > 0),
    width_px    integer NOT NULL CHECK (width_px > 0),
    height_px   integer NOT NULL CHECK (height_px > 0),
    created_at  timestamptz NOT NULL
);
CREATE INDEX case_evidence_of_order ON case_evidence (order_id);
CREATE INDEX case_evidence_of_case ON case_evidence (case_id) WHERE case_id IS NOT NULL;
CREATE INDEX case_evidence_unused ON case_evidence (created_at) WHERE case_id IS NULL;
CREATE INDEX case_evidence_of_file ON case_evidence (sha256);

CREATE FUNCTION case_status_step() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM case_transitions WHERE from_status = OLD.status AND to_status = NEW.status) THEN
        RAISE EXCEPTION 'case % cannot go from % to %', OLD.case_id, OLD.status, NEW.status
            USING ERRCODE = 'check_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER case_status_step BEFORE UPDATE OF status ON cases
    FOR EACH ROW WHEN (OLD.status IS DISTINCT FROM NEW.status) EXECUTE FUNCTION case_status_step();

CREATE FUNCTION case_status_recorded() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM case_events WHERE case_id = NEW.case_id AND version = NEW.version
                   AND from_status = OLD.status AND to_status = NEW.status) THEN
        RAISE EXCEPTION 'case % went from % to % without an event', NEW.case_id, OLD.status, NEW.status
            USING ERRCODE = 'check_violation';
    END IF;
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER case_status_recorded AFTER UPDATE OF status ON cases
    DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW WHEN (OLD.status IS DISTINCT FROM NEW.status) EXECUTE FUNCTION case_status_recorded();

CREATE TRIGGER audit_insert AFTER INSERT ON cases REFERENCING NEW TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION mark_orders_of_changed();
CREATE TRIGGER audit_update AFTER UPDATE ON cases REFERENCING NEW TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION mark_orders_of_changed();
CREATE TRIGGER audit_delete AFTER DELETE ON cases REFERENCING OLD TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION mark_orders_of_changed();
CREATE TRIGGER audit_update AFTER UPDATE ON case_lines REFERENCING NEW TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION mark_orders_of_changed();
CREATE TRIGGER audit_delete AFTER DELETE ON case_lines REFERENCING OLD TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION mark_orders_of_changed();

COMMENT ON TABLE return_policies IS 'Terms of returns and claims, by sale and products; the most specific one counts';
COMMENT ON COLUMN return_policies.sale_id IS 'Null: every sale';
COMMENT ON COLUMN return_policies.return_days IS 'Whole days after the day of delivery; null: no return without a claim';
COMMENT ON COLUMN return_policies.claim_days IS 'The same for claims and refunds without a return';
COMMENT ON COLUMN return_policies.excluded_because IS 'No return without a claim, for this reason, as customers read it';
COMMENT ON COLUMN return_policies.freight_payer IS 'Pays for the way back unless the shop is at fault';
COMMENT ON COLUMN return_policies.fee_basis_points IS 'Withheld from a return unless the shop is at fault, of what was paid';
COMMENT ON COLUMN return_policies.is_resold IS 'Units that are inspected as good may be sold again; else they are written off';
COMMENT ON TABLE return_policy_skus IS 'Products of a return policy; a policy without any is for all';
COMMENT ON TABLE case_transitions IS 'The status changes of cases that are allowed';
COMMENT ON TABLE cases IS 'Returns, exchanges, claims and refunds without a return, each of one order';
COMMENT ON COLUMN cases.items_back IS 'The products are to be sent back';
COMMENT ON COLUMN cases.version IS 'Version of the last event: each change has one';
COMMENT ON COLUMN cases.policy IS 'The terms that counted when it was requested';
COMMENT ON COLUMN cases.freight_payer IS 'Pays for the way back';
COMMENT ON COLUMN cases.amount_minor IS 'For all lines together, before freight and fee; fixed by the approval';
COMMENT ON COLUMN cases.freight_minor IS 'Freight of the order that is refunded';
COMMENT ON COLUMN cases.fee_minor IS 'Withheld from the amount';
COMMENT ON COLUMN cases.offer IS 'What staff offer in place of the request, until the customer answers';
COMMENT ON COLUMN cases.waits_for IS 'Whoever must act next, until due_at; then a job moves the case on';
COMMENT ON COLUMN cases.decided_at IS 'When staff first approved or declined it';
COMMENT ON COLUMN cases.ended_at IS 'It is declined, cancelled, or resolved and all money has moved';
COMMENT ON TABLE case_lines IS 'Units of a case by order line and delivered shipment';
COMMENT ON COLUMN case_lines.shipment_id IS 'The shipment that brought them; null for units that never arrived';
COMMENT ON COLUMN case_lines.received IS 'Units that were received; once inspected: resellable + damaged + rejected';
COMMENT ON COLUMN case_lines.rejected IS 'Units that are sent to the customer again';
COMMENT ON COLUMN case_lines.amount_minor IS 'Refunded for them; fixed by the approval';
COMMENT ON TABLE case_events IS 'Each change of a case: time, actor, reason';
COMMENT ON TABLE case_evidence IS 'Pictures of customers, stored as files by their digest';
COMMENT ON COLUMN case_evidence.case_id IS 'Null: uploaded, and not used by a case yet';

INSERT INTO return_policies (policy_id, version, sale_id, return_days, claim_days, excluded_because, accepts_opened,
                             freight_payer, fee_basis_points, needs_evidence, is_resold, max_cases_per_sku, changed_at, actor)
VALUES ('default', 1, NULL, 7, 15, NULL, true, 'customer', 0, false, true, 5, now(), 'floodgate');
