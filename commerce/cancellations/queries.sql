-- name: list_line_units
SELECT line_no, address_no, sku, quantity AS ordered, coalesce(planned, 0) AS planned, coalesce(shipped, 0) AS shipped,
       coalesce(delivered, 0) AS delivered, coalesce(cancelled, 0) AS cancelled, coalesce(cancelling, 0) AS cancelling
FROM order_lines LEFT JOIN fulfilment_lines USING (order_id, line_no, address_no)
WHERE order_id = $1 ORDER BY line_no, address_no;

-- name: set_cancelled_units
UPDATE fulfilment_lines SET cancelled = input.cancelled, cancelling = input.cancelling
FROM unnest($2::smallint[], $3::smallint[], $4::integer[], $5::integer[])
     AS input (line_no, address_no, cancelled, cancelling)
WHERE order_id = $1 AND fulfilment_lines.line_no = input.line_no AND fulfilment_lines.address_no = input.address_no
  AND (fulfilment_lines.cancelled, fulfilment_lines.cancelling) IS DISTINCT FROM (input.cancelled, input.cancelling);

-- name: list_ended_at
-- When it became known that shipments of an order ended.
SELECT shipments.shipment_id, coalesce(received_at, ended_at) AS known_at
FROM shipments LEFT JOIN shipment_events
    ON shipment_events.order_id = shipments.order_id AND shipment_events.seq = shipments.status_seq
WHERE shipments.order_id = $1 AND ended_at IS NOT NULL;

-- name: mark_plan_again
UPDATE shipments SET plan_again = true WHERE shipment_id = ANY(ARRAY(SELECT unnest($1::uuid[])));

-- name: insert_cancellation
INSERT INTO cancellations (cancellation_id, order_id, cause, reason, actor, idempotency_key, is_whole, created_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8);

-- name: insert_cancellation_lines
INSERT INTO cancellation_lines (cancellation_id, order_id, line_no, address_no, quantity)
SELECT $1, $2, line_no, address_no, quantity
FROM unnest($3::smallint[], $4::smallint[], $5::integer[]) AS input (line_no, address_no, quantity);

-- name: find_by_key
SELECT cancellation_id, is_whole FROM cancellations WHERE order_id = $1 AND actor = $2 AND idempotency_key = $3;

-- name: find_latest
SELECT cancellation_id FROM cancellations WHERE order_id = $1 ORDER BY created_at DESC, cancellation_id DESC LIMIT 1;

-- name: list_cancellations
SELECT cancellation_id, cancellations.order_id, status, cause, reason, actor, created_at, ended_at
FROM cancellations WHERE cancellation_id = ANY(ARRAY(SELECT unnest($1::uuid[]))) ORDER BY created_at, cancellation_id;

-- name: list_cancellations_of_order
SELECT cancellation_id FROM cancellations WHERE order_id = $1 ORDER BY created_at, cancellation_id;

-- name: list_lines
SELECT cancellation_id, line_no, address_no, sku, cancellation_lines.quantity, cancelled, kept
FROM cancellation_lines JOIN order_lines USING (order_id, line_no, address_no)
WHERE cancellation_id = ANY(ARRAY(SELECT unnest($1::uuid[]))) ORDER BY cancellation_id, line_no, address_no;

-- name: list_open_lines
SELECT cancellation_id, cause, line_no, address_no, quantity, cancelled, kept, written_off
FROM cancellations JOIN cancellation_lines USING (cancellation_id, order_id)
WHERE order_id = $1 AND status = 'open' ORDER BY created_at, cancellation_id, line_no, address_no;

-- name: update_lines
UPDATE cancellation_lines SET cancelled = input.cancelled, kept = input.kept, written_off = input.written_off
FROM unnest($1::uuid[], $2::smallint[], $3::smallint[], $4::integer[], $5::integer[], $6::integer[])
     AS input (cancellation_id, line_no, address_no, cancelled, kept, written_off)
WHERE cancellation_lines.cancellation_id = input.cancellation_id AND cancellation_lines.line_no = input.line_no
  AND cancellation_lines.address_no = input.address_no;

-- name: mark_done
UPDATE cancellations SET status = 'done', ended_at = $2 WHERE cancellation_id = $1;

-- name: has_kept_units
SELECT EXISTS (SELECT FROM cancellation_lines WHERE order_id = $1 AND kept > 0);

-- name: sum_refunded_without_units
-- Grants of an amount that named no units, and refunds by staff before there were grants, less what cancellations have
-- withheld for them. Money of replaced payments and that of other orders' units is none of it.
SELECT greatest(0, (
    SELECT coalesce(sum(amount_minor), 0) FROM refund_grants WHERE refund_grants.order_id = $1 AND NOT EXISTS (
        SELECT FROM refund_grant_lines WHERE refund_grant_lines.grant_id = refund_grants.grant_id)
) + (
    SELECT coalesce(sum(amount_minor), 0) FROM refunds
    WHERE refunds.order_id = $1 AND refunds.status <> 'failed' AND refund_key LIKE 'staff %'
) - (
    SELECT coalesce(sum(fee_minor), 0) FROM refund_grants
    WHERE refund_grants.order_id = $1 AND kind = 'cancellation'))::bigint;

-- name: end_fulfilment
-- Nothing of the order is to be shipped any more.
WITH ended AS (
    DELETE FROM jobs WHERE queue = 'fulfilments' AND subject = $1
)
UPDATE fulfilments SET status = 'cancelled' WHERE order_id = $1 AND status IN ('pending', 'planned');

-- name: list_open
-- Waiting longest first, with what last went wrong with the shipments that are being stopped.
SELECT cancellation_id, (
    SELECT max(last_error) FROM shipments JOIN jobs ON subject = shipment_id AND queue = 'shipments'
    WHERE shipments.order_id = cancellations.order_id AND after_cancel IS NOT NULL
) AS last_error
FROM cancellations WHERE status = 'open' ORDER BY created_at LIMIT $1;

-- name: measure_open
SELECT count(*) AS open, extract(epoch FROM $1::timestamptz - min(created_at))::float AS oldest_s
FROM cancellations WHERE status = 'open';
