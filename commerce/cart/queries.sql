-- Statements of carts. Whoever changes a cart locks its row first; a merge locks the customer's before the guest's.

-- name: add_cart
-- Version 1 is that of its first change.
INSERT INTO carts (cart_id, user_id, version, created_at, updated_at) VALUES ($1, $2, 1, $3, $3)
ON CONFLICT DO NOTHING RETURNING cart_id;

-- name: get_cart_of_user
-- With its lines, in one statement: it is one state.
SELECT cart_id, user_id, version, merged_into, checkout_id, {cart_lines}
FROM carts LEFT JOIN cart_lines USING (cart_id) WHERE user_id = $1 ORDER BY added_at, sale_id, sku;

-- name: get_guest_cart
SELECT cart_id, user_id, version, merged_into, checkout_id, {cart_lines}
FROM carts LEFT JOIN cart_lines USING (cart_id) WHERE cart_id = $1 AND user_id IS NULL ORDER BY added_at, sale_id, sku;

-- name: lock_cart_of_user
SELECT cart_id, user_id, version, merged_into, checkout_id FROM carts WHERE user_id = $1 FOR NO KEY UPDATE;

-- name: lock_guest_cart
SELECT cart_id, user_id, version, merged_into, checkout_id FROM carts WHERE cart_id = $1 AND user_id IS NULL
FOR NO KEY UPDATE;

-- name: list_lines
SELECT {cart_lines} FROM cart_lines WHERE cart_id = $1 ORDER BY added_at, sale_id, sku;

-- name: put_lines
INSERT INTO cart_lines (cart_id, sale_id, sku, quantity, selected, saved, accepted_price_minor, added_at)
SELECT $1, sale_id, sku, quantity, selected, saved, accepted_price_minor, added_at
FROM unnest($2::text[], $3::text[], $4::integer[], $5::boolean[], $6::boolean[], $7::bigint[], $8::timestamptz[])
     AS input (sale_id, sku, quantity, selected, saved, accepted_price_minor, added_at)
ON CONFLICT (cart_id, sale_id, sku) DO UPDATE SET quantity = excluded.quantity, selected = excluded.selected,
    saved = excluded.saved, accepted_price_minor = excluded.accepted_price_minor;

-- name: delete_lines
DELETE FROM cart_lines USING unnest($2::text[], $3::text[]) AS input (sale_id, sku)
WHERE cart_id = $1 AND cart_lines.sale_id = input.sale_id AND cart_lines.sku = input.sku;

-- name: raise_version
UPDATE carts SET version = version + 1, updated_at = $2 WHERE cart_id = $1;

-- name: get_merge_warnings
SELECT merge_warnings FROM carts WHERE cart_id = $1;

-- name: mark_merged
UPDATE carts SET merged_into = $2, merge_warnings = $3, version = version + 1, updated_at = $4 WHERE cart_id = $1;
