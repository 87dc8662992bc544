-- name: put_room
-- Times, the account's age and the fallback are fixed seconds before the list is closed, since Redis closes it before
-- the row does; an ended room stays as it is.
INSERT INTO waiting_rooms AS room (sale_id, mode, state, salt, join_opens_at, list_closes_at, min_account_age_s,
    served_valid_s, max_pace_per_s, max_waiting, served_per_unit, fallback_after_s, fallback_rounds, named_source,
    created_at)
VALUES ($1, $2, CASE WHEN $2 = 'automatic' THEN 'standby' ELSE 'waiting' END, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, 'delay:' || $12::integer, $13)
ON CONFLICT (sale_id) DO UPDATE SET mode = excluded.mode,
    state = CASE WHEN room.state = 'waiting' AND room.mode = 'off' AND excluded.mode = 'automatic' THEN 'standby'
                 WHEN room.state = 'standby' AND room.listed_at IS NULL AND excluded.mode <> 'automatic' THEN 'waiting'
                 ELSE room.state END,
    served_valid_s = excluded.served_valid_s,
    max_pace_per_s = excluded.max_pace_per_s, max_waiting = excluded.max_waiting,
    served_per_unit = excluded.served_per_unit, join_opens_at = excluded.join_opens_at,
    list_closes_at = excluded.list_closes_at, min_account_age_s = excluded.min_account_age_s,
    fallback_after_s = excluded.fallback_after_s, fallback_rounds = excluded.fallback_rounds,
    named_source = CASE WHEN room.randomness_at IS NULL THEN excluded.named_source ELSE room.named_source END,
    version = room.version + 1
WHERE room.state <> 'ended' AND (room.listed_at IS NULL AND room.list_closes_at > excluded.created_at + interval '5 s'
    OR (room.join_opens_at, room.list_closes_at, room.min_account_age_s, room.fallback_after_s, room.fallback_rounds)
     = (excluded.join_opens_at, excluded.list_closes_at, excluded.min_account_age_s, excluded.fallback_after_s,
        excluded.fallback_rounds))
RETURNING sale_id;

-- name: share_opening
SELECT opens_at FROM sales WHERE sale_id = $1 FOR SHARE;

-- name: log
INSERT INTO sale_log (sale_id, at, actor, action, detail) VALUES ($1, $2, $3, $4, $5);

-- name: get_room
SELECT {waiting_rooms}, sales.opens_at, sales.closes_at, sales.state AS sale_state
FROM waiting_rooms JOIN sales USING (sale_id) WHERE waiting_rooms.sale_id = $1;

-- name: list_rooms
-- Rooms that are on or automatic; those that ended before $1 are left out.
SELECT {waiting_rooms}, sales.opens_at, sales.closes_at, sales.state AS sale_state
FROM waiting_rooms JOIN sales USING (sale_id)
WHERE waiting_rooms.mode <> 'off' AND (waiting_rooms.ended_at IS NULL OR waiting_rooms.ended_at > $1)
ORDER BY waiting_rooms.sale_id LIMIT $2;

-- name: count_others
-- Rooms as above, without that of sale $2.
SELECT count(*) FROM waiting_rooms WHERE mode <> 'off' AND (ended_at IS NULL OR ended_at > $1) AND sale_id <> $2;

-- name: name_source
UPDATE waiting_rooms SET named_source = $2, randomness_at = $3, fallback_rounds = $4, version = version + 1
WHERE sale_id = $1 AND listed_at IS NULL AND state IN ('standby', 'waiting') RETURNING sale_id;

-- name: lock_open_list
SELECT sale_id FROM waiting_rooms WHERE sale_id = $1 AND version = $2 AND listed_at IS NULL FOR UPDATE;

-- name: close_list
UPDATE waiting_rooms SET state = 'drawing', listed_at = $2, entries = $3::integer, list_digest = $4,
    last_number = greatest(last_number, $3::integer), version = version + 1
WHERE sale_id = $1;

-- name: raise_last_number
-- The version stays: joins must not keep the keeper from its steps.
UPDATE waiting_rooms SET last_number = $2 WHERE sale_id = $1 AND last_number < $2;

-- name: set_randomness
UPDATE waiting_rooms SET source = $2, randomness = $3, version = version + 1
WHERE sale_id = $1 AND state = 'drawing' AND randomness IS NULL RETURNING sale_id;

-- name: mark_drawn
UPDATE waiting_rooms SET state = 'serving', drawn_at = $2, version = version + 1
WHERE sale_id = $1 AND state = 'drawing' AND randomness IS NOT NULL RETURNING sale_id;

-- name: delete_list
DELETE FROM waiting_room_lists WHERE sale_id = $1;

-- name: insert_part
INSERT INTO waiting_room_lists (sale_id, part_no, hashes) VALUES ($1, $2, $3);

-- name: read_part
SELECT hashes FROM waiting_room_lists WHERE sale_id = $1 AND part_no = $2;

-- name: read_file_part
-- Nothing if the places were drawn since $3 was read: parts of two orders make no file.
SELECT hashes FROM waiting_room_lists JOIN waiting_rooms USING (sale_id)
WHERE sale_id = $1 AND part_no = $2 AND drawn_at IS NOT DISTINCT FROM $3::timestamptz;

-- name: serve
-- Two keepers never both take the step from one version; served and expired never fall.
UPDATE waiting_rooms SET served = $3, expired = $4, pace_per_s = $5, steps = $6, sold_out = $7, turns_ran_at = $8,
    version = version + 1
WHERE sale_id = $1 AND version = $2 AND state = 'serving' AND served <= $3 AND expired <= $4 RETURNING sale_id;

-- name: open_room
-- The first opening closes the list with nobody on it.
UPDATE waiting_rooms SET state = 'serving', opened_at = $3, listed_at = coalesce(listed_at, $3),
    entries = coalesce(entries, 0), list_digest = coalesce(list_digest, $4), source = coalesce(source, $5),
    randomness = coalesce(randomness, 'none'), drawn_at = coalesce(drawn_at, $3), version = version + 1
WHERE sale_id = $1 AND version = $2 AND state = 'standby' RETURNING sale_id;

-- name: stand_by
-- All turns up to $3 are over. Numbers that were given since are the first when the room opens again.
UPDATE waiting_rooms SET state = 'standby', served = greatest(served, $3), expired = greatest(served, $3),
    pace_per_s = 0, steps = '[]', turns_ran_at = NULL, sold_out = '{}', version = version + 1
WHERE sale_id = $1 AND version = $2 AND state = 'serving' AND mode = 'automatic' RETURNING sale_id;

-- name: end_room
UPDATE waiting_rooms SET state = 'ended', ended_at = $2, sold_out = $3, version = version + 1
WHERE sale_id = $1 AND state <> 'ended' RETURNING sale_id;

-- name: count_buyers
-- Ids of orders begin with their time.
SELECT count(DISTINCT user_id) FROM orders WHERE sale_id = $1 AND order_id >= $2 AND order_id < $3;
