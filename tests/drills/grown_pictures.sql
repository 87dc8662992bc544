-- Products with two pictures each, imports that have ended for 400 days, and some that wait.
INSERT INTO pictures (digest, created_at, unused_since)
SELECT decode(repeat(lpad(to_hex(n), 8, '0'), 8), 'hex'), at, CASE WHEN n % 50 = 0 THEN at END
FROM fill.orders WHERE n % 10 = 0;
INSERT INTO picture_files (digest, size, sha256, size_bytes, width_px, height_px)
SELECT digest, size, set_byte(digest, 31, n), 40000, size, size
FROM pictures, (VALUES (1, 256), (2, 512), (3, 1024), (4, 2048)) AS sizes (n, size);
INSERT INTO products (product_id, status, created_at, updated_at)
SELECT 'picture-' || n, 'on_sale', at, at FROM fill.orders WHERE n % 20 = 10;
INSERT INTO product_pictures (product_id, digest, position, added_at, added_by)
SELECT 'picture-' || (n / 20) * 20 + 10, decode(repeat(lpad(to_hex(n), 8, '0'), 8), 'hex'), n, at, 'staff kim'
FROM fill.orders WHERE n % 10 = 0 AND n % 50 <> 0;
INSERT INTO picture_imports (import_id, product_id, url, digest, status, created_at, created_by, ended_at)
SELECT id, 'picture-' || (n / 20) * 20 + 10, CASE WHEN n % 20 = 0 THEN 'https://example.com/' || n END,
       CASE WHEN n % 20 <> 0 OR n % 1000 <> 0 THEN decode(repeat(lpad(to_hex(n), 8, '0'), 8), 'hex') END,
       CASE WHEN n % 1000 < 20 THEN 'pending' ELSE 'stored' END, at, 'staff kim', CASE WHEN n % 1000 >= 20 THEN at END
FROM fill.orders WHERE n % 10 = 0;
