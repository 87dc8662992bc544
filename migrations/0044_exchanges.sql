-- Exchanges: returned units of an order and the order that replaces them.

CREATE TABLE exchanges (
    case_id        uuid PRIMARY KEY REFERENCES cases,
    order_id       uuid NOT NULL REFERENCES orders,
    replacement_id uuid NOT NULL UNIQUE,
    credit_minor   bigint NOT NULL CHECK (credit_minor >= 0),
    status         text NOT NULL DEFAULT 'open' CHECK (status IN ('open', 'done', 'returned')),
    created_at     timestamptz NOT NULL,
    ended_at       timestamptz,
    CHECK ((status = 'open') = (ended_at IS NULL))
);
CREATE INDEX exchanges_of_order ON exchanges (order_id);
COMMENT ON TABLE exchanges IS 'Units of cases that an order is to replace';
COMMENT ON COLUMN exchanges.replacement_id IS 'The order that replaces them; it has this id from the first attempt to place it';
COMMENT ON COLUMN exchanges.credit_minor IS 'What was paid for the units: taken off the price of the replacement, the rest is refunded';
COMMENT ON COLUMN exchanges.status IS 'done: the replacement is paid; returned: there is none, and the units are refunded';

CREATE TRIGGER audit_insert AFTER INSERT ON exchanges REFERENCING NEW TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION mark_orders_of_changed();
CREATE TRIGGER audit_update AFTER UPDATE ON exchanges REFERENCING NEW TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION mark_orders_of_changed();
CREATE TRIGGER audit_delete AFTER DELETE ON exchanges REFERENCING OLD TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION mark_orders_of_changed();
ALTER TABLE exchanges ENABLE ALWAYS TRIGGER audit_insert, ENABLE ALWAYS TRIGGER audit_update,
    ENABLE ALWAYS TRIGGER audit_delete;
