-- name: claim
UPDATE releases SET attempts = attempts + 1, due_at = $1 + $2 * interval '1 second'
WHERE release_id IN (SELECT release_id FROM releases WHERE status = 'pending' AND due_at <= $1 AND reacquires IS NULL
                     ORDER BY due_at LIMIT $3 FOR UPDATE SKIP LOCKED)
RETURNING release_id, sale_id, user_id, units, created_at, attempts;

-- name: lock_epoch
-- Held to the end of the transaction, so that no load begins between what Redis did and what is written here.
SELECT epoch FROM sales WHERE sale_id = $1 FOR SHARE;

-- name: settle
UPDATE releases SET status = 'applied', ended_at = $3, epoch = $4, seq = given.seq, last_error = NULL
FROM unnest($1::uuid[], $2::bigint[]) AS given (release_id, seq)
WHERE releases.release_id = given.release_id AND status = 'pending';

-- name: postpone
UPDATE releases SET due_at = given.due_at, last_error = $3, status = CASE WHEN $4 THEN 'parked' ELSE status END
FROM unnest($1::uuid[], $2::timestamptz[]) AS given (release_id, due_at)
WHERE releases.release_id = given.release_id AND status = 'pending';

-- name: begin_retake
-- Only once what went back is in the stock again: else the same units would be taken while they are still on their way.
INSERT INTO releases (release_id, sale_id, user_id, units, reason, due_at, created_at, reacquires)
SELECT $1, sale_id, user_id, (SELECT jsonb_object_agg(key, -value::bigint) FROM jsonb_each_text(units)),
       'it was paid late', $3, $3, release_id
FROM releases WHERE release_id = $2 AND status = 'applied' ON CONFLICT (reacquires) DO NOTHING;

-- name: get_retake
SELECT release_id, releases.sale_id, user_id, status, created_at,
       (SELECT jsonb_object_agg(key, jsonb_build_array(-value::bigint, coalesce(user_limit, 0)))
        FROM jsonb_each_text(units) LEFT JOIN sale_items ON sale_items.sale_id = releases.sale_id AND sku = key) AS units
FROM releases WHERE reacquires = $1;

-- name: refuse_retake
UPDATE releases SET status = 'refused', ended_at = $2, last_error = 'there are not enough left'
WHERE release_id = $1 AND status = 'pending';
