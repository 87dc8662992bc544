-- Cash on delivery that is collected in parts: the cash of each shipment is in the ledger at once, and a payment of which only a
-- part can be collected is captured with that part.

-- A stored shortfall instead of the captured amount: rows of before, and of an older version that still runs, are right
-- as they are, and no row is rewritten.
ALTER TABLE payments ADD COLUMN uncollected_minor bigint NOT NULL DEFAULT 0;
COMMENT ON COLUMN payments.uncollected_minor IS 'Cash of a captured payment on delivery that was never collected';
ALTER TABLE payments ADD CONSTRAINT payments_uncollected CHECK (
    uncollected_minor = 0
    OR (method = 'cod' AND status = 'captured' AND uncollected_minor > 0 AND uncollected_minor < amount_minor
        AND refunded_minor <= amount_minor - uncollected_minor)) NOT VALID;

CREATE FUNCTION captured_minor(payment payments) RETURNS bigint IMMUTABLE PARALLEL SAFE LANGUAGE sql AS $$
    SELECT CASE payment.status WHEN 'captured' THEN payment.amount_minor - payment.uncollected_minor ELSE 0 END
$$;
COMMENT ON FUNCTION captured_minor IS 'Captured amount of a payment, 0 until it is captured; reads like a column: payments.captured_minor';

DROP TRIGGER audit_update ON payments;
CREATE TRIGGER audit_update AFTER UPDATE ON payments FOR EACH ROW
    WHEN ((OLD.order_id, OLD.status, OLD.amount_minor, OLD.uncollected_minor, OLD.refunded_minor, OLD.plan_revision)
          IS DISTINCT FROM
          (NEW.order_id, NEW.status, NEW.amount_minor, NEW.uncollected_minor, NEW.refunded_minor, NEW.plan_revision))
    EXECUTE FUNCTION mark_order_of_row();

-- More accounts. `cash` has what was collected before there was an account for each who holds it.
ALTER TABLE ledger DROP CONSTRAINT ledger_account_check;
ALTER TABLE ledger ADD CONSTRAINT ledger_account_check CHECK (
    account ~ '^(provider:[a-z_]+|fees:[a-z_]+|cash|cash:shop|cash:(carrier|driver):[A-Za-z0-9_-]{1,64}|bank|collected|orders|exchanges|differences|shop:credit|credit:.{1,64})$')
    NOT VALID;
