-- name: insert_receipt
INSERT INTO return_receipts (receipt_id, case_id, return_shipment_id, warehouse_id, tracking_no, note, received_at, actor)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8);

-- name: insert_receipt_lines
INSERT INTO return_receipt_lines (receipt_id, case_id, case_line_no, quantity)
SELECT $1, $2, case_line_no, quantity FROM unnest($3::smallint[], $4::integer[]) AS line (case_line_no, quantity);

-- name: insert_surplus
INSERT INTO return_surplus (surplus_id, receipt_id, sku, description, quantity)
SELECT surplus_id, $1, sku, description, quantity
FROM unnest($2::uuid[], $3::text[], $4::text[], $5::integer[]) AS line (surplus_id, sku, description, quantity);

-- name: list_unknown_skus
SELECT sku FROM unnest($1::text[]) AS input (sku) WHERE NOT EXISTS (SELECT FROM variants WHERE variants.sku = input.sku);

-- name: has_warehouse
SELECT EXISTS (SELECT FROM warehouses WHERE warehouse_id = $1);

-- name: mark_shipment_received
UPDATE return_shipments SET received_at = coalesce(received_at, $2) WHERE return_shipment_id = $1;

-- name: get_receipts
SELECT {return_receipts} FROM return_receipts WHERE receipt_id = ANY($1::uuid[]) ORDER BY receipt_id;

-- name: list_receipts_of_case
SELECT {return_receipts} FROM return_receipts WHERE case_id = $1 ORDER BY receipt_id;

-- name: lock_receipt
SELECT {return_receipts} FROM return_receipts WHERE receipt_id = $1 FOR UPDATE;

-- name: list_receipt_lines
SELECT receipt_id, case_line_no, quantity FROM return_receipt_lines WHERE receipt_id = ANY($1::uuid[])
ORDER BY receipt_id, case_line_no;

-- name: list_surplus_of_receipts
SELECT {return_surplus} FROM return_surplus WHERE receipt_id = ANY($1::uuid[]) ORDER BY surplus_id;

-- name: get_surplus
SELECT {return_surplus} FROM return_surplus WHERE surplus_id = $1;

-- name: decide_surplus
UPDATE return_surplus SET decision = $2, other_case_id = $3, reason = $4, decided_at = $5, decided_by = $6
WHERE surplus_id = $1 AND decision IS NULL RETURNING 1;

-- name: close_receipt
-- Of nobody's case: once it is matched, or once each of its units is decided on.
UPDATE return_receipts SET matched_at = $2, matched_by = $3, resolution = $4
WHERE receipt_id = $1 AND case_id IS NULL AND matched_at IS NULL
  AND NOT EXISTS (SELECT FROM return_surplus AS surplus WHERE surplus.receipt_id = $1 AND decision IS NULL);

-- name: insert_inspections
INSERT INTO return_inspections (case_id, case_line_no, revision, resellable, damaged, rejected, note, inspected_at,
                                actor)
SELECT $1, case_line_no, (SELECT coalesce(max(revision), 0) + 1 FROM return_inspections AS before
                          WHERE before.case_id = $1 AND before.case_line_no = input.case_line_no),
       resellable, damaged, rejected, note, $2, $3
FROM unnest($4::smallint[], $5::integer[], $6::integer[], $7::integer[], $8::text[])
     AS input (case_line_no, resellable, damaged, rejected, note);

-- name: insert_send_backs
INSERT INTO return_send_backs (send_back_id, case_id, case_line_no, surplus_id, quantity, created_at)
SELECT send_back_id, case_id, case_line_no, surplus_id, quantity, $1
FROM unnest($2::uuid[], $3::uuid[], $4::smallint[], $5::uuid[], $6::integer[])
     AS input (send_back_id, case_id, case_line_no, surplus_id, quantity);

-- name: end_send_back
UPDATE return_send_backs SET outcome = $2, carrier = $3, tracking_no = $4, ended_at = $5, ended_by = $6
WHERE send_back_id = $1 AND outcome IS NULL RETURNING 1;

-- name: get_send_back
SELECT {return_send_backs} FROM return_send_backs WHERE send_back_id = $1;

-- name: list_send_backs_of_case
SELECT {return_send_backs} FROM return_send_backs
WHERE case_id = $1 ORDER BY send_back_id;

-- name: add_returned_units
-- Units that were received and are kept, of the order lines of a case.
UPDATE fulfilment_lines SET returned = returned + units.kept
FROM (SELECT order_id, line_no, address_no, sum(input.kept)::integer AS kept
      FROM unnest($1::uuid[], $2::smallint[], $3::smallint[], $4::integer[]) AS input (order_id, line_no, address_no, kept)
      GROUP BY order_id, line_no, address_no) AS units
WHERE fulfilment_lines.order_id = units.order_id AND fulfilment_lines.line_no = units.line_no
  AND fulfilment_lines.address_no = units.address_no;

-- name: list_expected
-- $1: after this id; $2: of this warehouse, or null; $3: only if nothing was reported of them since then, or null.
SELECT return_shipment_id FROM return_shipments
WHERE ended_at IS NULL AND return_shipment_id > $1 AND ($2::text IS NULL OR warehouse_id = $2)
  AND ($3::timestamptz IS NULL OR coalesce(last_event_at, booked_at, created_at) < $3)
ORDER BY return_shipment_id LIMIT $4;

-- name: list_not_received
SELECT return_shipment_id FROM return_shipments
WHERE status IN ('delivered', 'lost') AND received_at IS NULL AND status = $3 AND return_shipment_id > $1
  AND ($2::text IS NULL OR warehouse_id = $2)
ORDER BY return_shipment_id LIMIT $4;

-- name: list_parked
SELECT subject FROM jobs WHERE queue = 'return_shipments' AND parked AND subject > $1 ORDER BY subject LIMIT $2;

-- name: list_unmatched
SELECT {return_receipts} FROM return_receipts
WHERE case_id IS NULL AND matched_at IS NULL AND receipt_id > $1 AND ($2::text IS NULL OR warehouse_id = $2)
ORDER BY receipt_id LIMIT $3;

-- name: list_undecided
SELECT {return_surplus} FROM return_surplus WHERE decision IS NULL AND surplus_id > $1 ORDER BY surplus_id LIMIT $2;

-- name: list_open_send_backs
SELECT {return_send_backs} FROM return_send_backs
WHERE outcome IS NULL AND send_back_id > $1 ORDER BY send_back_id LIMIT $2;

-- name: count_worklists
-- $1: nothing was reported of an overdue shipment since then.
SELECT (SELECT count(*) FROM return_shipments WHERE ended_at IS NULL) AS expected,
       (SELECT count(*) FROM return_shipments
        WHERE ended_at IS NULL AND coalesce(last_event_at, booked_at, created_at) < $1) AS overdue,
       (SELECT count(*) FROM return_shipments
        WHERE status IN ('delivered', 'lost') AND received_at IS NULL AND status = 'delivered') AS arrived,
       (SELECT count(*) FROM return_shipments
        WHERE status IN ('delivered', 'lost') AND received_at IS NULL AND status = 'lost') AS lost,
       (SELECT count(*) FROM cases WHERE ended_at IS NULL AND status = 'received') AS to_inspect,
       (SELECT count(*) FROM return_receipts WHERE case_id IS NULL AND matched_at IS NULL) AS unmatched,
       (SELECT count(*) FROM return_surplus WHERE decision IS NULL) AS surplus,
       (SELECT count(*) FROM return_send_backs WHERE outcome IS NULL) AS to_send_back,
       (SELECT count(*) FROM jobs WHERE queue = 'return_shipments' AND parked) AS parked,
       (SELECT min(ended_at) FROM return_shipments
        WHERE status IN ('delivered', 'lost') AND received_at IS NULL AND status = 'delivered') AS oldest_arrival,
       (SELECT min(return_receipts.received_at) FROM cases JOIN return_receipts USING (case_id)
        WHERE ended_at IS NULL AND status = 'received') AS oldest_receipt;
