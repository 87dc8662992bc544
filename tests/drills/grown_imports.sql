-- Imports of products in the course of 400 days, each of ten lines.
INSERT INTO product_imports (import_id, file_name, format, status, lines, checked_lines, created, applied_lines, created_at,
                             created_by, changed_at, applied_by)
SELECT id, 'products.csv', 'jsonl', 'applied', 10, 10, 10, 10, at, 'staff kim', at, 'staff kim'
FROM fill.orders WHERE n % 20 = 0;
INSERT INTO product_import_parts (import_id, first_line, content)
SELECT import_id, 1, decode(repeat('41', 1000), 'hex') FROM product_imports;
INSERT INTO product_import_lines (import_id, line, outcome, group_line, product_id)
SELECT import_id, line, 'created', line, 'product-' || line FROM product_imports, generate_series(1, 10) AS line;
INSERT INTO product_import_items (import_id, line, product_id, result)
SELECT import_id, line, 'product-' || line, 'applied' FROM product_imports, generate_series(1, 10) AS line;
