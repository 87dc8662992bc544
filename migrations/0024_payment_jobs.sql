-- Payments and refunds are no longer their own jobs.
INSERT INTO jobs (subject, queue, kind, system, due_at, attempts, parked, last_error, created_at)
SELECT payment_id, 'payments', 'payment.' || task,
       CASE WHEN method IN ('balance', 'cod') OR task IN ('recover_order', 'update_order') THEN 'internal' ELSE method END,
       due_at, attempts, parked, last_error, created_at
FROM payments WHERE task IS NOT NULL
UNION ALL
SELECT refund_id, 'refunds', 'refund.request', CASE WHEN method IN ('balance', 'cod') THEN 'internal' ELSE method END,
       refunds.due_at, refunds.attempts, refunds.parked, refunds.last_error, refunds.created_at
FROM refunds JOIN payments USING (payment_id) WHERE refunds.status = 'pending';

ALTER TABLE payments DROP COLUMN task, DROP COLUMN due_at, DROP COLUMN attempts, DROP COLUMN last_error, DROP COLUMN parked;
ALTER TABLE refunds DROP COLUMN due_at, DROP COLUMN attempts, DROP COLUMN last_error, DROP COLUMN parked;
COMMENT ON TABLE payments IS 'One row for each tender of a payment plan; what is to be done next is its job';
COMMENT ON TABLE refunds IS 'Refunds of payments, once per refund_key; a job asks the provider';
