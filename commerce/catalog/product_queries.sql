-- name: read_products
-- With a version in which each change of the product, its texts and its variants shows.
SELECT {products}, products.xmin || ':' || coalesce(
    (SELECT string_agg(variants.xmin::text, ',' ORDER BY sku) FROM variants
     WHERE variants.product_id = products.product_id), '') AS row_version
FROM products WHERE product_id = ANY($1::text[]);

-- name: read_texts
SELECT product_id, language, name, description, search_words FROM product_texts
WHERE product_id = ANY($1::text[]) ORDER BY product_id, language;

-- name: lock_products
SELECT {products} FROM products WHERE product_id = ANY($1::text[]) ORDER BY product_id FOR UPDATE;

-- name: insert_product
INSERT INTO products (product_id, status, category_id, brand, attributes, options, created_at, updated_at)
VALUES ($1, 'draft', $2, $3, $4, $5, $6, $6) ON CONFLICT DO NOTHING RETURNING product_id;

-- name: update_product
UPDATE products SET category_id = $2, brand = $3, attributes = $4, options = $5 WHERE product_id = $1;

-- name: set_status
UPDATE products SET status = $2 WHERE product_id = $1;

-- name: delete_texts
DELETE FROM product_texts WHERE product_id = $1 AND language <> ALL($2::text[]);

-- name: put_text
INSERT INTO product_texts (product_id, language, name, description, search_words) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (product_id, language) DO UPDATE
SET name = excluded.name, description = excluded.description, search_words = excluded.search_words;

-- name: set_option_values
UPDATE variants SET option_values = input.option_values, updated_at = $3
FROM unnest($1::text[], $2::jsonb[]) AS input (sku, option_values) WHERE variants.sku = input.sku;

-- name: touch_variants
UPDATE variants SET updated_at = $2 WHERE product_id = $1;

-- name: put_variant
INSERT INTO variants (sku, product_id, name, price_minor, currency, option_values, barcode, created_at, updated_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $8)
ON CONFLICT (sku) DO UPDATE
SET product_id = excluded.product_id, name = excluded.name, price_minor = excluded.price_minor,
    currency = excluded.currency, option_values = excluded.option_values, barcode = excluded.barcode,
    updated_at = excluded.updated_at;

-- name: find_sku_of_barcode
SELECT sku FROM variants WHERE lpad(barcode, 14, '0') = lpad($1::text, 14, '0');

-- name: add_changes
-- Each change makes the next version of its product; a new product has its first version already.
WITH raised AS (
    UPDATE products SET version = version + CASE WHEN input.action = 'created' THEN 0 ELSE 1 END, updated_at = $6
    FROM unnest($1::text[], $2::text[], $5::jsonb[]) AS input (product_id, action, diff)
    WHERE products.product_id = input.product_id
    RETURNING products.product_id, products.version, input.action, input.diff
)
INSERT INTO product_changes (product_id, version, action, actor, reason, diff, at)
SELECT product_id, version, action, $3, $4, diff, $6 FROM raised;

-- name: move_products
-- The products of a category that was merged into another one.
WITH locked AS (SELECT product_id FROM products WHERE category_id = $1 ORDER BY product_id FOR UPDATE),
moved AS (
    UPDATE products SET category_id = $2, version = version + 1, updated_at = now()
    FROM locked WHERE products.product_id = locked.product_id
    RETURNING products.product_id, version, updated_at
), recorded AS (
    INSERT INTO product_changes (product_id, version, action, actor, reason, diff, at)
    SELECT product_id, version, 'changed', $3, $4, jsonb_build_object('category_id', jsonb_build_array($1::text, $2::text)),
           updated_at
    FROM moved
)
SELECT count(*) FROM moved;

-- name: list_changes
SELECT version, action, at, actor, reason, diff FROM product_changes
WHERE product_id = $1 AND version < $2 ORDER BY version DESC LIMIT $3;

-- name: list_products
SELECT product_id, status, version, category_id, brand, updated_at, names, variant_count, min_price, max_price, currency
FROM products
CROSS JOIN LATERAL (
    SELECT jsonb_object_agg(language, name) AS names FROM product_texts
    WHERE product_texts.product_id = products.product_id
) AS texts
CROSS JOIN LATERAL (
    SELECT count(*) AS variant_count, min(price_minor) AS min_price, max(price_minor) AS max_price,
           min(currency) AS currency
    FROM variants WHERE variants.product_id = products.product_id
) AS prices
WHERE product_id > $1 AND ($2::text IS NULL OR status = $2) AND ($3::text IS NULL OR category_id = $3)
ORDER BY product_id LIMIT $4;
