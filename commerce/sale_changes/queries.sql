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
