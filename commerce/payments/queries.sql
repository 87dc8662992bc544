-- name: lock_order
SELECT order_id, user_id, sale_id, status, total_minor, currency, payment_plan, accepted_at, pay_by, cancel_reason
FROM orders WHERE order_id = $1 FOR UPDATE;

-- name: order_seen
SELECT order_id, user_id, sale_id, status, total_minor, currency, payment_plan, accepted_at, pay_by, cancel_reason
FROM orders WHERE order_id = $1;

-- name: payments_of
SELECT * FROM payments WHERE order_id = $1 ORDER BY plan_revision, tender_no;

-- name: payment
SELECT * FROM payments WHERE payment_id = $1;

-- name: refunds_of
SELECT * FROM refunds WHERE order_id = $1 ORDER BY created_at, refund_id;

-- name: refund
SELECT * FROM refunds WHERE refund_id = $1;

-- name: add_payments
INSERT INTO payments (payment_id, order_id, user_id, plan_revision, tender_no, method, flow, payer, amount_minor, currency,
                      created_at, expires_at, task, due_at)
SELECT payment_id, $2, $3, $4, tender_no - 1, method, flow, payer, amount, $5, $6, $7, 'create', $6
FROM unnest($1::uuid[], $8::text[], $9::text[], $10::text[], $11::bigint[]) WITH ORDINALITY
    AS given (payment_id, method, flow, payer, amount, tender_no);

-- name: asked
-- The provider has been asked for it: the customer can pay now.
UPDATE payments SET action = $2, task = 'query', due_at = $3, attempts = 0, last_error = NULL
WHERE payment_id = $1 AND status = 'pending' AND task = 'create';

-- name: capture
UPDATE payments SET status = 'captured', captured_at = $2, transaction_id = $3, task = NULL, due_at = $4, attempts = 0,
                    last_error = NULL, ended_at = NULL, reason = NULL, parked = false
WHERE payment_id = $1 AND status IN ('pending', 'authorised', 'failed', 'closed');

-- name: authorise
UPDATE payments SET status = 'authorised', task = NULL, last_error = NULL WHERE payment_id = $1 AND status = 'pending';

-- name: finish
UPDATE payments SET status = $2, ended_at = $3, reason = $4, task = NULL, last_error = NULL, parked = false
WHERE payment_id = $1 AND status IN ('pending', 'authorised');

-- name: close_soon
-- One that was given up has something new to try.
UPDATE payments SET task = 'close', due_at = $2, attempts = 0, parked = false
WHERE payment_id = ANY($1::uuid[]) AND status = 'pending' AND task <> 'close';

-- name: set_task
UPDATE payments SET task = $2, due_at = $3, attempts = 0, last_error = NULL WHERE payment_id = $1;

-- name: add_refund
INSERT INTO refunds (refund_id, payment_id, order_id, refund_key, amount_minor, currency, reason, actor, created_at,
                     due_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $9) ON CONFLICT (payment_id, refund_key) DO NOTHING;

-- name: finish_refund
UPDATE refunds SET status = 'done', ended_at = $2, last_error = NULL, parked = false
WHERE refund_id = $1 AND status <> 'done' RETURNING payment_id, amount_minor;

-- name: count_refunded
UPDATE payments SET refunded_minor = refunded_minor + $2 WHERE payment_id = $1;

-- name: refund_asked
UPDATE refunds SET requested = true WHERE refund_id = $1;

-- name: claim_payments
-- For what is our own to do it does not matter who can be reached.
UPDATE payments SET attempts = attempts + 1, due_at = $1 + $2 * interval '1 second'
WHERE payment_id IN (SELECT payment_id FROM payments WHERE task IS NOT NULL AND NOT parked AND due_at <= $1
                     AND (method <> ALL($4::text[]) OR task IN ('recover_order', 'update_order'))
                     ORDER BY due_at LIMIT $3 FOR UPDATE SKIP LOCKED)
RETURNING *;

-- name: claim_refunds
UPDATE refunds SET attempts = refunds.attempts + 1, due_at = $1 + $2 * interval '1 second'
FROM payments
WHERE payments.payment_id = refunds.payment_id AND refund_id IN (
    SELECT refund_id FROM refunds JOIN payments USING (payment_id)
    WHERE refunds.status = 'pending' AND NOT refunds.parked AND refunds.due_at <= $1 AND method <> ALL($4::text[])
    ORDER BY refunds.due_at LIMIT $3 FOR UPDATE OF refunds SKIP LOCKED)
RETURNING refunds.*, method, payments.amount_minor AS captured_minor, user_id;

-- name: postpone_payment
-- A task that somebody has given it meanwhile stays.
UPDATE payments SET due_at = $2, last_error = $3, parked = $4 WHERE payment_id = $1 AND task = $5;

-- name: look_again
-- Looked, nothing has changed: not a failure.
UPDATE payments SET due_at = $2, task = $3, attempts = 0, last_error = NULL
WHERE payment_id = $1 AND status = 'pending' AND task = $4;

-- name: postpone_refund
UPDATE refunds SET due_at = $2, last_error = $3, parked = $4 WHERE refund_id = $1 AND status = 'pending';

-- name: refund_waits
-- The provider is at it: not a failure.
UPDATE refunds SET due_at = $2, attempts = 0, last_error = 'on its way' WHERE refund_id = $1 AND status = 'pending';

-- name: add_notice
INSERT INTO payment_webhooks (method, webhook_id, payment_id, refund_id, received_at, result, body)
VALUES ($1, $2, $3, $4, $5, 'received', $6) ON CONFLICT (method, webhook_id) DO NOTHING RETURNING 1;

-- name: notice_result
UPDATE payment_webhooks SET result = $3 WHERE method = $1 AND webhook_id = $2;

-- name: notice
SELECT result FROM payment_webhooks WHERE method = $1 AND webhook_id = $2;

-- name: post
INSERT INTO ledger (posting, account, order_id, amount_minor, currency, at)
SELECT $1, account, $2, amount, $3, $4 FROM unnest($5::text[], $6::bigint[]) AS given (account, amount);

-- name: open_credit
INSERT INTO credit_accounts (user_id, currency) VALUES ($1, $2) ON CONFLICT DO NOTHING;

-- name: move_credit
-- Nothing where there would be less than nothing left.
UPDATE credit_accounts SET balance_minor = balance_minor + $3
WHERE user_id = $1 AND currency = $2 AND balance_minor + $3 >= 0 RETURNING balance_minor;

-- name: credit
SELECT currency, balance_minor FROM credit_accounts WHERE user_id = $1 ORDER BY currency;

-- name: posted
SELECT account, amount_minor, currency FROM ledger WHERE posting = $1;

-- name: parked
SELECT 'payment' AS kind, payment_id AS id, order_id, method, amount_minor, currency, task, attempts, last_error,
       payments.due_at
FROM payments WHERE parked
UNION ALL
SELECT 'refund', refund_id, refunds.order_id, method, refunds.amount_minor, refunds.currency, 'refund',
       refunds.attempts, refunds.last_error, refunds.due_at
FROM refunds JOIN payments USING (payment_id) WHERE refunds.parked
ORDER BY 3, 1, 2;

-- name: retry_payment
UPDATE payments SET parked = false, attempts = 0, due_at = $2 WHERE payment_id = $1 AND parked;

-- name: retry_refund
UPDATE refunds SET parked = false, attempts = 0, due_at = $2 WHERE refund_id = $1 AND parked;

-- name: captured_between
-- What we believe was captured by a provider in a stretch of time, for a statement.
SELECT payment_id, NULL::uuid AS refund_id, amount_minor, currency, transaction_id FROM payments
WHERE method = $1 AND captured_at >= $2 AND captured_at < $3;

-- name: refunded_between
SELECT payment_id, refund_id, refunds.amount_minor, refunds.currency, transaction_id FROM refunds JOIN payments USING (payment_id)
WHERE method = $1 AND refunds.status = 'done' AND refunds.ended_at >= $2 AND refunds.ended_at < $3;
