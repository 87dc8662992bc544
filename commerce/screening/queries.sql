-- name: try_lock
-- One worker at a time: two that fold sightings of one group would wait for each other.
SELECT pg_try_advisory_xact_lock(hashtextextended('screening', 0));

-- name: list_unscreened
SELECT sale_id FROM sales
WHERE state IN ('open', 'paused') AND (closes_at IS NULL OR closes_at > $1)
  AND NOT EXISTS (SELECT FROM screened_sales screened WHERE screened.sale_id = sales.sale_id)
LIMIT $2;

-- name: insert_sale
INSERT INTO screened_sales (sale_id, salt, created_at) VALUES ($1, $2, $3) ON CONFLICT (sale_id) DO NOTHING;

-- name: lock_sales
-- Whoever changes customers of a sale locks the sale before them, so that nobody waits for each other: staff clears some.
SELECT FROM screened_sales WHERE sale_id = ANY ($1::text[]) ORDER BY sale_id FOR NO KEY UPDATE;

-- name: list_sales
SELECT screened.sale_id, screened.salt, screened.version, sales.opens_at FROM screened_sales screened JOIN sales USING (sale_id)
WHERE sales.state IN ('open', 'paused') AND (sales.closes_at IS NULL OR sales.closes_at > $1)
ORDER BY screened.created_at DESC LIMIT $2;

-- name: insert_sightings
INSERT INTO screening_sightings (sale_id, user_id, address, device, form, joins, orders, peak_per_s, fastest_ms,
    first_request_at, last_request_at)
SELECT * FROM unnest($1::text[], $2::text[], $3::bytea[], $4::bytea[], $5::bytea[], $6::integer[], $7::integer[],
    $8::integer[], $9::integer[], $10::timestamptz[], $11::timestamptz[]);

-- name: count_sightings
-- From both ends of the index: rows are taken from one end and added at the other.
SELECT coalesce(max(sighting_id) - min(sighting_id) + 1, 0) FROM screening_sightings;

-- name: take_sightings
-- Those of a sale that was forgotten meanwhile are deleted with the others.
WITH taken AS (
    DELETE FROM screening_sightings WHERE sighting_id IN (
        SELECT sighting_id FROM screening_sightings ORDER BY sighting_id LIMIT $1)
    RETURNING sale_id, user_id, address, device, form, joins, orders, peak_per_s, fastest_ms, first_request_at,
        last_request_at)
SELECT taken.sale_id, taken.user_id, taken.address, taken.device, taken.form, taken.joins, taken.orders,
    taken.peak_per_s, taken.fastest_ms, taken.first_request_at, taken.last_request_at,
    screened.sale_id IS NOT NULL AS is_screened
FROM taken LEFT JOIN screened_sales screened USING (sale_id);

-- name: upsert_users
-- Each customer once. Keeps the extremes of what was seen.
INSERT INTO screened_users AS stored (sale_id, user_id, joins, orders, peak_per_s, fastest_ms, first_request_at,
    last_request_at)
SELECT * FROM unnest($1::text[], $2::text[], $3::bigint[], $4::bigint[], $5::integer[], $6::integer[],
    $7::timestamptz[], $8::timestamptz[])
ON CONFLICT (sale_id, user_id) DO UPDATE SET joins = stored.joins + excluded.joins,
    orders = stored.orders + excluded.orders, peak_per_s = greatest(stored.peak_per_s, excluded.peak_per_s),
    fastest_ms = least(stored.fastest_ms, excluded.fastest_ms),
    first_request_at = least(stored.first_request_at, excluded.first_request_at),
    last_request_at = greatest(stored.last_request_at, excluded.last_request_at);

-- name: insert_marks
-- Returns the new ones. Those beyond $5 of a kind and customer are left out.
INSERT INTO screening_marks (sale_id, kind, mark, member)
SELECT found.sale_id, found.kind, found.mark, found.member
FROM unnest($1::text[], $2::text[], $3::bytea[], $4::text[]) AS found (sale_id, kind, mark, member)
WHERE (
    SELECT count(*) FROM (
        SELECT FROM screening_marks mark
        WHERE mark.sale_id = found.sale_id AND mark.member = found.member AND mark.kind = found.kind LIMIT $5) AS stored
    ) < $5
ON CONFLICT (sale_id, kind, mark, member) DO NOTHING
RETURNING sale_id, kind, mark;

-- name: insert_form_addresses
-- Addresses that forms came from, if the customer has both marks: they are deleted with him. Returns the new ones.
INSERT INTO screening_marks (sale_id, kind, mark, member)
SELECT DISTINCT found.sale_id, 'form_address', found.form, encode(found.address, 'hex')
FROM unnest($1::text[], $2::bytea[], $3::bytea[], $4::text[]) AS found (sale_id, form, address, user_id)
WHERE EXISTS (SELECT FROM screening_marks mark WHERE mark.sale_id = found.sale_id AND mark.kind = 'form'
              AND mark.mark = found.form AND mark.member = found.user_id)
  AND EXISTS (SELECT FROM screening_marks mark WHERE mark.sale_id = found.sale_id AND mark.kind = 'address'
              AND mark.mark = found.address AND mark.member = found.user_id)
ON CONFLICT (sale_id, kind, mark, member) DO NOTHING
RETURNING sale_id, kind, mark;

-- name: add_members
INSERT INTO screening_groups AS stored (sale_id, kind, mark, members)
SELECT * FROM unnest($1::text[], $2::text[], $3::bytea[], $4::integer[])
ON CONFLICT (sale_id, kind, mark) DO UPDATE SET members = stored.members + excluded.members;

-- name: list_groups
-- Groups with the number of addresses that their form came from.
SELECT stored.sale_id, stored.kind, stored.mark, stored.members, stored.is_crowded,
    coalesce(addresses.members, 0) AS addresses
FROM unnest($1::text[], $2::text[], $3::bytea[]) AS found (sale_id, kind, mark)
JOIN screening_groups stored USING (sale_id, kind, mark)
LEFT JOIN screening_groups addresses ON stored.kind = 'form' AND addresses.sale_id = stored.sale_id
    AND addresses.kind = 'form_address' AND addresses.mark = stored.mark;

-- name: set_crowded
UPDATE screening_groups SET is_crowded = found.is_crowded, rescored_to = ''
FROM unnest($1::text[], $2::text[], $3::bytea[], $4::boolean[]) AS found (sale_id, kind, mark, is_crowded)
WHERE screening_groups.sale_id = found.sale_id AND screening_groups.kind = found.kind
  AND screening_groups.mark = found.mark;

-- name: next_to_rescore
SELECT sale_id, kind, mark, rescored_to FROM screening_groups
WHERE rescored_to IS NOT NULL ORDER BY sale_id, kind, mark LIMIT 1;

-- name: list_members
SELECT member FROM screening_marks WHERE sale_id = $1 AND kind = $2 AND mark = $3 AND member > $4
ORDER BY member LIMIT $5;

-- name: set_rescored
UPDATE screening_groups SET rescored_to = $4 WHERE sale_id = $1 AND kind = $2 AND mark = $3;

-- name: list_crowds
-- The largest crowd of each customer, by kind. OFFSET 0 keeps the sequence of the joins also while the tables are so new
-- that Postgres knows nothing of their size: a customer has few marks, and a mark may have very many members.
SELECT found.user_id, mark.kind, max(crowd.members) AS members
FROM unnest($2::text[]) AS found (user_id)
CROSS JOIN LATERAL (
    SELECT kind, mark FROM screening_marks
    WHERE sale_id = $1 AND member = found.user_id AND kind <> 'form_address' OFFSET 0) AS mark
CROSS JOIN LATERAL (
    SELECT members, is_crowded FROM screening_groups
    WHERE sale_id = $1 AND kind = mark.kind AND screening_groups.mark = mark.mark OFFSET 0) AS crowd
WHERE crowd.is_crowded GROUP BY found.user_id, mark.kind;

-- name: list_measured
SELECT user_id, peak_per_s, fastest_ms, score, reasons FROM screened_users
WHERE sale_id = $1 AND user_id = ANY ($2::text[]);

-- name: raise_version
-- Locks the sale, so that versions are committed in their order.
UPDATE screened_sales SET version = version + 1 WHERE sale_id = $1 RETURNING version;

-- name: set_scores
UPDATE screened_users SET raised_at = CASE WHEN found.score > screened_users.score THEN $5 ELSE raised_at END,
    score = found.score, reasons = found.reasons::jsonb, version = $6
FROM unnest($2::text[], $3::smallint[], $4::text[]) AS found (user_id, score, reasons)
WHERE screened_users.sale_id = $1 AND screened_users.user_id = found.user_id;

-- name: list_suspects
-- What has changed since a version and a user; from the beginning, only what leads to something.
SELECT user_id, version, score, reasons, raised_at, cleared_until FROM screened_users
WHERE sale_id = $1 AND version > 0 AND (version, user_id) > ($2, $3) AND (score >= $4 OR NOT $5)
ORDER BY version, user_id LIMIT $6;

-- name: list_users
SELECT {screened_users} FROM screened_users
WHERE sale_id = $1 AND score > 0 AND score >= $2 AND (score < $3 OR (score = $3 AND user_id > $4))
  AND ($5::text IS NULL OR reasons @> jsonb_build_array(jsonb_build_object('signal', $5::text)))
  AND ($6::boolean IS NULL OR coalesce(cleared_until > $7, false) = $6)
ORDER BY score DESC, user_id LIMIT $8;

-- name: get_user
SELECT {screened_users} FROM screened_users WHERE sale_id = $1 AND user_id = $2;

-- name: list_decisions
SELECT at, actor, action, reason, until FROM screening_decisions WHERE sale_id = $1 AND user_id = $2
ORDER BY seq DESC LIMIT $3;

-- name: set_cleared
-- A customer may be cleared before he is seen.
INSERT INTO screened_users (sale_id, user_id, first_request_at, last_request_at, cleared_until, version)
VALUES ($1, $2, $3, $3, $4, $5)
ON CONFLICT (sale_id, user_id) DO UPDATE SET cleared_until = excluded.cleared_until, version = excluded.version;

-- name: revoke
UPDATE screened_users SET cleared_until = NULL, version = $4
WHERE sale_id = $1 AND user_id = $2 AND cleared_until > $3 RETURNING user_id;

-- name: insert_decision
INSERT INTO screening_decisions (sale_id, user_id, seq, at, actor, action, reason, until)
SELECT $1, $2, coalesce(max(seq), 0) + 1, $3, $4, $5, $6, $7
FROM screening_decisions WHERE sale_id = $1 AND user_id = $2;

-- name: get_progress
INSERT INTO screening_progress AS progress (order_id) VALUES ($1)
ON CONFLICT (only_row) DO UPDATE SET order_id = greatest(progress.order_id, excluded.order_id) RETURNING order_id;

-- name: set_progress
UPDATE screening_progress SET order_id = $1;

-- name: list_order_phones
-- Ids of orders begin with their time.
SELECT orders.order_id, orders.sale_id, orders.user_id, orders.accepted_at, screened.salt,
    ARRAY(SELECT DISTINCT address ->> 'phone' FROM jsonb_array_elements(orders.ship_to) AS address) AS phones
FROM (SELECT order_id, sale_id, user_id, accepted_at, ship_to FROM orders
      WHERE order_id > $1 AND order_id < $2 ORDER BY order_id LIMIT $3) AS orders
LEFT JOIN screened_sales screened USING (sale_id) ORDER BY orders.order_id;

-- name: list_old_users
-- A clearing keeps the customer until it is over. One who is being cleared now is left out.
SELECT sale_id, user_id FROM screened_users
WHERE last_request_at < $1 AND coalesce(cleared_until < $1, true)
ORDER BY last_request_at LIMIT $2 FOR UPDATE SKIP LOCKED;

-- name: delete_marks
DELETE FROM screening_marks USING unnest($1::text[], $2::text[]) AS old (sale_id, member)
WHERE screening_marks.sale_id = old.sale_id AND screening_marks.member = old.member
  AND screening_marks.kind <> 'form_address'
RETURNING screening_marks.sale_id, screening_marks.kind, screening_marks.mark, screening_marks.member;

-- name: delete_form_addresses
-- If another customer still uses a form from such an address, his next request stores it again.
DELETE FROM screening_marks
USING unnest($1::text[], $2::bytea[], $3::text[]) AS old (sale_id, form, address)
WHERE screening_marks.sale_id = old.sale_id AND screening_marks.kind = 'form_address'
  AND screening_marks.mark = old.form AND screening_marks.member = old.address
RETURNING screening_marks.sale_id, screening_marks.kind, screening_marks.mark;

-- name: remove_members
UPDATE screening_groups SET members = screening_groups.members - old.members
FROM unnest($1::text[], $2::text[], $3::bytea[], $4::integer[]) AS old (sale_id, kind, mark, members)
WHERE screening_groups.sale_id = old.sale_id AND screening_groups.kind = old.kind
  AND screening_groups.mark = old.mark;

-- name: delete_empty_groups
DELETE FROM screening_groups USING unnest($1::text[], $2::text[], $3::bytea[]) AS old (sale_id, kind, mark)
WHERE screening_groups.sale_id = old.sale_id AND screening_groups.kind = old.kind
  AND screening_groups.mark = old.mark AND screening_groups.members = 0;

-- name: delete_decisions
DELETE FROM screening_decisions USING unnest($1::text[], $2::text[]) AS old (sale_id, user_id)
WHERE screening_decisions.sale_id = old.sale_id AND screening_decisions.user_id = old.user_id;

-- name: delete_users
DELETE FROM screened_users USING unnest($1::text[], $2::text[]) AS old (sale_id, user_id)
WHERE screened_users.sale_id = old.sale_id AND screened_users.user_id = old.user_id;

-- name: delete_old_sightings
-- Some wait only while no worker folds them: screening was disabled.
DELETE FROM screening_sightings WHERE last_request_at < $1 AND sighting_id IN (
    SELECT sighting_id FROM screening_sightings ORDER BY sighting_id LIMIT $2)
RETURNING sighting_id;

-- name: delete_old_sales
-- The salt goes last: nothing is left that it could be tried on.
DELETE FROM screened_sales USING sales
WHERE screened_sales.sale_id = sales.sale_id AND coalesce(sales.closed_at, sales.closes_at) < $1
  AND NOT EXISTS (SELECT FROM screened_users users WHERE users.sale_id = screened_sales.sale_id)
  AND NOT EXISTS (SELECT FROM screening_sightings seen WHERE seen.sale_id = screened_sales.sale_id);
