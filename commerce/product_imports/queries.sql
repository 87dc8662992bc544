-- name: insert_import
INSERT INTO product_imports (import_id, file_name, format, status, reason, lines, created_at, created_by, changed_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $7);

-- name: insert_part
INSERT INTO product_import_parts (import_id, first_line, content) VALUES ($1, $2, $3);

-- name: set_lines
UPDATE product_imports SET lines = $2 WHERE import_id = $1;

-- name: find_import
SELECT {product_imports} FROM product_imports WHERE import_id = $1;

-- name: list_imports
SELECT {product_imports} FROM product_imports WHERE import_id < $1 ORDER BY import_id DESC LIMIT $2;

-- name: lock_import
SELECT {locked_imports} FROM product_imports AS locked_imports WHERE import_id = $1 FOR UPDATE;

-- name: read_import
SELECT {locked_imports} FROM product_imports AS locked_imports WHERE import_id = $1;

-- name: read_part
-- The part with a line.
SELECT first_line, content FROM product_import_parts
WHERE import_id = $1 AND first_line <= $2 ORDER BY first_line DESC LIMIT 1;

-- name: set_header
UPDATE product_imports
SET columns = $2, header_lines = $3::integer, blank_lines = $4::integer, checked_lines = $3::integer + $4::integer,
    changed_at = $5 WHERE import_id = $1;

-- name: refuse_import
-- The lines of the header are refused; nothing after them is read.
UPDATE product_imports
SET status = 'refused', reason = $2, refused = $3::integer, blank_lines = $4::integer, continued_lines = $5::integer,
    checked_lines = $3::integer + $4::integer + $5::integer, changed_at = $6
WHERE import_id = $1;

-- name: add_counts
UPDATE product_imports
SET checked_lines = $2, blank_lines = blank_lines + $3, continued_lines = continued_lines + $4, created = created + $5,
    changed = changed + $6, unchanged = unchanged + $7, refused = refused + $8, products = products + $9, changed_at = $10
WHERE import_id = $1;

-- name: end_check
UPDATE product_imports SET status = 'checked', changed_at = $2 WHERE import_id = $1;

-- name: delete_keys
DELETE FROM product_import_keys WHERE import_id = $1;

-- name: add_keys
INSERT INTO product_import_keys (import_id, key, line)
SELECT $1, key, line FROM unnest($2::text[], $3::integer[]) AS input (key, line) ORDER BY line ON CONFLICT DO NOTHING;

-- name: list_keys
SELECT key, line FROM product_import_keys WHERE import_id = $1 AND key = ANY($2::text[]);

-- name: insert_lines
INSERT INTO product_import_lines (import_id, line, outcome, group_line, product_id, sku, columns, faults)
SELECT $1, line, outcome, group_line, product_id, sku, ARRAY(SELECT jsonb_array_elements_text(columns)), faults
FROM unnest($2::integer[], $3::text[], $4::integer[], $5::text[], $6::text[], $7::jsonb[], $8::jsonb[])
     AS input (line, outcome, group_line, product_id, sku, columns, faults);

-- name: insert_items
INSERT INTO product_import_items (import_id, line, product_id, digest)
SELECT $1, line, product_id, digest FROM unnest($2::integer[], $3::text[], $4::bytea[]) AS input (line, product_id, digest);

-- name: list_lines
SELECT product_import_lines.line, outcome, product_import_lines.product_id, sku, columns, faults, result, detail
FROM product_import_lines LEFT JOIN product_import_items
     ON product_import_items.import_id = product_import_lines.import_id AND product_import_items.line = group_line
WHERE product_import_lines.import_id = $1 AND product_import_lines.line > $2
  AND ($3::text IS NULL OR outcome = $3)
ORDER BY product_import_lines.line LIMIT $4;

-- name: start_apply
UPDATE product_imports SET status = 'applying', applied_by = $2, changed_at = $3, anyway = $4 WHERE import_id = $1;

-- name: list_open_items
-- Products of these lines that have no result yet.
SELECT line, digest FROM product_import_items
WHERE import_id = $1 AND line BETWEEN $2 AND $3 AND result IS NULL ORDER BY line;

-- name: lock_item
SELECT true FROM product_import_items WHERE import_id = $1 AND line = $2 AND result IS NULL FOR UPDATE SKIP LOCKED;

-- name: end_item
WITH ended AS (
    UPDATE product_import_items SET result = $3, detail = $4 WHERE import_id = $1 AND line = $2 AND result IS NULL
    RETURNING result
)
UPDATE product_imports
SET applied_products = applied_products + CASE WHEN result = 'applied' THEN 1 ELSE 0 END,
    changed_meanwhile = changed_meanwhile + CASE WHEN result = 'changed_meanwhile' THEN 1 ELSE 0 END,
    failed_products = failed_products + CASE WHEN result IN ('refused', 'failed') THEN 1 ELSE 0 END
FROM ended WHERE import_id = $1;

-- name: find_open_line
SELECT min(line) FROM product_import_items WHERE import_id = $1 AND line BETWEEN $2 AND $3 AND result IS NULL;

-- name: set_applied_lines
UPDATE product_imports SET applied_lines = greatest(applied_lines, $2), changed_at = $3
WHERE import_id = $1 AND status = 'applying';

-- name: end_apply
UPDATE product_imports SET status = 'applied', applied_lines = lines, changed_at = $2
WHERE import_id = $1 AND status = 'applying';

-- name: list_owners
SELECT sku, product_id FROM variants WHERE sku = ANY($1::text[]);

-- name: list_barcodes
SELECT lpad(barcode, 14, '0') AS barcode, sku FROM variants
WHERE barcode IS NOT NULL AND lpad(barcode, 14, '0') = ANY($1::text[]);

-- name: list_product_ids
SELECT product_id FROM products WHERE product_id = ANY($1::text[]);

-- name: list_categories
SELECT category_id, status, merged_into FROM categories WHERE category_id = ANY($1::text[]);

-- name: defer_unique
SET CONSTRAINTS variants_differ DEFERRED;

-- name: clear_barcodes
-- Variants may swap their barcodes.
UPDATE variants SET barcode = NULL WHERE sku = ANY($1::text[]);

-- name: put_variants
INSERT INTO variants (sku, product_id, name, price_minor, currency, option_values, barcode, created_at, updated_at)
SELECT sku, $1, name, price_minor, currency, option_values, barcode, $8, $8
FROM unnest($2::text[], $3::text[], $4::bigint[], $5::text[], $6::jsonb[], $7::text[])
     AS input (sku, name, price_minor, currency, option_values, barcode)
ORDER BY sku
ON CONFLICT (sku) DO UPDATE
SET name = excluded.name, price_minor = excluded.price_minor, currency = excluded.currency,
    option_values = excluded.option_values, barcode = excluded.barcode, updated_at = excluded.updated_at
WHERE variants.product_id = excluded.product_id
RETURNING sku;

-- name: list_subtree
SELECT category_id FROM categories WHERE path @> ARRAY[$1::text] ORDER BY path;

-- name: list_exported
SELECT product_id FROM products WHERE product_id > $1 ORDER BY product_id LIMIT $2;

-- name: list_exported_of_category
SELECT product_id FROM products WHERE category_id = $3 AND product_id > $1 ORDER BY product_id LIMIT $2;

-- name: list_column_names
-- Attributes, options and languages of products.
SELECT DISTINCT kind, name FROM (
    SELECT 'attribute' AS kind, jsonb_object_keys(attributes) AS name FROM products WHERE product_id = ANY($1::text[])
    UNION ALL
    SELECT 'option', unnest(options) FROM products WHERE product_id = ANY($1::text[])
    UNION ALL
    SELECT 'option', jsonb_object_keys(option_values) FROM variants WHERE product_id = ANY($1::text[])
    UNION ALL
    SELECT 'language', language FROM product_texts WHERE product_id = ANY($1::text[])
) AS names;

-- name: lock_old_import
SELECT import_id FROM product_imports WHERE changed_at < $1 ORDER BY changed_at LIMIT 1 FOR UPDATE SKIP LOCKED;

-- name: delete_lines
DELETE FROM product_import_lines WHERE import_id = $1 AND line = ANY(ARRAY(
    SELECT line FROM product_import_lines WHERE import_id = $1 ORDER BY line LIMIT $2))
RETURNING line;

-- name: delete_items
DELETE FROM product_import_items WHERE import_id = $1 AND line = ANY(ARRAY(
    SELECT line FROM product_import_items WHERE import_id = $1 ORDER BY line LIMIT $2))
RETURNING line;

-- name: delete_import
-- With its file.
DELETE FROM product_imports WHERE import_id = $1;
