-- name: put
-- At most one job per subject and queue: the new task takes the place of the one before, parked or leased, and what a
-- worker still finds out about that one is not written.
INSERT INTO jobs (queue, subject, kind, system, due_at, created_at)
SELECT $1, subject, kind, system, due_at, $6
FROM unnest($2::uuid[], $3::text[], $4::text[], $5::timestamptz[]) AS input (subject, kind, system, due_at)
ON CONFLICT (subject, queue) DO UPDATE
SET kind = excluded.kind, system = excluded.system, due_at = excluded.due_at, attempts = 0, parked = false,
    last_error = NULL;

-- name: put_parked
INSERT INTO jobs (queue, subject, kind, system, due_at, parked, last_error, created_at)
VALUES ($1, $2, $3, $4, $5, true, $6, $7)
ON CONFLICT (subject, queue) DO UPDATE
SET kind = excluded.kind, system = excluded.system, due_at = excluded.due_at, attempts = 0, parked = true,
    last_error = excluded.last_error;

-- name: find
SELECT subject, kind, system, due_at, attempts, parked, last_error FROM jobs
WHERE queue = $1 AND subject = ANY($2::uuid[]);

-- name: claim
-- A claim moves due_at to the end of the lease. Each kind of each system has its turn: the oldest job of each comes
-- first, then the second of each. $5 and $6: room for jobs by system; others have room for $4. A claim whose lease has
-- ended without a result (a worker died, a database was unavailable) does not count as an attempt.
WITH RECURSIVE groups AS (
    (SELECT system, kind FROM jobs WHERE queue = $1 AND NOT parked ORDER BY system, kind LIMIT 1)
    UNION ALL
    SELECT following.system, following.kind FROM groups CROSS JOIN LATERAL (
        SELECT system, kind FROM jobs
        WHERE queue = $1 AND NOT parked AND (system, kind) > (groups.system, groups.kind)
        ORDER BY system, kind LIMIT 1) AS following
), due AS (
    SELECT groups.system, picked.subject, picked.due_at, room.places,
           row_number() OVER (PARTITION BY groups.system, groups.kind ORDER BY picked.due_at) AS turn
    FROM groups
    CROSS JOIN LATERAL (SELECT least(coalesce(min(input.places), $4), $4) AS places
                        FROM unnest($5::text[], $6::integer[]) AS input (system, places)
                        WHERE input.system = groups.system) AS room
    CROSS JOIN LATERAL (
        SELECT subject, due_at FROM jobs
        WHERE queue = $1 AND system = groups.system AND kind = groups.kind AND NOT parked AND due_at <= $2
        ORDER BY due_at LIMIT room.places FOR UPDATE SKIP LOCKED) AS picked
), fitting AS (
    SELECT subject, due_at, turn, places, row_number() OVER (PARTITION BY system ORDER BY turn, due_at) AS place FROM due
), claimed AS (
    SELECT subject FROM fitting WHERE place <= places ORDER BY turn, due_at LIMIT $4
)
UPDATE jobs SET attempts = attempts + (leased_until IS DISTINCT FROM due_at)::integer, due_at = $3, leased_until = $3
WHERE queue = $1 AND subject = ANY (ARRAY(SELECT subject FROM claimed))
RETURNING queue, subject, kind, system, attempts, due_at AS leased_until;

-- name: finish
-- Only while the claim holds.
DELETE FROM jobs USING unnest($2::uuid[], $3::integer[], $4::timestamptz[]) AS input (subject, attempts, leased_until)
WHERE queue = $1 AND jobs.subject = input.subject AND jobs.attempts = input.attempts
  AND jobs.due_at = input.leased_until
RETURNING jobs.subject;

-- name: postpone
-- Only while the claim holds.
UPDATE jobs SET due_at = input.due_at, kind = coalesce(input.kind, jobs.kind), parked = input.parked,
                last_error = input.error, attempts = CASE WHEN input.starts_over THEN 0 ELSE jobs.attempts END
FROM unnest($2::uuid[], $3::integer[], $4::timestamptz[], $5::timestamptz[], $6::text[], $7::text[], $8::boolean[],
            $9::boolean[])
     AS input (subject, attempts, leased_until, due_at, kind, error, parked, starts_over)
WHERE queue = $1 AND jobs.subject = input.subject AND jobs.attempts = input.attempts
  AND jobs.due_at = input.leased_until
RETURNING jobs.subject;

-- name: remove
DELETE FROM jobs WHERE queue = $1 AND subject = ANY($2::uuid[]);

-- name: retry
UPDATE jobs SET due_at = $3, attempts = 0, parked = false WHERE queue = $1 AND subject = ANY($2::uuid[]) RETURNING subject;

-- name: measure_due
-- By group: when its oldest job became due.
WITH RECURSIVE groups AS (
    (SELECT queue, system, kind FROM jobs WHERE NOT parked ORDER BY queue, system, kind LIMIT 1)
    UNION ALL
    SELECT following.queue, following.system, following.kind FROM groups CROSS JOIN LATERAL (
        SELECT queue, system, kind FROM jobs
        WHERE NOT parked AND (queue, system, kind) > (groups.queue, groups.system, groups.kind)
        ORDER BY queue, system, kind LIMIT 1) AS following
)
SELECT queue, system, kind, oldest.due_at FROM groups CROSS JOIN LATERAL (
    SELECT due_at FROM jobs
    WHERE jobs.queue = groups.queue AND jobs.system = groups.system AND jobs.kind = groups.kind AND NOT parked
    ORDER BY due_at LIMIT 1) AS oldest;

-- name: count_jobs
SELECT count(*) FROM jobs WHERE queue = $1 AND NOT parked;

-- name: count_parked
SELECT queue, system, kind, count(*) AS jobs FROM jobs WHERE parked AND (parked OR last_error IS NOT NULL)
GROUP BY queue, system, kind;

-- name: count_due
-- At most $5 of each group.
SELECT groups.queue, groups.system, groups.kind, counted.jobs
FROM unnest($1::text[], $2::text[], $3::text[]) AS groups (queue, system, kind)
CROSS JOIN LATERAL (
    SELECT count(*) AS jobs
    FROM (SELECT FROM jobs WHERE jobs.queue = groups.queue AND jobs.system = groups.system AND jobs.kind = groups.kind
            AND NOT parked AND due_at <= $4 LIMIT $5) AS due) AS counted;

-- name: get_jobs
SELECT queue, subject, kind, system, due_at, leased_until, attempts, parked, last_error, created_at
FROM jobs JOIN unnest($1::text[], $2::uuid[]) AS input (queue, subject) USING (queue, subject);

-- name: list_orders
-- The orders of subjects. The release of a whole order has its id, a partial one and a reacquisition have others.
SELECT input.queue, input.subject, found.order_id
FROM unnest($1::text[], $2::uuid[]) AS input (queue, subject)
CROSS JOIN LATERAL (
    SELECT order_id FROM payments WHERE input.queue = 'payments' AND payment_id = input.subject
    UNION ALL
    SELECT order_id FROM refunds WHERE input.queue = 'refunds' AND refund_id = input.subject
    UNION ALL
    SELECT order_id FROM shipments WHERE input.queue = 'shipments' AND shipment_id = input.subject
    UNION ALL
    SELECT order_id FROM return_shipments WHERE input.queue = 'return_shipments' AND return_shipment_id = input.subject
    UNION ALL
    SELECT order_id FROM cases WHERE input.queue IN ('cases', 'case_rules') AND case_id = input.subject
    UNION ALL
    SELECT order_id FROM orders WHERE input.queue IN ('fulfilments', 'cancellations', 'releases', 'cases')
                         AND order_id = input.subject
    UNION ALL
    SELECT part_of FROM releases
    WHERE input.queue = 'releases' AND release_id = input.subject AND part_of IS NOT NULL) AS found;

-- name: list_of_order
SELECT queue, subject, kind, system, due_at, leased_until, attempts, parked, last_error, created_at
FROM jobs JOIN (
    SELECT 'payments' AS queue, payment_id AS subject FROM payments WHERE order_id = $1
    UNION ALL
    SELECT 'refunds', refund_id FROM refunds WHERE order_id = $1
    UNION ALL
    SELECT 'shipments', shipment_id FROM shipments WHERE order_id = $1
    UNION ALL
    SELECT 'releases', release_id FROM releases WHERE part_of = $1
    UNION ALL
    SELECT queue, case_id FROM cases CROSS JOIN (VALUES ('cases'), ('case_rules')) AS queues (queue) WHERE order_id = $1
    UNION ALL
    SELECT 'return_shipments', return_shipment_id FROM return_shipments WHERE order_id = $1
    UNION ALL
    VALUES ('fulfilments', $1), ('cancellations', $1), ('releases', $1), ('cases', $1)) AS subjects USING (queue, subject)
ORDER BY queue, subject;

-- name: list_scheduled
-- Jobs that are not parked, by group and time: in each group those after $4 and $5, due until $6, leased or not ($7).
SELECT page.queue, page.subject, page.kind, page.system, page.due_at, page.leased_until, page.attempts, page.parked,
       page.last_error, page.created_at
FROM unnest($1::text[], $2::text[], $3::text[], $4::timestamptz[], $5::uuid[])
     WITH ORDINALITY AS start (queue, system, kind, due_at, subject, number)
CROSS JOIN LATERAL (
    SELECT queue, subject, kind, system, due_at, leased_until, attempts, parked, last_error, created_at FROM jobs
    WHERE jobs.queue = start.queue AND jobs.system = start.system AND jobs.kind = start.kind AND NOT parked
      AND (jobs.due_at, jobs.subject) > (start.due_at, start.subject) AND jobs.due_at <= $6
      AND ($7::boolean IS NULL OR (leased_until IS NOT DISTINCT FROM jobs.due_at) = $7)
    ORDER BY jobs.due_at, jobs.subject LIMIT $8) AS page
ORDER BY number, page.due_at, page.subject LIMIT $8;

-- name: list_failed_queues
-- Queues with jobs that are parked ($1), or that have failed and are not.
WITH RECURSIVE queues AS (
    (SELECT queue FROM jobs WHERE parked = $1 AND (parked OR last_error IS NOT NULL) ORDER BY queue LIMIT 1)
    UNION ALL
    SELECT following.queue FROM queues CROSS JOIN LATERAL (
        SELECT queue FROM jobs
        WHERE parked = $1 AND (parked OR last_error IS NOT NULL) AND queue > queues.queue
        ORDER BY queue LIMIT 1) AS following
)
SELECT queue FROM queues;

-- name: find_last_examined
-- The last of the $4 jobs after a subject; none if there are not as many.
SELECT subject FROM jobs
WHERE parked = $1 AND (parked OR last_error IS NOT NULL) AND queue = $2 AND subject > $3
ORDER BY subject OFFSET $4 - 1 LIMIT 1;

-- name: list_failed
-- Those of the jobs after $3, until $4, that fit. All the words $8 must occur in the error.
SELECT queue, subject, kind, system, due_at, leased_until, attempts, parked, last_error, created_at FROM jobs
WHERE parked = $1 AND (parked OR last_error IS NOT NULL) AND queue = $2 AND subject > $3
  AND ($4::uuid IS NULL OR subject <= $4) AND ($5::text IS NULL OR kind = $5) AND ($6::text IS NULL OR system = $6)
  AND due_at <= $7
  AND NOT EXISTS (SELECT FROM unnest($8::text[]) AS word WHERE strpos(lower(coalesce(last_error, '')), word) = 0)
ORDER BY subject LIMIT $9;

-- name: retry_failed
-- Not those that a worker does now.
WITH chosen AS (
    SELECT queue, subject FROM jobs JOIN unnest($1::text[], $2::uuid[]) AS input (queue, subject) USING (queue, subject)
    WHERE parked OR (last_error IS NOT NULL AND (leased_until IS DISTINCT FROM due_at OR due_at <= $3))
    ORDER BY queue, subject FOR UPDATE OF jobs
)
UPDATE jobs SET due_at = $3, attempts = 0, parked = false FROM chosen
WHERE jobs.queue = chosen.queue AND jobs.subject = chosen.subject RETURNING jobs.queue, jobs.subject;

-- name: cancel
WITH chosen AS (
    SELECT queue, subject FROM jobs JOIN unnest($1::text[], $2::uuid[]) AS input (queue, subject) USING (queue, subject)
    WHERE parked AND kind = ANY($3::text[]) ORDER BY queue, subject FOR UPDATE OF jobs
)
DELETE FROM jobs USING chosen
WHERE jobs.queue = chosen.queue AND jobs.subject = chosen.subject RETURNING jobs.queue, jobs.subject;
