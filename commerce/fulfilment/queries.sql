-- name: get_fulfilments
SELECT order_id, status, paid_at FROM fulfilments WHERE order_id = ANY(ARRAY(SELECT unnest($1::uuid[])));

-- name: mark_fulfilments_planned
UPDATE fulfilments SET status = 'planned', planned_at = $3, promised_on = input.promised_on
FROM unnest($1::uuid[], $2::date[]) AS input (order_id, promised_on)
WHERE fulfilments.order_id = input.order_id AND status = 'pending';

-- name: mark_fulfilment_done
UPDATE fulfilments SET status = 'done' WHERE order_id = $1;

-- name: read_ship_to
SELECT order_id, ship_to FROM orders WHERE order_id = ANY(ARRAY(SELECT unnest($1::uuid[])));

-- name: list_lines_to_plan
-- Units that are in no shipment, are not cancelled, and do not wait for a decision after a shipment that ended without a
-- delivery.
SELECT order_id, line_no, address_no, sku, units, paid_minor, unit_price_minor, warehouse_id, weight_g, length_mm,
       width_mm, height_mm
FROM (
    SELECT order_id, line_no, address_no, order_lines.sku, unit_price_minor,
           (quantity * unit_price_minor - discount_minor) / quantity AS paid_minor,
           quantity - coalesce(planned, 0) - coalesce(cancelled, 0) - CASE WHEN planned IS NULL THEN 0 ELSE (
               SELECT coalesce(sum(shipment_lines.quantity - decided), 0)
               FROM shipment_lines JOIN shipments USING (shipment_id)
               WHERE shipment_lines.order_id = order_lines.order_id AND shipment_lines.line_no = order_lines.line_no
                 AND shipment_lines.address_no = order_lines.address_no
                 AND shipments.status IN ('lost', 'returned_to_sender', 'cancelled')) END AS units
    FROM order_lines LEFT JOIN fulfilment_lines USING (order_id, line_no, address_no)
    WHERE order_id = ANY(ARRAY(SELECT unnest($1::uuid[])))
) AS lines JOIN variants USING (sku) LEFT JOIN product_logistics USING (sku) WHERE units > 0 ORDER BY order_id, line_no, address_no;

-- name: insert_fulfilment_lines
INSERT INTO fulfilment_lines (order_id, line_no, address_no, ordered)
SELECT order_id, line_no, address_no, quantity FROM order_lines
WHERE order_id = ANY(ARRAY(SELECT unnest($1::uuid[]))) ON CONFLICT DO NOTHING;

-- name: mark_cancel_refused
UPDATE shipments SET after_cancel = NULL, plan_again = false, cancel_refused_at = $2 WHERE shipment_id = $1;

-- name: mark_units_decided
UPDATE shipment_lines SET decided = decided + input.units
FROM unnest($1::uuid[], $2::smallint[], $3::integer[]) AS input (shipment_id, line_no, units)
WHERE shipment_lines.shipment_id = input.shipment_id AND shipment_lines.line_no = input.line_no;

-- name: mark_all_units_decided
UPDATE shipment_lines SET decided = quantity WHERE shipment_id = ANY(ARRAY(SELECT unnest($1::uuid[])));

-- name: resolve_shipments
-- Of the shipments those whose units are all decided.
UPDATE shipments SET resolved_at = $2, resolution = $3
WHERE shipment_id = ANY(ARRAY(SELECT unnest($1::uuid[]))) AND resolved_at IS NULL AND NOT EXISTS (
    SELECT FROM shipment_lines WHERE shipment_lines.shipment_id = shipments.shipment_id AND decided < quantity);

-- name: sum_cash_to_collect
-- Cash on delivery that no shipment has collected or is to collect: what is due, less what refund grants took off it.
SELECT order_id, greatest(0, due - coalesce((
    SELECT sum(cod_minor) FROM shipments WHERE shipments.order_id = input.order_id
      AND shipments.status NOT IN ('lost', 'returned_to_sender', 'cancelled')), 0))::bigint AS amount_minor
FROM unnest($1::uuid[]) AS input (order_id), cash_due(order_id) AS due WHERE due IS NOT NULL;

-- name: assign_carriers
UPDATE shipments SET carrier = input.carrier, carrier_choice = input.choice::jsonb, price_minor = input.price_minor,
                     expected_on = input.expected_on, after_cancel = NULL
FROM unnest($1::uuid[], $2::text[], $3::text[], $4::bigint[], $5::date[])
     AS input (shipment_id, carrier, choice, price_minor, expected_on)
WHERE shipments.shipment_id = input.shipment_id;

-- name: reassign_unavailable
-- Jobs of carriers of systems that do not answer ($1), of which nothing was requested yet: another carrier may take them.
UPDATE jobs SET kind = 'shipment.assign', system = 'internal'
WHERE queue = 'shipments' AND subject = ANY(ARRAY(
    SELECT subject FROM jobs JOIN shipments ON shipment_id = subject
    WHERE queue = 'shipments' AND system = ANY($1::text[]) AND kind = 'shipment.book' AND NOT parked AND due_at <= $2
      AND booking_id IS NULL
    ORDER BY due_at LIMIT $3 FOR UPDATE OF jobs SKIP LOCKED));

-- name: get_carrier_choice
SELECT carrier_choice FROM shipments WHERE shipment_id = $1 AND jsonb_typeof(carrier_choice) = 'object';

-- name: list_all
-- Each worklist has a statement of its own, so that each has a plan of its own. $1 warehouse or NULL for all, $2 shipment
-- to continue after, $3 number of rows.
SELECT {shipments}, NULL AS reason FROM shipments
WHERE shipment_id > $2 AND ($1::text IS NULL OR warehouse_id = $1) ORDER BY shipment_id LIMIT $3;

-- name: list_to_pack
-- A planned one without a job has a carrier with whom staff book.
SELECT {shipments}, NULL AS reason FROM shipments
WHERE shipment_id > $2 AND ($1::text IS NULL OR warehouse_id = $1)
  AND ended_at IS NULL AND status IN ('planned', 'booked') AND packed_at IS NULL AND held_reason IS NULL
  AND after_cancel IS NULL
  AND NOT EXISTS (SELECT FROM jobs WHERE queue = 'shipments' AND subject = shipment_id AND (parked OR status = 'planned'))
ORDER BY shipment_id LIMIT $3;

-- name: list_parked
SELECT {shipments}, last_error AS reason FROM jobs JOIN shipments ON shipment_id = subject
WHERE queue = 'shipments' AND parked AND subject > $2 AND ($1::text IS NULL OR warehouse_id = $1)
ORDER BY subject LIMIT $3;

-- name: list_on_hold
SELECT {shipments}, held_reason AS reason FROM shipments
WHERE shipment_id > $2 AND ($1::text IS NULL OR warehouse_id = $1) AND ended_at IS NULL AND held_reason IS NOT NULL
ORDER BY shipment_id LIMIT $3;

-- name: list_overdue
-- $4: today in the warehouses' time zone.
SELECT {shipments}, 'promised for ' || promised_on AS reason FROM shipments
WHERE shipment_id > $2 AND ($1::text IS NULL OR warehouse_id = $1) AND ended_at IS NULL AND promised_on < $4
ORDER BY shipment_id LIMIT $3;

-- name: list_stalled
-- $4: shipments without a tracking event since then.
SELECT {shipments}, 'no tracking event since '
       || to_char(coalesce(last_event_at, handed_over_at) AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI') || ' UTC' AS reason
FROM shipments
WHERE shipment_id > $2 AND ($1::text IS NULL OR warehouse_id = $1) AND ended_at IS NULL
  AND handed_over_at IS NOT NULL AND coalesce(last_event_at, handed_over_at) < $4
ORDER BY shipment_id LIMIT $3;

-- name: list_no_first_scan
-- $4: shipments that were booked before then.
SELECT {shipments}, 'booked, no scan since '
       || to_char(booked_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI') || ' UTC' AS reason
FROM shipments
WHERE shipment_id > $2 AND ($1::text IS NULL OR warehouse_id = $1) AND ended_at IS NULL
  AND status = 'booked' AND greatest(last_event_at, booked_at) < $4
ORDER BY shipment_id LIMIT $3;

-- name: list_undelivered
SELECT {shipments}, replace(status, '_', ' ') AS reason FROM shipments
WHERE shipment_id > $2 AND ($1::text IS NULL OR warehouse_id = $1)
  AND status IN ('lost', 'returned_to_sender', 'cancelled') AND resolved_at IS NULL
ORDER BY shipment_id LIMIT $3;

-- name: list_anomalies
SELECT {shipments}, (
    SELECT text FROM shipment_events AS event
    WHERE event.shipment_id = shipments.shipment_id AND (is_unknown_code OR contradicts_history)
    ORDER BY seq DESC LIMIT 1) AS reason
FROM shipments
WHERE shipment_id > $2 AND ($1::text IS NULL OR warehouse_id = $1)
  AND anomaly_at IS NOT NULL AND (resolved_at IS NULL OR anomaly_at > resolved_at)
ORDER BY shipment_id LIMIT $3;

-- name: count_worklists
SELECT count(*) FILTER (WHERE status IN ('planned', 'booked') AND packed_at IS NULL AND held_reason IS NULL
                        AND after_cancel IS NULL
                        AND NOT EXISTS (SELECT FROM jobs WHERE queue = 'shipments' AND subject = shipment_id
                                        AND (parked OR status = 'planned')))
           AS to_pack,
       count(*) FILTER (WHERE held_reason IS NOT NULL) AS on_hold,
       count(*) FILTER (WHERE promised_on < $2) AS overdue,
       count(*) FILTER (WHERE handed_over_at IS NOT NULL
                        AND coalesce(last_event_at, handed_over_at) < $1::timestamptz - $3 * interval '1 second')
           AS stalled,
       count(*) FILTER (WHERE status = 'booked'
                        AND greatest(last_event_at, booked_at) < $1::timestamptz - $4 * interval '1 second')
           AS no_first_scan,
       (SELECT count(*) FROM shipments
        WHERE status IN ('lost', 'returned_to_sender', 'cancelled') AND resolved_at IS NULL) AS undelivered,
       (SELECT count(*) FROM shipments
        WHERE anomaly_at IS NOT NULL AND (resolved_at IS NULL OR anomaly_at > resolved_at)) AS anomalies
FROM shipments WHERE ended_at IS NULL;

-- name: list_unplanned_orders
SELECT order_id, paid_at, attempts, coalesce(last_error, '') AS reason
FROM jobs JOIN fulfilments ON order_id = subject WHERE queue = 'fulfilments' AND parked ORDER BY paid_at LIMIT $1;

-- name: mark_packed
UPDATE shipments SET packed_at = $2, packed_by = $3 WHERE shipment_id = $1;

-- name: set_hold
UPDATE shipments SET held_reason = $2 WHERE shipment_id = $1;

-- name: mark_resolved
UPDATE shipments SET resolved_at = $2, resolution = $3 WHERE shipment_id = $1;

-- name: set_appointment
UPDATE shipments SET deliver_from = $2, deliver_to = $3, latitude = $4, longitude = $5 WHERE shipment_id = $1;

-- name: is_reshipped
SELECT EXISTS (SELECT FROM shipments WHERE replaces = $1);

-- name: list_line_details
SELECT line_no, shipment_lines.address_no, sku, shipment_lines.quantity, unit_price_minor, weight_g, length_mm,
       width_mm, height_mm
FROM shipment_lines JOIN order_lines USING (order_id, line_no, address_no, sku) JOIN variants USING (sku)
WHERE shipment_id = $1 ORDER BY line_no;

-- name: insert_wave
INSERT INTO waves (wave_id, warehouse_id, created_at, actor) VALUES ($1, $2, $3, $4);

-- name: fill_wave
-- The array is computed once. The rows of an IN may be looked up again for each shipment, beyond the limit.
UPDATE shipments SET wave_id = $1 WHERE shipment_id = ANY(ARRAY(
    SELECT shipment_id FROM shipments
    WHERE warehouse_id = $2 AND ended_at IS NULL AND wave_id IS NULL AND status IN ('planned', 'booked')
      AND packed_at IS NULL AND held_reason IS NULL AND after_cancel IS NULL
      AND NOT EXISTS (SELECT FROM jobs
                      WHERE queue = 'shipments' AND subject = shipment_id AND (parked OR status = 'planned'))
    ORDER BY shipment_id LIMIT $3 FOR UPDATE SKIP LOCKED))
RETURNING shipment_id;

-- name: get_wave
SELECT wave_id, warehouse_id, created_at FROM waves WHERE wave_id = $1;

-- name: list_wave_shipments
SELECT shipment_id FROM shipments WHERE wave_id = $1 ORDER BY shipment_id;

-- name: list_picks
-- Units of a cancelled shipment stay on their shelf; the shipment keeps its number in the wave.
-- The shelf is known in the warehouse of the logistics alone.
SELECT coalesce(shelf, '') AS shelf, sku, name, shipment_id, sum(quantity)::bigint AS quantity
FROM shipment_lines JOIN shipments USING (shipment_id) JOIN variants USING (sku)
     LEFT JOIN product_logistics USING (sku, warehouse_id)
WHERE wave_id = $1 AND status <> 'cancelled' GROUP BY shelf, sku, name, shipment_id ORDER BY shelf, sku, shipment_id;

-- name: count_shipments
SELECT count(*) FROM shipments WHERE order_id = $1 AND status <> 'cancelled';

-- name: has_warehouse
SELECT EXISTS (SELECT FROM warehouses WHERE warehouse_id = $1);

-- name: list_packing_lines
SELECT sku, name, sum(quantity)::bigint AS quantity FROM shipment_lines JOIN variants USING (sku)
WHERE shipment_id = $1 GROUP BY sku, name ORDER BY sku;

-- name: measure_fulfilment_times
-- Percentiles of the time from paid to handed over, and to delivered, over orders that reached it in the last day.
SELECT percentile_cont(ARRAY[0.5, 0.9, 0.99]) WITHIN GROUP (ORDER BY extract(epoch FROM handed_over_at - paid_at))
           FILTER (WHERE handed_over_at > $1::timestamptz - interval '1 day') AS handed_over,
       percentile_cont(ARRAY[0.5, 0.9, 0.99]) WITHIN GROUP (ORDER BY extract(epoch FROM delivered_at - paid_at))
           FILTER (WHERE delivered_at > $1::timestamptz - interval '1 day') AS delivered
FROM fulfilments
WHERE handed_over_at > $1::timestamptz - interval '1 day' OR delivered_at > $1::timestamptz - interval '1 day';

-- name: count_open_shipments
SELECT coalesce(carrier, 'no_carrier') AS carrier, status, count(*) AS shipments FROM shipments WHERE ended_at IS NULL
GROUP BY carrier, status;
