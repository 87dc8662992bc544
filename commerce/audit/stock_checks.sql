-- name: stock_sums
-- P7. On hand is the sum of all movements, and what is allotted is that of the allotments, too. Of all sales.
SELECT sku || ' in ' || warehouse_id AS subject
FROM stock_levels AS level LEFT JOIN (
    SELECT sku, warehouse_id, sum(on_hand_delta) AS on_hand_sum, sum(allotted_delta) AS allotted_sum
    FROM stock_movements GROUP BY sku, warehouse_id) AS moved USING (sku, warehouse_id)
LEFT JOIN (SELECT sku, warehouse_id, sum(units) AS units FROM allotments GROUP BY sku, warehouse_id) AS held
    USING (sku, warehouse_id)
WHERE (on_hand, allotted, allotted)
      IS DISTINCT FROM (coalesce(on_hand_sum, 0), coalesce(allotted_sum, 0), coalesce(units, 0))
ORDER BY sku, warehouse_id;

-- name: newest_stock
-- P7. The same of the SKUs of a sale, by the newest movement alone.
SELECT sku || ' in ' || warehouse_id AS subject
FROM allotted_items JOIN stock_levels AS level USING (sku) LEFT JOIN LATERAL (
    SELECT on_hand, allotted FROM stock_movements AS movement
    WHERE movement.sku = level.sku AND movement.warehouse_id = level.warehouse_id
    ORDER BY movement_no DESC LIMIT 1) AS newest ON true
WHERE sale_id = $1 AND (level.on_hand, level.allotted) IS DISTINCT FROM (newest.on_hand, newest.allotted)
  AND (newest.on_hand IS NOT NULL OR level.on_hand > 0)
ORDER BY sku, warehouse_id;

-- name: allotted_items
-- P7. An item needs at least what its sale may sell, and has what was allotted and not taken back.
SELECT sku AS subject FROM allotted_items AS item JOIN sale_items USING (sale_id, sku) LEFT JOIN (
    SELECT sku, sum(allotted_delta) FILTER (WHERE kind <> 'shipped') AS given, sum(allotted_delta) AS units_left
    FROM stock_movements WHERE sale_id = $1 GROUP BY sku) AS moved USING (sku)
LEFT JOIN (SELECT sku, sum(units) AS units FROM allotments WHERE sale_id = $1 GROUP BY sku) AS held USING (sku)
WHERE sale_id = $1 AND (
    (allotted, coalesce(units, 0)) IS DISTINCT FROM (coalesce(given, 0), coalesce(units_left, 0))
    OR needed < initial_units + coalesce((
        SELECT sum(delta) FROM stock_changes
        WHERE stock_changes.sale_id = $1 AND stock_changes.sku = item.sku
          AND (status = 'applied' OR status = 'pending' AND delta > 0)), 0))
ORDER BY sku;

-- name: held_units
-- P7. Shipments that have not left hold what is planned, and those that have left took what was shipped.
SELECT sku || ' in ' || warehouse_id AS subject FROM (
    SELECT sku, warehouse_id, planned, 0 AS shipped FROM allotments WHERE sale_id = $1
    UNION ALL
    SELECT sku, warehouse_id, 0, -on_hand_delta FROM stock_movements WHERE sale_id = $1 AND kind = 'shipped'
    UNION ALL
    SELECT line.sku, warehouse_id, CASE WHEN handed_over_at IS NULL AND ended_at IS NULL THEN -line.quantity ELSE 0 END,
           CASE WHEN handed_over_at IS NOT NULL THEN -line.quantity ELSE 0 END
    FROM orders JOIN shipments USING (order_id) JOIN shipment_lines AS line USING (shipment_id)
    JOIN allotted_items AS item ON item.sale_id = orders.sale_id AND item.sku = line.sku
    WHERE orders.sale_id = $1) AS units
GROUP BY sku, warehouse_id HAVING sum(planned) <> 0 OR sum(shipped) <> 0 ORDER BY sku, warehouse_id;

-- name: has_allotted_items
SELECT EXISTS (SELECT FROM allotted_items WHERE sale_id = $1);
