-- Statements of promotions. All changes happen under the lock of their sale's row.

-- name: insert_promotion
INSERT INTO promotions (sale_id, promotion_id, label, promotion_class, rule, skus, starts_at, ends_at,
                        new_customers_only, enabled, changed_generation, created_at, updated_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $12);

-- name: update_promotion
-- The class stays: a coupon of it must not become a promotion for everybody.
UPDATE promotions SET label = $3, rule = $4, skus = $5, starts_at = $6, ends_at = $7, new_customers_only = $8,
    enabled = $9, changed_generation = $10, updated_at = $11
WHERE sale_id = $1 AND promotion_id = $2;

-- name: delete_promotion
DELETE FROM promotions WHERE sale_id = $1 AND promotion_id = $2;

-- name: count_promotions
SELECT count(*) FROM promotions WHERE sale_id = $1;

-- name: get_promotion
SELECT {promotions} FROM promotions WHERE sale_id = $1 AND promotion_id = $2;

-- name: list_promotions
SELECT {promotions} FROM promotions WHERE sale_id = $1 AND promotion_id > $2 ORDER BY promotion_id LIMIT $3;

-- name: list_if_changed
-- All promotions of a sale if any has changed after a generation, else none.
SELECT {promotions} FROM promotions
WHERE sale_id = $1 AND EXISTS (SELECT FROM promotions WHERE sale_id = $1 AND changed_generation > $2);
