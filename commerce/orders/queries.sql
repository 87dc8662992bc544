-- name: existing_orders
SELECT order_id FROM orders WHERE order_id = ANY($1::uuid[]);

-- name: orders_by_keys
-- Which orders stand under these (user, key) pairs.
SELECT user_id, idempotency_key, order_id FROM orders
JOIN unnest($1::text[], $2::text[]) AS given (user_id, idempotency_key) USING (user_id, idempotency_key);

-- name: get_order
SELECT order_id, user_id, status, sale_id, total_minor, currency, accepted_at, persisted_at, pay_by, cancel_reason,
       ship_to, payment_plan
FROM orders WHERE order_id = $1;

-- name: lock_order
SELECT order_id, user_id, sale_id, status, total_minor, currency, payment_plan, accepted_at, pay_by, cancel_reason
FROM orders WHERE order_id = $1 FOR UPDATE;

-- name: read_order_header
SELECT order_id, user_id, sale_id, status, total_minor, currency, payment_plan, accepted_at, pay_by, cancel_reason
FROM orders WHERE order_id = $1;

-- name: get_lines
SELECT line_no, sku, quantity, address_no AS ship_to, unit_price_minor AS unit_price
FROM order_lines WHERE order_id = $1 ORDER BY line_no, address_no;

-- name: get_order_by_key
SELECT order_id FROM orders WHERE user_id = $1 AND idempotency_key = $2;

-- name: list_orders
-- One user's orders are found by the unique index on (user_id, idempotency_key) and sorted afterwards. MATERIALIZED
-- keeps LIMIT out of that choice: it would tempt the planner to walk the primary key backwards until enough orders of
-- this user have come by, which for one who bought long ago is the whole table. An index of its own on
-- (user_id, order_id) would do the same and cost the writer an entry an order.
WITH mine AS MATERIALIZED (
    SELECT order_id, status, sale_id, total_minor, currency, accepted_at, pay_by
    FROM orders WHERE user_id = $1
)
SELECT order_id, status, sale_id, total_minor, currency, accepted_at, pay_by
FROM mine WHERE order_id < $2 ORDER BY order_id DESC LIMIT $3;

-- name: get_events
SELECT seq, at, to_status, actor, reason FROM order_events WHERE order_id = $1 AND seq > $2 ORDER BY seq;

-- name: watched_orders
-- How far many watched orders have come, in one look.
SELECT order_id, status_seq FROM orders WHERE order_id = ANY($1::uuid[]);

-- name: lock_expired
-- One with a payment that may still be taken waits until that is closed at the provider, or captured.
SELECT order_id FROM orders WHERE status = 'awaiting_payment' AND pay_by <= $1
AND NOT EXISTS (SELECT FROM payments WHERE payments.order_id = orders.order_id AND payments.status = 'pending')
ORDER BY pay_by LIMIT $2 FOR UPDATE SKIP LOCKED;

-- name: cancel
-- Status, event and the job that gives the goods back, in one statement.
WITH gone AS (
    UPDATE orders SET status = 'cancelled', cancelled_at = $2, cancel_reason = $3
    WHERE order_id = ANY($1::uuid[]) AND status = 'awaiting_payment'
    RETURNING order_id, sale_id, user_id, status_seq
), noted AS (
    INSERT INTO order_events (order_id, seq, at, from_status, to_status, actor, reason)
    SELECT order_id, status_seq, $2, 'awaiting_payment', 'cancelled', $4, $5 FROM gone
)
INSERT INTO releases (release_id, sale_id, user_id, units, reason, due_at, created_at)
SELECT order_id, sale_id, user_id, (
    SELECT jsonb_object_agg(sku, units)
    FROM (SELECT sku, sum(quantity) AS units FROM order_lines WHERE order_lines.order_id = gone.order_id
          GROUP BY sku) AS sums
), $5, $2, $2
FROM gone RETURNING release_id;

-- name: payments_of_cancelled
-- What was taken goes back, what may be taken is closed: the payment driver's work.
UPDATE payments SET task = CASE status WHEN 'pending' THEN 'close' ELSE 'update_order' END, due_at = $2, attempts = 0,
                    parked = false
WHERE order_id = ANY($1::uuid[]) AND status IN ('pending', 'authorised', 'captured');

-- name: step
-- One step of an order's status, with its event. Nothing where the order is elsewhere by now.
WITH moved AS (
    UPDATE orders SET status = $3, cancelled_at = NULL, cancel_reason = NULL
    WHERE order_id = $1 AND status = $2 RETURNING order_id, status_seq
)
INSERT INTO order_events (order_id, seq, at, from_status, to_status, actor, reason)
SELECT order_id, status_seq, $4, $2, $3, $5, $6 FROM moved RETURNING seq;
