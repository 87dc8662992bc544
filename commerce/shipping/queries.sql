-- name: mark_handed_over
UPDATE fulfilments SET handed_over_at = $2
WHERE order_id = ANY(ARRAY(SELECT unnest($1::uuid[]))) AND handed_over_at IS NULL;

-- name: mark_delivered
UPDATE fulfilments SET status = 'delivered', delivered_at = $2
WHERE order_id = ANY(ARRAY(SELECT unnest($1::uuid[]))) AND status = 'planned' RETURNING order_id;

-- name: has_cash_shipments
SELECT EXISTS (SELECT FROM shipments WHERE order_id = $1 AND cod_minor > 0 AND ended_at IS NULL);

-- name: has_open_shipments
SELECT EXISTS (SELECT FROM shipments WHERE order_id = $1 AND ended_at IS NULL);

-- name: update_fulfilment_lines
-- Adds the units of shipments to planned, shipped and delivered, each times 1, 0 or -1. Several shipments may hold
-- units of a line.
UPDATE fulfilment_lines SET planned = fulfilment_lines.planned + units.planned,
                            shipped = fulfilment_lines.shipped + units.shipped,
                            delivered = fulfilment_lines.delivered + units.delivered
FROM (SELECT order_id, line_no, address_no, sum(input.planned * quantity)::integer AS planned,
             sum(input.shipped * quantity)::integer AS shipped, sum(input.delivered * quantity)::integer AS delivered
      FROM unnest($1::uuid[], $2::integer[], $3::integer[], $4::integer[])
           AS input (shipment_id, planned, shipped, delivered) JOIN shipment_lines USING (shipment_id)
      GROUP BY order_id, line_no, address_no) AS units
WHERE fulfilment_lines.order_id = units.order_id AND fulfilment_lines.line_no = units.line_no
  AND fulfilment_lines.address_no = units.address_no;

-- name: get_fulfilment_totals
-- Also for orders that have no shipments yet.
SELECT order_id, sum(quantity) AS ordered, sum(planned) AS planned, sum(shipped) AS shipped,
       sum(delivered) AS delivered, sum(cancelled) AS cancelled
FROM order_lines LEFT JOIN fulfilment_lines USING (order_id, line_no, address_no)
WHERE order_id = ANY(ARRAY(SELECT unnest($1::uuid[]))) GROUP BY order_id;

-- name: sum_shipment_units
SELECT shipment_id, sum(quantity) AS units FROM shipment_lines
WHERE shipment_id = ANY(ARRAY(SELECT unnest($1::uuid[]))) GROUP BY shipment_id;

-- name: insert_shipments
-- Those of an order are numbered in their sequence.
INSERT INTO shipments (shipment_id, order_id, address_no, parcel_no, warehouse_id, address, weight_g, length_mm,
                       width_mm, height_mm, value_minor, cod_minor, currency, promised_on, planned_at, replaces)
SELECT shipment_id, order_id, address_no,
       (SELECT coalesce(max(parcel_no), 0) FROM shipments WHERE shipments.order_id = input.order_id)
           + row_number() OVER (PARTITION BY order_id ORDER BY place),
       warehouse_id, address::jsonb, weight_g, length_mm, width_mm, height_mm, value_minor, cod_minor, currency,
       promised_on, $1, replaces
FROM unnest($2::uuid[], $3::uuid[], $4::smallint[], $5::text[], $6::text[], $7::integer[], $8::integer[], $9::integer[],
            $10::integer[], $11::bigint[], $12::bigint[], $13::text[], $14::date[], $15::uuid[]) WITH ORDINALITY
     AS input (shipment_id, order_id, address_no, warehouse_id, address, weight_g, length_mm, width_mm, height_mm,
               value_minor, cod_minor, currency, promised_on, replaces, place);

-- name: insert_shipment_lines
INSERT INTO shipment_lines (shipment_id, order_id, line_no, address_no, sku, quantity)
SELECT shipment_id, order_id, line_no, address_no, sku, quantity
FROM unnest($1::uuid[], $2::uuid[], $3::smallint[], $4::smallint[], $5::text[], $6::integer[])
     AS line (shipment_id, order_id, line_no, address_no, sku, quantity);

-- name: delete_shipment_lines
DELETE FROM shipment_lines WHERE shipment_id = $1;

-- name: resize_shipment
UPDATE shipments SET weight_g = $2, length_mm = $3, width_mm = $4, height_mm = $5, value_minor = $6, cod_minor = $7
WHERE shipment_id = $1;

-- name: get_shipments
SELECT {shipments} FROM shipments WHERE shipment_id = ANY(ARRAY(SELECT unnest($1::uuid[])));

-- name: list_shipments
SELECT {shipments} FROM shipments WHERE order_id = $1 ORDER BY parcel_no;

-- name: list_shipment_lines
SELECT shipment_id, line_no, address_no, sku, quantity, decided FROM shipment_lines WHERE shipment_id = ANY($1::uuid[])
ORDER BY shipment_id, line_no;

-- name: list_contents
SELECT shipment_id, name, quantity FROM shipment_lines JOIN variants USING (sku)
WHERE shipment_id = ANY(ARRAY(SELECT unnest($1::uuid[]))) ORDER BY shipment_id, line_no;

-- name: find_by_tracking_nos
-- Also by the number of a booking that is no longer current.
SELECT input.carrier, input.tracking_no, order_id, shipment_id
FROM unnest($1::text[], $2::text[]) AS input (carrier, tracking_no)
JOIN bookings ON bookings.carrier = input.carrier AND bookings.tracking_no = input.tracking_no
JOIN shipments USING (shipment_id);

-- name: set_after_cancel
UPDATE shipments SET after_cancel = $2 WHERE shipment_id = $1;

-- name: begin_poll
-- $3: the least number of seconds between two polls of a shipment. Returns no row while they have not passed.
UPDATE shipments SET polled_at = $2
WHERE shipment_id = $1 AND (polled_at IS NULL OR polled_at <= $2::timestamptz - $3::float * interval '1 second') RETURNING 1;

-- name: get_polled_at
SELECT polled_at FROM shipments WHERE shipment_id = $1;

-- name: lock_orders_of_shipments
SELECT order_id FROM orders
WHERE order_id = ANY (ARRAY(SELECT shipments.order_id FROM shipments WHERE shipment_id = ANY($1::uuid[])))
ORDER BY order_id FOR UPDATE;

-- name: list_orders_of_shipments
SELECT shipment_id, order_id FROM shipments WHERE shipment_id = ANY($1::uuid[]) ORDER BY shipment_id;

-- name: record_refusals
UPDATE shipments SET refused_by = array_append(refused_by, input.carrier), booking_id = NULL
FROM unnest($1::uuid[], $2::text[]) AS input (shipment_id, carrier) WHERE shipments.shipment_id = input.shipment_id;

-- name: clear_refusals
UPDATE shipments SET refused_by = '{}' WHERE shipment_id = ANY(ARRAY(SELECT unnest($1::uuid[])));

-- name: insert_bookings
WITH inserted AS (
    INSERT INTO bookings (booking_id, shipment_id, carrier, requested_at)
    SELECT booking_id, shipment_id, carrier, $1
    FROM unnest($2::uuid[], $3::uuid[], $4::text[]) AS input (booking_id, shipment_id, carrier)
    RETURNING booking_id, shipment_id)
UPDATE shipments SET booking_id = inserted.booking_id FROM inserted WHERE shipments.shipment_id = inserted.shipment_id;

-- name: touch_booking_requests
UPDATE bookings SET requested_at = $2 WHERE booking_id = ANY(ARRAY(SELECT unnest($1::uuid[])));

-- name: get_booking_requested_at
SELECT requested_at FROM bookings WHERE booking_id = $1;

-- name: end_bookings
UPDATE bookings SET outcome = $1, ended_at = $2, reason = input.reason
FROM unnest($3::uuid[], $4::text[]) AS input (booking_id, reason)
WHERE bookings.booking_id = input.booking_id AND outcome IN ('requested', 'booked');

-- name: confirm_bookings
UPDATE bookings SET outcome = 'booked', tracking_no = input.tracking_no
FROM unnest($1::uuid[], $2::text[]) AS input (booking_id, tracking_no)
WHERE bookings.booking_id = input.booking_id AND outcome IN ('requested', 'booked');

-- name: set_confirmations
UPDATE shipments SET tracking_no = input.tracking_no, sort_code = input.sort_code, booked_at = $1,
                     booking_id = input.booking_id
FROM unnest($2::uuid[], $3::uuid[], $4::text[], $5::text[]) AS input (shipment_id, booking_id, tracking_no, sort_code)
WHERE shipments.shipment_id = input.shipment_id;

-- name: clear_booking
UPDATE shipments SET tracking_no = NULL, sort_code = NULL, booked_at = NULL, booking_id = NULL, packed_at = NULL,
                     packed_by = NULL, cancel_refused_at = NULL
WHERE shipment_id = $1;

-- name: redirect_now
UPDATE shipments SET address = $2, next_address = NULL, latitude = NULL, longitude = NULL WHERE shipment_id = $1;

-- name: redirect_later
UPDATE shipments SET next_address = $2 WHERE shipment_id = $1;

-- name: advance_event_seqs
UPDATE fulfilments SET event_seq = event_seq + input.events
FROM unnest($1::uuid[], $2::integer[]) AS input (order_id, events)
WHERE fulfilments.order_id = input.order_id RETURNING fulfilments.order_id, event_seq;

-- name: list_stored_event_keys
SELECT shipment_id, event_key FROM unnest($1::uuid[], $2::bytea[]) AS input (shipment_id, event_key)
JOIN shipment_events USING (shipment_id, event_key);

-- name: insert_events
INSERT INTO shipment_events (received_at, order_id, seq, shipment_id, at, source, actor, from_status, to_status, code,
                             is_unknown_code, contradicts_history, place, text, event_key)
SELECT $1, order_id, seq, shipment_id, at, source, actor, from_status, to_status, code, is_unknown_code,
       contradicts_history, place, text, event_key
FROM unnest($2::uuid[], $3::integer[], $4::uuid[], $5::timestamptz[], $6::text[], $7::text[], $8::text[], $9::text[],
            $10::text[], $11::boolean[], $12::boolean[], $13::text[], $14::text[], $15::bytea[])
     AS input (order_id, seq, shipment_id, at, source, actor, from_status, to_status, code, is_unknown_code,
               contradicts_history, place, text, event_key);

-- name: touch_last_events
UPDATE shipments SET last_event_at = greatest(last_event_at, input.at)
FROM unnest($1::uuid[], $2::timestamptz[]) AS input (shipment_id, at) WHERE shipments.shipment_id = input.shipment_id;

-- name: advance_shipment_statuses
-- One step of each. Clears an earlier resolution if a shipment ends without a delivery: that is a new problem.
UPDATE shipments SET status = input.to_status, status_seq = input.seq,
    last_event_at = greatest(shipments.last_event_at, input.last_event_at),
    handed_over_at = CASE WHEN input.to_status = 'picked_up' THEN input.at ELSE handed_over_at END,
    ended_at = CASE WHEN input.to_status IN ('delivered', 'lost', 'returned_to_sender', 'cancelled') THEN input.at END,
    after_cancel = CASE WHEN input.to_status IN ('delivered', 'lost', 'returned_to_sender', 'cancelled') THEN NULL
                        ELSE after_cancel END,
    cod_collected_at = CASE WHEN input.to_status = 'delivered' AND cod_minor > 0 THEN input.at
                            ELSE cod_collected_at END,
    resolved_at = CASE WHEN input.to_status NOT IN ('lost', 'returned_to_sender', 'cancelled') THEN resolved_at END,
    resolution = CASE WHEN input.to_status NOT IN ('lost', 'returned_to_sender', 'cancelled') THEN resolution END
FROM unnest($1::uuid[], $2::text[], $3::text[], $4::integer[], $5::timestamptz[], $6::timestamptz[])
     AS input (shipment_id, from_status, to_status, seq, at, last_event_at)
WHERE shipments.shipment_id = input.shipment_id AND shipments.status = input.from_status;

-- name: is_cash_final
SELECT NOT EXISTS (SELECT FROM shipments WHERE order_id = $1 AND cod_minor > 0 AND ended_at IS NULL)
   AND (EXISTS (SELECT FROM orders WHERE order_id = $1 AND status = 'cancelled')
        OR coalesce(cash_due($1) <= (SELECT -coalesce(sum(amount_minor), 0) FROM ledger
                                     WHERE order_id = $1 AND account = 'collected'), false)
        OR coalesce((SELECT sum(cancelled) > 0 AND sum(delivered) = sum(ordered - cancelled)
                     FROM fulfilment_lines WHERE order_id = $1), false));

-- name: post_collected_cash
-- A vehicle's driver has it, or the carrier. Orders captured before cash had several accounts are complete.
WITH collected AS (
    SELECT shipments.order_id, shipment_id, cod_minor, currency,
           CASE WHEN source = 'fleet' AND actor LIKE 'vehicle %' THEN 'cash:driver:' || substr(actor, 9)
                ELSE 'cash:carrier:' || coalesce(carrier, 'unknown') END AS holder
    FROM shipments JOIN shipment_events AS event USING (order_id, shipment_id)
    WHERE shipments.order_id = ANY(ARRAY(SELECT unnest($1::uuid[]))) AND event.seq = shipments.status_seq
      AND cod_collected_at IS NOT NULL AND cod_minor > 0
      AND NOT EXISTS (SELECT FROM ledger WHERE posting = 'cash ' || shipment_id)
      AND NOT EXISTS (SELECT FROM ledger WHERE ledger.order_id = shipments.order_id AND account = 'cash')
)
INSERT INTO ledger (posting, account, order_id, amount_minor, currency, at)
SELECT 'cash ' || shipment_id, account, order_id, amount, currency, $2
FROM collected CROSS JOIN LATERAL (VALUES (holder, cod_minor), ('collected', -cod_minor)) AS entries (account, amount)
ON CONFLICT DO NOTHING;

-- name: list_events_after
SELECT seq, shipment_id, at, source, text, to_status AS status, place FROM shipment_events
WHERE order_id = $1 AND seq > $2 ORDER BY seq LIMIT $3;

-- name: list_shipment_events
SELECT seq, shipment_id, at, source, text, to_status AS status, place FROM shipment_events
WHERE order_id = $1 AND shipment_id = $2 ORDER BY at, seq;

-- name: latest_event_seqs
SELECT order_id, event_seq FROM fulfilments WHERE order_id = ANY($1::uuid[]);

-- name: insert_webhooks
INSERT INTO carrier_webhooks (received_at, system, webhook_id, result, body, shipment_ids)
SELECT $1, system, webhook_id, result, body, shipment_ids::uuid[]
FROM unnest($2::text[], $3::text[], $4::text[], $5::bytea[], $6::text[])
     AS input (system, webhook_id, result, body, shipment_ids)
ON CONFLICT (system, webhook_id) DO NOTHING;

-- name: list_stored_webhooks
SELECT system, webhook_id FROM unnest($1::text[], $2::text[]) AS input (system, webhook_id)
JOIN carrier_webhooks USING (system, webhook_id);
