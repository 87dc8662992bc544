-- name: insert_products_of_new_skus
-- A new SKU is the one variant of a product of its own.
INSERT INTO products (product_id, status, created_at, updated_at)
SELECT sku, 'on_sale', $2, $2 FROM unnest($1::text[]) AS input (sku)
WHERE NOT EXISTS (SELECT FROM variants WHERE variants.sku = input.sku)
ON CONFLICT DO NOTHING;

-- name: upsert_variants
-- Equal rows are left unchanged, so a repeated import changes nothing.
INSERT INTO variants (sku, product_id, name, price_minor, currency, created_at, updated_at)
SELECT sku, sku, name, price_minor, currency, $5, $5
FROM unnest($1::text[], $2::text[], $3::bigint[], $4::text[]) AS input (sku, name, price_minor, currency)
ON CONFLICT (sku) DO UPDATE
SET name = excluded.name, price_minor = excluded.price_minor, currency = excluded.currency,
    updated_at = excluded.updated_at
WHERE (variants.name, variants.price_minor, variants.currency)
      IS DISTINCT FROM (excluded.name, excluded.price_minor, excluded.currency)
RETURNING sku, created_at = updated_at AS added;

-- name: get_variant
SELECT sku, name, price_minor AS price, currency, updated_at FROM variants WHERE sku = $1;

-- name: list_variants
SELECT sku, name, price_minor AS price, currency, updated_at FROM variants
WHERE sku > $1 ORDER BY sku LIMIT $2;

-- name: read_changed_variants
-- Those of the products that differ from what the caller has, by the number of the transaction that wrote the row; NULL
-- stands for a product that the caller does not have. A product that is gone comes back without a name.
SELECT input.sku, variants.xmin AS version, name, price_minor AS price, currency, updated_at
FROM unnest($1::text[], $2::xid[]) AS input (sku, version) LEFT JOIN variants USING (sku)
WHERE variants.xmin IS DISTINCT FROM input.version;
