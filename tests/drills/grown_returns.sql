-- Of a hundred delivered orders five have a case, most of them long resolved; it has the order's id.
INSERT INTO return_policies (policy_id, version, sale_id, return_days, claim_days, accepts_opened, freight_payer,
                             fee_basis_points, needs_evidence, is_resold, max_cases_per_sku, changed_at, actor)
SELECT 'policy-' || n, 1, CASE WHEN n % 2 = 0 THEN 'ordinary' END, 7, 15, true, 'customer', 0, false, true, 5, '{now}', 'staff'
FROM generate_series(0, 19) AS n;
INSERT INTO return_policy_skus (policy_id, sku)
SELECT 'policy-' || n, 'sku-' || m FROM generate_series(5, 9) AS n, generate_series(0, 4999) AS m;
INSERT INTO cases (case_id, order_id, user_id, kind, items_back, status, items_state, money_state, is_opened, reason_code,
                   customer_text, policy, freight_payer, currency, amount_minor, freight_minor, fee_minor, waits_for, due_at,
                   idempotency_key, body_digest, created_by, created_at, decided_at, ended_at)
SELECT id, id, user_id, 'return', true, CASE WHEN age < 60000 THEN 'approved' ELSE 'resolved' END, 'expected',
       CASE WHEN age < 60000 THEN 'fixed' ELSE 'nothing_due' END, false, 'style', '', '{{}}', 'customer', 'CNY', 1000, 0, 0,
       CASE WHEN age < 60000 THEN 'customer' ELSE 'nobody' END,
       CASE WHEN age < 60000 THEN '{now}'::timestamptz + age * interval '1 minute' END, 'case-' || n,
       decode(repeat('00', 32), 'hex'), 'customer', at, at, CASE WHEN age >= 60000 THEN at END
FROM fill.shipped WHERE step = 'delivered' AND n % 20 = 3;
INSERT INTO case_lines (case_id, case_line_no, order_id, line_no, address_no, shipment_id, sku, quantity, amount_minor)
SELECT case_id, 0, order_id, 0, 0, order_id, 'sku-1', 1, 1000 FROM cases;
INSERT INTO case_events (case_id, version, at, actor, reason) SELECT case_id, 1, created_at, 'customer', 'asked for' FROM cases;
INSERT INTO exchanges (case_id, order_id, replacement_id, credit_minor, status, created_at, ended_at)
SELECT case_id, order_id, md5(case_id::text)::uuid, 1000, 'done', created_at, created_at FROM cases WHERE right(case_id::text, 1) IN ('1', '7');
INSERT INTO case_evidence (evidence_id, order_id, user_id, case_id, sha256, media_type, size_bytes, width_px, height_px, created_at)
SELECT case_id, order_id, user_id, CASE WHEN ended_at IS NOT NULL OR right(case_id::text, 1) > '1' THEN case_id END,
       sha256(case_id::text::bytea), 'image/jpeg', 9, 9, 9, created_at FROM cases;

-- Each case has a return shipment with its id, a receipt of it, an inspection, and few things that are left to do.
INSERT INTO return_shipments (return_shipment_id, case_id, order_id, user_id, booked_by, from_address, warehouse_id, status,
                            event_seq, weight_g, length_mm, width_mm, height_mm, value_minor, currency, payer, carrier,
                            booking_id, requested_at, tracking_no, created_at, created_by, booked_at, ended_at, received_at)
SELECT case_id, case_id, order_id, user_id, 'shop', '{{}}', 'w1', CASE WHEN ended_at IS NULL THEN 'in_transit' ELSE 'delivered' END,
       1, 500, 100, 100, 100, 1000, 'CNY', 'shop', 'sf_express', case_id, created_at, 'RT' || row_number() OVER (), created_at,
       'staff', created_at, ended_at, ended_at
FROM cases;
INSERT INTO return_shipment_lines (return_shipment_id, case_id, case_line_no, sku, quantity)
SELECT case_id, case_id, 0, 'sku-1', 1 FROM cases;
INSERT INTO return_shipment_events (return_shipment_id, seq, at, received_at, source, actor, text, event_key)
SELECT case_id, 1, created_at, created_at, 'query', 'sf_express', 'on its way', case_id::text::bytea FROM cases;
INSERT INTO return_receipts (receipt_id, case_id, return_shipment_id, warehouse_id, note, received_at, actor)
SELECT case_id, CASE WHEN right(case_id::text, 1) > '0' THEN case_id END, CASE WHEN right(case_id::text, 1) > '0' THEN case_id END,
       'w1', '', created_at, 'staff' FROM cases;
INSERT INTO return_receipt_lines (receipt_id, case_id, case_line_no, quantity) SELECT case_id, case_id, 0, 1 FROM cases;
INSERT INTO return_surplus (surplus_id, receipt_id, sku, description, quantity, decision, decided_at, decided_by)
SELECT case_id, case_id, 'sku-2', '', 1, kept, CASE WHEN kept <> '' THEN created_at END, CASE WHEN kept <> '' THEN 'staff' END
FROM (SELECT *, CASE WHEN right(case_id::text, 1) > '0' THEN 'keep' END AS kept FROM cases) AS decided;
INSERT INTO return_inspections (case_id, case_line_no, revision, resellable, damaged, rejected, note, inspected_at, actor)
SELECT case_id, 0, 1, 1, 0, 0, '', created_at, 'staff' FROM cases;
INSERT INTO return_send_backs (send_back_id, case_id, case_line_no, quantity, outcome, created_at, ended_at, ended_by)
SELECT case_id, case_id, 0, 1, out, created_at, CASE WHEN out <> '' THEN created_at END, CASE WHEN out <> '' THEN 'staff' END
FROM (SELECT *, CASE WHEN right(case_id::text, 1) > '0' THEN 'handed_out' END AS out FROM cases) AS sent;

-- Rules have looked at every case, and decided on most of them.
INSERT INTO case_rule_sets (version, rules, created_at, actor, reason)
SELECT n, '[]', '{now}', 'staff', 'tried' FROM generate_series(1, 30) AS n;
INSERT INTO case_rule_budgets (currency, max_amount_minor, max_cases) VALUES ('CNY', 1000000, 1000);
INSERT INTO case_rule_spending (currency, day, amount_minor, cases)
SELECT 'CNY', '{now}'::date - n, 1000, 9 FROM generate_series(0, 399) AS n;
INSERT INTO case_rule_events (at, kind, details, actor, reason)
SELECT '{now}', 'switched_on', '{{}}', 'staff', 'tried' FROM generate_series(1, 60) AS n;
INSERT INTO case_inputs (case_id, at, inputs) SELECT case_id, created_at, '{{"amount": 1000}}' FROM cases;
INSERT INTO case_decisions (case_id, decision_no, at, rule_set_version, rule_no, outcome, inputs, reasons, case_version,
                            amount_minor)
SELECT case_id, 1, created_at, 1, 1, 'approve', '{{"amount": 1000}}', ARRAY['send it back'], 1, 1000
FROM cases WHERE right(case_id::text, 1) > '3';
