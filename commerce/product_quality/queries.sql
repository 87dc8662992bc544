-- name: try_lock
-- One process grades at a time, so that what was read last is stored last.
SELECT pg_try_advisory_xact_lock(hashtextextended('floodgate product quality', 0));

-- name: lock
SELECT pg_advisory_xact_lock(hashtextextended('floodgate product quality', 0));

-- name: choose_plan_by_values
SET LOCAL plan_cache_mode = force_custom_plan;

-- Notes. Their ages are by the clock of the server, which wrote them.

-- name: take_products
-- All notes of the products that have the oldest ones: what a later one is about can be seen, too.
DELETE FROM products_to_grade WHERE product_id = ANY(ARRAY(
    SELECT product_id FROM products_to_grade
    WHERE product_id IS NOT NULL AND noted_at <= clock_timestamp() - make_interval(secs => $1)
    ORDER BY note_no LIMIT $2))
RETURNING product_id;

-- name: find_category
SELECT note_no, category_id, with_descendants, after_product FROM products_to_grade
WHERE category_id IS NOT NULL AND noted_at <= clock_timestamp() - make_interval(secs => $1) ORDER BY note_no LIMIT 1;

-- name: replace_by_descendants
-- A note for each category that has products; the ones of the same category are dropped with it.
WITH dropped AS (
    DELETE FROM products_to_grade WHERE category_id = $1 AND with_descendants
)
INSERT INTO products_to_grade (category_id, noted_at)
SELECT category_id, '-infinity' FROM categories
WHERE path @> ARRAY[$1::text] AND EXISTS (SELECT FROM products WHERE products.category_id = categories.category_id);

-- name: list_of_category
SELECT product_id FROM products WHERE category_id = $1 AND product_id > $2 ORDER BY product_id LIMIT $3;

-- name: go_on_after
UPDATE products_to_grade SET after_product = $2 WHERE note_no = $1;

-- name: delete_note
DELETE FROM products_to_grade WHERE note_no = $1;

-- name: note_products
INSERT INTO products_to_grade (product_id) SELECT unnest($1::text[]);

-- name: list_outdated
SELECT product_id FROM product_quality WHERE graded_at < $1 ORDER BY graded_at LIMIT $2;

-- name: list_after
SELECT product_id FROM products WHERE product_id > $1 ORDER BY product_id LIMIT $2;

-- name: measure_lag
SELECT coalesce(extract(epoch FROM clock_timestamp() - noted_at), 0)::double precision AS seconds FROM products_to_grade
WHERE noted_at > '-infinity' ORDER BY note_no LIMIT 1;

-- Facts.

-- name: list_pictures
SELECT product_id, max(greatest(width_px, height_px)) AS px
FROM product_pictures JOIN picture_files USING (digest)
WHERE product_id = ANY($1::text[]) GROUP BY product_id, digest ORDER BY product_id, px;

-- name: list_unmeasured
SELECT sku FROM variants WHERE product_id = ANY($1::text[]) AND weight_g IS NULL ORDER BY sku;

-- name: list_candidates
-- Products that share a band with one of the input. $2 has its bands, divided by commas.
SELECT input.product_id, found.product_id AS other_id
FROM unnest($1::text[], $2::text[]) AS input (product_id, bands)
CROSS JOIN LATERAL (
    SELECT product_id FROM product_quality
    WHERE title_bands && string_to_array(input.bands, ',')::integer[] AND product_id <> input.product_id
    LIMIT $3) AS found;

-- name: list_price_levels
SELECT category_id, currency, products, median, deviation, measured_at FROM category_prices
WHERE category_id = ANY($1::text[]);

-- name: measure_prices
-- The logarithms of the lowest prices of at most $3 products of a category.
WITH chosen AS (
    SELECT product_id FROM products WHERE category_id = $1 AND status <> 'retired' ORDER BY product_id LIMIT $3
), prices AS (
    SELECT ln(min(price_minor)) AS price FROM chosen JOIN variants USING (product_id)
    WHERE currency = $2 AND price_minor > 0 GROUP BY product_id
), middle AS (
    SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY price) AS median FROM prices
)
SELECT count(*)::integer AS products, coalesce(min(median), 0) AS median,
       coalesce(percentile_cont(0.5) WITHIN GROUP (ORDER BY abs(price - median)), 0) AS deviation
FROM prices CROSS JOIN middle;

-- name: put_price_level
INSERT INTO category_prices (category_id, currency, products, median, deviation, measured_at)
VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT (category_id, currency) DO UPDATE
SET products = excluded.products, median = excluded.median, deviation = excluded.deviation,
    measured_at = excluded.measured_at;

-- Grades.

-- name: list_duplicates
SELECT product_id, duplicates FROM product_quality WHERE product_id = ANY($1::text[]);

-- name: put_grades
INSERT INTO product_quality (product_id, is_on_sale, category_id, points, reasons, findings, duplicates, title_bands,
                             graded_at)
SELECT product_id, is_on_sale, category_id, points, string_to_array(reasons, ','), findings,
       string_to_array(duplicates, ','), string_to_array(bands, ',')::integer[], $9
FROM unnest($1::text[], $2::boolean[], $3::text[], $4::smallint[], $5::text[], $6::jsonb[], $7::text[], $8::text[])
     AS input (product_id, is_on_sale, category_id, points, reasons, findings, duplicates, bands)
ON CONFLICT (product_id) DO UPDATE
SET is_on_sale = excluded.is_on_sale, category_id = excluded.category_id, points = excluded.points,
    reasons = excluded.reasons, findings = excluded.findings, duplicates = excluded.duplicates,
    title_bands = excluded.title_bands, graded_at = excluded.graded_at;

-- name: delete_grades
DELETE FROM product_quality WHERE product_id = ANY($1::text[]);

-- name: find_grade
SELECT {product_quality} FROM product_quality WHERE product_id = $1;

-- name: list_subtree
SELECT category_id FROM categories WHERE path @> ARRAY[$1::text];

-- name: list_grades
-- The worst first. Plan it by the values: few products may have a reason, or most of them.
SELECT {product_quality} FROM product_quality
WHERE (points, product_id) > ($1, $2) AND points BETWEEN $3 AND $4
  AND ($5::text IS NULL OR reasons @> ARRAY[$5::text]) AND ($6::text[] IS NULL OR category_id = ANY($6::text[]))
  AND ($7::boolean IS NULL OR is_on_sale = $7)
ORDER BY points, product_id LIMIT $8;

-- name: list_names
SELECT product_id, jsonb_object_agg(language, name)::text AS names FROM product_texts
WHERE product_id = ANY($1::text[]) GROUP BY product_id;

-- Quality by day.

-- name: count_grades
SELECT coalesce(path[1], '') AS root, is_on_sale, points, count(*)::integer AS products
FROM product_quality LEFT JOIN categories USING (category_id) GROUP BY 1, 2, 3;

-- name: delete_day
DELETE FROM product_quality_days WHERE day = $1;

-- name: put_day
INSERT INTO product_quality_days (day, root, is_on_sale, grade, products, points)
SELECT $1, root, is_on_sale, grade, products, points
FROM unnest($2::text[], $3::boolean[], $4::text[], $5::integer[], $6::bigint[])
     AS input (root, is_on_sale, grade, products, points);

-- name: list_days
SELECT day, root, grade, products, points FROM product_quality_days
WHERE day >= $1 AND day < $2 AND is_on_sale = $3 AND ($4::text IS NULL OR root = $4) ORDER BY day, root, grade LIMIT $5;

-- name: count_on_sale
-- Of the last day that was counted.
SELECT grade, sum(products)::bigint AS products FROM product_quality_days
WHERE day = (SELECT max(day) FROM product_quality_days) AND is_on_sale GROUP BY grade;
