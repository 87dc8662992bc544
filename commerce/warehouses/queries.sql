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
WITH written AS (
    INSERT INTO product_logistics (sku, warehouse_id, shelf, weight_g, length_mm, width_mm, height_mm)
    SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::int[], $5::int[], $6::int[], $7::int[])
    ON CONFLICT (sku) DO UPDATE
    SET warehouse_id = excluded.warehouse_id, shelf = excluded.shelf, weight_g = excluded.weight_g,
        length_mm = excluded.length_mm, width_mm = excluded.width_mm, height_mm = excluded.height_mm
    WHERE product_logistics IS DISTINCT FROM excluded
    RETURNING sku
)
SELECT count(*) FILTER (WHERE before.sku IS NULL) AS added, count(before.sku) AS changed
FROM written LEFT JOIN product_logistics AS before USING (sku);

-- name: unknown_skus
SELECT sku FROM unnest($1::text[]) AS wanted (sku)
WHERE NOT EXISTS (SELECT FROM variants WHERE variants.sku = wanted.sku);

-- name: product_logistics_of
SELECT sku, warehouse_id, shelf, weight_g, length_mm, width_mm, height_mm FROM product_logistics
WHERE sku = ANY($1::text[]);

-- name: warehouses_of
SELECT warehouse_id, name, address, latitude, longitude FROM warehouses WHERE warehouse_id = ANY($1::text[]);

-- name: list_warehouses
SELECT warehouse_id, name, address, latitude, longitude,
       (SELECT count(*) FROM product_logistics AS product WHERE product.warehouse_id = warehouses.warehouse_id) AS products
FROM warehouses ORDER BY warehouse_id LIMIT $1;
