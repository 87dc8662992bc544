-- name: add_levels
-- Keeps SKUs in warehouses from now on. Unknown SKUs and warehouses are left out.
INSERT INTO stock_levels (sku, warehouse_id)
SELECT sku, warehouse_id FROM unnest($1::text[], $2::text[]) AS input (sku, warehouse_id)
JOIN variants USING (sku) JOIN warehouses USING (warehouse_id) ORDER BY sku, warehouse_id
ON CONFLICT DO NOTHING;

-- name: lock_levels
SELECT {stock_levels} FROM stock_levels JOIN unnest($1::text[], $2::text[]) AS input (sku, warehouse_id)
    USING (sku, warehouse_id) ORDER BY stock_levels.sku, stock_levels.warehouse_id FOR UPDATE OF stock_levels;

-- name: move
SELECT move_stock($1, $2, $3, $4, 0, NULL, $5, $6, $7, $8, $9);

-- name: find_movement
SELECT {stock_movements} FROM stock_movements WHERE movement_id = $1 AND sku = $2 AND warehouse_id = $3;

-- name: set_warning
UPDATE stock_levels SET warn_below = $3 WHERE sku = $1 AND warehouse_id = $2 AND warn_below IS DISTINCT FROM $3;

-- name: list_levels
-- $1, $2: after this stock; $3: of this SKU, $4: of this warehouse, or null.
SELECT {stock_levels} FROM stock_levels
WHERE (sku, warehouse_id) > ($1, $2) AND ($3::text IS NULL OR sku = $3) AND ($4::text IS NULL OR warehouse_id = $4)
ORDER BY sku, warehouse_id LIMIT $5;

-- name: list_low
SELECT {stock_levels} FROM stock_levels
WHERE on_hand < warn_below AND (sku, warehouse_id) > ($1, $2) AND ($3::text IS NULL OR sku = $3)
  AND ($4::text IS NULL OR warehouse_id = $4)
ORDER BY sku, warehouse_id LIMIT $5;

-- name: count_low
SELECT count(*) FROM stock_levels WHERE on_hand < warn_below;

-- name: list_movements
-- Newest first. $2: of this warehouse, or null; $3: before this number. Each warehouse has its own part of the index.
SELECT {stock_movements} FROM stock_levels CROSS JOIN LATERAL (
    SELECT {stock_movements} FROM stock_movements
    WHERE stock_movements.sku = stock_levels.sku AND stock_movements.warehouse_id = stock_levels.warehouse_id
      AND movement_no < $3
    ORDER BY movement_no DESC LIMIT $4) AS stock_movements
WHERE stock_levels.sku = $1 AND ($2::text IS NULL OR stock_levels.warehouse_id = $2)
ORDER BY movement_no DESC LIMIT $4;

-- name: is_kept
SELECT EXISTS (SELECT FROM stock_levels WHERE sku = $1);

-- name: allot_items
SELECT allot_item($1, sku, units, $4, $5) FROM unnest($2::text[], $3::bigint[]) AS input (sku, units)
WHERE EXISTS (SELECT FROM stock_levels WHERE stock_levels.sku = input.sku) ORDER BY sku;

-- name: allot_all_items
-- Of a draft, which is about to open.
SELECT allot_item($1, sku, initial_units, $2, $3) FROM (
    SELECT sku, initial_units FROM sale_items WHERE sale_id = $1
      AND EXISTS (SELECT FROM stock_levels WHERE stock_levels.sku = sale_items.sku) ORDER BY sku) AS items;

-- name: need_more
UPDATE allotted_items SET needed = needed + $3 WHERE sale_id = $1 AND sku = $2 RETURNING needed - $3 - allotted AS missing;

-- name: allot_units
SELECT allot_units($1, $2, $3, $4, $5, $6);

-- name: read_missing
SELECT needed - allotted AS missing FROM allotted_items WHERE sale_id = $1 AND sku = $2;

-- name: sum_free
SELECT coalesce(sum(on_hand - allotted), 0)::bigint FROM stock_levels WHERE sku = $1;

-- name: take_back_all
SELECT take_back_units(sale_id, sku, needed, NULL, $3, $4, $5) FROM (
    SELECT sale_id, sku, needed FROM allotted_items WHERE sale_id = $1 AND ($2::text IS NULL OR sku = $2)
    ORDER BY sku FOR UPDATE) AS items;

-- name: delete_allotments
DELETE FROM allotments WHERE sale_id = $1 AND ($2::text IS NULL OR sku = $2);

-- name: delete_allotted_items
DELETE FROM allotted_items WHERE sale_id = $1 AND ($2::text IS NULL OR sku = $2);

-- name: list_allotments
SELECT sku, needed, item.allotted, coalesce(sum(units), 0)::bigint AS units, coalesce(sum(planned), 0)::bigint AS planned
FROM allotted_items AS item LEFT JOIN allotments USING (sale_id, sku)
WHERE sale_id = $1 AND sku > $2 GROUP BY sku, needed, item.allotted ORDER BY sku LIMIT $3;

-- name: lock_items
-- Those of the items whose units are allotted. Whoever changes what is allotted to them waits.
SELECT item.sale_id, item.sku FROM allotted_items AS item
JOIN unnest($1::text[], $2::text[]) AS input (sale_id, sku) USING (sale_id, sku)
ORDER BY item.sku, item.sale_id FOR UPDATE OF item;

-- name: list_held_units
-- After `lock_items`, in a statement of its own: one that waits for a lock sees other rows as they were before.
SELECT input.sale_id, sku, warehouse_id, coalesce(units - planned, 0) AS allotted, on_hand - level.allotted AS free
FROM unnest($1::text[], $2::text[]) AS input (sale_id, sku) JOIN stock_levels AS level USING (sku)
     LEFT JOIN allotments USING (sale_id, sku, warehouse_id)
ORDER BY sku, sale_id, warehouse_id;

-- name: list_unplanned_items
-- Items of sales that have ended, with units that no shipment holds: those may be unsold.
SELECT DISTINCT sale_id, sku FROM allotments JOIN sales USING (sale_id)
WHERE units > planned AND loaded_epoch > 0 AND (state = 'closed' OR closes_at < $1) AND (sale_id, sku) > ($2, $3)
ORDER BY sale_id, sku LIMIT $4;

-- name: return_units
-- Units of an order that were inspected and are good, in the warehouse that has them. Those that are sold again go to the
-- sale, as far as its items are allotted; the others are free.
SELECT move_stock(input.sku, input.warehouse_id, 'returned', units, CASE WHEN is_resold THEN units ELSE 0 END,
                  CASE WHEN is_resold THEN sale_id END, $2, $3, 'inspected and good', $4, $5)
FROM unnest($6::text[], $7::text[], $8::bigint[], $9::boolean[]) AS input (sku, warehouse_id, units, is_resold)
     JOIN orders ON order_id = $1 JOIN allotted_items USING (sale_id, sku)
ORDER BY input.sku, input.warehouse_id;

-- name: add_levels_of_kept
-- A warehouse may receive returned units of a SKU that others keep.
INSERT INTO stock_levels (sku, warehouse_id)
SELECT DISTINCT sku, warehouse_id FROM unnest($1::text[], $2::text[]) AS input (sku, warehouse_id)
WHERE EXISTS (SELECT FROM stock_levels WHERE stock_levels.sku = input.sku) ORDER BY sku, warehouse_id
ON CONFLICT DO NOTHING;
