-- A shop after 400 days, as rows. {orders} is the number of orders, {now} the present.
-- Triggers and foreign keys are off while these run; checks and unique keys hold. An order's payment, shipment, booking,
-- release and refund have the order's id, so that one typical id finds rows in each table.

CREATE SCHEMA fill;

CREATE FUNCTION fill.at_of(n bigint) RETURNS timestamptz STABLE LANGUAGE sql AS $$
    SELECT '{now}'::timestamptz - ({orders} - n) * interval '400 days' / {orders}
$$;

-- Ids begin with their time in milliseconds, as those of the shop do.
CREATE FUNCTION fill.id_of(n bigint) RETURNS uuid STABLE LANGUAGE sql AS $$
    SELECT (lpad(to_hex((extract(epoch FROM fill.at_of(n)) * 1000)::bigint), 12, '0') || '70008'
            || lpad(to_hex(n), 15, '0'))::uuid
$$;

-- Of ten orders three are of a sale that never closes, and the others of one of many short ones.
CREATE UNLOGGED TABLE fill.orders AS
SELECT n, fill.id_of(n) AS id, fill.at_of(n) AS at, {orders} - n AS age, 'u' || n * 7919 % 300000 AS user_id,
       CASE WHEN n % 10 < 3 THEN 'ordinary' ELSE 'sale-' || (n - 1) / 500 END AS sale_id,
       CASE WHEN {orders} - n < 300 THEN 'awaiting_payment' WHEN n % 9 = 0 THEN 'cancelled'
            WHEN {orders} - n < 800 THEN 'paid' WHEN {orders} - n < 3000 THEN 'fulfilling'
            WHEN {orders} - n < 8000 THEN 'shipped' WHEN {orders} - n < 60000 THEN 'delivered' ELSE 'completed' END AS status
FROM generate_series(1::bigint, {orders}) AS n;
ANALYZE fill.orders;

CREATE UNLOGGED TABLE fill.shipped AS
SELECT *, CASE WHEN age < 1500 THEN 'planned' WHEN age < 3000 THEN 'booked' WHEN n % 2000 = 3 THEN 'lost'
               WHEN age < 8000 THEN 'in_transit' ELSE 'delivered' END AS step
FROM fill.orders WHERE status IN ('fulfilling', 'shipped', 'delivered', 'completed');

INSERT INTO products (product_id, status, created_at, updated_at)
SELECT 'product-' || n, CASE WHEN n % 20 = 0 THEN 'draft' WHEN n % 20 = 1 THEN 'retired' ELSE 'on_sale' END, fill.at_of(0),
       fill.at_of(0)
FROM generate_series(0, 9999) AS n;
INSERT INTO variants (sku, product_id, name, price_minor, currency, option_values, created_at, updated_at)
SELECT 'sku-' || n, 'product-' || n / 2, 'Product ' || n, 1000, 'CNY', jsonb_build_object('size', n % 2), fill.at_of(0),
       fill.at_of(0)
FROM generate_series(0, 19999) AS n;
INSERT INTO product_texts (product_id, language, name)
SELECT 'product-' || n, language, 'Product ' || n FROM generate_series(0, 9999) AS n, unnest(ARRAY['zh', 'en']) AS language;
INSERT INTO product_changes (product_id, version, action, actor, reason, diff, at)
SELECT 'product-' || n / 10, n % 10 + 1, CASE WHEN n % 10 = 0 THEN 'created' ELSE 'changed' END, 'staff', 'better words',
       '{{"brand": [null, "Acme"]}}', fill.at_of(0)
FROM generate_series(0, 99999) AS n;
INSERT INTO planned_prices (plan_id, sku, price_minor, currency, starts_at, status, actor, reason, created_at, ended_at, ended_by)
SELECT fill.id_of(n), 'sku-' || n % 20000, 1000, 'CNY', fill.at_of(n), CASE WHEN n > 90000 THEN 'planned' ELSE 'applied' END,
       'staff', 'winter prices', fill.at_of(0), CASE WHEN n <= 90000 THEN fill.at_of(n) END,
       CASE WHEN n <= 90000 THEN 'worker' END
FROM generate_series(1, 100000) AS n;
INSERT INTO price_changes (sku, price_minor, currency, actor, reason, plan_id, at)
SELECT sku, price_minor, 'CNY', actor, reason, plan_id, starts_at FROM planned_prices WHERE status = 'applied';

INSERT INTO sales (sale_id, title, currency, state, opens_at, closes_at, closed_at, pay_within_s, epoch, loaded_epoch,
                   published_generation, observed_entry_at, observed_entry_seq, created_at)
SELECT 'sale-' || n, 'A sale', 'CNY', CASE WHEN n = {orders} / 500 - 1 THEN 'open' ELSE 'closed' END, fill.at_of(n * 500),
       fill.at_of(n * 500 + 1000), CASE WHEN n < {orders} / 500 - 1 THEN fill.at_of(n * 500 + 500) END, 900, 1, 1, 1,
       fill.at_of(n * 500 + 400), 0, fill.at_of(n * 500)
FROM generate_series(0, {orders} / 500 - 1) AS n
UNION ALL
SELECT 'ordinary', 'Ordinary trade', 'CNY', 'open', fill.at_of(0), NULL, NULL, 900, 1, 1, 1, '{now}', 0, fill.at_of(0);

INSERT INTO sale_items (sale_id, sku, price_minor, user_limit, limit_bound, initial_units, changed_generation)
SELECT sale_id, 'sku-' || n, 1000, CASE WHEN n % 2 = 0 THEN 5 END, CASE WHEN n % 2 = 0 THEN 5 END, 100000, 1
FROM sales, generate_series(0, 49) AS n;

INSERT INTO sale_items (sale_id, sku, price_minor, user_limit, limit_bound, initial_units, changed_generation)
SELECT sale_id, 'coupon:C' || n, 0, 1, 1, 100000, 1 FROM sales, generate_series(0, 4) AS n;
INSERT INTO coupons (sale_id, code, promotion_id, issued, created_at)
SELECT sale_id, 'C' || n, 'p0', n % 2 = 1, created_at FROM sales, generate_series(0, 4) AS n;

INSERT INTO stock_changes (change_id, sale_id, sku, delta, reason, actor, status, created_at, ended_at, epoch, seq)
SELECT id, sale_id, 'sku-' || n / 50 % 50, 10, 'more', 'staff', CASE WHEN age < 200 THEN 'pending' ELSE 'applied' END, at,
       CASE WHEN age >= 200 THEN at END, CASE WHEN age >= 200 THEN 1 END, CASE WHEN age >= 200 THEN n END
FROM fill.orders WHERE n % 50 = 0;

INSERT INTO sale_log (sale_id, at, actor, action, detail)
SELECT sale_id, at, 'staff', 'terms', '[]' FROM fill.orders WHERE n % 50 = 0;

INSERT INTO orders (order_id, user_id, idempotency_key, body_digest, sale_id, generation, status, status_seq, currency,
                    total_minor, ship_to, payment_plan, accepted_at, entry_seq, persisted_at, pay_by, cancelled_at,
                    cancel_reason)
SELECT id, user_id, 'key-' || n, '\x00112233445566778899aabbccddeeff', sale_id, 1, status,
       CASE status WHEN 'awaiting_payment' THEN 0 WHEN 'fulfilling' THEN 2 WHEN 'shipped' THEN 3 WHEN 'delivered' THEN 4
                   WHEN 'completed' THEN 5 ELSE 1 END,
       'CNY', 2000, '[{{"name": "Zhang San", "phone": "13800000000", "country": "CN", "province": "Zhejiang"}}]',
       '[{{"method": "alipay", "amount": 2000}}]', at, 0, at, at + interval '2 hours',
       CASE status WHEN 'cancelled' THEN at + interval '2 hours' END, CASE status WHEN 'cancelled' THEN 'expired' END
FROM fill.orders ORDER BY n;

INSERT INTO order_lines (order_id, line_no, address_no, sku, quantity, unit_price_minor)
SELECT id, line_no, 0, 'sku-' || (n * 7919 + line_no) % 50, 1, 1000 FROM fill.orders, generate_series(0, n % 2) AS line_no
ORDER BY n;

INSERT INTO order_coupons (order_id, code) SELECT id, 'C' || n / 5 % 5 FROM fill.orders WHERE n % 5 = 2 ORDER BY n;

INSERT INTO order_events (order_id, seq, at, from_status, to_status, actor, reason)
SELECT id, seq, at + seq * interval '1 hour', steps[seq], steps[seq + 1], 'fulfilment_worker', 'as planned'
FROM (SELECT n, id, at, CASE status WHEN 'cancelled' THEN ARRAY['awaiting_payment', 'cancelled'] ELSE
      (ARRAY['awaiting_payment', 'paid', 'fulfilling', 'shipped', 'delivered', 'completed'])[:CASE status
       WHEN 'awaiting_payment' THEN 1 WHEN 'paid' THEN 2 WHEN 'fulfilling' THEN 3 WHEN 'shipped' THEN 4
       WHEN 'delivered' THEN 5 ELSE 6 END] END AS steps FROM fill.orders) AS histories,
     generate_series(1, cardinality(steps) - 1) AS seq ORDER BY n, seq;

INSERT INTO releases (release_id, sale_id, user_id, units, reason, status, created_at, ended_at, epoch, seq)
SELECT id, sale_id, user_id, jsonb_build_object('sku-' || n % 50, 1), 'expired', step,
       at + interval '2 hours', CASE step WHEN 'applied' THEN at + interval '2 hours' END,
       CASE step WHEN 'applied' THEN 1 END, CASE step WHEN 'applied' THEN n END
FROM (SELECT *, CASE WHEN age < 600 THEN 'pending' WHEN n % 30000 = 0 THEN 'pending' ELSE 'applied' END AS step
      FROM fill.orders WHERE status = 'cancelled') AS cancelled ORDER BY n;

INSERT INTO releases (release_id, sale_id, user_id, units, reason, status, created_at, ended_at, epoch, seq, part_of)
SELECT fill.id_of(n + 2 * {orders}), sale_id, user_id, jsonb_build_object('sku-' || n % 50, 1), 'by_customer', 'applied', at,
       at, 1, n, id
FROM fill.orders WHERE n % 10 = 1 AND status NOT IN ('awaiting_payment', 'cancelled') ORDER BY n;

INSERT INTO dead_letters (order_id, sale_id, user_id, units, payload, error, entry_at, entry_seq, status, died_at, resolved_at,
                          resolved_by)
SELECT fill.id_of(n + {orders}), sale_id, user_id, jsonb_build_object('sku-' || n % 50, 1), '\x00', 'refused', at, 0,
       CASE WHEN age < 500 THEN 'held' ELSE 'retried' END, at, CASE WHEN age >= 500 THEN at END,
       CASE WHEN age >= 500 THEN 'staff' END
FROM fill.orders WHERE n % 50 = 7;

INSERT INTO order_discounts (order_id, discount_no, promotion_id, label, amount_minor)
SELECT id, 0, 'every-300-less-50', 'Every 300 less 50', 100 FROM fill.orders WHERE n % 2 = 0 ORDER BY n;
INSERT INTO order_freight (order_id, address_no, amount_minor) SELECT id, 0, 600 FROM fill.orders WHERE n % 2 = 1 ORDER BY n;

INSERT INTO payments (payment_id, order_id, user_id, plan_revision, tender_no, method, flow, amount_minor, currency, status,
                      transaction_id, created_at, expires_at, captured_at, ended_at, refunded_minor)
SELECT id, id, user_id, 1, 0, method, 'page', 2000, 'CNY', step, CASE step WHEN 'captured' THEN 'transaction-' || n END, at,
       at + interval '2 hours', CASE step WHEN 'captured' THEN at + interval '1 hour' END,
       CASE step WHEN 'closed' THEN at + interval '2 hours' END,
       CASE WHEN step = 'captured' AND n % 10 = 1 THEN 1000 ELSE 0 END
FROM (SELECT *, CASE WHEN n % 2 = 0 THEN 'alipay' ELSE 'wechatpay' END AS method,
             CASE status WHEN 'awaiting_payment' THEN 'pending' WHEN 'cancelled' THEN 'closed' ELSE 'captured' END AS step
      FROM fill.orders) AS tenders ORDER BY n;

INSERT INTO refunds (refund_id, payment_id, order_id, refund_key, amount_minor, currency, reason, actor, status, requested,
                     created_at, ended_at, requested_at, way, wait_reason, waiting_since, other_way_reason, other_way_since)
SELECT id, id, id, 'staff 1', 1000, 'CNY', 'damaged', 'staff',
       CASE WHEN NOT waits THEN 'done' WHEN is_stuck THEN 'needs_other_way' ELSE 'pending' END, true, at,
       CASE WHEN NOT waits THEN at + interval '3 days' END, at, CASE WHEN NOT waits THEN 'provider' END,
       CASE WHEN waits AND NOT is_stuck THEN 'merchant_balance' END, CASE WHEN waits AND NOT is_stuck THEN at END,
       CASE WHEN waits AND is_stuck THEN 'window_over' END, CASE WHEN waits AND is_stuck THEN at END
FROM (SELECT *, age < 5000 OR n % 30000 = 1 AS waits, n % 3 = 0 AS is_stuck FROM fill.orders
      WHERE n % 10 = 1 AND status NOT IN ('awaiting_payment', 'cancelled')) AS refunded ORDER BY n;

INSERT INTO refund_other_ways (refund_id, order_id, way, proof, recorded_by, recorded_at)
SELECT refund_id, order_id, 'transfer', 'B-1', 'staff', created_at FROM refunds;

INSERT INTO refunds_by_hand (refund_id, payment_id, order_id, amount_minor, currency, number, booked_on, found_at, found_by,
                             proof, recorded_by, recorded_at, confirmed_by, confirmed_at, outcome)
SELECT refund_id, payment_id, order_id, 1000, 'CNY', 'R-1', created_at::date, created_at, 'cli sam', 'in the console', 'staff sue',
       created_at, CASE WHEN status = 'done' THEN 'staff max' END, CASE WHEN status = 'done' THEN created_at END,
       CASE WHEN status = 'done' THEN 'refund' END
FROM refunds;

INSERT INTO cancellations (cancellation_id, order_id, cause, reason, actor, idempotency_key, status, created_at, ended_at)
SELECT id, id, 'by_customer', 'changed my mind', user_id, 'key', CASE WHEN age < 5000 THEN 'open' ELSE 'done' END, at,
       CASE WHEN age >= 5000 THEN at END
FROM fill.orders WHERE n % 10 = 1 AND status NOT IN ('awaiting_payment', 'cancelled') ORDER BY n;
INSERT INTO cancellation_lines (cancellation_id, order_id, line_no, address_no, quantity, cancelled)
SELECT cancellation_id, order_id, 0, 0, 1, CASE status WHEN 'done' THEN 1 ELSE 0 END FROM cancellations;
INSERT INTO refund_grants (grant_id, order_id, kind, source_id, amount_minor, currency, strategy, reason, actor, created_at)
SELECT cancellation_id, order_id, 'cancellation', cancellation_id, 1000, 'CNY', 'ratio', reason, actor, created_at
FROM cancellations;
INSERT INTO refund_grant_lines (grant_id, order_id, line_no, address_no, first_unit, quantity, amount_minor)
SELECT grant_id, order_id, 0, 0, 0, 1, 1000 FROM refund_grants;

INSERT INTO payment_webhooks (method, webhook_id, payment_id, received_at, result, body)
SELECT 'alipay', 'webhook-' || n, id, at, 'captured', '\x00' FROM fill.orders
WHERE status NOT IN ('awaiting_payment', 'cancelled') ORDER BY n;

INSERT INTO ledger (posting, account, order_id, amount_minor, currency, at)
SELECT 'capture ' || id, account, id, CASE account WHEN 'orders' THEN -2000 ELSE 2000 END, 'CNY', at + interval '1 hour'
FROM fill.orders, (VALUES ('orders'), ('provider:alipay')) AS accounts (account)
WHERE status NOT IN ('awaiting_payment', 'cancelled') ORDER BY n;
INSERT INTO ledger (posting, account, order_id, amount_minor, currency, at)
SELECT 'refund ' || id, account, id, CASE account WHEN 'orders' THEN 1000 ELSE -1000 END, 'CNY', at + interval '3 days'
FROM fill.orders, LATERAL (VALUES ('orders'), ('credit:' || user_id)) AS accounts (account)
WHERE n % 10 = 1 AND age >= 5000 AND status <> 'cancelled' ORDER BY n;

INSERT INTO ledger (posting, account, order_id, amount_minor, currency, at)
SELECT 'cash ' || id, account, id, CASE account WHEN 'collected' THEN -2000 ELSE 2000 END, 'CNY', at + interval '2 days'
FROM fill.orders, LATERAL (VALUES ('collected'), ('cash:carrier:c' || n % 5)) AS accounts (account)
WHERE n % 100 = 3 AND age >= 60000 AND status <> 'cancelled' ORDER BY n;
INSERT INTO postings (posting, kind, order_id, at)
SELECT posting, posting_kind(posting), order_id, at FROM ledger WHERE amount_minor < 0 ORDER BY line_id;
INSERT INTO accounts (account, kind, owner) SELECT 'credit:u' || n, 'liability', 'u' || n FROM generate_series(0, 29999) AS n;

INSERT INTO credit_accounts (user_id, currency, balance_minor)
SELECT 'u' || n, 'CNY', 100 FROM generate_series(0, 29999) AS n;

INSERT INTO fulfilments (order_id, status, paid_at, promised_on, planned_at, handed_over_at, delivered_at, event_seq)
SELECT id, CASE status WHEN 'paid' THEN 'pending' WHEN 'completed' THEN 'done' WHEN 'delivered' THEN 'delivered'
           ELSE 'planned' END,
       at, at::date + 3, CASE WHEN status <> 'paid' THEN at END,
       CASE WHEN status NOT IN ('paid', 'fulfilling') THEN at + interval '1 day' END,
       CASE WHEN status IN ('delivered', 'completed') THEN at + interval '2 days' END, 3
FROM fill.orders WHERE status NOT IN ('awaiting_payment', 'cancelled') ORDER BY n;

INSERT INTO fulfilment_lines (order_id, line_no, address_no, ordered, planned, shipped, delivered)
SELECT id, line_no, 0, 1, 1, shipped, shipped
FROM (SELECT *, CASE WHEN step = 'delivered' THEN 1 ELSE 0 END AS shipped FROM fill.shipped) AS orders,
     generate_series(0, n % 2) AS line_no ORDER BY n;

INSERT INTO warehouses (warehouse_id, name, address, latitude, longitude)
SELECT 'w' || n, 'Warehouse', '{{}}', 30, 120 FROM generate_series(0, 4) AS n;
INSERT INTO product_logistics (sku, warehouse_id, shelf)
SELECT 'sku-' || n, 'w' || n % 5, 'A1' FROM generate_series(0, 19999) AS n;
UPDATE variants SET weight_g = 500, length_mm = 100, width_mm = 100, height_mm = 100;
INSERT INTO rate_tables (imported_at, actor, source, currency)
SELECT fill.at_of(0), 'staff', 'rates.csv', 'CNY' FROM generate_series(1, 20);
INSERT INTO rates (table_id, carrier, region, from_g, to_g, price_minor, days, cod)
SELECT table_id, 'sf_express', 'cn/' || n, 0, 1000, 1200, 2, true FROM rate_tables, generate_series(1, 1000) AS n;

INSERT INTO freight_templates (name, version, currency, charged_by, cod_fee_minor, changed_at, actor)
SELECT 'freight-' || n, 1, 'CNY', 'weight', 0, fill.at_of(0), 'staff' FROM generate_series(1, 20) AS n;
INSERT INTO freight_zones (template, zone_no, name)
SELECT name, n, 'zone ' || n FROM freight_templates, generate_series(0, 9) AS n;
INSERT INTO freight_regions (template, zone_no, region_no, country, province, city)
SELECT template, zone_no, n, 'CN', zone_no || '.' || n, '' FROM freight_zones, generate_series(0, 99) AS n;
INSERT INTO freight_steps (template, zone_no, above, up_to, fee_minor)
SELECT template, zone_no, n * 1000, n * 1000 + 1000, 100 FROM freight_zones, generate_series(0, 9) AS n;
UPDATE sales SET freight_template = 'freight-1' WHERE state = 'open';

INSERT INTO waves (wave_id, warehouse_id, created_at, actor)
SELECT fill.id_of(n * 200), 'w0', fill.at_of(n * 200), 'staff' FROM generate_series(0, {orders} / 200) AS n;

INSERT INTO bookings (booking_id, shipment_id, carrier, outcome, tracking_no, requested_at)
SELECT id, id, CASE WHEN n % 20 = 5 THEN 'own_fleet' ELSE 'sf_express' END, 'booked', 'SF' || n, at
FROM fill.shipped WHERE step <> 'planned' ORDER BY n;

INSERT INTO shipments (shipment_id, order_id, address_no, parcel_no, warehouse_id, address, status, status_seq, weight_g,
                       length_mm, width_mm, height_mm, value_minor, currency, carrier, carrier_choice, promised_on,
                       booking_id, tracking_no, wave_id, packed_at, packed_by, planned_at, booked_at, handed_over_at,
                       ended_at, last_event_at, replaces, held_reason, anomaly_at, resolved_at)
SELECT id, id, 0, 1, 'w' || n % 5, '{{"country": "CN", "province": "Zhejiang", "city": "Hangzhou", "line": "Road 1"}}', step,
       3, 500, 100, 100, 100, 2000, 'CNY', CASE WHEN n % 20 = 5 THEN 'own_fleet' ELSE 'sf_express' END,
       '{{"reason": "the cheapest that is on time"}}', at::date + 3, CASE WHEN step <> 'planned' THEN id END,
       CASE WHEN step <> 'planned' THEN 'SF' || n END, CASE WHEN age >= 1000 THEN fill.id_of(n / 200 * 200) END,
       CASE WHEN age >= 2000 THEN at END, CASE WHEN age >= 2000 THEN 'staff' END, at,
       CASE WHEN step <> 'planned' THEN at END, CASE WHEN step NOT IN ('planned', 'booked') THEN at + interval '1 day' END,
       CASE WHEN step IN ('delivered', 'lost') THEN at + interval '2 days' END,
       CASE WHEN step <> 'planned' THEN at + interval '1 day' END, CASE WHEN n % 5000 = 7 THEN fill.id_of(n - 100) END,
       CASE WHEN age < 3000 AND n % 100 = 8 THEN 'the address is checked' END, CASE WHEN n % 400 = 3 THEN at + interval '1 day' END,
       CASE WHEN (step = 'lost' OR n % 400 = 3) AND age > 9000 THEN at + interval '9 days' END
FROM fill.shipped ORDER BY n;

INSERT INTO shipment_lines (shipment_id, order_id, line_no, address_no, sku, quantity)
SELECT id, id, line_no, 0, 'sku-' || (n * 7919 + line_no) % 50, 1 FROM fill.shipped, generate_series(0, n % 2) AS line_no
ORDER BY n;

INSERT INTO shipment_events (order_id, seq, shipment_id, at, received_at, source, actor, from_status, to_status, code,
                             is_unknown_code, text, event_key)
SELECT id, seq, id, at + seq * interval '8 hours', at + seq * interval '8 hours', 'query', 'sf_express',
       CASE seq WHEN 1 THEN 'planned' WHEN 2 THEN 'booked' END, CASE seq WHEN 1 THEN 'booked' WHEN 2 THEN 'picked_up' END,
       CASE seq WHEN 3 THEN '80' END, seq = 3 AND n % 400 = 3, 'is on its way', int4send(seq)
FROM fill.shipped, generate_series(1, 3) AS seq WHERE step <> 'planned' ORDER BY n, seq;

INSERT INTO carrier_webhooks (system, webhook_id, received_at, result, body, shipment_ids)
SELECT 'sf_express', 'webhook-' || n, at, 'status_changed', '\x00', ARRAY[id] FROM fill.shipped WHERE step <> 'planned' ORDER BY n;

INSERT INTO places (region, latitude, longitude) SELECT 'cn/' || n, 30, 120 FROM generate_series(1, 3000) AS n;
INSERT INTO vehicles (vehicle_id, warehouse_id, capacity_g, shift_from, shift_to)
SELECT 'V' || n, 'w' || n % 5, 1000000, '08:00', '18:00' FROM generate_series(0, 19) AS n;
INSERT INTO routes (route_id, day, vehicle_id, warehouse_id, status, distance_m, start_at, end_at, planned_at, departed_at)
SELECT fill.id_of(n), '{now}'::date - (8000 - n)::integer / 20, 'V' || n % 20, 'w' || n % 5,
       CASE WHEN n > 7980 THEN 'planned' ELSE 'done' END, 1000, fill.at_of(0), fill.at_of(1), fill.at_of(0),
       CASE WHEN n <= 7980 THEN fill.at_of(0) END
FROM generate_series(1, 8000) AS n;
INSERT INTO route_stops (route_id, seq, shipment_id, latitude, longitude, window_from, window_to, arrive_at, leave_at, status,
                         reported_at)
SELECT fill.id_of(1 + number % 8000), 1 + number / 8000, id, 30, 120, at, at, at, at,
       CASE WHEN number % 8000 < 7980 THEN 'delivered' ELSE 'planned' END, CASE WHEN number % 8000 < 7980 THEN at END
FROM (SELECT row_number() OVER (ORDER BY n) - 1 AS number, id, at FROM fill.shipped WHERE n % 20 = 5) AS delivered;

INSERT INTO staff_requests (actor, idempotency_key, digest, created_at, status, content_type, body)
SELECT 'staff', 'key-' || n, decode(repeat('00', 32), 'hex'), at, 200, 'application/json', '\x00'
FROM fill.orders WHERE n % 50 = 1;

INSERT INTO waiting_rooms (sale_id, mode, state, salt, join_opens_at, list_closes_at, min_account_age_s, served_valid_s,
                           max_pace_per_s, max_waiting, served_per_unit, named_source, fallback_after_s, fallback_rounds,
                           listed_at, entries, list_digest, source, randomness, drawn_at, ended_at, created_at)
SELECT sale_id, 'on', CASE state WHEN 'open' THEN 'serving' ELSE 'ended' END, decode(repeat('00', 32), 'hex'), opens_at,
       opens_at + interval '1 hour', 0, 600, 100, 10000, 2, 'delay:100', 60, 100, opens_at, 1000,
       decode(repeat('00', 32), 'hex'), 'delay:100', '00', opens_at, CASE WHEN state <> 'open' THEN closes_at END, opens_at
FROM sales WHERE closes_at IS NOT NULL;
INSERT INTO waiting_room_lists (sale_id, part_no, hashes)
SELECT sale_id, n, decode(repeat('00', 64), 'hex') FROM waiting_rooms, generate_series(0, 9) AS n;

INSERT INTO screened_sales (sale_id, salt, version, created_at)
SELECT sale_id, decode(repeat('00', 32), 'hex'), 100, created_at FROM sales;
INSERT INTO screened_users (sale_id, user_id, first_request_at, last_request_at, score, reasons, raised_at, version,
                            cleared_until)
SELECT DISTINCT ON (sale_id, user_id) sale_id, user_id, at, at, CASE WHEN n % 50 = 1 THEN 40 ELSE 0 END,
       CASE WHEN n % 50 = 1 THEN '[{{"signal": "crowd", "points": 40}}]' ELSE '[]' END::jsonb,
       CASE WHEN n % 50 = 1 THEN at END, CASE WHEN n % 50 = 1 THEN n % 100 ELSE 0 END,
       CASE WHEN n % 50 = 1 THEN at + interval '30 days' END
FROM fill.orders WHERE n % 5 = 1;
INSERT INTO screening_marks (sale_id, kind, mark, member)
SELECT sale_id, kind, uuid_send(fill.id_of(row_number() OVER () / 2)), user_id
FROM screened_users, (VALUES ('address'), ('phone')) AS kinds (kind);
INSERT INTO screening_groups (sale_id, kind, mark, members)
SELECT sale_id, kind, mark, count(*) FROM screening_marks GROUP BY sale_id, kind, mark;
INSERT INTO screening_decisions (sale_id, user_id, seq, at, actor, action, reason, until)
SELECT sale_id, user_id, 1, first_request_at, 'support', 'cleared', 'known', cleared_until FROM screened_users
WHERE cleared_until IS NOT NULL;
INSERT INTO screening_sightings (sale_id, user_id, joins, orders, peak_per_s, first_request_at, last_request_at)
SELECT 'ordinary', 'u' || n, 1, 1, 1, '{now}', '{now}' FROM generate_series(1, 500) AS n;

INSERT INTO promotions (sale_id, promotion_id, label, promotion_class, rule, new_customers_only, enabled, changed_generation,
                        created_at, updated_at)
SELECT sale_id, 'p' || n, 'reduction', 'order', '{{"kind": "percent", "basis_points": 100, "threshold": 0}}', false, true, 1,
       opens_at, opens_at
FROM sales, generate_series(0, 9) AS n;

INSERT INTO wait_lists (sale_id, mode, accept_s, max_people_per_sku, created_at)
SELECT sale_id, 'on', 600, 10000, opens_at FROM sales WHERE closes_at IS NOT NULL;
INSERT INTO wait_list_skus (sale_id, sku, last_number)
SELECT sale_id, 'sku-' || n, {orders} FROM wait_lists, generate_series(0, 9) AS n;
INSERT INTO wait_list_entries (sale_id, sku, number, user_id, quantity, state, joined_at, offer_id, offered_units, offered_at,
                               after_entry_at, after_entry_seq, accept_by, ended_at, epoch, seq)
SELECT sale_id, 'sku-' || n / 20 % 10, n, user_id, 1, 'taken', at, id, 1, at, at, 0, at, at, 1, n
FROM fill.orders WHERE n % 20 IN (3, 14) AND age >= 300;
INSERT INTO wait_list_entries (sale_id, sku, number, user_id, quantity, joined_at)
SELECT sale_id, 'sku-' || n / 20 % 10, n, user_id, 1, at FROM fill.orders WHERE n % 20 IN (3, 14) AND age < 300;

INSERT INTO saved_addresses (address_id, user_id, address, is_default, created_at, updated_at)
SELECT id, 'u' || n, '{{"name": "Zhang San", "phone": "13800000000", "country": "CN", "city": "Hangzhou", "line": "1"}}', true, at, at
FROM fill.orders WHERE n % 3 = 0;
-- Carts of customers have the order's id, those of guests another one.
INSERT INTO carts (cart_id, user_id, version, checkout_id, created_at, updated_at)
SELECT id, 'u' || n, 1, CASE WHEN n % 1000 = 0 THEN id END, at, at FROM fill.orders WHERE n % 2 = 0
UNION ALL SELECT fill.id_of(n + {orders}), NULL, 1, NULL, at, at FROM fill.orders WHERE n % 2 = 1;
INSERT INTO cart_lines (cart_id, sale_id, sku, quantity, selected, saved, accepted_price_minor, added_at)
SELECT cart_id, 'ordinary', 'sku-' || n, 1, true, false, 1000, created_at FROM carts, generate_series(0, 1) AS n;
INSERT INTO checkouts (checkout_id, cart_id, cart_version, user_id, request_digest, state, attempt, lease_until, created_at, ended_at)
SELECT id, id, 1, 'u' || n, decode(repeat('00', 32), 'hex'), CASE WHEN n % 1000 = 0 THEN 'placing' ELSE 'done' END, 1, at, at,
       CASE WHEN n % 1000 <> 0 THEN at END
FROM fill.orders WHERE n % 2 = 0;
INSERT INTO checkout_orders (checkout_id, sale_id, total_minor, currency, body, outcome, order_id)
SELECT checkout_id, 'ordinary', 2000, 'CNY', CASE state WHEN 'placing' THEN '{{}}'::jsonb END,
       CASE state WHEN 'placing' THEN 'pending' ELSE 'placed' END, CASE state WHEN 'done' THEN checkout_id END FROM checkouts;
