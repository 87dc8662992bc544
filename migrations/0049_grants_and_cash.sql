-- What refund grants have moved, over any payments, and what they leave due on delivery: each said in one place.
CREATE FUNCTION refunds_of_grants(id uuid) RETURNS SETOF refunds STABLE LANGUAGE sql AS $$
    -- The money of a replacement stays with the payments of the orders that it comes from.
    WITH RECURSIVE paying (order_id, links) AS (
        SELECT $1, 0
        UNION ALL
        SELECT exchanges.order_id, links + 1 FROM paying JOIN exchanges ON replacement_id = paying.order_id
        WHERE exchanges.status = 'done' AND links < 20
    )
    SELECT refunds.* FROM paying JOIN refunds USING (order_id) JOIN refund_grants ON refund_key = 'grant ' || grant_id
    WHERE refund_grants.order_id = $1 AND refunds.status <> 'failed'
$$;
COMMENT ON FUNCTION refunds_of_grants IS 'Refunds that the grants of an order have asked for, also over payments of the orders that it replaces';

CREATE FUNCTION taken_off_cash(id uuid) RETURNS bigint STABLE LANGUAGE sql AS $$
    SELECT coalesce((SELECT sum(amount_minor) FROM refund_grants WHERE order_id = $1), 0)::bigint
         - coalesce((SELECT sum(amount_minor) FROM refunds_of_grants($1)), 0)::bigint
$$;
COMMENT ON FUNCTION taken_off_cash IS 'What grants of an order have taken off its cash on delivery: their amounts that are no refunds';

CREATE FUNCTION cash_due(id uuid) RETURNS bigint STABLE LANGUAGE sql AS $$
    SELECT greatest(0, sum(amount_minor - payments.captured_minor) - taken_off_cash($1))::bigint FROM payments
    WHERE order_id = $1 AND method = 'cod' AND payments.status NOT IN ('pending', 'failed')
      AND plan_revision = (SELECT max(plan_revision) FROM payments AS every WHERE every.order_id = $1)
    HAVING bool_or(payments.status = 'authorised')
$$;
COMMENT ON FUNCTION cash_due IS 'Cash that an order has to bring on delivery, collected or not; null if it has to bring none';

-- Grants that move no money leave a mark, too: what is kept of an order is its total less its grants.
CREATE TRIGGER audit_insert AFTER INSERT ON refund_grants REFERENCING NEW TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION mark_orders_of_changed();
CREATE TRIGGER audit_update AFTER UPDATE ON refund_grants REFERENCING NEW TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION mark_orders_of_changed();
CREATE TRIGGER audit_delete AFTER DELETE ON refund_grants REFERENCING OLD TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION mark_orders_of_changed();
ALTER TABLE refund_grants ENABLE ALWAYS TRIGGER audit_insert, ENABLE ALWAYS TRIGGER audit_update,
    ENABLE ALWAYS TRIGGER audit_delete;

-- Refunds that somebody made at a provider by hand: only its statement knows them, until two people have recorded them.
CREATE TABLE refunds_by_hand (
    refund_id    uuid PRIMARY KEY,
    payment_id   uuid NOT NULL REFERENCES payments,
    order_id     uuid NOT NULL REFERENCES orders,
    amount_minor bigint NOT NULL CHECK (amount_minor > 0),
    currency     text NOT NULL,
    number       text NOT NULL CHECK (length(number) BETWEEN 1 AND 128),
    booked_on    date NOT NULL,
    found_at     timestamptz NOT NULL,
    found_by     text NOT NULL CHECK (length(found_by) BETWEEN 1 AND 100),
    proof        text CHECK (length(proof) BETWEEN 1 AND 500),
    recorded_by  text CHECK (length(recorded_by) BETWEEN 1 AND 100),
    recorded_at  timestamptz,
    confirmed_by text CHECK (length(confirmed_by) BETWEEN 1 AND 100),
    confirmed_at timestamptz,
    outcome      text CHECK (outcome IN ('refund', 'loss')),
    CHECK ((proof IS NULL) = (recorded_by IS NULL) AND (proof IS NULL) = (recorded_at IS NULL)),
    CHECK ((confirmed_by IS NULL) = (confirmed_at IS NULL) AND (confirmed_by IS NULL) = (outcome IS NULL)),
    CHECK (confirmed_by IS NULL OR (proof IS NOT NULL AND confirmed_by <> recorded_by))
);
CREATE INDEX refunds_by_hand_open ON refunds_by_hand (found_at, refund_id) WHERE confirmed_by IS NULL;
CREATE INDEX refunds_by_hand_of_order ON refunds_by_hand (order_id);
COMMENT ON TABLE refunds_by_hand IS 'Refunds on providers'' statements that the shop has not requested';
COMMENT ON COLUMN refunds_by_hand.refund_id IS 'The shop''s id of it, derived from the number under which it was requested at the provider';
COMMENT ON COLUMN refunds_by_hand.number IS 'The provider''s own number on the statement';
COMMENT ON COLUMN refunds_by_hand.proof IS 'Who refunded it, and why, as one person has found out';
COMMENT ON COLUMN refunds_by_hand.confirmed_by IS 'A second person; only then it is posted';
COMMENT ON COLUMN refunds_by_hand.outcome IS 'refund: it counts as a refund of its order; loss: the payment held no more so much, and the customer has it twice';
