-- Most jobs are polls that are not due yet; of every hundred one has failed, and of every five hundred one is parked.
INSERT INTO jobs (subject, queue, kind, system, due_at, parked, last_error, created_at)
SELECT release_id, 'releases', 'release.apply', 'internal', created_at, created_at < '{now}'::timestamptz - interval '5 days',
       CASE WHEN created_at < '{now}'::timestamptz - interval '5 days' THEN 'too old' END, created_at
FROM releases WHERE status = 'pending'
UNION ALL
SELECT change_id, 'stock_changes', 'stock_change.apply', 'internal', created_at, false, NULL, created_at
FROM stock_changes WHERE status = 'pending'
UNION ALL
SELECT id, 'shipments', CASE step WHEN 'planned' THEN 'shipment.book' ELSE 'shipment.track' END, 'sf_express',
       '{now}'::timestamptz + CASE WHEN n % 20 = 0 THEN interval '-1 minute' ELSE interval '1 hour' END,
       age < 8000 AND n % 100 = 9, CASE WHEN age < 8000 AND n % 100 = 9 THEN 'no answer' END, at
FROM fill.shipped WHERE step IN ('planned', 'booked', 'in_transit')
UNION ALL
SELECT order_id, 'fulfilments', CASE status WHEN 'pending' THEN 'order.plan' ELSE 'order.complete' END, 'internal',
       CASE status WHEN 'pending' THEN paid_at ELSE delivered_at + interval '30 days' END,
       status = 'pending' AND right(order_id::text, 1) = '8',
       CASE WHEN status = 'pending' AND right(order_id::text, 1) = '8' THEN 'no warehouse' END, paid_at
FROM fulfilments WHERE status IN ('pending', 'delivered')
UNION ALL
SELECT payment_id, 'payments', 'payment.query', method, created_at + interval '1 hour', false, NULL, created_at
FROM payments WHERE status = 'pending'
UNION ALL
SELECT payment_id, 'payments', 'payment.update_order', 'internal', created_at, true, 'no answer', created_at
FROM payments WHERE status = 'captured' AND refunded_minor > 0 AND amount_minor % 1000 = 0 AND transaction_id LIKE '%0011'
UNION ALL
SELECT refund_id, 'refunds', 'refund.request', 'alipay', refunds.created_at, refunds.created_at < '{now}'::timestamptz - interval '9 days',
       CASE WHEN refunds.created_at < '{now}'::timestamptz - interval '9 days' THEN 'no answer' END, refunds.created_at
FROM refunds WHERE status = 'pending'
UNION ALL
SELECT id, 'polls', 'poll.' || n % 3, 'system-' || n % 2, '{now}'::timestamptz + age * interval '1 minute', n % 500 = 0,
       CASE WHEN n % 100 = 1 OR n % 500 = 0 THEN 'no answer to ' || n END, at
FROM fill.orders WHERE age < {orders} / 20;

-- The triggers of the audit fire even now; its marks are those of the last orders.
DELETE FROM audit_marks;
INSERT INTO audit_seals (sale_id, epoch, orders, is_at_rest, sealed_at, whole_at)
SELECT sale_id, 1, 500, state = 'closed', '{now}', '{now}'::timestamptz - random() * interval '1 day' FROM sales;
INSERT INTO audit_sums (sale_id, sku, reserved, sold, dead, released)
SELECT sale_id, sku, 30, 20, 0, 3 FROM sale_items;
INSERT INTO audit_marks (sale_id, kind, ids, weight)
SELECT sale_id, kind, ARRAY[id], CASE kind WHEN 'stored' THEN 1 ELSE 0 END
FROM fill.orders, (VALUES ('stored'), ('changed')) AS kinds (kind) WHERE age < 2000;
