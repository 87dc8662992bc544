-- The stock of five warehouses: each sale had its items allotted, and shipped what it sold.
INSERT INTO stock_levels (sku, warehouse_id, on_hand, allotted, warn_below)
SELECT 'sku-' || n, 'w' || w, 100000000, 1000000, CASE WHEN n % 100 = 0 THEN 200000000 END
FROM generate_series(0, 19999) AS n, generate_series(0, 4) AS w;
INSERT INTO allotted_items (sale_id, sku, needed, allotted)
SELECT sale_id, sku, initial_units, initial_units FROM sale_items WHERE product_sku IS NOT NULL;
INSERT INTO allotments (sale_id, sku, warehouse_id, units, planned)
SELECT sale_id, sku, 'w' || w, CASE WHEN sale_id = 'ordinary' THEN 1000 ELSE 0 END, 0
FROM allotted_items, generate_series(0, 4) AS w;
INSERT INTO stock_movements (movement_id, sku, warehouse_id, kind, on_hand_delta, allotted_delta, on_hand, allotted, sale_id,
                             reference, reason, actor, moved_at)
SELECT id, 'sku-' || n % 50, 'w' || n % 5, 'shipped', -1, -1, 100000, 1000, sale_id, 'order ' || id, 'a carrier has them',
       'fulfilment_worker', at
FROM fill.orders WHERE status NOT IN ('awaiting_payment', 'cancelled', 'paid') ORDER BY n;
