-- name: change_sale
UPDATE sales SET title = $2, currency = $3, opens_at = $4, closes_at = $5, pay_within_s = $6,
    generation = generation + 1
WHERE sale_id = $1;

-- name: find_priced
SELECT CASE WHEN EXISTS (SELECT FROM sale_items WHERE sale_id = $1) THEN 'items'
            WHEN EXISTS (SELECT FROM promotions WHERE sale_id = $1) THEN 'promotions' END;

-- name: find_promotion_of_item
SELECT promotion_id FROM promotions WHERE sale_id = $1 AND $2::text = ANY(skus) ORDER BY promotion_id LIMIT 1;

-- name: has_open_room
SELECT EXISTS (SELECT FROM waiting_rooms WHERE sale_id = $1 AND mode <> 'off' AND state NOT IN ('standby', 'ended'));

-- name: find_room
-- A room that is off is compared with the sale again when it is turned on.
SELECT list_closes_at, listed_at IS NOT NULL AS is_listed, state = 'ended' AS has_ended
FROM waiting_rooms WHERE sale_id = $1 AND mode <> 'off';

-- name: delete_coupons
DELETE FROM coupons WHERE sale_id = $1;

-- name: delete_promotions
DELETE FROM promotions WHERE sale_id = $1;

-- name: delete_items
DELETE FROM sale_items WHERE sale_id = $1;

-- name: delete_item
DELETE FROM sale_items WHERE sale_id = $1 AND sku = $2;

-- name: delete_wait_list
DELETE FROM wait_lists WHERE sale_id = $1;

-- name: delete_room_list
DELETE FROM waiting_room_lists WHERE sale_id = $1;

-- name: delete_room
DELETE FROM waiting_rooms WHERE sale_id = $1 RETURNING sale_id;

-- name: delete_sale
DELETE FROM sales WHERE sale_id = $1;

-- name: read_shipping_setup
SELECT EXISTS (SELECT FROM warehouses) AS has_warehouses, freight_template IS NOT NULL AS has_freight,
       (SELECT max(table_id) FROM rate_tables) AS table_id
FROM sales WHERE sale_id = $1;

-- name: list_gaps
-- Products of a sale that lack something, by what they lack. $2: the current rate table, whose heaviest step is compared.
-- Units are missing if the warehouses that keep a SKU have fewer than the sale offers, with those that it has already.
WITH items AS (
    SELECT sale_id, sku, price_minor, initial_units FROM sale_items WHERE sale_id = $1 AND product_sku IS NOT NULL
), gaps (kind, sku) AS (
    SELECT 'measures', sku FROM items JOIN variants USING (sku) WHERE weight_g IS NULL
    UNION ALL
    SELECT 'logistics', sku FROM items WHERE NOT EXISTS (SELECT FROM stock_levels WHERE stock_levels.sku = items.sku)
      AND NOT EXISTS (SELECT FROM product_logistics WHERE product_logistics.sku = items.sku)
    UNION ALL
    SELECT 'rate', sku FROM items JOIN variants USING (sku)
    WHERE weight_g > (SELECT max(to_g) FROM rates WHERE table_id = $2)
    UNION ALL
    SELECT 'price', sku FROM items WHERE price_minor = 0
    UNION ALL
    SELECT 'stock', sku FROM items JOIN (
        SELECT sku, sum(on_hand - allotted) AS free FROM stock_levels GROUP BY sku) AS level USING (sku)
    LEFT JOIN allotted_items AS item USING (sale_id, sku) WHERE initial_units > coalesce(item.allotted, 0) + free
)
SELECT kind, count(*) AS count, (array_agg(sku ORDER BY sku))[:10] AS skus FROM gaps GROUP BY kind;
