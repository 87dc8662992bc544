-- Statements of checkouts. Requests take turns by a lease; the one that lost its lease writes nothing more.

-- name: find_checkout
SELECT {checkouts} FROM checkouts JOIN carts USING (cart_id) WHERE carts.user_id = $1 AND cart_version = $2;

-- name: get_checkout
SELECT {checkouts} FROM checkouts WHERE checkout_id = $1;

-- name: list_checkout_orders
SELECT {checkout_orders} FROM checkout_orders WHERE checkout_id = $1 ORDER BY sale_id;

-- name: insert_checkout
INSERT INTO checkouts (checkout_id, cart_id, cart_version, user_id, request_digest, state, attempt, lease_until, created_at)
VALUES ($1, $2, $3, $4, $5, 'placing', 1, $6, $7);

-- name: insert_checkout_orders
INSERT INTO checkout_orders (checkout_id, sale_id, body, outcome, total_minor, currency)
SELECT $1, sale_id, body::jsonb, 'pending', total_minor, currency
FROM unnest($2::text[], $3::text[], $4::bigint[], $5::text[]) AS input (sale_id, body, total_minor, currency);

-- name: set_checkout
UPDATE carts SET checkout_id = $2 WHERE cart_id = $1;

-- name: claim_checkout
UPDATE checkouts SET attempt = attempt + 1, lease_until = $3
WHERE checkout_id = $1 AND state = 'placing' AND lease_until <= $2 RETURNING attempt;

-- name: record_order
-- And renew the lease.
WITH leased AS (
    UPDATE checkouts SET lease_until = $3 WHERE checkout_id = $1 AND attempt = $2 AND state = 'placing'
    RETURNING checkout_id)
UPDATE checkout_orders SET outcome = $5, order_id = $6, pay_by = $7, problem = $8
FROM leased WHERE checkout_orders.checkout_id = leased.checkout_id AND sale_id = $4 AND outcome = 'pending'
RETURNING sale_id;

-- name: return_checkout
-- The next request may go on at once.
UPDATE checkouts SET lease_until = $3 WHERE checkout_id = $1 AND attempt = $2 AND state = 'placing';

-- name: end_checkout
UPDATE checkouts SET state = 'done', ended_at = $3 WHERE checkout_id = $1 AND attempt = $2 AND state = 'placing'
RETURNING checkout_id;

-- name: forget_order_bodies
UPDATE checkout_orders SET body = NULL WHERE checkout_id = $1;

-- name: end_cart_checkout
UPDATE carts SET checkout_id = NULL, version = version + 1, updated_at = $2 WHERE cart_id = $1;
