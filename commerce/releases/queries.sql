-- name: claim
UPDATE releases SET attempts = attempts + 1, due_at = $1 + $2 * interval '1 second'
WHERE release_id IN (SELECT release_id FROM releases WHERE status = 'pending' AND due_at <= $1
                     ORDER BY due_at LIMIT $3 FOR UPDATE SKIP LOCKED)
RETURNING release_id, sale_id, user_id, units, created_at, attempts;

-- name: lock_epoch
-- Held to the end of the transaction, so that no load begins between what Redis did and what is written here.
SELECT epoch FROM sales WHERE sale_id = $1 FOR SHARE;

-- name: settle
UPDATE releases SET status = 'applied', settled_at = $3, epoch = $4, seq = given.seq, last_error = NULL
FROM unnest($1::uuid[], $2::bigint[]) AS given (release_id, seq)
WHERE releases.release_id = given.release_id AND status = 'pending';

-- name: postpone
UPDATE releases SET due_at = given.due_at, last_error = $3, status = CASE WHEN $4 THEN 'parked' ELSE status END
FROM unnest($1::uuid[], $2::timestamptz[]) AS given (release_id, due_at)
WHERE releases.release_id = given.release_id AND status = 'pending';
