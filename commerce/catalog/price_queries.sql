-- name: lock_price
SELECT product_id, price_minor, currency FROM variants WHERE sku = $1 FOR UPDATE;

-- name: set_price
UPDATE variants SET price_minor = $2, updated_at = $3 WHERE sku = $1;

-- name: add_price_changes
INSERT INTO price_changes (sku, price_minor, currency, actor, reason, at)
SELECT sku, price_minor, currency, $4, $5, $6
FROM unnest($1::text[], $2::bigint[], $3::text[]) AS input (sku, price_minor, currency);

-- name: add_planned_change
INSERT INTO price_changes (sku, price_minor, currency, actor, reason, plan_id, at)
SELECT sku, price_minor, currency, actor, reason, plan_id, $2 FROM planned_prices WHERE plan_id = $1;

-- name: list_price_changes
SELECT change_no, price_minor AS price, currency, at, actor, reason, plan_id FROM price_changes
WHERE sku = $1 AND change_no < $2 ORDER BY change_no DESC LIMIT $3;

-- name: insert_plan
INSERT INTO planned_prices (plan_id, sku, price_minor, currency, starts_at, actor, reason, created_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8);

-- name: get_plan
SELECT {planned_prices} FROM planned_prices WHERE plan_id = $1;

-- name: find_planned
SELECT {planned_prices} FROM planned_prices WHERE sku = $1 AND starts_at = $2 AND status = 'planned';

-- name: list_planned
SELECT {planned_prices} FROM planned_prices WHERE sku = $1 AND status = 'planned' ORDER BY starts_at;

-- name: list_due_plans
SELECT {planned_prices} FROM planned_prices
WHERE sku = ANY($1::text[]) AND status = 'planned' AND starts_at <= $2 ORDER BY sku, starts_at;

-- name: list_plans
SELECT {planned_prices} FROM planned_prices
WHERE sku = $1 AND plan_id < $2 ORDER BY plan_id DESC LIMIT $3;

-- name: end_plan
UPDATE planned_prices SET status = $2, ended_at = $3, ended_by = $4, end_reason = $5 WHERE plan_id = $1;
