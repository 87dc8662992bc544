-- name: insert
INSERT INTO dead_letters (order_id, sale_id, user_id, units, payload, error, entry_at, entry_seq, died_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT (order_id) DO NOTHING;

-- name: list_after
SELECT order_id, sale_id, user_id, units, error, status, died_at, resolved_at, resolved_by, entry_at
FROM dead_letters WHERE order_id > $1 AND ($3 OR status = 'held') ORDER BY order_id LIMIT $2;

-- name: get
SELECT order_id, sale_id, user_id, units, error, status, died_at, resolved_at, resolved_by, payload, entry_at,
       entry_seq
FROM dead_letters WHERE order_id = $1;

-- name: lock
SELECT order_id, sale_id, user_id, units, error, status, died_at, resolved_at, resolved_by, payload, entry_at,
       entry_seq
FROM dead_letters WHERE order_id = $1 FOR UPDATE;

-- name: resolve
UPDATE dead_letters SET status = $2, resolved_at = $3, resolved_by = $4 WHERE order_id = $1;

-- name: insert_release
INSERT INTO releases (release_id, sale_id, user_id, units, reason, due_at, created_at)
VALUES ($1, $2, $3, $4, $5, $6, $6);
