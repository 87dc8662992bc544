-- name: find_existing
SELECT order_id FROM orders WHERE order_id = ANY($1::uuid[]);

-- name: find_by_keys
SELECT user_id, idempotency_key, order_id FROM orders
JOIN unnest($1::text[], $2::text[]) AS input (user_id, idempotency_key) USING (user_id, idempotency_key);

-- name: get_discounts
SELECT order_id, promotion_id, label, amount_minor AS amount FROM order_discounts WHERE order_id = ANY($1::uuid[])
ORDER BY order_id, discount_no;

-- name: get_coupons
-- Those that customers have entered, without the units of first orders.
SELECT order_id, code FROM order_coupons WHERE order_id = ANY($1::uuid[]) AND code NOT LIKE '@%' ORDER BY order_id, code;

-- name: get_freight
SELECT order_id, address_no AS ship_to, amount_minor AS amount FROM order_freight WHERE order_id = ANY($1::uuid[])
ORDER BY order_id, address_no;

-- name: insert_coupons
INSERT INTO order_coupons (order_id, code)
SELECT order_id, code FROM unnest($1::uuid[], $2::text[]) AS input (order_id, code);

-- name: insert_discounts
INSERT INTO order_discounts (order_id, discount_no, promotion_id, label, amount_minor)
SELECT order_id, discount_no, promotion_id, label, amount
FROM unnest($1::uuid[], $2::smallint[], $3::text[], $4::text[], $5::bigint[])
     AS input (order_id, discount_no, promotion_id, label, amount);

-- name: insert_freight
INSERT INTO order_freight (order_id, address_no, amount_minor)
SELECT order_id, address_no, amount
FROM unnest($1::uuid[], $2::smallint[], $3::bigint[]) AS input (order_id, address_no, amount);

-- name: get_first_events
-- The times of the two events that every stored order has, and what the second one says of its price.
SELECT order_id, accepted_at, persisted_at, currency, total_minor, discount_minor, freight_minor, cod_fee_minor
FROM orders WHERE order_id = $1;

-- name: read_changed_orders
-- Those of the orders that differ from what the caller has, by the numbers of the transactions that wrote the rows of
-- order and fulfilment: each event bumps one of them. NULL stands for an order that the caller does not have. An order
-- that is gone comes back without a user.
SELECT input.order_id, stored.version, user_id, orders.status, sale_id, total_minor, discount_minor, freight_minor,
       cod_fee_minor, currency, accepted_at, pay_by, cancel_reason, ship_to, payment_plan
FROM unnest($1::uuid[], $2::bigint[]) AS input (order_id, version)
LEFT JOIN orders USING (order_id) LEFT JOIN fulfilments USING (order_id)
CROSS JOIN LATERAL (SELECT (orders.xmin::text::bigint << 32) + coalesce(fulfilments.xmin::text::bigint, 0)) AS stored (version)
WHERE stored.version IS DISTINCT FROM input.version;

-- name: list_state_facts
-- Amounts and units from which the states of orders follow. Only the payments of the current plan count for the order;
-- `never_collected` is cash on delivery that nobody will collect any more. An exchange that ends as a return has no
-- replacement.
SELECT orders.order_id, orders.status, total_minor, money.authorised, money.captured, money.refunded, money.never_collected,
       EXISTS (SELECT FROM payments WHERE payments.order_id = orders.order_id AND status = 'captured') AS has_captures, units.ordered,
       units.cancelled, units.shipped, units.delivered, units.returned, requested, in_progress, replacements,
       (SELECT cases.order_id FROM cases WHERE cases.exchange_order_id = orders.order_id) AS replaces
FROM orders CROSS JOIN LATERAL (
    SELECT coalesce(sum(amount_minor) FILTER (WHERE payments.status = 'authorised'), 0)::bigint AS authorised,
           coalesce(sum(payments.captured_minor), 0)::bigint AS captured,
           coalesce(sum(refunded_minor), 0)::bigint AS refunded,
           coalesce(sum(amount_minor - payments.captured_minor) FILTER (
               WHERE method = 'cod' AND payments.status IN ('captured', 'closed')), 0)::bigint AS never_collected
    FROM payments WHERE payments.order_id = orders.order_id AND plan_revision = (
        SELECT max(plan_revision) FROM payments AS every WHERE every.order_id = orders.order_id)
) AS money CROSS JOIN LATERAL (
    SELECT coalesce(sum(quantity), 0) AS ordered, coalesce(sum(cancelled), 0) AS cancelled,
           coalesce(sum(shipped), 0) AS shipped, coalesce(sum(delivered), 0) AS delivered,
           coalesce(sum(returned), 0) AS returned
    FROM order_lines LEFT JOIN fulfilment_lines USING (order_id, line_no, address_no)
    WHERE order_lines.order_id = orders.order_id
) AS units CROSS JOIN LATERAL (
    SELECT coalesce(bool_or(cases.status = 'requested') FILTER (WHERE items_back AND ended_at IS NULL), false) AS requested,
           coalesce(bool_or(cases.status <> 'requested') FILTER (WHERE items_back AND ended_at IS NULL), false)
               AS in_progress,
           array_agg(exchange_order_id ORDER BY case_id) FILTER (
               WHERE exchange_order_id IS NOT NULL AND kind = 'exchange') AS replacements
    FROM cases WHERE cases.order_id = orders.order_id
) AS cases_of_order
WHERE orders.order_id = ANY(ARRAY(SELECT unnest($1::uuid[])));

-- name: list_refund_sums
SELECT refunds.order_id, method,
       coalesce(way, CASE WHEN method IN ('balance', 'cod') THEN 'store_credit' ELSE 'provider' END) AS way,
       sum(refunds.amount_minor)::bigint AS requested,
       coalesce(sum(refunds.amount_minor) FILTER (WHERE refunds.status = 'done'), 0)::bigint AS done
FROM refunds JOIN payments USING (payment_id)
WHERE refunds.order_id = ANY(ARRAY(SELECT unnest($1::uuid[]))) AND refunds.status <> 'failed'
GROUP BY 1, 2, 3 ORDER BY 1, 2, 3;

-- name: has_open_matters
-- Something is on its way for which the customer may still get events.
SELECT EXISTS (SELECT FROM refunds WHERE order_id = $1 AND status NOT IN ('done', 'failed'))
    OR EXISTS (SELECT FROM cancellations WHERE order_id = $1 AND status = 'open')
    OR EXISTS (SELECT FROM cases WHERE order_id = $1 AND ended_at IS NULL);

-- name: lock_order
SELECT order_id, user_id, sale_id, status, total_minor, currency, payment_plan, accepted_at, pay_by, cancel_reason
FROM orders WHERE order_id = $1 FOR UPDATE;

-- name: lock_free_orders
-- In sequence of their ids, and without those that are locked, so this never waits.
SELECT order_id, user_id, sale_id, status, total_minor, currency, payment_plan, accepted_at, pay_by, cancel_reason
FROM orders WHERE order_id = ANY(ARRAY(SELECT unnest($1::uuid[]))) ORDER BY order_id FOR UPDATE SKIP LOCKED;

-- name: read_order_headers
SELECT order_id, user_id, sale_id, status, total_minor, currency, payment_plan, accepted_at, pay_by, cancel_reason
FROM orders WHERE order_id = ANY(ARRAY(SELECT unnest($1::uuid[])));

-- name: get_lines_of_orders
SELECT order_id, line_no, sku, quantity, address_no AS ship_to, unit_price_minor AS unit_price,
       list_price_minor AS list_price, discount_minor AS discount, quantity * unit_price_minor - discount_minor AS paid,
       coalesce(shipped, 0) AS shipped, coalesce(delivered, 0) AS delivered, coalesce(cancelled, 0) AS cancelled,
       coalesce(returned, 0) AS returned
FROM order_lines LEFT JOIN fulfilment_lines USING (order_id, line_no, address_no)
WHERE order_id = ANY($1::uuid[]) ORDER BY order_id, line_no, address_no;

-- name: find_customers
-- Those who have an order that is not cancelled.
SELECT user_id FROM unnest($1::text[]) AS input (user_id) WHERE EXISTS (
    SELECT FROM orders WHERE orders.user_id = input.user_id AND status <> 'cancelled');

-- name: find_id_by_key
SELECT order_id FROM orders WHERE user_id = $1 AND idempotency_key = $2;

-- name: list_orders
-- The unique index on (user_id, idempotency_key) finds the user's orders, which are sorted afterwards. MATERIALIZED
-- hides LIMIT from the planner: otherwise it may walk the primary key backwards until it has enough orders of this user,
-- which is the whole table for a user who bought long ago. A separate index on (user_id, order_id) would also help, but
-- the writer would pay for one more index entry per order.
WITH orders_of_user AS MATERIALIZED (
    SELECT order_id, status, sale_id, total_minor, currency, accepted_at, pay_by
    FROM orders WHERE user_id = $1
)
SELECT order_id, status, sale_id, total_minor, currency, accepted_at, pay_by
FROM orders_of_user WHERE order_id < $2 ORDER BY order_id DESC LIMIT $3;

-- name: get_events
-- An event that changes no status shows the one that the order had.
SELECT seq, at, coalesce(to_status, (
    SELECT step.to_status FROM order_events AS step
    WHERE step.order_id = $1 AND step.seq < event.seq AND step.kind = 'status' ORDER BY step.seq DESC LIMIT 1
), 'awaiting_payment') AS status, actor, reason, kind, details
FROM order_events AS event WHERE order_id = $1 AND seq > $2 ORDER BY seq;

-- name: latest_event_seqs
SELECT order_id, status_seq FROM orders WHERE order_id = ANY($1::uuid[]);

-- name: lock_expired
-- An order with a pending payment waits until that payment is closed at the provider, or captured.
SELECT order_id FROM orders WHERE status = 'awaiting_payment' AND pay_by <= $1
AND NOT EXISTS (SELECT FROM payments WHERE payments.order_id = orders.order_id AND payments.status = 'pending')
AND order_id <> ALL($3::uuid[])
ORDER BY pay_by LIMIT $2 FOR UPDATE SKIP LOCKED;

-- name: cancel
-- Changes the status, inserts the event and the release of the stock with its job, in one statement. An event is dated as
-- by advance_statuses, because an order may have some while it awaits the rest of its payments.
WITH cancelled AS (
    UPDATE orders SET status = 'cancelled', cancelled_at = $2, cancel_reason = $3
    WHERE order_id = ANY($1::uuid[]) AND status = 'awaiting_payment'
    RETURNING order_id, sale_id, user_id, status_seq
), events AS (
    INSERT INTO order_events (order_id, seq, at, from_status, to_status, actor, reason)
    SELECT order_id, status_seq, greatest($2, (SELECT at FROM order_events AS previous
                                               WHERE previous.order_id = cancelled.order_id AND seq = status_seq - 1)),
           'awaiting_payment', 'cancelled', $4, $5 FROM cancelled
), due AS (
    INSERT INTO jobs (subject, queue, kind, system, due_at, created_at)
    SELECT order_id, 'releases', 'release.apply', 'internal', $2, $2 FROM cancelled
)
INSERT INTO releases (release_id, sale_id, user_id, units, reason, created_at)
SELECT order_id, sale_id, user_id, (
    SELECT jsonb_object_agg(sku, units)
    FROM (SELECT sku, sum(quantity) AS units FROM order_units WHERE order_units.order_id = cancelled.order_id
          GROUP BY sku) AS sums
), $5, $2
FROM cancelled RETURNING release_id;

-- name: list_paid_before
SELECT DISTINCT order_id FROM order_events
WHERE order_id = ANY(ARRAY(SELECT unnest($1::uuid[]))) AND to_status IN ('paid', 'confirmed');

-- name: schedule_payments_of_cancelled
-- Jobs of the payment worker: pending payments are closed, captured and authorised ones are refunded.
INSERT INTO jobs (subject, queue, kind, system, due_at, created_at)
SELECT payment_id, 'payments', CASE status WHEN 'pending' THEN 'payment.close' ELSE 'payment.update_order' END,
       CASE WHEN status <> 'pending' OR method IN ('balance', 'cod') THEN 'internal' ELSE method END, $2, $2
FROM payments WHERE order_id = ANY($1::uuid[]) AND status IN ('pending', 'authorised', 'captured') ORDER BY payment_id
ON CONFLICT (subject, queue) DO UPDATE
SET kind = excluded.kind, system = excluded.system, due_at = excluded.due_at, attempts = 0, parked = false,
    last_error = NULL;

-- name: advance_statuses
-- Changes statuses and inserts the events. Changes nothing in an order that has another status meanwhile. An event is
-- not dated before the previous one: its $5 may be older than a wait for the lock, and clocks of machines differ.
WITH advanced AS (
    UPDATE orders SET status = input.to_status, cancelled_at = NULL, cancel_reason = NULL
    FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[]) AS input (order_id, from_status, to_status, reason)
    WHERE orders.order_id = input.order_id AND status = input.from_status
    RETURNING orders.order_id, status_seq, input.from_status, input.to_status, input.reason
)
INSERT INTO order_events (order_id, seq, at, from_status, to_status, actor, reason)
SELECT order_id, status_seq, greatest($5, (SELECT at FROM order_events AS previous
                                           WHERE previous.order_id = advanced.order_id AND seq = status_seq - 1)),
       from_status, to_status, $6, reason FROM advanced RETURNING order_id, to_status;

-- name: insert_story_events
-- An event that changes no status. Dated as by advance_statuses.
WITH bumped AS (
    UPDATE orders SET status_seq = status_seq + 1
    FROM unnest($1::uuid[], $2::text[], $3::text[], $4::jsonb[]) AS input (order_id, kind, reason, details)
    WHERE orders.order_id = input.order_id
    RETURNING orders.order_id, status_seq, input.kind, input.reason, input.details
)
INSERT INTO order_events (order_id, seq, at, kind, actor, reason, details)
SELECT order_id, status_seq, greatest($5, (SELECT at FROM order_events AS previous
                                           WHERE previous.order_id = bumped.order_id AND seq = status_seq - 1)),
       kind, $6, reason, details FROM bumped;
