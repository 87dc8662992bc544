-- name: insert_return_shipment
INSERT INTO return_shipments (return_shipment_id, case_id, order_id, user_id, booked_by, from_address, warehouse_id,
                            weight_g, length_mm, width_mm, height_mm, value_minor, currency, payer, created_at,
                            created_by)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16);

-- name: insert_return_shipment_lines
INSERT INTO return_shipment_lines (return_shipment_id, case_id, case_line_no, sku, quantity)
SELECT $1, $2, case_line_no, sku, quantity
FROM unnest($3::smallint[], $4::text[], $5::integer[]) AS line (case_line_no, sku, quantity);

-- name: get_return_shipments
SELECT {return_shipments} FROM return_shipments WHERE return_shipment_id = ANY($1::uuid[]);

-- name: list_shipments_of_case
SELECT {return_shipments} FROM return_shipments WHERE case_id = $1 ORDER BY return_shipment_id;

-- name: list_orders_of_shipments
SELECT return_shipment_id, order_id FROM return_shipments WHERE return_shipment_id = ANY($1::uuid[]);

-- name: lock_orders_of_shipments
SELECT order_id FROM orders
WHERE order_id = ANY (ARRAY(SELECT shipment.order_id FROM return_shipments shipment WHERE return_shipment_id = ANY($1::uuid[])))
ORDER BY order_id FOR UPDATE;

-- name: list_contents
SELECT name, quantity FROM return_shipment_lines JOIN variants USING (sku)
WHERE return_shipment_id = $1 ORDER BY case_line_no;

-- name: get_units
SELECT case_line_no, quantity FROM return_shipment_lines WHERE return_shipment_id = $1;

-- name: is_awaited
-- Whether the case of a return shipment still expects units.
SELECT items_back AND status IN ('approved', 'in_transit', 'received') FROM cases WHERE case_id = $1;

-- name: find_by_tracking_nos
-- One that is not cancelled comes last, so that it counts.
SELECT carrier, tracking_no, order_id, return_shipment_id FROM return_shipments
WHERE tracking_no = ANY($1::text[]) ORDER BY status = 'cancelled' DESC, return_shipment_id;

-- name: set_booking_request
UPDATE return_shipments SET carrier = $2, booking_id = $3, requested_at = $4, price_minor = $5, expected_on = $6
WHERE return_shipment_id = $1;

-- name: touch_booking_request
UPDATE return_shipments SET requested_at = $2 WHERE return_shipment_id = $1;

-- name: confirm_booking
UPDATE return_shipments SET tracking_no = $2, sort_code = $3, booked_at = $4 WHERE return_shipment_id = $1;

-- name: record_refusal
UPDATE return_shipments SET refused_by = array_append(refused_by, carrier), carrier = NULL, booking_id = NULL,
                          requested_at = NULL, price_minor = NULL, expected_on = NULL
WHERE return_shipment_id = $1;

-- name: clear_refusals
UPDATE return_shipments SET refused_by = '{}' WHERE return_shipment_id = $1;

-- name: set_own_number
UPDATE return_shipments SET carrier = $2, tracking_no = $3, booked_at = $4 WHERE return_shipment_id = $1;

-- name: set_cancelling
UPDATE return_shipments SET is_cancelling = $2 WHERE return_shipment_id = $1;

-- name: reopen
-- Of a shipment that events of a wrong number have ended.
UPDATE return_shipments SET status = 'booked', ended_at = NULL
WHERE return_shipment_id = $1 AND status IN ('delivered', 'lost') AND received_at IS NULL;

-- name: begin_poll
-- $3: the least number of seconds between two polls. Returns no row while they have not passed.
UPDATE return_shipments SET polled_at = $2
WHERE return_shipment_id = $1
  AND (polled_at IS NULL OR polled_at <= $2::timestamptz - $3::float * interval '1 second') RETURNING 1;

-- name: list_known_keys
SELECT event_key FROM return_shipment_events WHERE return_shipment_id = $1 AND event_key = ANY($2::bytea[]);

-- name: advance_shipment
-- $2: number of events, $3: the status after them, $4: when it ended, $5: when a carrier's last event happened.
UPDATE return_shipments SET event_seq = event_seq + $2, status = coalesce($3, status), ended_at = coalesce($4, ended_at),
                          last_event_at = greatest(last_event_at, $5),
                          is_cancelling = is_cancelling AND $4::timestamptz IS NULL
WHERE return_shipment_id = $1 RETURNING event_seq;

-- name: insert_shipment_events
INSERT INTO return_shipment_events (return_shipment_id, received_at, seq, at, source, actor, from_status, to_status, code,
                                  is_unknown_code, contradicts_history, place, text, event_key)
SELECT $1, $2, seq, at, source, actor, from_status, to_status, code, is_unknown_code, contradicts_history, place, text,
       event_key
FROM unnest($3::integer[], $4::timestamptz[], $5::text[], $6::text[], $7::text[], $8::text[], $9::text[],
            $10::boolean[], $11::boolean[], $12::text[], $13::text[], $14::bytea[])
     AS event (seq, at, source, actor, from_status, to_status, code, is_unknown_code, contradicts_history, place, text,
               event_key);

-- name: list_shipment_events
SELECT return_shipment_id, seq, at, source, text, to_status AS status, place FROM return_shipment_events
WHERE return_shipment_id = ANY($1::uuid[]) ORDER BY at, seq;
