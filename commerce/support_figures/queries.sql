-- name: measure_clocks
-- Runs of clocks that stopped in a period, in groups. What customers stop counts for no agent.
SELECT CASE $3::text WHEN 'team' THEN coalesce(team_id, '') WHEN 'agent' THEN stopped_by
                     WHEN 'reason' THEN coalesce(reason_code, 'question') WHEN 'kind' THEN conversations.kind
                     ELSE '' END AS grouped,
       clocks.kind AS clock, count(*) AS count, count(*) FILTER (WHERE run_no > 1) AS after_reopen,
       count(*) FILTER (WHERE is_late) AS late, count(*) FILTER (WHERE allowed_s IS NOT NULL) AS with_deadline,
       percentile_cont(ARRAY[0.5, 0.9]) WITHIN GROUP (ORDER BY worked_s) AS worked,
       percentile_cont(ARRAY[0.5, 0.9]) WITHIN GROUP (ORDER BY extract(epoch FROM stopped_at - started_at)) AS passed
FROM conversation_clocks AS clocks
JOIN conversations USING (conversation_id)
LEFT JOIN cases ON $3 = 'reason' AND cases.case_id = conversations.case_id
WHERE stopped_at >= $1 AND stopped_at < $2 AND ($3 <> 'agent' OR stopped_by NOT LIKE 'customer %')
GROUP BY grouped, clocks.kind ORDER BY grouped, clocks.kind LIMIT $4;

-- name: measure_backlog
SELECT CASE $1::text WHEN 'team' THEN coalesce(team_id, '') WHEN 'agent' THEN coalesce('staff ' || assignee, '')
                     WHEN 'reason' THEN coalesce(reason_code, 'question') WHEN 'kind' THEN conversations.kind
                     ELSE '' END AS grouped,
       count(*) AS open, count(*) FILTER (WHERE unanswered > 0 OR conversations.status = 'new') AS unanswered,
       count(*) FILTER (WHERE conversations.due_at < $2) AS overdue,
       percentile_cont(ARRAY[0.5, 0.9, 1]) WITHIN GROUP (ORDER BY extract(epoch FROM $2 - conversations.created_at))
           AS age
FROM conversations LEFT JOIN cases ON $1 = 'reason' AND cases.case_id = conversations.case_id
WHERE conversations.status NOT IN ('resolved', 'closed')
GROUP BY grouped ORDER BY grouped LIMIT $3;

-- name: measure_satisfaction
SELECT CASE $3::text WHEN 'team' THEN coalesce(team_id, '') WHEN 'agent' THEN coalesce('staff ' || assignee, '')
                     WHEN 'reason' THEN coalesce(reason_code, 'question') WHEN 'kind' THEN conversations.kind
                     ELSE '' END AS grouped,
       count(*) AS answers, avg(satisfaction)::float8 AS average,
       ARRAY[count(*) FILTER (WHERE satisfaction = 1), count(*) FILTER (WHERE satisfaction = 2),
             count(*) FILTER (WHERE satisfaction = 3), count(*) FILTER (WHERE satisfaction = 4),
             count(*) FILTER (WHERE satisfaction = 5)] AS by_score
FROM conversations LEFT JOIN cases ON $3 = 'reason' AND cases.case_id = conversations.case_id
WHERE satisfaction_at >= $1 AND satisfaction_at < $2
GROUP BY grouped ORDER BY grouped LIMIT $4;

-- name: count_decisions
SELECT rule_set_version, rule_no, outcome, count(*) AS decisions, count(overturned_at) AS overturned
FROM case_decisions WHERE at >= $1 AND at < $2
GROUP BY rule_set_version, rule_no, outcome ORDER BY rule_set_version DESC, rule_no, outcome LIMIT $3;

-- name: count_returned_skus
-- Cases of a period are those between two ids, which begin with the time.
WITH returned AS (
    SELECT sku, count(DISTINCT case_id) AS cases, sum(case_lines.quantity) AS units
    FROM cases JOIN case_lines USING (case_id)
    WHERE case_id >= $1 AND case_id < $2 AND cases.status NOT IN ('cancelled', 'declined')
    GROUP BY sku ORDER BY units DESC, sku LIMIT $5
), delivered AS (
    SELECT sku, sum(shipment_lines.quantity) AS units
    FROM fulfilments JOIN shipments USING (order_id) JOIN shipment_lines USING (shipment_id)
    WHERE delivered_at >= $3 AND delivered_at < $4 AND shipments.status = 'delivered'
      AND sku IN (SELECT sku FROM returned)
    GROUP BY sku
)
SELECT sku AS value, cases, returned.units, coalesce(delivered.units, 0) AS delivered
FROM returned LEFT JOIN delivered USING (sku) ORDER BY returned.units DESC, sku;

-- name: count_returned_reasons
SELECT reason_code AS value, count(DISTINCT case_id) AS cases, sum(quantity) AS units, NULL::bigint AS delivered
FROM cases JOIN case_lines USING (case_id)
WHERE case_id >= $1 AND case_id < $2 AND cases.status NOT IN ('cancelled', 'declined')
GROUP BY reason_code ORDER BY units DESC, reason_code LIMIT $3;

-- name: count_returned_carriers
-- By the carrier that brought the units; those that never arrived have none.
WITH returned AS (
    SELECT coalesce(carrier, '') AS carrier, count(DISTINCT case_id) AS cases, sum(case_lines.quantity) AS units
    FROM cases JOIN case_lines USING (case_id) LEFT JOIN shipments USING (shipment_id)
    WHERE case_id >= $1 AND case_id < $2 AND cases.status NOT IN ('cancelled', 'declined')
    GROUP BY 1 ORDER BY units DESC, 1 LIMIT $5
), delivered AS (
    SELECT coalesce(carrier, '') AS carrier, sum(shipment_lines.quantity) AS units
    FROM fulfilments JOIN shipments USING (order_id) JOIN shipment_lines USING (shipment_id)
    WHERE delivered_at >= $3 AND delivered_at < $4 AND shipments.status = 'delivered'
    GROUP BY 1
)
SELECT carrier AS value, cases, returned.units, delivered.units AS delivered
FROM returned LEFT JOIN delivered USING (carrier) ORDER BY returned.units DESC, carrier;
