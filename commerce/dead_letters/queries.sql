-- name: insert
INSERT INTO dead_letters (order_id, sale_id, user_id, units, payload, error, entry_at, entry_seq, died_at, stock_lost)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) ON CONFLICT (order_id) DO NOTHING;

-- name: list_after
SELECT order_id, sale_id, user_id, units, error, status, stock_lost, died_at, resolved_at, resolved_by, entry_at
FROM dead_letters WHERE order_id > $1 AND ($3 OR status = 'held') ORDER BY order_id LIMIT $2;

-- name: get
SELECT order_id, sale_id, user_id, units, error, status, stock_lost, died_at, resolved_at, resolved_by, payload, entry_at,
       entry_seq, retry_id, retry_at
FROM dead_letters WHERE order_id = $1;

-- name: lock
SELECT order_id, sale_id, user_id, units, error, status, stock_lost, died_at, resolved_at, resolved_by, payload, entry_at,
       entry_seq, retry_id, retry_at
FROM dead_letters WHERE order_id = $1 FOR UPDATE;

-- name: resolve
UPDATE dead_letters SET status = $2, resolved_at = $3, resolved_by = $4 WHERE order_id = $1;

-- name: is_stored
SELECT EXISTS (SELECT FROM orders WHERE order_id = $1);

-- name: begin_retry
UPDATE dead_letters SET retry_id = $2, retry_at = $3 WHERE order_id = $1 AND retry_id IS NULL;

-- name: forget_retry
UPDATE dead_letters SET retry_id = NULL, retry_at = NULL WHERE order_id = $1;

-- name: mark_reacquired
UPDATE dead_letters SET retry_epoch = $2, retry_seq = $3 WHERE order_id = $1;

-- name: hold_units
UPDATE dead_letters SET units = $2 WHERE order_id = $1;

-- name: insert_release
WITH due AS (
    INSERT INTO jobs (subject, queue, kind, system, due_at, created_at)
    VALUES ($1, 'releases', 'release.apply', 'internal', $6, $6)
)
INSERT INTO releases (release_id, sale_id, user_id, units, reason, created_at) VALUES ($1, $2, $3, $4, $5, $6);

-- name: read_limits
SELECT sku, coalesce(user_limit, 0) AS user_limit FROM sale_items WHERE sale_id = $1 AND sku = ANY($2::text[]);

-- name: lock_epoch
-- The epoch of the sale's load, kept from changing until the transaction ends.
SELECT epoch FROM sales WHERE sale_id = $1 FOR SHARE;
