-- name: list_payments
SELECT {payments} FROM payments WHERE order_id = $1 ORDER BY plan_revision, tender_no;

-- name: get_payment
SELECT {payments} FROM payments WHERE payment_id = $1;

-- name: list_refunds
SELECT {refunds} FROM refunds WHERE order_id = $1 ORDER BY created_at, refund_id;

-- name: get_refund
SELECT {refunds} FROM refunds WHERE refund_id = $1;

-- name: insert_payments
INSERT INTO payments (payment_id, order_id, user_id, plan_revision, tender_no, method, flow, payer, amount_minor,
                      currency, created_at, expires_at, task, due_at, subject, return_url, payer_ip)
SELECT payment_id, $2, $3, $4, tender_no - 1, method, flow, payer, amount, $5, $6, expires_at, 'create', $6, $7,
       return_url, payer_ip
FROM unnest($1::uuid[], $8::text[], $9::text[], $10::text[], $11::bigint[], $12::timestamptz[], $13::text[],
            $14::text[]) WITH ORDINALITY
    AS tenders (payment_id, method, flow, payer, amount, expires_at, return_url, payer_ip, tender_no);

-- name: get_first_product
SELECT sku, coalesce(name, sku) AS name, sum(quantity)::bigint AS quantity, count(*) OVER () - 1 AS other_products
FROM order_lines LEFT JOIN products USING (sku) WHERE order_id = $1
GROUP BY sku, name ORDER BY min(line_no) LIMIT 1;

-- name: renew_action
-- A repeated request returns a new code or page, and is refused if the payment has ended.
UPDATE payments SET task = 'create', due_at = $3, action = NULL, return_url = coalesce($2, return_url), attempts = 0
WHERE payment_id = $1 AND status = 'pending' AND task = 'query';

-- name: mark_requested
-- The provider accepted the request, so the customer can pay now.
UPDATE payments SET action = $2, task = 'query', due_at = $3, attempts = 0, last_error = NULL
WHERE payment_id = $1 AND status = 'pending' AND task = 'create';

-- name: mark_captured
UPDATE payments SET status = 'captured', captured_at = $2, transaction_id = $3, task = NULL, due_at = $4, attempts = 0,
                    last_error = NULL, ended_at = NULL, reason = NULL, parked = false
WHERE payment_id = $1 AND status IN ('pending', 'authorised', 'failed', 'closed');

-- name: mark_authorised
UPDATE payments SET status = 'authorised', task = NULL, last_error = NULL WHERE payment_id = $1 AND status = 'pending';

-- name: end_payment
UPDATE payments SET status = $2, ended_at = $3, reason = $4, provider_error = $5, task = NULL, last_error = NULL,
                    parked = false
WHERE payment_id = $1 AND status IN ('pending', 'authorised');

-- name: schedule_close
-- A parked payment is resumed: closing is a task that was not tried yet.
UPDATE payments SET task = 'close', due_at = $2, attempts = 0, parked = false
WHERE payment_id = ANY($1::uuid[]) AND status = 'pending' AND task <> 'close';

-- name: set_task
UPDATE payments SET task = $2, due_at = $3, attempts = 0, last_error = NULL WHERE payment_id = $1;

-- name: insert_refund
INSERT INTO refunds (refund_id, payment_id, order_id, refund_key, amount_minor, currency, reason, actor, created_at,
                     due_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $9) ON CONFLICT (payment_id, refund_key) DO NOTHING;

-- name: mark_refunded
UPDATE refunds SET status = 'done', ended_at = $2, last_error = NULL, parked = false
WHERE refund_id = $1 AND status <> 'done' RETURNING payment_id, amount_minor;

-- name: add_refunded_amount
UPDATE payments SET refunded_minor = refunded_minor + $2 WHERE payment_id = $1;

-- name: mark_refund_requested
UPDATE refunds SET requested = true WHERE refund_id = $1;

-- name: is_fully_refunded
-- All money of the current tenders is refunded or being refunded; cash still to be collected counts as money.
SELECT coalesce(sum(amount_minor) > 0 AND sum(amount_minor) <= sum((
    SELECT coalesce(sum(refunds.amount_minor), 0) FROM refunds
    WHERE refunds.payment_id = payments.payment_id AND refunds.status <> 'failed')), false)
FROM payments WHERE order_id = $1 AND status IN ('captured', 'authorised')
AND plan_revision = (SELECT max(plan_revision) FROM payments WHERE order_id = $1);

-- name: list_cash_due
-- Cash on delivery of the current tenders.
SELECT payment_id, amount_minor FROM payments WHERE order_id = $1 AND method = 'cod' AND status = 'authorised'
AND plan_revision = (SELECT max(plan_revision) FROM payments WHERE order_id = $1);

-- name: claim_payments
-- $2: lease in seconds.
-- Tasks of our own need no provider, so unavailable methods do not exclude them.
UPDATE payments SET attempts = attempts + 1, due_at = $1 + $2 * interval '1 second'
WHERE payment_id IN (SELECT payment_id FROM payments WHERE task IS NOT NULL AND NOT parked AND due_at <= $1
                     AND (method <> ALL($4::text[]) OR task IN ('recover_order', 'update_order'))
                     ORDER BY due_at LIMIT $3 FOR UPDATE SKIP LOCKED)
RETURNING {payments};

-- name: claim_refunds
-- $2: lease in seconds.
UPDATE refunds SET attempts = refunds.attempts + 1, due_at = $1 + $2 * interval '1 second'
FROM payments
WHERE payments.payment_id = refunds.payment_id AND refund_id IN (
    SELECT refund_id FROM refunds JOIN payments USING (payment_id)
    WHERE refunds.status = 'pending' AND NOT refunds.parked AND refunds.due_at <= $1 AND method <> ALL($4::text[])
    ORDER BY refunds.due_at LIMIT $3 FOR UPDATE OF refunds SKIP LOCKED)
RETURNING {refunds}, method, payments.amount_minor AS captured_minor, user_id;

-- name: postpone_payment
-- A task that was set in the meantime is kept.
UPDATE payments SET due_at = $2, last_error = $3, parked = $4 WHERE payment_id = $1 AND task = $5;

-- name: schedule_poll
-- The provider answered and nothing has changed: this is no failure, so attempts start at 0 again.
UPDATE payments SET due_at = $2, task = $3, attempts = 0, last_error = NULL
WHERE payment_id = $1 AND status = 'pending' AND task = $4;

-- name: postpone_refund
UPDATE refunds SET due_at = $2, last_error = $3, parked = $4 WHERE refund_id = $1 AND status = 'pending';

-- name: schedule_refund_poll
-- The provider is processing the refund: this is no failure, so attempts start at 0 again.
UPDATE refunds SET due_at = $2, attempts = 0, last_error = 'the provider is processing it'
WHERE refund_id = $1 AND status = 'pending';

-- name: insert_webhook
INSERT INTO payment_webhooks (method, webhook_id, payment_id, refund_id, received_at, result, body)
VALUES ($1, $2, $3, $4, $5, 'received', $6) ON CONFLICT (method, webhook_id) DO NOTHING RETURNING 1;

-- name: set_webhook_result
UPDATE payment_webhooks SET result = $3 WHERE method = $1 AND webhook_id = $2;

-- name: get_webhook_result
SELECT result FROM payment_webhooks WHERE method = $1 AND webhook_id = $2;

-- name: insert_posting
INSERT INTO ledger (posting, account, order_id, amount_minor, currency, at)
SELECT $1, account, $2, amount, $3, $4 FROM unnest($5::text[], $6::bigint[]) AS entries (account, amount);

-- name: open_credit_account
INSERT INTO credit_accounts (user_id, currency) VALUES ($1, $2) ON CONFLICT DO NOTHING;

-- name: adjust_store_credit
-- Returns no row if the balance would become negative.
UPDATE credit_accounts SET balance_minor = balance_minor + $3
WHERE user_id = $1 AND currency = $2 AND balance_minor + $3 >= 0 RETURNING balance_minor;

-- name: list_credit_balances
SELECT currency, balance_minor FROM credit_accounts WHERE user_id = $1 ORDER BY currency;

-- name: get_posting
SELECT account, amount_minor, currency FROM ledger WHERE posting = $1;

-- name: list_parked_jobs
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

-- name: list_captures
-- Captures of a provider in a period, to compare with its statement.
SELECT payment_id, NULL::uuid AS refund_id, amount_minor, currency, transaction_id FROM payments
WHERE method = $1 AND captured_at >= $2 AND captured_at < $3;

-- name: list_completed_refunds
SELECT payment_id, refund_id, refunds.amount_minor, refunds.currency, transaction_id
FROM refunds JOIN payments USING (payment_id)
WHERE method = $1 AND refunds.status = 'done' AND refunds.ended_at >= $2 AND refunds.ended_at < $3;

-- name: read_newest_entry
SELECT coalesce(max(line_id), 0) FROM ledger;

-- name: list_ledger_writers
-- Transactions that may have taken line ids and not committed them. The lock is taken before the first id.
SELECT virtualtransaction FROM pg_locks
WHERE database = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND relation = 'ledger'::regclass AND mode = 'RowExclusiveLock' AND granted;

-- name: sum_entries
-- Entries after $1, at most up to $2.
SELECT currency, sum(amount_minor)::bigint AS amount FROM ledger WHERE line_id > $1 AND line_id <= $2 GROUP BY currency;
