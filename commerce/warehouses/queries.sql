-- name: upsert_warehouses
-- Equal rows are not written, so a repeated import changes nothing. All parts of a statement see the table as it was
-- before: a row that was missing then was added.
WITH written AS (
    INSERT INTO warehouses (warehouse_id, name, address, latitude, longitude)
    SELECT * FROM unnest($1::text[], $2::text[], $3::jsonb[], $4::float8[], $5::float8[])
    ON CONFLICT (warehouse_id) DO UPDATE
    SET name = excluded.name, address = excluded.address, latitude = excluded.latitude,
        longitude = excluded.longitude
    WHERE (warehouses.name, warehouses.address, warehouses.latitude, warehouses.longitude)
          IS DISTINCT FROM (excluded.name, excluded.address, excluded.latitude, excluded.longitude)
    RETURNING warehouse_id
)
SELECT count(*) FILTER (WHERE before.warehouse_id IS NULL) AS added, count(before.warehouse_id) AS changed
FROM written LEFT JOIN warehouses AS before USING (warehouse_id);

-- name: upsert_product_logistics
-- Weight and size are columns of the variant.
WITH input AS (
    SELECT sku, warehouse_id, shelf, weight_g, length_mm, width_mm, height_mm
    FROM unnest($1::text[], $2::text[], $3::text[], $4::int[], $5::int[], $6::int[], $7::int[])
         AS input (sku, warehouse_id, shelf, weight_g, length_mm, width_mm, height_mm)
), measured AS (
    UPDATE variants SET weight_g = input.weight_g, length_mm = input.length_mm, width_mm = input.width_mm,
                        height_mm = input.height_mm
    FROM input WHERE variants.sku = input.sku
      AND (variants.weight_g, variants.length_mm, variants.width_mm, variants.height_mm)
          IS DISTINCT FROM (input.weight_g, input.length_mm, input.width_mm, input.height_mm)
    RETURNING variants.sku
), written AS (
    INSERT INTO product_logistics (sku, warehouse_id, shelf) SELECT sku, warehouse_id, shelf FROM input
    ON CONFLICT (sku) DO UPDATE SET warehouse_id = excluded.warehouse_id, shelf = excluded.shelf
    WHERE product_logistics IS DISTINCT FROM excluded
    RETURNING sku
)
SELECT count(*) FILTER (WHERE before.sku IS NULL) AS added, count(before.sku) AS changed
FROM (SELECT sku FROM written UNION SELECT sku FROM measured) AS changes
LEFT JOIN product_logistics AS before USING (sku);

-- name: unknown_skus
SELECT sku FROM unnest($1::text[]) AS wanted (sku)
WHERE NOT EXISTS (SELECT FROM variants WHERE variants.sku = wanted.sku);

-- name: product_logistics_of
SELECT sku, warehouse_id, shelf, weight_g, length_mm, width_mm, height_mm
FROM product_logistics JOIN variants USING (sku) WHERE sku = ANY($1::text[]) AND weight_g IS NOT NULL;

-- name: unit_sizes_of
SELECT sku, weight_g, length_mm, width_mm, height_mm FROM variants WHERE sku = ANY($1::text[]) AND weight_g IS NOT NULL;

-- name: warehouses_of
SELECT warehouse_id, name, address, latitude, longitude FROM warehouses WHERE warehouse_id = ANY($1::text[]);

-- name: list_warehouses
SELECT warehouse_id, name, address, latitude, longitude,
       (SELECT count(*) FROM product_logistics AS product WHERE product.warehouse_id = warehouses.warehouse_id) AS products
FROM warehouses ORDER BY warehouse_id LIMIT $1;
