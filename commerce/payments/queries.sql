-- name: lock_orders
SELECT order_id, status, cancel_reason FROM orders
WHERE order_id = ANY(ARRAY(SELECT order_id FROM payments WHERE payment_id = ANY($1::uuid[])))
ORDER BY order_id FOR UPDATE;

-- name: lock_free_orders
SELECT order_id, status, cancel_reason FROM orders
WHERE order_id = ANY(ARRAY(SELECT order_id FROM payments WHERE payment_id = ANY($1::uuid[])))
ORDER BY order_id FOR UPDATE SKIP LOCKED;

-- name: list_payments
SELECT {payments}, substr(kind, 9) AS task
FROM payments LEFT JOIN jobs ON jobs.subject = payment_id AND queue = 'payments'
WHERE order_id = ANY(ARRAY(SELECT unnest($1::uuid[]))) ORDER BY order_id, plan_revision, tender_no;

-- name: get_payments
SELECT {payments}, substr(kind, 9) AS task
FROM payments LEFT JOIN jobs ON jobs.subject = payment_id AND queue = 'payments'
WHERE payment_id = ANY(ARRAY(SELECT unnest($1::uuid[])));

-- name: list_refunds
SELECT {refunds} FROM refunds WHERE order_id = ANY($1::uuid[]) ORDER BY created_at, refund_id;

-- name: get_refund
SELECT {refunds} FROM refunds WHERE refund_id = $1;

-- name: insert_payments
-- With their jobs.
WITH inserted AS (
    INSERT INTO payments (payment_id, order_id, user_id, plan_revision, tender_no, method, flow, payer, amount_minor,
                          currency, created_at, expires_at, subject, return_url, payer_ip)
    SELECT payment_id, order_id, user_id, plan_revision, tender_no, method, flow, payer, amount, currency, $1, expires_at,
           subject, return_url, payer_ip
    FROM unnest($2::uuid[], $3::uuid[], $4::text[], $5::integer[], $6::integer[], $7::text[], $8::text[], $9::text[],
                $10::bigint[], $11::text[], $12::timestamptz[], $13::text[], $14::text[], $15::text[])
        AS tenders (payment_id, order_id, user_id, plan_revision, tender_no, method, flow, payer, amount, currency,
                    expires_at, subject, return_url, payer_ip)
    RETURNING {payments}
), due AS (
    INSERT INTO jobs (subject, queue, kind, system, due_at, created_at)
    SELECT payment_id, 'payments', 'payment.create',
           CASE WHEN method IN ('balance', 'cod') THEN 'internal' ELSE method END, $1, $1
    FROM inserted
)
SELECT {inserted}, 'create' AS task FROM inserted ORDER BY tender_no;

-- name: get_first_products
SELECT DISTINCT ON (order_id) order_id, sku, coalesce(name, sku) AS name, sum(quantity)::bigint AS quantity,
       count(*) OVER (PARTITION BY order_id) - 1 AS other_products
FROM order_lines LEFT JOIN variants USING (sku) WHERE order_id = ANY(ARRAY(SELECT unnest($1::uuid[])))
GROUP BY order_id, sku, name ORDER BY order_id, min(line_no);

-- name: list_without_cod_fee
SELECT order_id FROM orders JOIN sales USING (sale_id) JOIN freight_templates ON name = freight_template
WHERE order_id = ANY($1::uuid[]) AND orders.cod_fee_minor = 0 AND freight_templates.cod_fee_minor > 0;

-- name: renew_actions
-- A repeated request returns a new code or page, and is refused if the payment has ended.
WITH input AS (
    SELECT payment_id, return_url FROM unnest($1::uuid[], $2::text[]) AS input (payment_id, return_url)
), renewed AS (
    UPDATE payments SET action = NULL, return_url = coalesce(input.return_url, payments.return_url)
    FROM input JOIN jobs ON jobs.subject = input.payment_id
    WHERE payments.payment_id = input.payment_id AND status = 'pending' AND queue = 'payments' AND kind = 'payment.query'
    RETURNING payments.payment_id
)
UPDATE jobs SET kind = 'payment.create', due_at = $3, attempts = 0
WHERE queue = 'payments' AND kind = 'payment.query' AND subject = ANY (ARRAY(SELECT payment_id FROM renewed));

-- name: mark_requested
-- The provider accepted the requests, so the customers can pay now. Only while the claims hold.
WITH input AS (
    SELECT payment_id, attempts, leased_until, action, due_at FROM unnest($1::uuid[], $2::integer[], $3::timestamptz[], $4::text[], $5::timestamptz[])
        AS input (payment_id, attempts, leased_until, action, due_at)
), requested AS (
    UPDATE payments SET action = input.action::jsonb FROM input JOIN jobs ON jobs.subject = input.payment_id
    WHERE payments.payment_id = input.payment_id AND status = 'pending' AND queue = 'payments'
      AND jobs.attempts = input.attempts AND jobs.due_at = input.leased_until
    RETURNING payments.payment_id
)
UPDATE jobs SET kind = 'payment.query', due_at = input.due_at, attempts = 0, last_error = NULL FROM input
WHERE queue = 'payments' AND subject = input.payment_id AND jobs.attempts = input.attempts
  AND jobs.due_at = input.leased_until AND subject = ANY (ARRAY(SELECT payment_id FROM requested))
RETURNING subject;

-- name: mark_captured
-- With their postings. A payment that was captured before stays as it is.
WITH captured AS (
    UPDATE payments SET status = 'captured', captured_at = input.captured_at, transaction_id = input.transaction_id,
                        uncollected_minor = input.uncollected_minor, ended_at = NULL, reason = NULL
    FROM unnest($1::uuid[], $2::timestamptz[], $3::text[], $4::text[], $5::bigint[])
        AS input (payment_id, captured_at, transaction_id, source, uncollected_minor)
    WHERE payments.payment_id = input.payment_id AND status IN ('pending', 'authorised', 'failed', 'closed')
    RETURNING payments.payment_id, order_id, method, payments.transaction_id, payments.captured_at,
              payments.captured_minor, currency, source
), finished AS (
    DELETE FROM jobs USING captured WHERE queue = 'payments' AND subject = payment_id
), posted AS (
    INSERT INTO postings (posting, kind, order_id, reference, booked_on, at)
    SELECT 'capture ' || payment_id, 'capture', order_id, transaction_id,
           CASE WHEN method NOT IN ('balance', 'cod') THEN (captured_at AT TIME ZONE 'Asia/Shanghai')::date END, $6
    FROM captured
)
INSERT INTO ledger (posting, account, order_id, amount_minor, currency, at)
SELECT 'capture ' || payment_id, account, order_id, amount, currency, $6
FROM captured CROSS JOIN LATERAL (VALUES (source, captured_minor), ('orders', -captured_minor)) AS entries (account, amount);

-- name: mark_authorised
WITH authorised AS (
    UPDATE payments SET status = 'authorised' WHERE payment_id = ANY($1::uuid[]) AND status = 'pending'
    RETURNING payment_id
)
DELETE FROM jobs USING authorised WHERE queue = 'payments' AND subject = payment_id;

-- name: end_payments
WITH ended AS (
    UPDATE payments SET status = input.status, ended_at = $5, reason = input.reason, provider_error = input.provider_error
    FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[]) AS input (payment_id, status, reason, provider_error)
    WHERE payments.payment_id = input.payment_id AND payments.status IN ('pending', 'authorised')
    RETURNING payments.payment_id
)
DELETE FROM jobs USING ended WHERE queue = 'payments' AND subject = payment_id;

-- name: schedule_close
-- A parked payment is resumed: closing is a task that was not tried yet.
UPDATE jobs SET kind = 'payment.close', due_at = $2, attempts = 0, parked = false, last_error = NULL
WHERE queue = 'payments' AND subject = ANY($1::uuid[]) AND kind <> 'payment.close'
  AND EXISTS (SELECT FROM payments WHERE payment_id = jobs.subject AND status = 'pending');

-- name: list_fully_refunded
-- All money of the current tenders is refunded or being refunded, and what was paid for the units that the order replaces;
-- cash still to be collected counts as money.
SELECT order_id FROM (
    SELECT orders.order_id, coalesce(paid_minor, 0) + coalesce(behind_minor, 0) AS held_minor,
           coalesce(refunded_minor, 0) + CASE WHEN behind_minor IS NULL THEN 0 ELSE (
               SELECT coalesce(sum(amount_minor), 0) FROM refunds_of_grants(orders.order_id) AS refund
               WHERE refund.order_id <> orders.order_id) END AS refunded_minor
    FROM orders CROSS JOIN LATERAL (
        SELECT sum(amount_minor - uncollected_minor) AS paid_minor, sum((
            SELECT coalesce(sum(refunds.amount_minor), 0) FROM refunds
            WHERE refunds.payment_id = payments.payment_id AND refunds.status <> 'failed')) AS refunded_minor
        FROM payments WHERE payments.order_id = orders.order_id AND payments.status IN ('captured', 'authorised')
          AND plan_revision = (SELECT max(plan_revision) FROM payments AS every WHERE every.order_id = orders.order_id)
    ) AS own LEFT JOIN LATERAL (
        SELECT orders.discount_minor AS behind_minor FROM exchanges
        WHERE replacement_id = orders.order_id AND exchanges.status = 'done'
    ) AS replaced ON true
    WHERE orders.order_id = ANY(ARRAY(SELECT unnest($1::uuid[])))
) AS sums WHERE held_minor > 0 AND held_minor <= refunded_minor;

-- name: list_captured_late
SELECT order_id, payment_id FROM payments JOIN orders USING (order_id)
WHERE order_id = ANY(ARRAY(SELECT unnest($1::uuid[]))) AND payments.status = 'captured' AND captured_at >= cancelled_at;

-- name: list_cash_due
-- Cash on delivery of the current tenders.
SELECT order_id, payment_id, amount_minor FROM payments
WHERE order_id = ANY(ARRAY(SELECT unnest($1::uuid[]))) AND method = 'cod' AND status = 'authorised'
  AND plan_revision = (SELECT max(plan_revision) FROM payments AS every WHERE every.order_id = payments.order_id);

-- name: get_cash_due
SELECT coalesce(cash_due($1), 0);

-- name: get_taken_off_cash
SELECT taken_off_cash($1);

-- name: sum_uncaptured_cash
-- Of the account $2, by order.
SELECT order_id, -sum(amount_minor)::bigint AS amount_minor FROM ledger
WHERE order_id = ANY(ARRAY(SELECT unnest($1::uuid[]))) AND account = $2 GROUP BY order_id;

-- name: insert_webhooks
INSERT INTO payment_webhooks (method, webhook_id, payment_id, refund_id, received_at, result, body)
SELECT method, webhook_id, payment_id, refund_id, $7, result, body
FROM unnest($1::text[], $2::text[], $3::uuid[], $4::uuid[], $5::text[], $6::bytea[])
    AS input (method, webhook_id, payment_id, refund_id, result, body)
ON CONFLICT (method, webhook_id) DO NOTHING RETURNING method, webhook_id;

-- name: get_webhook_results
SELECT method, webhook_id, result FROM payment_webhooks
JOIN unnest($1::text[], $2::text[]) AS input (method, webhook_id) USING (method, webhook_id);

-- name: open_credit_account
INSERT INTO credit_accounts (user_id, currency) VALUES ($1, $2) ON CONFLICT DO NOTHING;

-- name: adjust_store_credit
-- Returns no row if the balance would become negative.
UPDATE credit_accounts SET balance_minor = balance_minor + $3
WHERE user_id = $1 AND currency = $2 AND balance_minor + $3 >= 0 RETURNING balance_minor;

-- name: list_credit_balances
SELECT currency, balance_minor FROM credit_accounts WHERE user_id = $1 ORDER BY currency;

-- name: list_captures
-- Captures of a provider in a period, to compare with its statement.
SELECT payment_id, NULL::uuid AS refund_id, amount_minor, currency, transaction_id AS number FROM payments
WHERE method = $1 AND captured_at >= $2 AND captured_at < $3;

-- name: list_completed_refunds
-- Those that a provider made; it knows nothing of other ways. Those of earlier versions have no way.
SELECT payment_id, refund_id, refunds.amount_minor, refunds.currency, provider_refund_id AS number
FROM refunds JOIN payments USING (payment_id)
WHERE method = $1 AND refunds.status = 'done' AND coalesce(way, 'provider') = 'provider'
  AND refunds.ended_at >= $2 AND refunds.ended_at < $3;

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
