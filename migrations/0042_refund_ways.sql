-- Refunds as they go at the providers: attempts under several numbers, waits, and other ways than back to the payment.
-- Refunds of earlier versions have no way: they went to the provider, or to store credit if there was none.

ALTER TABLE refunds
    ADD COLUMN attempt_no integer NOT NULL DEFAULT 1,
    ADD COLUMN retries uuid REFERENCES refunds,
    ADD COLUMN request_minor bigint,
    ADD COLUMN requested_at timestamptz,
    ADD COLUMN provider_refund_id text,
    ADD COLUMN provider_error text,
    ADD COLUMN wait_reason text,
    ADD COLUMN waiting_since timestamptz,
    ADD COLUMN wait_announced boolean NOT NULL DEFAULT false,
    ADD COLUMN way text,
    ADD COLUMN other_way_reason text,
    ADD COLUMN other_way_since timestamptz,
    DROP CONSTRAINT refunds_status_check,
    DROP CONSTRAINT refunds_check,
    DROP CONSTRAINT refunds_payment_id_refund_key_key,
    ADD CONSTRAINT refunds_attempt UNIQUE (payment_id, refund_key, attempt_no);
ALTER TABLE refunds
    ADD CONSTRAINT refunds_status_check CHECK (status IN ('pending', 'needs_other_way', 'done', 'failed')) NOT VALID,
    ADD CONSTRAINT refunds_ended_check CHECK ((status IN ('done', 'failed')) = (ended_at IS NOT NULL)) NOT VALID,
    ADD CONSTRAINT refunds_attempt_check CHECK (attempt_no > 0 AND (attempt_no = 1) = (retries IS NULL)) NOT VALID,
    ADD CONSTRAINT refunds_request_check CHECK (request_minor >= 0) NOT VALID,
    ADD CONSTRAINT refunds_provider_check
        CHECK (length(provider_refund_id) BETWEEN 1 AND 128 AND length(provider_error) BETWEEN 1 AND 500) NOT VALID,
    ADD CONSTRAINT refunds_wait_check
        CHECK (wait_reason IN ('pace', 'merchant_balance', 'frequency', 'frozen', 'busy')
               AND (wait_reason IS NULL OR status = 'pending') AND (wait_reason IS NULL) = (waiting_since IS NULL)) NOT VALID,
    ADD CONSTRAINT refunds_way_check
        CHECK (way IN ('provider', 'store_credit', 'transfer') AND (way IS NULL OR status = 'done')) NOT VALID,
    ADD CONSTRAINT refunds_other_way_check
        CHECK (other_way_reason IN ('window_over', 'too_many_parts', 'account_closed', 'not_refundable', 'closed', 'abnormal',
                                    'by_staff')
               AND (status = 'needs_other_way') = (other_way_since IS NOT NULL)
               AND (status <> 'needs_other_way' OR other_way_reason IS NOT NULL)) NOT VALID;
CREATE INDEX refunds_waiting ON refunds (waiting_since) WHERE wait_reason IS NOT NULL;
CREATE INDEX refunds_needing_other_way ON refunds (other_way_since, refund_id) WHERE status = 'needs_other_way';
CREATE UNIQUE INDEX refunds_retries ON refunds (retries) WHERE retries IS NOT NULL;
COMMENT ON TABLE refunds IS 'Refunds of payments, once per refund_key and attempt; a job asks the provider';
COMMENT ON COLUMN refunds.attempt_no IS 'From 1; an attempt whose number the provider closed has failed and is followed by another';
COMMENT ON COLUMN refunds.retries IS 'The failed attempt before this one';
COMMENT ON COLUMN refunds.request_minor IS 'Amount of the request of staff, over all payments; 0: all that was left; null: no such request';
COMMENT ON COLUMN refunds.requested_at IS 'When it was last requested from the provider';
COMMENT ON COLUMN refunds.provider_refund_id IS 'The provider''s own number of the refund';
COMMENT ON COLUMN refunds.provider_error IS 'The provider''s words for why it was not made, for staff';
COMMENT ON COLUMN refunds.wait_reason IS 'Why it is not requested or not made now, though nothing is wrong with it';
COMMENT ON COLUMN refunds.wait_announced IS 'Whether the customer has read that it takes longer than usual';
COMMENT ON COLUMN refunds.way IS 'How the money was returned: to the payment through the provider, as store credit, by bank transfer';
COMMENT ON COLUMN refunds.other_way_reason IS 'Why the payment cannot be refunded through its provider';

-- How a refund ends that cannot go back to its payment. A transfer takes two people.
CREATE TABLE refund_other_ways (
    refund_id    uuid PRIMARY KEY REFERENCES refunds,
    order_id     uuid NOT NULL REFERENCES orders,
    way          text NOT NULL CHECK (way IN ('store_credit', 'transfer')),
    proof        text NOT NULL CHECK (length(proof) BETWEEN 1 AND 500),
    recorded_by  text NOT NULL CHECK (length(recorded_by) BETWEEN 1 AND 100),
    recorded_at  timestamptz NOT NULL,
    confirmed_by text CHECK (length(confirmed_by) BETWEEN 1 AND 100),
    confirmed_at timestamptz,
    CHECK ((confirmed_by IS NULL) = (confirmed_at IS NULL)),
    CHECK (confirmed_by IS NULL OR (way = 'transfer' AND confirmed_by <> recorded_by))
);
CREATE INDEX refund_other_ways_of_order ON refund_other_ways (order_id);
COMMENT ON TABLE refund_other_ways IS 'Refunds that go back another way than they came, with proof: store credit, or a confirmed bank transfer';
COMMENT ON COLUMN refund_other_ways.proof IS 'The customer''s consent, or the reference of the transfer';
COMMENT ON COLUMN refund_other_ways.confirmed_by IS 'A second person; a transfer ends its refund only then';

DROP TRIGGER audit_update ON refunds;
CREATE TRIGGER audit_update AFTER UPDATE ON refunds FOR EACH ROW
    WHEN ((OLD.order_id, OLD.payment_id, OLD.status, OLD.amount_minor, OLD.actor, OLD.way)
          IS DISTINCT FROM (NEW.order_id, NEW.payment_id, NEW.status, NEW.amount_minor, NEW.actor, NEW.way))
    EXECUTE FUNCTION mark_order_of_row();
CREATE TRIGGER audit_insert AFTER INSERT ON refund_other_ways REFERENCING NEW TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION mark_orders_of_changed();
CREATE TRIGGER audit_update AFTER UPDATE ON refund_other_ways REFERENCING NEW TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION mark_orders_of_changed();
CREATE TRIGGER audit_delete AFTER DELETE ON refund_other_ways REFERENCING OLD TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION mark_orders_of_changed();
ALTER TABLE refunds ENABLE ALWAYS TRIGGER audit_update;
ALTER TABLE refund_other_ways ENABLE ALWAYS TRIGGER audit_insert, ENABLE ALWAYS TRIGGER audit_update,
    ENABLE ALWAYS TRIGGER audit_delete;
