-- Orders between two ids, newest first: ids begin with the time, so a day and the beginning of an id are such ranges.

-- name: list_by_id
SELECT order_id FROM orders WHERE order_id BETWEEN $1 AND $2 ORDER BY order_id DESC LIMIT $3;

-- name: list_of_user
-- MATERIALIZED as in the list of a customer's orders, which says why.
WITH orders_of_user AS MATERIALIZED (SELECT order_id FROM orders WHERE user_id = $4)
SELECT order_id FROM orders_of_user WHERE order_id BETWEEN $1 AND $2 ORDER BY order_id DESC LIMIT $3;

-- name: list_by_phone
SELECT DISTINCT order_id FROM order_contacts WHERE phone = $4 AND order_id BETWEEN $1 AND $2
ORDER BY order_id DESC LIMIT $3;

-- name: list_by_phone_end
SELECT DISTINCT order_id FROM order_contacts WHERE right(phone, 4) = $4 AND order_id BETWEEN $1 AND $2
ORDER BY order_id DESC LIMIT $3;

-- name: list_by_name
SELECT DISTINCT order_id FROM order_contacts WHERE name = $4 AND order_id BETWEEN $1 AND $2
ORDER BY order_id DESC LIMIT $3;

-- name: find_by_tracking_no
-- Also by the number of a booking that is no longer current. The index of bookings begins with the carrier, and there are
-- few: it is read once for each.
WITH RECURSIVE carriers AS (
    (SELECT carrier FROM bookings ORDER BY carrier LIMIT 1)
    UNION ALL
    SELECT (SELECT bookings.carrier FROM bookings WHERE bookings.carrier > carriers.carrier ORDER BY carrier LIMIT 1)
    FROM carriers WHERE carriers.carrier IS NOT NULL
)
SELECT shipments.order_id FROM carriers
JOIN bookings ON bookings.carrier = carriers.carrier AND bookings.tracking_no = $1 JOIN shipments USING (shipment_id)
UNION
SELECT order_id FROM return_shipments WHERE tracking_no = $1;

-- name: find_by_transaction_no
-- $1 is a provider's number, $2 one of ours or NULL.
SELECT order_id FROM payments
WHERE method IN ('alipay', 'wechatpay', 'balance', 'cod') AND transaction_id = $1
UNION SELECT order_id FROM refunds WHERE provider_refund_id = $1
UNION SELECT order_id FROM payments WHERE payment_id = $2
UNION SELECT order_id FROM refunds WHERE refund_id = $2;

-- name: filter_orders
-- Those of the orders that have all of this; NULL fits all.
SELECT order_id, user_id, sale_id, status, total_minor, currency, accepted_at,
       ARRAY(SELECT DISTINCT address ->> 'name' FROM jsonb_array_elements(ship_to) AS address) AS recipients
FROM orders
WHERE order_id = ANY(ARRAY(SELECT unnest($1::uuid[])))
  AND ($3::text IS NULL OR user_id = $3) AND ($4::text IS NULL OR status = $4)
  AND (coalesce($5::text, $6::text, $7::text) IS NULL OR EXISTS (
      SELECT FROM order_contacts AS contact
      WHERE contact.order_id = orders.order_id AND ($5 IS NULL OR phone = $5)
        AND ($6 IS NULL OR right(phone, 4) = $6) AND ($7 IS NULL OR name = $7)))
ORDER BY order_id DESC LIMIT $2;

-- name: take_batches
-- The newest first, so that orders of today do not wait for those of years.
DELETE FROM orders_to_index WHERE batch_id = ANY(ARRAY(
    SELECT batch_id FROM orders_to_index ORDER BY batch_id DESC LIMIT $1 FOR UPDATE SKIP LOCKED))
RETURNING order_ids;

-- name: read_addresses
SELECT order_id, ship_to FROM orders WHERE order_id = ANY(ARRAY(SELECT unnest($1::uuid[])));

-- name: insert_contacts
INSERT INTO order_contacts (order_id, address_no, phone, name)
SELECT order_id, address_no, phone, name
FROM unnest($1::uuid[], $2::smallint[], $3::text[], $4::text[]) AS input (order_id, address_no, phone, name)
ON CONFLICT (order_id, address_no) DO NOTHING;

-- name: list_grants
SELECT grant_id, kind, amount_minor AS amount, freight_minor AS freight, fee_minor AS fee, currency, reason, actor,
       created_at AS at
FROM refund_grants WHERE order_id = $1 ORDER BY created_at, grant_id;

-- name: list_postings
-- Entries name the order too, those of an exchange two orders.
SELECT posting, postings.kind, postings.at, actor, reference, reason, currency, jsonb_object_agg(account, amount_minor) AS entries
FROM postings JOIN ledger USING (posting) WHERE postings.order_id = $1
GROUP BY posting, currency ORDER BY min(line_id);

-- name: list_transactions
SELECT payment_id, transaction_id FROM payments WHERE order_id = $1 ORDER BY plan_revision, tender_no;

-- name: list_return_shipments
SELECT return_shipment_id FROM return_shipments WHERE order_id = $1 ORDER BY return_shipment_id;

-- name: insert_view
INSERT INTO order_views (order_id, actor, at) VALUES ($1, $2, $3);

-- name: list_views
SELECT actor, at FROM order_views WHERE order_id = $1 ORDER BY view_id DESC LIMIT 500;
