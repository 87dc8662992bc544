-- Grades of as many products as a fifth of the orders, some of them alike, and a year of figures by day.
INSERT INTO product_quality (product_id, is_on_sale, category_id, points, reasons, findings, duplicates, title_bands, graded_at)
SELECT 'product-' || n, n % 10 > 0, CASE WHEN n % 3 > 0 THEN 'category-' || n % 500 END, n % 101,
       CASE WHEN n % 1000 = 0 THEN ARRAY['shouting_name'] ELSE ARRAY['no_pictures', 'missing_barcodes'] END,
       '[["no_pictures", 25, []]]', '{{}}', ARRAY[n, n + 1, n % 5000 - 1000000], fill.at_of(n)
FROM generate_series(0, {orders} / 5 - 1) AS n;
INSERT INTO product_quality_days (day, root, is_on_sale, grade, products, points)
SELECT fill.at_of(0)::date + n, 'category-' || category, true, grade, 100, 8000
FROM generate_series(0, 399) AS n, generate_series(1, 26) AS category, unnest(ARRAY['A', 'B', 'C', 'D', 'E']) AS grade;
