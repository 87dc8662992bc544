-- name: lock_for_decision
-- Decisions share the lock and changes of the rules hold it alone. It is fair: a change waits for those decisions that
-- have begun, and later ones wait for it.
SELECT pg_advisory_xact_lock_shared(hashtextextended('case_rules', 0));

-- name: lock_for_change
SELECT pg_advisory_xact_lock(hashtextextended('case_rules', 0));

-- name: get_state
SELECT is_on, active_version FROM case_rule_state;

-- name: set_state
UPDATE case_rule_state SET is_on = $1, active_version = $2;

-- name: insert_event
INSERT INTO case_rule_events (at, kind, details, actor, reason) VALUES ($1, $2, $3, $4, $5);

-- name: list_events
SELECT {case_rule_events} FROM case_rule_events WHERE event_no < $1 ORDER BY event_no DESC LIMIT $2;

-- name: insert_set
INSERT INTO case_rule_sets (version, rules, created_at, actor, reason)
SELECT coalesce(max(version), 0) + 1, $1, $2, $3, $4 FROM case_rule_sets RETURNING version;

-- name: get_set
SELECT version, rules, created_at, actor, reason FROM case_rule_sets WHERE version = $1;

-- name: list_sets
SELECT version, created_at, actor, reason, jsonb_array_length(rules) AS rule_count
FROM case_rule_sets WHERE version < $1 ORDER BY version DESC LIMIT $2;

-- name: list_known_skus
SELECT sku FROM variants WHERE sku = ANY($1::text[]);

-- name: list_known_sales
SELECT sale_id FROM sales WHERE sale_id = ANY($1::text[]);

-- name: put_budget
INSERT INTO case_rule_budgets (currency, max_amount_minor, max_cases) VALUES ($1, $2, $3)
ON CONFLICT (currency) DO UPDATE
SET max_amount_minor = excluded.max_amount_minor, max_cases = excluded.max_cases;

-- name: list_budgets
-- With what was used on a day.
SELECT currency, max_amount_minor, max_cases, $1::date AS day, coalesce(amount_minor, 0) AS amount_minor,
       coalesce(cases, 0) AS cases, coalesce(refused_cases, 0) AS refused_cases
FROM case_rule_budgets LEFT JOIN (
    SELECT currency, amount_minor, cases, refused_cases FROM case_rule_spending WHERE day = $1) AS today USING (currency)
ORDER BY currency;

-- name: spend
-- Counts a payout as far as the budget has room for it. The row of the day is locked until the decision is committed.
INSERT INTO case_rule_spending (currency, day, amount_minor, cases)
SELECT currency, $2, $3, 1 FROM case_rule_budgets WHERE currency = $1 AND max_amount_minor >= $3 AND max_cases >= 1
ON CONFLICT (day, currency) DO UPDATE
SET amount_minor = case_rule_spending.amount_minor + excluded.amount_minor, cases = case_rule_spending.cases + 1
WHERE EXISTS (
    SELECT FROM case_rule_budgets AS budget WHERE budget.currency = $1
      AND case_rule_spending.amount_minor + excluded.amount_minor <= budget.max_amount_minor
      AND case_rule_spending.cases < budget.max_cases)
RETURNING 1;

-- name: count_refusal
INSERT INTO case_rule_spending (currency, day, refused_cases) VALUES ($1, $2, 1)
ON CONFLICT (day, currency) DO UPDATE SET refused_cases = case_rule_spending.refused_cases + 1;

-- name: read_history
-- Of a customer, in a time: other cases, what they have refunded, units in them, and units ordered.
WITH orders_of_user AS MATERIALIZED (
    SELECT order_id, status, accepted_at FROM orders WHERE user_id = $1
), recent AS (
    SELECT case_id, status, currency, amount_minor + freight_minor - fee_minor AS refunded,
           grant_id IS NOT NULL AS is_granted
    FROM cases WHERE user_id = $1 AND case_id <> $2 AND created_at BETWEEN $3 AND $4
)
SELECT (SELECT count(*) FROM recent) AS cases,
       (SELECT coalesce(jsonb_object_agg(currency, refunded), '{}') FROM (
           SELECT currency, sum(refunded) AS refunded FROM recent WHERE is_granted GROUP BY currency) AS sums
       ) AS refunded,
       (SELECT coalesce(sum(quantity), 0) FROM recent JOIN case_lines USING (case_id)
        WHERE status NOT IN ('declined', 'cancelled')) AS units_in_cases,
       (SELECT coalesce(sum(quantity), 0) FROM orders_of_user JOIN order_lines USING (order_id)
        WHERE status <> 'cancelled' AND accepted_at BETWEEN $3 AND $4) AS units_ordered,
       NOT EXISTS (SELECT FROM orders_of_user AS earlier
                   WHERE earlier.status <> 'cancelled' AND earlier.order_id < $5) AS is_first_order;

-- name: list_deliveries
-- Shipments with units of a case. Of units that never arrived: those shipments of their lines that are not delivered.
SELECT DISTINCT shipments.shipment_id, shipments.status, shipments.ended_at, EXISTS (
    SELECT FROM shipment_events WHERE shipment_events.order_id = $2 AND to_status = 'delivered'
      AND shipment_events.shipment_id = shipments.shipment_id AND source IN ('webhook', 'query', 'fleet')) AS is_proven
FROM case_lines JOIN shipment_lines AS sent
  ON sent.order_id = $2 AND sent.line_no = case_lines.line_no AND sent.address_no = case_lines.address_no
JOIN shipments ON shipments.shipment_id = sent.shipment_id
WHERE case_lines.case_id = $1 AND CASE WHEN case_lines.shipment_id IS NULL
    THEN status NOT IN ('delivered', 'cancelled') ELSE shipments.shipment_id = case_lines.shipment_id END
ORDER BY shipments.shipment_id;

-- name: insert_inputs
INSERT INTO case_inputs (case_id, at, inputs) VALUES ($1, $2, $3) ON CONFLICT (case_id) DO NOTHING;

-- name: insert_decision
INSERT INTO case_decisions (case_id, decision_no, at, rule_set_version, rule_no, outcome, inputs, reasons, case_version,
                            amount_minor)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10);

-- name: list_decisions
SELECT {case_decisions} FROM case_decisions WHERE case_id = $1 ORDER BY decision_no;

-- name: list_past
-- Cases with stored inputs that were requested in a time, with what became of them.
SELECT case_id, at, inputs, EXISTS (
    SELECT FROM case_decisions AS decision WHERE decision.case_id = case_inputs.case_id
      AND decision.outcome IN ('approve', 'refund_without_return', 'decline') AND overturned_at IS NULL) AS was_by_rule,
    CASE WHEN status = 'declined' THEN 'decline' WHEN decided_at IS NULL AND ended_at IS NULL THEN 'undecided'
         WHEN status = 'cancelled' THEN 'cancelled' WHEN status = 'requested' THEN 'undecided'
         WHEN items_back THEN 'approve' ELSE 'refund_without_return' END AS was
FROM case_inputs JOIN cases USING (case_id)
WHERE at < $1 AND (at, case_id) > ($2, $3) ORDER BY at, case_id LIMIT $4;

-- name: count_past
-- Ids begin with the time of the request.
SELECT count(*) FROM cases WHERE case_id >= $1 AND case_id < $2;
