-- name: count_coupons
SELECT count(*) FROM coupons WHERE sale_id = $1;

-- name: insert_coupon
WITH item AS (
    INSERT INTO sale_items (sale_id, sku, price_minor, user_limit, limit_bound, initial_units, changed_generation)
    VALUES ($1, 'coupon:' || $2::text, 0, $5, $5, $6, $7)
)
INSERT INTO coupons (sale_id, code, promotion_id, issued, created_at) VALUES ($1, $2::text, $3, $4, $8);

-- name: list_coupons
-- All of a sale, or the one with a code.
WITH changes AS (
    SELECT sku, sum(delta) AS units, coalesce(sum(delta) FILTER (WHERE status = 'pending'), 0) AS pending_units
    FROM stock_changes WHERE sale_id = $1 AND status IN ('applied', 'pending')
      AND ($2::text IS NULL AND sku LIKE 'coupon:%' OR sku = 'coupon:' || $2)
    GROUP BY sku
)
SELECT code, promotion_id, issued, user_limit AS limit_per_user, initial_units + coalesce(units, 0)::bigint AS units,
       coalesce(pending_units, 0)::bigint AS pending_units, created_at
FROM coupons JOIN sale_items USING (sale_id, sku) LEFT JOIN changes USING (sku)
WHERE sale_id = $1 AND ($2 IS NULL OR code = $2) ORDER BY code;

-- name: change_coupon
UPDATE coupons SET promotion_id = $3, issued = $4 WHERE sale_id = $1 AND code = $2;

-- name: set_initial_units
-- Of a draft.
UPDATE sale_items SET initial_units = $3 WHERE sale_id = $1 AND sku = 'coupon:' || $2::text;
