-- name: try_lock
-- One process adds up at a time, so that sums are changed in one sequence.
SELECT pg_try_advisory_xact_lock(hashtextextended('floodgate sales figures', 0));

-- name: take_batches
-- The oldest notes, up to a number of events; one note at least.
DELETE FROM events_to_count WHERE batch_id IN (
    SELECT batch_id FROM (
        SELECT batch_id, sum(cardinality(ids)) OVER (ORDER BY batch_id) - cardinality(ids) AS before
        FROM (SELECT batch_id, ids FROM events_to_count ORDER BY batch_id LIMIT $1) AS oldest
    ) AS numbered WHERE before < $1)
RETURNING kind, ids, numbers;

-- name: take_visits
DELETE FROM visits_to_count WHERE batch_id IN (SELECT batch_id FROM visits_to_count ORDER BY batch_id LIMIT $1)
RETURNING minute, figures, sale_ids, skus, counts;

-- name: insert_visits
INSERT INTO visits_to_count (minute, figures, sale_ids, skus, counts) VALUES ($1, $2, $3, $4, $5);

-- name: oldest_note
SELECT least((SELECT noted_at FROM events_to_count ORDER BY batch_id LIMIT 1),
             (SELECT noted_at FROM visits_to_count ORDER BY batch_id LIMIT 1));

-- Each of the next lists what events add: a row for each SKU, and one without a SKU for the whole sale. They read only what
-- never changes once it is stored, so it does not matter when an event is counted.

-- name: list_orders
SELECT order_id AS id, sale_id, coalesce(sku, '') AS sku, accepted_at AS at, 'accepted' AS figure, '' AS reason,
       sum(quantity) AS units, CASE grouping(sku) WHEN 1 THEN total_minor
           ELSE sum(quantity * unit_price_minor - order_lines.discount_minor) END AS amount_minor
FROM orders JOIN order_lines USING (order_id)
WHERE order_id = ANY(ARRAY(SELECT unnest($1::uuid[])))
GROUP BY GROUPING SETS ((order_id, sale_id, accepted_at, total_minor, sku), (order_id, sale_id, accepted_at, total_minor));

-- name: list_statuses
-- Units of paid orders leave by cancellations, which are counted themselves. Only an expired order is ever paid after it
-- was cancelled, and then its row has no reason any more.
SELECT order_id AS id, sale_id, coalesce(sku, '') AS sku, at, figure, counted.reason,
       sum(quantity) AS units, CASE grouping(sku) WHEN 1 THEN total_minor
           ELSE sum(quantity * unit_price_minor - order_lines.discount_minor) END AS amount_minor
FROM unnest($1::uuid[], $2::integer[]) AS input (order_id, seq)
JOIN order_events AS event USING (order_id, seq) JOIN orders USING (order_id) JOIN order_lines USING (order_id)
CROSS JOIN LATERAL (
    SELECT 'paid' AS figure, '' AS reason WHERE to_status IN ('paid', 'confirmed')
    UNION ALL SELECT 'recovered', '' WHERE from_status = 'cancelled'
    UNION ALL SELECT 'lapsed', CASE WHEN EXISTS (
        SELECT FROM order_events AS later
        WHERE later.order_id = event.order_id AND later.seq > event.seq AND later.from_status = 'cancelled'
    ) THEN 'expired' ELSE cancel_reason END WHERE from_status = 'awaiting_payment' AND to_status = 'cancelled'
) AS counted
GROUP BY GROUPING SETS ((order_id, sale_id, at, figure, counted.reason, total_minor, sku),
                        (order_id, sale_id, at, figure, counted.reason, total_minor));

-- name: list_cancellations
SELECT cancellation_id AS id, sale_id, coalesce(sku, '') AS sku, ended_at AS at, 'cancelled' AS figure, cause AS reason,
       sum(cancelled) AS units, 0 AS amount_minor
FROM cancellations JOIN cancellation_lines USING (cancellation_id, order_id)
JOIN order_lines USING (order_id, line_no, address_no) JOIN orders USING (order_id)
WHERE cancellation_id = ANY(ARRAY(SELECT unnest($1::uuid[]))) AND cancelled > 0
GROUP BY GROUPING SETS ((cancellation_id, sale_id, ended_at, cause, sku), (cancellation_id, sale_id, ended_at, cause));

-- name: list_deliveries
SELECT shipment_id AS id, sale_id, coalesce(sku, '') AS sku, at, 'delivered' AS figure, '' AS reason,
       sum(quantity) AS units, 0 AS amount_minor
FROM unnest($1::uuid[], $2::integer[]) AS input (order_id, seq)
JOIN shipment_events AS event USING (order_id, seq) JOIN shipment_lines USING (shipment_id, order_id)
JOIN orders USING (order_id)
GROUP BY GROUPING SETS ((shipment_id, sale_id, at, sku), (shipment_id, sale_id, at));

-- name: list_cases
-- A case that was declined or cancelled may be requested again.
SELECT case_id AS id, sale_id, coalesce(sku, '') AS sku, at,
       CASE WHEN to_status IN ('declined', 'cancelled') THEN 'withdrawn' ELSE 'requested' END AS figure,
       reason_code AS reason, sum(quantity) AS units, 0 AS amount_minor
FROM unnest($1::uuid[], $2::integer[]) AS input (case_id, version)
JOIN case_events USING (case_id, version) JOIN cases USING (case_id) JOIN case_lines USING (case_id, order_id)
JOIN orders USING (order_id)
GROUP BY GROUPING SETS ((case_id, sale_id, at, to_status, reason_code, sku), (case_id, sale_id, at, to_status, reason_code));

-- name: list_receipts
SELECT receipt_id AS id, sale_id, coalesce(sku, '') AS sku, received_at AS at, 'received' AS figure, reason_code AS reason,
       sum(line.quantity) AS units, 0 AS amount_minor
FROM return_receipts JOIN return_receipt_lines AS line USING (receipt_id, case_id)
JOIN case_lines USING (case_id, case_line_no) JOIN cases USING (case_id) JOIN orders ON orders.order_id = cases.order_id
WHERE receipt_id = ANY(ARRAY(SELECT unnest($1::uuid[])))
GROUP BY GROUPING SETS ((receipt_id, sale_id, received_at, reason_code, sku),
                        (receipt_id, sale_id, received_at, reason_code));

-- name: list_grants
-- The whole amount is with freight, less fees. Some have no units.
SELECT granted.grant_id AS id, sale_id, coalesce(sku, '') AS sku, granted.created_at AS at, 'refunded' AS figure,
       coalesce(reason_code, cause, 'by_staff') AS reason, coalesce(sum(line.quantity), 0) AS units,
       CASE grouping(sku) WHEN 1 THEN granted.amount_minor ELSE sum(line.amount_minor) END AS amount_minor
FROM refund_grants AS granted JOIN orders ON orders.order_id = granted.order_id
LEFT JOIN cases ON granted.kind = 'case' AND cases.case_id = source_id
LEFT JOIN cancellations ON granted.kind = 'cancellation' AND cancellations.cancellation_id = source_id
LEFT JOIN refund_grant_lines AS line ON line.grant_id = granted.grant_id
LEFT JOIN order_lines ON order_lines.order_id = line.order_id AND order_lines.line_no = line.line_no
    AND order_lines.address_no = line.address_no
WHERE granted.grant_id = ANY(ARRAY(SELECT unnest($1::uuid[])))
GROUP BY GROUPING SETS ((granted.grant_id, sale_id, granted.created_at, reason_code, cause, granted.amount_minor, sku),
                        (granted.grant_id, sale_id, granted.created_at, reason_code, cause, granted.amount_minor))
HAVING grouping(sku) = 1 OR sku IS NOT NULL;

-- name: add_minutes
INSERT INTO sales_by_minute AS stored (sale_id, sku, minute, figure, reason, events, units, amount_minor)
SELECT sale_id, sku, minute, figure, reason, events, units, amount_minor
FROM unnest($1::text[], $2::text[], $3::timestamptz[], $4::text[], $5::text[], $6::bigint[], $7::bigint[], $8::bigint[])
     AS input (sale_id, sku, minute, figure, reason, events, units, amount_minor)
ON CONFLICT (sale_id, sku, minute, figure, reason) DO UPDATE
SET events = stored.events + excluded.events, units = stored.units + excluded.units,
    amount_minor = stored.amount_minor + excluded.amount_minor;

-- name: add_days
INSERT INTO sales_by_day AS stored (sale_id, sku, day, figure, reason, events, units, amount_minor)
SELECT sale_id, sku, day, figure, reason, events, units, amount_minor
FROM unnest($1::text[], $2::text[], $3::date[], $4::text[], $5::text[], $6::bigint[], $7::bigint[], $8::bigint[])
     AS input (sale_id, sku, day, figure, reason, events, units, amount_minor)
ON CONFLICT (sale_id, sku, day, figure, reason) DO UPDATE
SET events = stored.events + excluded.events, units = stored.units + excluded.units,
    amount_minor = stored.amount_minor + excluded.amount_minor;

-- name: delete_minutes
-- Of a sale, to be counted again; what gateways have counted is nowhere else.
DELETE FROM sales_by_minute
WHERE sale_id = $1 AND minute >= $2 AND minute < $3 AND figure NOT IN ('viewed', 'carted', 'sold_out');

-- name: delete_days
DELETE FROM sales_by_day WHERE sale_id = $1 AND day >= $2 AND day < $3 AND figure NOT IN ('viewed', 'carted', 'sold_out');

-- name: allow_long_statements
SET LOCAL statement_timeout = '1h';

-- name: list_orders_of_sale
SELECT order_id FROM orders WHERE sale_id = $1;

-- name: note_again
-- All events of orders within a time.
INSERT INTO events_to_count (kind, ids, numbers)
SELECT kind, array_agg(id), array_agg(number) FROM (
    SELECT 'order' AS kind, order_id AS id, 0 AS number FROM orders
    WHERE order_id = ANY(ARRAY(SELECT unnest($1::uuid[]))) AND accepted_at >= $2 AND accepted_at < $3
    UNION ALL
    SELECT 'status', order_id, seq FROM order_events
    WHERE order_id = ANY(ARRAY(SELECT unnest($1::uuid[]))) AND to_status IN ('paid', 'confirmed', 'cancelled')
      AND at >= $2 AND at < $3
    UNION ALL
    SELECT 'cancellation', cancellation_id, 0 FROM cancellations
    WHERE order_id = ANY(ARRAY(SELECT unnest($1::uuid[]))) AND status = 'done' AND ended_at >= $2 AND ended_at < $3
    UNION ALL
    SELECT 'delivery', order_id, seq FROM shipment_events
    WHERE order_id = ANY(ARRAY(SELECT unnest($1::uuid[]))) AND to_status = 'delivered' AND at >= $2 AND at < $3
    UNION ALL
    SELECT 'case', case_id, case_events.version FROM cases JOIN case_events USING (case_id)
    WHERE order_id = ANY(ARRAY(SELECT unnest($1::uuid[]))) AND at >= $2 AND at < $3
      AND (case_events.version = 1 OR to_status IN ('requested', 'declined', 'cancelled'))
    UNION ALL
    SELECT 'receipt', receipt_id, 0 FROM cases JOIN return_receipts USING (case_id)
    WHERE order_id = ANY(ARRAY(SELECT unnest($1::uuid[]))) AND received_at >= $2 AND received_at < $3
    UNION ALL
    SELECT 'grant', grant_id, 0 FROM refund_grants
    WHERE order_id = ANY(ARRAY(SELECT unnest($1::uuid[]))) AND created_at >= $2 AND created_at < $3
) AS events GROUP BY kind;

-- Reports. A sale without rows in `sales` is that of views of products.

-- name: sum_days
SELECT day, coalesce(currency, '') AS currency, figure, sum(events)::bigint AS events, sum(units)::bigint AS units,
       sum(amount_minor)::bigint AS amount_minor
FROM sales_by_day LEFT JOIN sales USING (sale_id)
WHERE sale_id = ANY($1::text[]) AND sku = $2 AND day >= $3 AND day < $4
GROUP BY 1, 2, 3;

-- name: sum_minutes
SELECT minute, coalesce(currency, '') AS currency, figure, sum(events)::bigint AS events, sum(units)::bigint AS units,
       sum(amount_minor)::bigint AS amount_minor
FROM sales_by_minute LEFT JOIN sales USING (sale_id)
WHERE sale_id = ANY($1::text[]) AND sku = $2 AND minute >= $3 AND minute < $4
GROUP BY 1, 2, 3;

-- name: sum_skus
SELECT sku, coalesce(currency, '') AS currency, figure, sum(events)::bigint AS events, sum(units)::bigint AS units,
       sum(amount_minor)::bigint AS amount_minor
FROM sales_by_day LEFT JOIN sales USING (sale_id)
WHERE sale_id = ANY($1::text[]) AND sku > '' AND day >= $2 AND day < $3
GROUP BY 1, 2, 3 LIMIT $4;

-- name: sum_reasons
-- Most units first, for each SKU or for the whole sales.
SELECT figure, reason, sku, coalesce(currency, '') AS currency, sum(events)::bigint AS events,
       sum(units)::bigint AS units, sum(amount_minor)::bigint AS amount_minor
FROM sales_by_day LEFT JOIN sales USING (sale_id)
WHERE sale_id = ANY($1::text[]) AND day >= $2 AND day < $3 AND reason > ''
  AND ($4::text IS NULL OR sku = $4)
GROUP BY 1, 2, 3, 4 ORDER BY sku > '', units DESC, figure, reason, sku LIMIT $5;

-- name: list_sale_ids
SELECT sale_id FROM sales ORDER BY sale_id;

-- name: list_supplies
-- Units that a sale had at its start, with those that staff have added or taken since.
SELECT sku, (initial_units + coalesce(changes.units, 0))::bigint AS units
FROM sale_items LEFT JOIN (
    SELECT sku, sum(delta) AS units FROM stock_changes WHERE sale_id = $1 AND status = 'applied' GROUP BY sku
) AS changes USING (sku)
WHERE sale_id = $1 AND sku NOT LIKE 'coupon:%' AND ($2::text IS NULL OR sku = $2) ORDER BY sku LIMIT $3;
