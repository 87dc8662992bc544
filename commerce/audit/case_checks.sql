-- name: units_in_several_cases
-- P7. A delivered unit is in one case, over all kinds; units that never arrived are not delivered.
WITH used AS (
    SELECT case_lines.order_id, shipment_id, line_no, address_no,
           sum(CASE WHEN status = 'resolved' AND items_back THEN received ELSE quantity END) AS units
    FROM case_lines JOIN cases USING (case_id)
    WHERE case_lines.order_id = ANY($1::uuid[]) AND status NOT IN ('declined', 'cancelled')
    GROUP BY case_lines.order_id, shipment_id, line_no, address_no
)
SELECT used.order_id || ' line ' || used.line_no FROM used
LEFT JOIN shipments ON shipments.shipment_id = used.shipment_id
LEFT JOIN shipment_lines AS line ON line.shipment_id = used.shipment_id AND line.line_no = used.line_no
WHERE used.shipment_id IS NOT NULL AND used.units > 0
  AND (shipments.status IS DISTINCT FROM 'delivered' OR shipments.order_id <> used.order_id
       OR line.address_no <> used.address_no OR used.units > coalesce(line.quantity, 0))
UNION ALL
SELECT used.order_id || ' line ' || used.line_no
FROM (SELECT order_id, line_no, address_no, sum(units) AS units FROM used GROUP BY order_id, line_no, address_no) AS used
JOIN order_lines AS line USING (order_id, line_no, address_no) WHERE used.units > line.quantity;

-- name: uninspected_units
-- P7. Of the units of a case that was inspected each is resellable, damaged or rejected.
SELECT case_id || ' line ' || case_line_no FROM case_lines JOIN cases USING (case_id)
WHERE case_lines.order_id = ANY($1::uuid[]) AND items_back AND status IN ('inspected', 'resolved')
  AND items_state = 'inspected' AND resellable + damaged + rejected <> received;

-- name: cases_and_grants
-- P6. The money of a resolved case is that of its grant.
SELECT case_id::text FROM cases LEFT JOIN refund_grants AS granted USING (grant_id)
WHERE cases.order_id = ANY($1::uuid[]) AND status = 'resolved'
  AND (cases.grant_id IS NULL AND money_state IN ('granted', 'needs_other_way', 'done')
       OR granted.grant_id IS NOT NULL
          AND (granted.order_id <> cases.order_id
               OR granted.amount_minor <> cases.amount_minor + cases.freight_minor - cases.fee_minor));

-- name: cases_without_job
-- P7. A job moves each open case on at its deadline, or follows its money.
SELECT case_id::text FROM cases
WHERE cases.order_id = ANY($1::uuid[]) AND ended_at IS NULL
  AND NOT EXISTS (SELECT FROM jobs WHERE subject = case_id AND queue = 'cases');

-- name: kept_units_without_case
-- P7. Delivered units that a cancellation could not stop are in a case or refunded, or a job opens the case.
SELECT DISTINCT line.order_id || ' line ' || line.line_no
FROM cancellation_lines AS line JOIN cancellations USING (cancellation_id)
JOIN shipment_lines AS sent ON sent.order_id = line.order_id AND sent.line_no = line.line_no
                           AND sent.address_no = line.address_no
JOIN shipments ON shipments.shipment_id = sent.shipment_id
WHERE line.order_id = ANY($1::uuid[]) AND kept > 0 AND cancellations.status = 'done'
  AND shipments.status = 'delivered' AND (plan_again OR cancel_refused_at IS NOT NULL)
  AND NOT EXISTS (SELECT FROM jobs WHERE subject = line.order_id AND queue = 'cases')
  AND NOT EXISTS (SELECT FROM case_lines WHERE case_lines.order_id = line.order_id AND case_lines.line_no = line.line_no
                    AND case_lines.address_no = line.address_no)
  AND NOT EXISTS (SELECT FROM refund_grant_lines AS granted WHERE granted.order_id = line.order_id
                    AND granted.line_no = line.line_no AND granted.address_no = line.address_no);

-- name: broken_case_histories
-- P8. Events of a case are numbered without a gap; each change starts where the previous one ended, and the last one
-- ends at the case's status.
WITH steps AS (
    SELECT case_id, from_status, to_status, lag(to_status, 1, 'requested') OVER history AS before,
           last_value(to_status) OVER (PARTITION BY case_id ORDER BY case_events.version
               RANGE BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING) AS final
    FROM case_events JOIN cases USING (case_id) WHERE order_id = ANY($1::uuid[]) AND to_status IS NOT NULL
    WINDOW history AS (PARTITION BY case_id ORDER BY case_events.version)
)
SELECT DISTINCT cases.case_id::text FROM cases LEFT JOIN steps USING (case_id)
WHERE cases.order_id = ANY($1::uuid[]) AND (
    coalesce(final, 'requested') <> status OR from_status <> before
    OR cases.version <> (SELECT count(*) FROM case_events WHERE case_events.case_id = cases.case_id)
    OR (from_status IS NOT NULL AND NOT EXISTS (
        SELECT FROM case_transitions AS allowed
        WHERE allowed.from_status = steps.from_status AND allowed.to_status = steps.to_status)));
