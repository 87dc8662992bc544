-- Each statement deletes the oldest rows that are no longer needed, and skips those that another process deletes.

-- name: delete_payment_webhooks
-- Those of payments that are pending, or have a refund that is, stay.
DELETE FROM payment_webhooks WHERE (method, webhook_id) IN (
    SELECT method, webhook_id FROM payment_webhooks webhook
    WHERE received_at < $1
      AND NOT EXISTS (SELECT FROM payments payment WHERE payment.payment_id = webhook.payment_id AND payment.status = 'pending')
      AND NOT EXISTS (SELECT FROM refunds refund WHERE refund.payment_id = webhook.payment_id AND refund.status = 'pending')
    ORDER BY received_at LIMIT $2 FOR UPDATE SKIP LOCKED)
RETURNING received_at;

-- name: delete_carrier_webhooks
-- Those of shipments without a final status, or that went wrong and staff have not resolved, stay.
DELETE FROM carrier_webhooks WHERE (system, webhook_id) IN (
    SELECT system, webhook_id FROM carrier_webhooks webhook
    WHERE received_at < $1
      AND NOT EXISTS (
          SELECT FROM shipments WHERE shipment_id = ANY (webhook.shipment_ids)
            AND NOT (status IN ('delivered', 'cancelled')
                     OR (status IN ('lost', 'returned_to_sender') AND resolved_at IS NOT NULL)))
    ORDER BY received_at LIMIT $2 FOR UPDATE SKIP LOCKED)
RETURNING received_at;

-- name: delete_tracking_events
-- Only events that changed no status, and only of shipments for which the statement above would delete webhooks.
DELETE FROM shipment_events WHERE (order_id, seq) IN (
    SELECT order_id, seq FROM shipment_events event
    WHERE received_at < $1 AND to_status IS NULL AND NOT is_unknown_code AND NOT contradicts_history
      AND EXISTS (
          SELECT FROM shipments WHERE shipments.shipment_id = event.shipment_id
            AND (status IN ('delivered', 'cancelled')
                 OR (status IN ('lost', 'returned_to_sender') AND resolved_at IS NOT NULL)))
    ORDER BY received_at LIMIT $2 FOR UPDATE SKIP LOCKED)
RETURNING received_at;

-- name: delete_staff_answers
DELETE FROM staff_requests WHERE (actor, idempotency_key) IN (
    SELECT actor, idempotency_key FROM staff_requests WHERE created_at < $1
    ORDER BY created_at LIMIT $2 FOR UPDATE SKIP LOCKED)
RETURNING created_at;

-- name: delete_guest_carts
-- With their lines.
DELETE FROM carts WHERE cart_id = ANY(ARRAY(
    SELECT cart_id FROM carts WHERE user_id IS NULL AND updated_at < $1
    ORDER BY updated_at LIMIT $2 FOR UPDATE SKIP LOCKED))
RETURNING updated_at;

-- name: delete_checkouts
-- Those that are done, with the record of their orders; the orders stay.
DELETE FROM checkouts WHERE checkout_id = ANY(ARRAY(
    SELECT checkout_id FROM checkouts WHERE state = 'done' AND created_at < $1
    ORDER BY created_at LIMIT $2 FOR UPDATE SKIP LOCKED))
RETURNING created_at;

-- name: delete_article_votes
-- Their counts stay.
DELETE FROM article_votes WHERE (article_id, voter, day, vote) IN (
    SELECT article_id, voter, day, vote FROM article_votes WHERE voted_at < $1
    ORDER BY voted_at LIMIT $2 FOR UPDATE SKIP LOCKED)
RETURNING voted_at;

-- name: delete_missed_searches
DELETE FROM missed_searches WHERE (language, query) IN (
    SELECT language, query FROM missed_searches WHERE searched_at < $1
    ORDER BY searched_at LIMIT $2 FOR UPDATE SKIP LOCKED)
RETURNING searched_at;

-- name: delete_order_views
-- As an array: a join would read the whole table, whose rows are narrow.
DELETE FROM order_views WHERE view_id = ANY(ARRAY(
    SELECT view_id FROM order_views WHERE at < $1 ORDER BY at LIMIT $2 FOR UPDATE SKIP LOCKED))
RETURNING at;

-- name: delete_sales_by_minute
-- Their days stay.
DELETE FROM sales_by_minute WHERE (sale_id, sku, minute, figure, reason) IN (
    SELECT sale_id, sku, minute, figure, reason FROM sales_by_minute WHERE minute < $1
    ORDER BY minute LIMIT $2 FOR UPDATE SKIP LOCKED)
RETURNING minute;

-- name: delete_picture_imports
DELETE FROM picture_imports WHERE import_id = ANY(ARRAY(
    SELECT import_id FROM picture_imports WHERE ended_at < $1
    ORDER BY ended_at LIMIT $2 FOR UPDATE SKIP LOCKED))
RETURNING ended_at;

-- name: delete_product_quality_days
DELETE FROM product_quality_days WHERE ctid = ANY(ARRAY(
    SELECT ctid FROM product_quality_days WHERE day < $1::timestamptz::date ORDER BY day LIMIT $2 FOR UPDATE SKIP LOCKED))
RETURNING day::timestamptz;
