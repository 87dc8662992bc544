-- name: insert_exchange
INSERT INTO exchanges (case_id, order_id, replacement_id, credit_minor, created_at) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (case_id) DO NOTHING;

-- name: get_exchange
SELECT {exchanges} FROM exchanges WHERE case_id = $1;

-- name: end_exchange
UPDATE exchanges SET status = $2, ended_at = $3 WHERE case_id = $1 AND status = 'open';

-- name: list_replacements
-- Of an order: what it was exchanged for.
SELECT {exchanges} FROM exchanges WHERE order_id = $1 AND status = 'done' ORDER BY case_id;

-- name: find_replaced
-- The exchange that a replacement comes from.
SELECT {exchanges} FROM exchanges WHERE replacement_id = $1 AND status = 'done';

-- name: get_discount
SELECT discount_minor FROM orders WHERE order_id = $1;

-- name: list_wanted_items
SELECT generation, sku, sale_items.price_minor, variants.price_minor AS list_price_minor,
       coalesce(user_limit, 0) AS user_limit
FROM sales JOIN sale_items USING (sale_id) JOIN variants USING (sku)
WHERE sale_id = $1 AND sku = ANY($2::text[]);

-- name: read_address_texts
SELECT ship_to::text FROM orders WHERE order_id = $1;

-- name: withdraw_expired
-- Money that comes late for it is refunded, and does not reacquire its stock.
UPDATE orders SET cancel_reason = 'refunded' WHERE order_id = $1 AND cancel_reason = 'expired';

-- name: is_releasing
-- Units of an order are about to return to limits.
SELECT EXISTS (SELECT FROM releases WHERE part_of = $1 AND status = 'pending');
