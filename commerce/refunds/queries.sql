-- name: list_refundable_lines
-- What is taken off a replacement was paid with the order that it comes from.
SELECT line_no, address_no, quantity, quantity * unit_price_minor - CASE WHEN EXISTS (
    SELECT FROM exchanges WHERE replacement_id = $1 AND exchanges.status = 'done') THEN 0 ELSE discount_minor END
    AS paid_minor, (
    SELECT coalesce(sum(granted.quantity), 0) FROM refund_grant_lines AS granted
    WHERE granted.order_id = order_lines.order_id AND granted.line_no = order_lines.line_no
      AND granted.address_no = order_lines.address_no
) AS refunded_units
FROM order_lines WHERE order_id = $1 ORDER BY line_no, address_no;

-- name: get_granted_sums
-- The fee for cash on delivery counts as freight. `was_shipped`: a shipment was handed over, whatever became of it.
-- `cash_under_way_minor`: what shipments that have not ended are to collect.
SELECT orders.freight_minor + cod_fee_minor AS freight_minor,
       coalesce(granted.freight_minor, 0)::bigint AS granted_freight_minor,
       coalesce(granted.amount_minor, 0)::bigint AS granted_minor,
       EXISTS (SELECT FROM shipments WHERE shipments.order_id = $1 AND shipments.handed_over_at IS NOT NULL) AS was_shipped,
       (SELECT coalesce(sum(cod_minor), 0) FROM shipments
        WHERE shipments.order_id = $1 AND shipments.ended_at IS NULL)::bigint AS cash_under_way_minor
FROM orders CROSS JOIN LATERAL (
    SELECT sum(refund_grants.freight_minor) AS freight_minor, sum(amount_minor) AS amount_minor
    FROM refund_grants WHERE refund_grants.order_id = $1
) AS granted
WHERE orders.order_id = $1;

-- name: get_grant_of_source
SELECT {refund_grants} FROM refund_grants WHERE kind = $1 AND source_id = $2;

-- name: list_grant_amounts
SELECT grant_id, amount_minor FROM refund_grants WHERE order_id = $1 ORDER BY created_at DESC, grant_id DESC;

-- name: sum_granted_by
SELECT coalesce(sum(amount_minor), 0)::bigint FROM refund_grants WHERE order_id = $1 AND actor = $2;

-- name: list_owed_orders
-- Those of the orders whose grants are more than what was refunded and the cash that was not collected.
SELECT order_id FROM unnest($1::uuid[]) AS input (order_id)
WHERE taken_off_cash(order_id) > coalesce((
    SELECT sum(payments.amount_minor - payments.captured_minor) FROM payments
    WHERE payments.order_id = input.order_id AND method = 'cod' AND plan_revision = (
        SELECT max(plan_revision) FROM payments AS every WHERE every.order_id = input.order_id)), 0);

-- name: list_grant_lines
SELECT line_no, address_no AS ship_to, first_unit, quantity, amount_minor AS amount
FROM refund_grant_lines WHERE grant_id = $1 ORDER BY line_no, address_no;

-- name: insert_grant
INSERT INTO refund_grants (grant_id, order_id, kind, source_id, amount_minor, freight_minor, fee_minor, currency, strategy,
                           reason, actor, created_at, request_digest)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13);

-- name: insert_grant_lines
INSERT INTO refund_grant_lines (grant_id, order_id, line_no, address_no, first_unit, quantity, amount_minor)
SELECT $1, $2, line_no, address_no, first_unit, quantity, amount
FROM unnest($3::integer[], $4::integer[], $5::integer[], $6::integer[], $7::bigint[])
     AS input (line_no, address_no, first_unit, quantity, amount);

-- name: insert_refunds_by_hand
-- Those that are new.
INSERT INTO refunds_by_hand (refund_id, payment_id, order_id, amount_minor, currency, number, booked_on, found_at, found_by)
SELECT refund_id, input.payment_id, order_id, amount, input.currency, number, $1, $2, $3
FROM unnest($4::uuid[], $5::uuid[], $6::bigint[], $7::text[], $8::text[])
     AS input (refund_id, payment_id, amount, currency, number)
JOIN payments ON payments.payment_id = input.payment_id AND payments.method = $9
WHERE NOT EXISTS (SELECT FROM refunds WHERE refunds.refund_id = input.refund_id)
ON CONFLICT DO NOTHING RETURNING refund_id;

-- name: list_refunds_by_hand
SELECT refund_id, payment_id, refunds_by_hand.order_id, method, refunds_by_hand.amount_minor, refunds_by_hand.currency,
       number, booked_on, found_at, proof, recorded_by
FROM refunds_by_hand JOIN payments USING (payment_id)
WHERE confirmed_by IS NULL AND (found_at, refund_id) > ($1, $2) ORDER BY found_at, refund_id LIMIT $3;

-- name: lock_refund_by_hand
SELECT refund_id, payment_id, order_id, amount_minor, currency, number, booked_on, proof, recorded_by, confirmed_by, outcome
FROM refunds_by_hand WHERE refund_id = $1 FOR UPDATE;

-- name: record_refund_by_hand
UPDATE refunds_by_hand SET proof = $2, recorded_by = $3, recorded_at = $4 WHERE refund_id = $1;

-- name: confirm_refund_by_hand
UPDATE refunds_by_hand SET confirmed_by = $2, confirmed_at = $3, outcome = $4 WHERE refund_id = $1;

-- name: date_refund
-- By the provider's day, on which its statement has it.
UPDATE refunds SET created_at = least(created_at, $2), ended_at = $2, requested = true WHERE refund_id = $1;
