-- name: lock_product
SELECT true FROM products WHERE product_id = $1 FOR NO KEY UPDATE;

-- name: count_pictures
-- Those that the product has, and those that it is about to get.
SELECT (SELECT count(*) FROM product_pictures WHERE product_id = $1)
     + (SELECT count(*) FROM picture_imports WHERE product_id = $1 AND status = 'pending') AS pictures
FROM products WHERE product_id = $1;

-- name: lock_files
SELECT pg_advisory_xact_lock(hashtextextended('floodgate picture files', 0));

-- name: lock_files_shared
SELECT pg_advisory_xact_lock_shared(hashtextextended('floodgate picture files', 0));

-- name: insert_import
INSERT INTO picture_imports (import_id, product_id, url, digest, alt_texts, status, created_at, created_by, ended_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9);

-- name: find_import
SELECT {picture_imports} FROM picture_imports WHERE import_id = $1;

-- name: end_import
UPDATE picture_imports SET status = $2, digest = coalesce($3, digest), reason = $4, detail = $5, ended_at = $6
WHERE import_id = $1 AND status = 'pending' RETURNING true;

-- name: list_open_imports
SELECT {picture_imports} FROM picture_imports WHERE product_id = $1 AND status <> 'stored' ORDER BY position DESC LIMIT $2;

-- name: insert_picture
INSERT INTO pictures (digest, created_at) VALUES ($1, $2) ON CONFLICT DO NOTHING;

-- name: insert_files
INSERT INTO picture_files (digest, size, sha256, size_bytes, width_px, height_px)
SELECT $1, size, sha256, size_bytes, width_px, height_px
FROM unnest($2::integer[], $3::bytea[], $4::integer[], $5::integer[], $6::integer[])
     AS input (size, sha256, size_bytes, width_px, height_px)
ON CONFLICT DO NOTHING;

-- name: lock_picture
-- Marks it as used, so that it stays.
UPDATE pictures SET unused_since = NULL WHERE digest = $1 RETURNING true;

-- name: attach
INSERT INTO product_pictures (product_id, digest, position, alt_texts, added_at, added_by)
SELECT product_id, $2, position, alt_texts, $3, created_by FROM picture_imports WHERE import_id = $1
ON CONFLICT DO NOTHING;

-- name: list_of_products
SELECT product_id, digest, alt_texts, size, width_px, height_px
FROM product_pictures JOIN picture_files USING (digest)
WHERE product_id = ANY($1::text[]) ORDER BY product_id, position, digest, size;

-- name: list_covers
-- Only the files of the first picture of each product are read.
SELECT wanted.product_id, digest, alt_texts, size, width_px, height_px
FROM unnest($1::text[]) AS wanted (product_id)
CROSS JOIN LATERAL (
    SELECT digest, alt_texts FROM product_pictures WHERE product_pictures.product_id = wanted.product_id
    ORDER BY position, digest LIMIT 1
) AS cover
JOIN picture_files USING (digest)
ORDER BY wanted.product_id, size;

-- name: list_digests
SELECT digest, position FROM product_pictures WHERE product_id = $1 ORDER BY position, digest;

-- name: set_positions
UPDATE product_pictures SET position = input.position
FROM unnest($2::bytea[], $3::bigint[]) AS input (digest, position)
WHERE product_id = $1 AND product_pictures.digest = input.digest AND product_pictures.position <> input.position;

-- name: set_alt_texts
UPDATE product_pictures SET alt_texts = $3 WHERE product_id = $1 AND digest = $2 RETURNING true;

-- name: detach
DELETE FROM product_pictures WHERE product_id = $1 AND digest = $2 RETURNING true;

-- name: mark_unused
UPDATE pictures SET unused_since = $2
WHERE digest = $1 AND NOT EXISTS (SELECT FROM product_pictures WHERE product_pictures.digest = $1);

-- name: find_file
SELECT sha256 FROM picture_files WHERE digest = $1 AND size = $2;

-- name: delete_unused
-- A picture that a product got meanwhile is left.
WITH chosen AS (
    SELECT digest FROM pictures WHERE unused_since < $1
      AND NOT EXISTS (SELECT FROM product_pictures WHERE product_pictures.digest = pictures.digest)
    ORDER BY unused_since LIMIT $2 FOR UPDATE SKIP LOCKED
), files AS (
    SELECT sha256 FROM picture_files JOIN chosen USING (digest)
), deleted AS (
    DELETE FROM pictures USING chosen WHERE pictures.digest = chosen.digest RETURNING pictures.digest
)
SELECT (SELECT count(*) FROM deleted) AS pictures, ARRAY(SELECT sha256 FROM files) AS files;

-- name: list_unused_files
-- Those of the files that no picture has, and no import is about to read.
SELECT DISTINCT sha256 FROM unnest($1::bytea[]) AS input (sha256)
WHERE NOT EXISTS (SELECT FROM picture_files WHERE picture_files.sha256 = input.sha256)
  AND NOT EXISTS (SELECT FROM picture_imports
                  WHERE picture_imports.digest = input.sha256 AND status = 'pending' AND url IS NULL);

-- name: list_files
-- Of all files that a backup needs, those after $1.
(SELECT DISTINCT sha256 FROM picture_files WHERE sha256 > $1 ORDER BY sha256 LIMIT $2)
UNION
(SELECT digest FROM picture_imports WHERE status = 'pending' AND url IS NULL AND digest > $1 ORDER BY digest LIMIT $2)
ORDER BY sha256 LIMIT $2;

-- name: sum_bytes
SELECT coalesce(sum(size_bytes), 0)::bigint AS bytes
FROM (SELECT DISTINCT sha256, size_bytes FROM picture_files) AS files;
