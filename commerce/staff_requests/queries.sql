-- name: lock_key
-- A second request with the key waits until the first one ends.
SELECT pg_advisory_xact_lock(hashtextextended($1 || ' ' || $2, 0));

-- name: find_answer
SELECT digest, status, content_type, location, body FROM staff_requests WHERE actor = $1 AND idempotency_key = $2;

-- name: insert_answer
INSERT INTO staff_requests (actor, idempotency_key, digest, created_at, status, content_type, location, body)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (actor, idempotency_key) DO NOTHING;
