-- name: insert_refunds
-- With their jobs. Those of a payment, key and attempt that exist stay as they are.
WITH inserted AS (
    INSERT INTO refunds (refund_id, payment_id, order_id, refund_key, amount_minor, currency, reason, actor, created_at,
                         attempt_no, retries)
    SELECT refund_id, payment_id, order_id, refund_key, amount_minor, currency, reason, actor, $1, attempt_no, retries
    FROM unnest($2::uuid[], $3::uuid[], $4::uuid[], $5::text[], $6::bigint[], $7::text[], $8::text[], $9::text[], $10::int[],
                $11::uuid[])
        AS input (refund_id, payment_id, order_id, refund_key, amount_minor, currency, reason, actor, attempt_no, retries)
    ON CONFLICT (payment_id, refund_key, attempt_no) DO NOTHING RETURNING refund_id
), due AS (
    INSERT INTO jobs (subject, queue, kind, system, due_at, created_at)
    SELECT refund_id, 'refunds', 'refund.request', system, $1, $1
    FROM inserted JOIN unnest($2::uuid[], $12::text[]) AS systems (refund_id, system) USING (refund_id)
)
SELECT refund_id FROM inserted;

-- name: complete_refunds
-- With store credit, and without their postings. One that is done, or has failed, stays as it is.
WITH completed AS (
    UPDATE refunds SET status = 'done', ended_at = $1, way = input.way, wait_reason = NULL, waiting_since = NULL,
                       other_way_since = NULL, provider_refund_id = coalesce(input.number, provider_refund_id)
    FROM unnest($2::uuid[], $3::text[], $4::text[]) AS input (refund_id, way, number), payments
    WHERE refunds.refund_id = input.refund_id AND payments.payment_id = refunds.payment_id
      AND refunds.status IN ('pending', 'needs_other_way')
    RETURNING refunds.refund_id, refunds.payment_id, refunds.order_id, refunds.amount_minor, refunds.currency, input.way,
              method, payments.user_id, provider_refund_id AS number
), finished AS (
    DELETE FROM jobs USING completed WHERE queue = 'refunds' AND subject = refund_id
), added AS (
    UPDATE payments SET refunded_minor = refunded_minor + sums.amount
    FROM (SELECT payment_id, sum(amount_minor) AS amount FROM completed GROUP BY payment_id) AS sums
    WHERE payments.payment_id = sums.payment_id
), credited AS (
    INSERT INTO credit_accounts (user_id, currency, balance_minor)
    SELECT user_id, currency, sum(amount_minor) FROM completed WHERE way = 'store_credit'
    GROUP BY user_id, currency ORDER BY user_id, currency
    ON CONFLICT (user_id, currency) DO UPDATE SET balance_minor = credit_accounts.balance_minor + excluded.balance_minor
)
SELECT refund_id, order_id, amount_minor, currency, way, method, user_id, number FROM completed;

-- name: fail_refunds
WITH failed AS (
    UPDATE refunds SET status = 'failed', ended_at = $1, wait_reason = NULL, waiting_since = NULL,
                       provider_error = input.error, provider_refund_id = coalesce(input.number, provider_refund_id)
    FROM unnest($2::uuid[], $3::text[], $4::text[]) AS input (refund_id, error, number)
    WHERE refunds.refund_id = input.refund_id AND status = 'pending' RETURNING refunds.refund_id
)
DELETE FROM jobs USING failed WHERE queue = 'refunds' AND subject = refund_id;

-- name: mark_needing_other_way
WITH marked AS (
    UPDATE refunds SET status = 'needs_other_way', other_way_since = $1, other_way_reason = input.reason,
                       wait_reason = NULL, waiting_since = NULL, provider_error = input.error,
                       provider_refund_id = coalesce(input.number, provider_refund_id)
    FROM unnest($2::uuid[], $3::text[], $4::text[], $5::text[]) AS input (refund_id, reason, error, number)
    WHERE refunds.refund_id = input.refund_id AND status = 'pending' RETURNING refunds.refund_id
)
DELETE FROM jobs USING marked WHERE queue = 'refunds' AND subject = refund_id;

-- name: mark_refunds_requested
UPDATE refunds SET requested = true, requested_at = $1 WHERE refund_id = ANY($2::uuid[]);

-- name: mark_refunds_waiting
-- The wait began with the first of its reasons.
UPDATE refunds SET wait_reason = input.reason, waiting_since = coalesce(waiting_since, $1), provider_error = input.error,
                   wait_announced = wait_announced OR input.announced
FROM unnest($2::uuid[], $3::text[], $4::text[], $5::boolean[]) AS input (refund_id, reason, error, announced)
WHERE refunds.refund_id = input.refund_id AND status = 'pending';

-- name: mark_refund_accepted
-- The provider works on it: it waits no longer for being asked.
UPDATE refunds SET wait_reason = NULL, waiting_since = NULL, provider_refund_id = coalesce($2, provider_refund_id)
WHERE refund_id = $1 AND status = 'pending';

-- name: get_refunds_to_request
SELECT {refunds}, method, payments.captured_minor, payments.user_id
FROM refunds JOIN payments USING (payment_id) WHERE refund_id = ANY($1::uuid[]);

-- name: list_needing_other_way
SELECT refunds.refund_id, refunds.order_id, refunds.payment_id, user_id, method, refunds.amount_minor, refunds.currency,
       refunds.reason, other_way_reason, other_way_since, provider_refund_id, refunds.provider_error,
       refund_other_ways.proof AS transfer_reference, recorded_by AS transfer_recorded_by
FROM refunds JOIN payments USING (payment_id) LEFT JOIN refund_other_ways ON refund_other_ways.refund_id = refunds.refund_id
WHERE refunds.status = 'needs_other_way' AND (other_way_since, refunds.refund_id) > ($1, $2)
ORDER BY other_way_since, refunds.refund_id LIMIT $3;

-- name: get_other_way
SELECT way, proof, recorded_by, confirmed_by FROM refund_other_ways WHERE refund_id = $1;

-- name: put_other_way
-- In the place of a transfer that is not confirmed.
INSERT INTO refund_other_ways (refund_id, order_id, way, proof, recorded_by, recorded_at) VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT (refund_id) DO UPDATE
SET way = excluded.way, proof = excluded.proof, recorded_by = excluded.recorded_by, recorded_at = excluded.recorded_at
WHERE refund_other_ways.confirmed_by IS NULL;

-- name: confirm_other_way
UPDATE refund_other_ways SET confirmed_by = $2, confirmed_at = $3 WHERE refund_id = $1 AND confirmed_by IS NULL;

-- name: delete_other_way
DELETE FROM refund_other_ways WHERE refund_id = $1 AND confirmed_by IS NULL;

-- name: reopen_refund
-- Its provider is to make it after all, and a job looks at it.
WITH reopened AS (
    UPDATE refunds SET status = 'pending', other_way_since = NULL WHERE refund_id = $1 AND status = 'needs_other_way'
    RETURNING refund_id, payment_id
)
INSERT INTO jobs (subject, queue, kind, system, due_at, created_at)
SELECT refund_id, 'refunds', 'refund.request', method, $2, $3 FROM reopened JOIN payments USING (payment_id)
RETURNING subject;

-- name: measure_refunds
-- Refunds that wait, those that need another way, and those that were made by hand and are not posted.
SELECT method, refunds.currency, wait_reason AS reason, count(*) AS refunds, sum(refunds.amount_minor)::bigint AS amount_minor,
       min(waiting_since) AS since
FROM refunds JOIN payments USING (payment_id) WHERE wait_reason IS NOT NULL GROUP BY 1, 2, 3
UNION ALL
SELECT method, refunds.currency, 'needs_other_way', count(*), sum(refunds.amount_minor)::bigint, min(other_way_since)
FROM refunds JOIN payments USING (payment_id) WHERE refunds.status = 'needs_other_way' GROUP BY 1, 2
UNION ALL
SELECT method, by_hand.currency, 'by_hand', count(*), sum(by_hand.amount_minor)::bigint, min(found_at)
FROM refunds_by_hand AS by_hand JOIN payments USING (payment_id) WHERE confirmed_by IS NULL GROUP BY 1, 2;
