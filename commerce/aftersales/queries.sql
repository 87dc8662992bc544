-- name: find_order_of_case
SELECT order_id FROM cases WHERE case_id = $1;

-- name: get_cases
SELECT {cases} FROM cases WHERE case_id = ANY($1::uuid[]) ORDER BY case_id;

-- name: list_of_order
SELECT {cases} FROM cases WHERE order_id = $1 ORDER BY case_id;

-- name: list_of_user
-- The index on (user_id, case_id) is walked backwards.
SELECT {cases} FROM cases WHERE user_id = $1 AND case_id < $2 ORDER BY case_id DESC LIMIT $3;

-- name: find_by_key
SELECT case_id, body_digest FROM cases WHERE user_id = $1 AND idempotency_key = $2;

-- name: list_open
-- Open cases by deadline: those of a view, after the last one of the page before.
SELECT {cases} FROM cases
WHERE ended_at IS NULL AND (due_at, case_id) > ($1, $2)
  AND ($3::text IS NULL OR waits_for = $3) AND (NOT $4::boolean OR is_escalated)
  AND ($5::timestamptz IS NULL OR due_at < $5)
ORDER BY due_at, case_id LIMIT $6;

-- name: list_all
SELECT {cases} FROM cases WHERE case_id < $1 ORDER BY case_id DESC LIMIT $2;

-- name: insert_case
INSERT INTO cases (case_id, order_id, user_id, kind, claim, items_back, status, items_state, money_state, is_opened,
                   reason_code, customer_text, policy, freight_payer, currency, waits_for, due_at, idempotency_key,
                   body_digest, created_by, created_at)
VALUES ($1, $2, $3, $4, $5, $6, 'requested', $7, 'undecided', $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19);

-- name: insert_lines
INSERT INTO case_lines (case_id, case_line_no, order_id, line_no, address_no, shipment_id, sku, quantity, wanted_sku)
SELECT $1, case_line_no, $2, line_no, address_no, shipment_id, sku, quantity, wanted_sku
FROM unnest($3::smallint[], $4::smallint[], $5::smallint[], $6::uuid[], $7::text[], $8::integer[], $9::text[])
     AS input (case_line_no, line_no, address_no, shipment_id, sku, quantity, wanted_sku);

-- name: list_lines
SELECT {case_lines} FROM case_lines WHERE case_id = ANY($1::uuid[]) ORDER BY case_id, case_line_no;

-- name: list_lines_of_order
-- With the cases that they belong to.
SELECT {case_lines}, kind, status, items_back
FROM case_lines JOIN cases USING (case_id) WHERE case_lines.order_id = $1 ORDER BY case_id, case_line_no;

-- name: set_line_amounts
UPDATE case_lines SET amount_minor = input.amount_minor
FROM unnest($2::smallint[], $3::bigint[]) AS input (case_line_no, amount_minor)
WHERE case_lines.case_id = $1 AND case_lines.case_line_no = input.case_line_no;

-- name: count_units
-- Sets what was received, and what an inspection has found.
UPDATE case_lines
SET received = input.received, resellable = input.resellable, damaged = input.damaged, rejected = input.rejected
FROM unnest($2::smallint[], $3::integer[], $4::integer[], $5::integer[], $6::integer[])
     AS input (case_line_no, received, resellable, damaged, rejected)
WHERE case_lines.case_id = $1 AND case_lines.case_line_no = input.case_line_no;

-- name: update_case
-- Of the version that was read; each change inserts the event of the next one.
WITH changed AS (
    UPDATE cases SET version = version + 1, status = $3, items_back = $4, items_state = $5, money_state = $6,
        kind = $7, is_escalated = $8, freight_payer = $9, amount_minor = $10, freight_minor = $11, fee_minor = $12,
        offer = $13, grant_id = $14, exchange_order_id = $15, waits_for = $16, due_at = $17, decided_at = $18,
        ended_at = $19, claim = $23
    WHERE case_id = $1 AND version = $2
    RETURNING case_id, version
)
INSERT INTO case_events (case_id, version, at, from_status, to_status, actor, reason, details)
SELECT case_id, version, $20, CASE WHEN $24::text <> $3 THEN $24 END, CASE WHEN $24 <> $3 THEN $3::text END, $21, $22, $25
FROM changed RETURNING version;

-- name: insert_first_event
INSERT INTO case_events (case_id, version, at, actor, reason) VALUES ($1, 1, $2, $3, $4);

-- name: list_events
SELECT case_id, version, at, from_status, to_status, actor, reason FROM case_events
WHERE case_id = ANY($1::uuid[]) ORDER BY case_id, version;

-- name: count_of_sku
-- Cases of an order by SKU, cancelled ones too: each is an application.
SELECT sku, count(DISTINCT case_id) AS cases FROM case_lines WHERE order_id = $1 GROUP BY sku;

-- name: list_delivered_units
SELECT shipment_id, line_no, shipment_lines.address_no, sku, quantity, ended_at AS delivered_at
FROM shipments JOIN shipment_lines USING (shipment_id)
WHERE shipments.order_id = $1 AND status = 'delivered' ORDER BY ended_at, shipment_id, line_no;

-- name: list_order_units
-- Units of an order by line and address: how many never arrive, how many are refunded without a case, and how many are
-- lost or late.
SELECT line_no, address_no, sku, quantity AS ordered, coalesce(delivered, 0) AS delivered,
       coalesce(cancelled + cancelling, 0) AS cancelled, (
    SELECT coalesce(sum(granted.quantity), 0) FROM refund_grant_lines AS granted JOIN refund_grants USING (grant_id)
    WHERE granted.order_id = $1 AND granted.line_no = order_lines.line_no
      AND granted.address_no = order_lines.address_no AND kind <> 'case') AS refunded, (
    SELECT coalesce(sum(sent.quantity), 0) FROM shipment_lines AS sent JOIN shipments USING (shipment_id)
    WHERE sent.order_id = $1 AND sent.line_no = order_lines.line_no AND sent.address_no = order_lines.address_no
      AND (status IN ('lost', 'returned_to_sender') OR (ended_at IS NULL AND promised_on < $2))) AS lost
FROM order_lines LEFT JOIN fulfilment_lines USING (order_id, line_no, address_no)
WHERE order_id = $1 ORDER BY line_no, address_no;

-- name: list_sold_skus
-- Those of the SKUs that the sale offers.
SELECT sku FROM sale_items WHERE sale_id = $1 AND sku = ANY($2::text[]);

-- name: find_policies
-- The most specific policy of each SKU in a sale: of sale and product, then of the sale, of the product, of all.
SELECT DISTINCT ON (wanted.sku) wanted.sku, {return_policies}
FROM unnest($2::text[]) AS wanted (sku) CROSS JOIN return_policies
LEFT JOIN return_policy_skus AS own ON own.policy_id = return_policies.policy_id AND own.sku = wanted.sku
WHERE (sale_id IS NULL OR sale_id = $1)
  AND (own.sku IS NOT NULL OR NOT EXISTS (
      SELECT FROM return_policy_skus AS others WHERE others.policy_id = return_policies.policy_id))
ORDER BY wanted.sku, sale_id IS NULL, own.sku IS NULL, return_policies.policy_id;

-- name: list_policies
SELECT {return_policies}, ARRAY(SELECT sku FROM return_policy_skus AS own
                                WHERE own.policy_id = return_policies.policy_id ORDER BY sku) AS skus
FROM return_policies WHERE ($1::text IS NULL OR policy_id = $1) AND policy_id > $2 ORDER BY policy_id LIMIT $3;

-- name: put_policy
INSERT INTO return_policies (policy_id, version, sale_id, return_days, claim_days, excluded_because, accepts_opened,
                             freight_payer, fee_basis_points, needs_evidence, is_resold, max_cases_per_sku, changed_at,
                             actor)
VALUES ($1, 1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)
ON CONFLICT (policy_id) DO UPDATE SET
    version = return_policies.version + 1, sale_id = excluded.sale_id, return_days = excluded.return_days,
    claim_days = excluded.claim_days, excluded_because = excluded.excluded_because,
    accepts_opened = excluded.accepts_opened, freight_payer = excluded.freight_payer,
    fee_basis_points = excluded.fee_basis_points, needs_evidence = excluded.needs_evidence,
    is_resold = excluded.is_resold, max_cases_per_sku = excluded.max_cases_per_sku,
    changed_at = excluded.changed_at, actor = excluded.actor;

-- name: delete_policy_skus
DELETE FROM return_policy_skus WHERE policy_id = $1;

-- name: insert_policy_skus
INSERT INTO return_policy_skus (policy_id, sku) SELECT $1, sku FROM unnest($2::text[]) AS input (sku);

-- name: delete_policy
DELETE FROM return_policies WHERE policy_id = $1 RETURNING policy_id;

-- name: get_case_policy
SELECT policy FROM cases WHERE case_id = $1;

-- name: list_free_evidence
-- Those pictures of an order that no case has.
SELECT evidence_id FROM case_evidence WHERE order_id = $1 AND case_id IS NULL AND evidence_id = ANY($2::uuid[]);

-- name: attach_evidence
UPDATE case_evidence SET case_id = $1 WHERE evidence_id = ANY($2::uuid[]) AND case_id IS NULL;

-- name: list_evidence
SELECT {case_evidence} FROM case_evidence WHERE case_id = $1 ORDER BY created_at, evidence_id;

-- name: count_open
SELECT kind, waits_for, count(*) AS cases, count(*) FILTER (WHERE due_at < $1) AS overdue
FROM cases WHERE ended_at IS NULL GROUP BY kind, waits_for;

-- name: measure_decisions
SELECT percentile_cont(ARRAY[0.5, 0.9, 0.99]) WITHIN GROUP (ORDER BY extract(epoch FROM decided_at - created_at)::float8)
FROM cases WHERE decided_at > $1::timestamptz - interval '1 day';

-- name: find_evidence_file
SELECT user_id, sha256 FROM case_evidence WHERE evidence_id = $1;

-- name: insert_evidence
INSERT INTO case_evidence (evidence_id, order_id, user_id, sha256, media_type, size_bytes, width_px, height_px, created_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9);

-- name: count_free_evidence
SELECT count(*) FROM case_evidence WHERE order_id = $1 AND case_id IS NULL;

-- name: delete_unused_evidence
DELETE FROM case_evidence WHERE evidence_id = ANY(ARRAY(
    SELECT evidence_id FROM case_evidence WHERE case_id IS NULL AND created_at < $1
    ORDER BY created_at LIMIT $2 FOR UPDATE SKIP LOCKED))
RETURNING sha256;

-- name: list_unused_files
SELECT DISTINCT sha256 FROM unnest($1::bytea[]) AS input (sha256)
WHERE NOT EXISTS (SELECT FROM case_evidence WHERE case_evidence.sha256 = input.sha256);

-- name: list_evidence_files
SELECT DISTINCT sha256 FROM case_evidence WHERE sha256 > $1 ORDER BY sha256 LIMIT $2;
