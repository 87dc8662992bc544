-- name: put_wait_list
INSERT INTO wait_lists (sale_id, mode, accept_s, max_people_per_sku, created_at) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (sale_id) DO UPDATE SET mode = excluded.mode, accept_s = excluded.accept_s,
    max_people_per_sku = excluded.max_people_per_sku;

-- name: get_settings
SELECT mode, accept_s, max_people_per_sku FROM wait_lists WHERE sale_id = $1;

-- name: log
INSERT INTO sale_log (sale_id, at, actor, action, detail) VALUES ($1, $2, $3, $4, $5);

-- name: lock_lists
-- Whoever adds a list counts them first.
SELECT pg_advisory_xact_lock(hashtextextended('floodgate wait lists', 0));

-- name: count_others
-- Wait-lists of sales that are not closed, without that of sale $1.
SELECT count(*) FROM wait_lists JOIN sales USING (sale_id) WHERE sales.state <> 'closed' AND sale_id <> $1;

-- name: list_wait_lists
-- Those of sales that are open or paused, or were closed after $1, and those with open places. Units may still be held
-- back if a list is off. With $2 only that of one sale, whatever its state.
SELECT wait_lists.sale_id, mode, accept_s, max_people_per_sku, ran_at, sales.state AS sale_state, opens_at, closes_at,
       coalesce(awaited.waiting, 0)::bigint AS waiting, coalesce(awaited.offered, 0)::bigint AS offered,
       coalesce(awaited.skus, '[]') AS skus
FROM wait_lists JOIN sales USING (sale_id)
LEFT JOIN (
    SELECT sale_id, sum(waiting) AS waiting, sum(offered) AS offered,
           jsonb_agg(jsonb_build_array(sku, offered_number, last_number, waiting, offered_units) ORDER BY sku) AS skus
    FROM wait_list_skus WHERE (waiting > 0 OR offered > 0) AND ($2::text IS NULL OR sale_id = $2) GROUP BY sale_id
) AS awaited USING (sale_id)
WHERE CASE WHEN $2::text IS NOT NULL THEN wait_lists.sale_id = $2
           ELSE sales.state IN ('open', 'paused') OR closed_at > $1 OR awaited.sale_id IS NOT NULL END
ORDER BY sales.state = 'closed', wait_lists.sale_id LIMIT $3;

-- name: add_skus
-- Counts of SKUs for which nobody has waited yet: they are the lock, also if nobody gets a place.
INSERT INTO wait_list_skus (sale_id, sku)
SELECT sale_id, sku FROM sale_items WHERE sale_id = $1 AND sku = ANY($2::text[]) ORDER BY sku
ON CONFLICT (sale_id, sku) DO NOTHING;

-- name: lock_skus
-- In one order, so that those who lock several never wait for each other.
SELECT sku, last_number, waiting, offered, offered_number FROM wait_list_skus
WHERE sale_id = $1 AND sku = ANY($2::text[]) ORDER BY sku FOR UPDATE;

-- name: lock_list
-- Whoever is the first to wait for a SKU counts the awaited ones first.
SELECT sale_id FROM wait_lists WHERE sale_id = $1 FOR NO KEY UPDATE;

-- name: count_awaited_skus
SELECT count(*) FROM wait_list_skus WHERE sale_id = $1 AND (waiting > 0 OR offered > 0);

-- name: list_open_places
SELECT {wait_list_entries} FROM wait_list_entries
WHERE sale_id = $1 AND state IN ('waiting', 'offered')
  AND (user_id, sku) IN (SELECT * FROM unnest($2::text[], $3::text[]));

-- name: insert_places
-- Only while the lock of their SKUs is held, as all changes of places.
INSERT INTO wait_list_entries (sale_id, sku, number, user_id, quantity, joined_at)
SELECT $1, sku, number, user_id, quantity, $6
FROM unnest($2::text[], $3::bigint[], $4::text[], $5::integer[]) AS input (sku, number, user_id, quantity);

-- name: count_joined
UPDATE wait_list_skus SET last_number = last_number + input.people, waiting = waiting + input.people
FROM unnest($2::text[], $3::bigint[]) AS input (sku, people)
WHERE sale_id = $1 AND wait_list_skus.sku = input.sku;

-- name: get_latest_place
SELECT {wait_list_entries} FROM wait_list_entries WHERE sale_id = $1 AND sku = $2 AND user_id = $3
ORDER BY number DESC LIMIT 1;

-- name: leave_waiting
UPDATE wait_list_entries SET state = 'left', ended_at = $4
WHERE sale_id = $1 AND sku = $2 AND user_id = $3 AND state = 'waiting' RETURNING number;

-- name: leave_offer
UPDATE wait_list_entries SET accept_by = least(accept_by, $4)
WHERE sale_id = $1 AND sku = $2 AND user_id = $3 AND state = 'offered' AND accept_by IS NOT NULL RETURNING number;

-- name: end_waiting
-- Up to $4 of those who wait for a SKU when the list ends. Places do not come back, so the clock of a keeper alone does
-- not end them.
UPDATE wait_list_entries SET state = 'left', ended_at = $3
WHERE sale_id = $1 AND sku = $2 AND state = 'waiting' AND number IN (
    SELECT number FROM wait_list_entries AS first
    WHERE first.sale_id = $1 AND first.sku = $2 AND first.state = 'waiting' ORDER BY number LIMIT $4)
  AND EXISTS (SELECT FROM wait_lists JOIN sales USING (sale_id)
              WHERE sale_id = $1 AND (mode = 'off' OR sales.state = 'closed' OR closes_at <= clock_timestamp()))
RETURNING number;

-- name: count_left
UPDATE wait_list_skus SET waiting = waiting - $3 WHERE sale_id = $1 AND sku = $2;

-- name: continue_offers
-- Time in which nobody could order is added to all offers. The row says each second that orders are taken.
WITH before AS (SELECT sale_id, $2::timestamptz - ran_at AS gap FROM wait_lists WHERE sale_id = $1 FOR NO KEY UPDATE),
     ran AS (UPDATE wait_lists SET ran_at = $2 FROM before
             WHERE wait_lists.sale_id = before.sale_id AND (gap IS NULL OR gap > interval '0'))
UPDATE wait_list_entries SET accept_by = accept_by + gap
FROM before WHERE wait_list_entries.sale_id = before.sale_id AND state = 'offered' AND accept_by IS NOT NULL
  AND gap >= interval '3 s';

-- name: lock_loaded
-- The lock lasts until the transaction ends, so no load begins meanwhile.
SELECT sale_id FROM sales WHERE sale_id = $1 AND epoch = $2 AND loaded_epoch = $2 FOR SHARE;

-- name: lock_epoch
SELECT epoch FROM sales WHERE sale_id = $1 FOR SHARE;

-- name: sum_unapplied
-- Units of recorded offers that Redis may still hold back.
SELECT coalesce(sum(offered_units), 0)::bigint FROM wait_list_entries
WHERE sale_id = $1 AND sku = $2 AND state = 'offered' AND seq IS NULL;

-- name: list_waiting
SELECT number, quantity FROM wait_list_entries WHERE sale_id = $1 AND sku = $2 AND state = 'waiting'
ORDER BY number LIMIT $3;

-- name: record_offers
UPDATE wait_list_entries SET state = 'offered', offer_id = input.offer_id, offered_units = input.units,
    offered_at = $6, after_entry_at = $7, after_entry_seq = $8
FROM unnest($3::bigint[], $4::uuid[], $5::integer[]) AS input (number, offer_id, units)
WHERE sale_id = $1 AND sku = $2 AND wait_list_entries.number = input.number AND state = 'waiting';

-- name: count_offered
UPDATE wait_list_skus SET waiting = waiting - $3, offered = offered + $3, offered_units = offered_units + $4,
    offered_number = greatest(offered_number, $5)
WHERE sale_id = $1 AND sku = $2;

-- name: list_unapplied
SELECT offer_id, user_id, sku, offered_units AS units, offered_at, sales.epoch AS sale_epoch, false AS is_over
FROM wait_list_entries JOIN sales USING (sale_id)
WHERE sale_id = $1 AND wait_list_entries.state = 'offered' AND seq IS NULL AND sales.epoch = loaded_epoch
ORDER BY sku, number LIMIT $2;

-- name: list_over
-- With $3 all are over.
SELECT offer_id, user_id, sku, offered_units AS units, offered_at, sales.epoch AS sale_epoch, true AS is_over
FROM wait_list_entries JOIN sales USING (sale_id)
WHERE sale_id = $1 AND wait_list_entries.state = 'offered' AND seq IS NOT NULL AND sales.epoch = loaded_epoch
  AND ($3 OR accept_by <= $2)
ORDER BY accept_by LIMIT $4;

-- name: list_running
SELECT offer_id, user_id, sku, offered_units AS units, offered_at, sales.epoch AS sale_epoch, false AS is_over
FROM wait_list_entries JOIN sales USING (sale_id)
WHERE sale_id = $1 AND wait_list_entries.state = 'offered' AND seq IS NOT NULL AND sales.epoch = loaded_epoch
  AND accept_by > $2 AND offer_id > $3
ORDER BY offer_id LIMIT $4;

-- name: mark_offers_applied
-- The time to accept begins when Redis has the offer.
UPDATE wait_list_entries SET epoch = $3, seq = input.seq, accept_by = $4::timestamptz + accept_s * interval '1 second'
FROM unnest($1::uuid[], $2::bigint[]) AS input (offer_id, seq), wait_lists
WHERE wait_list_entries.offer_id = input.offer_id AND state = 'offered' AND wait_list_entries.seq IS NULL
  AND wait_lists.sale_id = wait_list_entries.sale_id;

-- name: refuse_offers
-- They wait again, with their numbers.
WITH refused AS (
    UPDATE wait_list_entries SET state = 'waiting', offer_id = NULL, offered_units = NULL, offered_at = NULL,
        after_entry_at = NULL, after_entry_seq = NULL
    FROM (SELECT offer_id AS id, offered_units AS units FROM wait_list_entries WHERE offer_id = ANY($1::uuid[])) AS input
    WHERE offer_id = input.id AND state = 'offered' AND seq IS NULL
    RETURNING sale_id, sku, input.units
)
UPDATE wait_list_skus SET waiting = waiting + people, offered = offered - people, offered_units = offered_units - units
FROM (SELECT sale_id, sku, count(*) AS people, sum(units) AS units FROM refused GROUP BY sale_id, sku) AS sums
WHERE wait_list_skus.sale_id = sums.sale_id AND wait_list_skus.sku = sums.sku;

-- name: end_offers
WITH ended AS (
    UPDATE wait_list_entries SET state = input.state, ended_at = $5,
        epoch = CASE WHEN input.seq > 0 THEN $4 ELSE epoch END,
        seq = CASE WHEN input.seq > 0 THEN input.seq ELSE wait_list_entries.seq END
    FROM unnest($1::uuid[], $2::text[], $3::bigint[]) AS input (offer_id, state, seq)
    WHERE wait_list_entries.offer_id = input.offer_id AND wait_list_entries.state = 'offered'
    RETURNING sale_id, sku, wait_list_entries.state, offered_units
)
UPDATE wait_list_skus SET offered = offered - people, offered_units = wait_list_skus.offered_units - units,
    taken = wait_list_skus.taken + sums.taken, lapsed = wait_list_skus.lapsed + sums.lapsed
FROM (SELECT sale_id, sku, count(*) AS people, sum(offered_units) AS units,
             count(*) FILTER (WHERE state = 'taken') AS taken, count(*) FILTER (WHERE state = 'lapsed') AS lapsed
      FROM ended GROUP BY sale_id, sku) AS sums
WHERE wait_list_skus.sale_id = sums.sale_id AND wait_list_skus.sku = sums.sku;
