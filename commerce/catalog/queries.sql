-- name: get_variant
SELECT {variants} FROM variants WHERE sku = $1;

-- name: list_variants
SELECT {variants} FROM variants JOIN products USING (product_id)
WHERE sku > $1 AND status = 'on_sale' ORDER BY sku LIMIT $2;

-- name: list_variants_of_products
SELECT {variants} FROM variants WHERE product_id = ANY($1::text[]) ORDER BY sku;

-- name: read_changed_variants
-- Those of the variants that differ from what the caller has, by the number of the transaction that wrote the row; NULL
-- stands for a variant that the caller does not have. One that is gone comes back without a version. Whoever changes the
-- status of a product writes its variants, too.
SELECT input.sku AS key, variants.xmin AS row_version, status = 'on_sale' AS is_public, {variants}
FROM unnest($1::text[], $2::xid[]) AS input (sku, version) LEFT JOIN variants USING (sku)
LEFT JOIN products USING (product_id)
WHERE variants.xmin IS DISTINCT FROM input.version;

-- name: lock_products_of_skus
-- In the sequence of their ids, and before their variants, as all others lock them.
SELECT FROM products
WHERE product_id = ANY($1::text[]) OR product_id IN (SELECT product_id FROM variants WHERE sku = ANY($1::text[]))
ORDER BY product_id FOR UPDATE;

-- name: lock_variants
SELECT {variants} FROM variants WHERE sku = ANY($1::text[]) ORDER BY sku FOR UPDATE;

-- name: find_refused
-- A new SKU becomes a variant of the product with its id only if that has no other one and no options. All variants of a
-- product have one currency: lists show its lowest and its highest price.
WITH input AS (SELECT sku, currency FROM unnest($1::text[], $2::text[]) AS input (sku, currency))
SELECT input.sku, 'taken' AS refusal FROM input JOIN products ON product_id = input.sku
WHERE NOT EXISTS (SELECT FROM variants WHERE variants.sku = input.sku)
AND (cardinality(options) > 0 OR EXISTS (SELECT FROM variants WHERE variants.product_id = input.sku))
UNION ALL
SELECT input.sku, 'currency' FROM input JOIN variants USING (sku)
WHERE EXISTS (
    SELECT FROM variants AS others LEFT JOIN input AS new ON new.sku = others.sku
    WHERE others.product_id = variants.product_id AND coalesce(new.currency, others.currency) <> input.currency
);

-- name: insert_own_products
-- New SKUs become products, each with one variant.
INSERT INTO products (product_id, status, created_at, updated_at)
SELECT sku, 'on_sale', $2, $2 FROM unnest($1::text[]) AS input (sku)
WHERE NOT EXISTS (SELECT FROM variants WHERE variants.sku = input.sku) ORDER BY sku
ON CONFLICT DO NOTHING RETURNING product_id;

-- name: insert_own_texts
INSERT INTO product_texts (product_id, language, name)
SELECT product_id, language, name FROM unnest($1::text[], $2::text[], $3::text[]) AS input (product_id, language, name);

-- name: insert_own_variants
INSERT INTO variants (sku, product_id, name, price_minor, currency, created_at, updated_at)
SELECT sku, sku, name, price_minor, currency, $5, $5
FROM unnest($1::text[], $2::text[], $3::bigint[], $4::text[]) AS input (sku, name, price_minor, currency)
WHERE NOT EXISTS (SELECT FROM variants WHERE variants.sku = input.sku) ORDER BY sku
ON CONFLICT (sku) DO NOTHING RETURNING sku;

-- name: update_variants
UPDATE variants SET name = input.name, price_minor = input.price_minor, currency = input.currency, updated_at = $5
FROM unnest($1::text[], $2::text[], $3::bigint[], $4::text[]) AS input (sku, name, price_minor, currency)
WHERE variants.sku = input.sku;

-- name: rename_products
-- The text of a product that has the name of its only variant follows it.
UPDATE product_texts SET name = input.new FROM unnest($1::text[], $2::text[], $3::text[]) AS input (product_id, old, new)
WHERE product_texts.product_id = input.product_id AND product_texts.name = input.old
AND (SELECT count(*) FROM variants WHERE variants.product_id = input.product_id) = 1;
