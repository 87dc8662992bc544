-- name: upsert_products
-- Equal rows are left unchanged, so a repeated import changes nothing.
INSERT INTO products (sku, name, price_minor, currency, created_at, updated_at)
SELECT sku, name, price_minor, currency, $5, $5
FROM unnest($1::text[], $2::text[], $3::bigint[], $4::text[]) AS input (sku, name, price_minor, currency)
ON CONFLICT (sku) DO UPDATE
SET name = excluded.name, price_minor = excluded.price_minor, currency = excluded.currency,
    updated_at = excluded.updated_at
WHERE (products.name, products.price_minor, products.currency)
      IS DISTINCT FROM (excluded.name, excluded.price_minor, excluded.currency)
RETURNING sku, created_at = updated_at AS added;

-- name: get_product
SELECT sku, name, price_minor AS price, currency, updated_at FROM products WHERE sku = $1;

-- name: list_products
SELECT sku, name, price_minor AS price, currency, updated_at FROM products
WHERE sku > $1 ORDER BY sku LIMIT $2;

-- name: read_changed_products
-- Those of the products that differ from what the caller has, by the number of the transaction that wrote the row; NULL
-- stands for a product that the caller does not have. A product that is gone comes back without a name.
SELECT input.sku, products.xmin AS version, name, price_minor AS price, currency, updated_at
FROM unnest($1::text[], $2::xid[]) AS input (sku, version) LEFT JOIN products USING (sku)
WHERE products.xmin IS DISTINCT FROM input.version;
