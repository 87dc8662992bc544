-- name: get_pending
SELECT release_id, sale_id, user_id, units, coalesce(written_off, '{}') AS written_off, created_at FROM releases
WHERE release_id = ANY($1::uuid[]) AND status = 'pending';

-- name: lock_epoch
-- The lock lasts until the transaction ends, so no load begins between the change in Redis and its mark in Postgres.
SELECT epoch FROM sales WHERE sale_id = $1 FOR SHARE;

-- name: mark_applied
WITH marked AS (
    UPDATE releases SET status = 'applied', ended_at = $3, epoch = $4, seq = input.seq
    FROM unnest($1::uuid[], $2::bigint[]) AS input (release_id, seq)
    WHERE releases.release_id = input.release_id AND status = 'pending' RETURNING releases.release_id
), ended AS (
    DELETE FROM jobs WHERE queue = 'releases' AND subject = ANY($1::uuid[])
)
SELECT count(*) FROM marked;

-- name: get_partial
SELECT part_of, units, coalesce(written_off, '{}') AS written_off FROM releases WHERE release_id = $1;

-- name: begin_reacquire
-- Only after the release was applied: before that, its units are not in the stock.
INSERT INTO releases (release_id, sale_id, user_id, units, reason, created_at, reacquires)
SELECT $1, sale_id, user_id, (SELECT jsonb_object_agg(key, -value::bigint) FROM jsonb_each_text(units)),
       'it was paid late', $3, release_id
FROM releases WHERE release_id = $2 AND status = 'applied' ON CONFLICT (reacquires) DO NOTHING;

-- name: get_reacquire
SELECT release_id, releases.sale_id, user_id, status, created_at,
       (SELECT sales.epoch FROM sales WHERE sales.sale_id = releases.sale_id) AS sale_epoch,
       (SELECT jsonb_object_agg(key, jsonb_build_array(-value::bigint, coalesce(user_limit, 0)))
        FROM jsonb_each_text(units) LEFT JOIN sale_items ON sale_items.sale_id = releases.sale_id AND sku = key) AS units
FROM releases WHERE reacquires = $1;

-- name: cancel_sold
-- An event is not dated before the previous one, as below.
WITH cancelled AS (
    UPDATE orders SET status = 'cancelled', cancelled_at = $4, cancel_reason = $3
    WHERE order_id = $1 AND status = $2 RETURNING order_id, status_seq
)
INSERT INTO order_events (order_id, seq, at, from_status, to_status, actor, reason)
SELECT order_id, status_seq, greatest($4, (SELECT at FROM order_events AS previous
                                           WHERE previous.order_id = cancelled.order_id AND seq = status_seq - 1)),
       $2, 'cancelled', $5, $6 FROM cancelled;

-- name: read_units_left
SELECT sku, units FROM units_left($1);

-- name: has_release
SELECT EXISTS (SELECT FROM releases WHERE release_id = $1);

-- name: insert_release
WITH due AS (
    INSERT INTO jobs (subject, queue, kind, system, due_at, created_at)
    VALUES ($1, 'releases', 'release.apply', 'internal', $8, $8)
)
INSERT INTO releases (release_id, sale_id, user_id, units, written_off, reason, part_of, created_at)
VALUES ($1, $2, $3, $4, nullif($5, '{}'::jsonb), $6, $7, $8);

-- name: refuse_reacquire
UPDATE releases SET status = 'refused', ended_at = $2,
                    refused_reason = 'the stock or the customer''s limit did not allow it'
WHERE release_id = $1 AND status = 'pending';
