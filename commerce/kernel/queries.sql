-- name: schema_tables
SELECT class.oid::int AS table_id, relname AS name, coalesce(obj_description(class.oid), '') AS comment
FROM pg_class AS class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'v') ORDER BY relname;

-- name: schema_columns
SELECT attname AS name, format_type(atttypid, atttypmod) AS type, attnotnull AS not_null,
       regexp_replace(coalesce(pg_get_expr(adbin, adrelid), ''), '\s+', ' ', 'g') AS default_value,
       attgenerated <> '' AS is_generated, coalesce(col_description(attrelid, attnum), '') AS comment
FROM pg_attribute LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
WHERE attrelid = $1::int AND attnum > 0 AND NOT attisdropped ORDER BY attnum;

-- name: schema_constraints
SELECT pg_get_constraintdef(oid) AS definition FROM pg_constraint
WHERE conrelid = $1::int AND contype IN ('p', 'u', 'f', 'c') ORDER BY position(contype::text IN 'pufc'), definition;

-- name: schema_indexes
SELECT indexdef AS definition FROM pg_indexes
WHERE schemaname = 'public' AND tablename = $1
  AND indexname NOT IN (SELECT conname FROM pg_constraint WHERE contype IN ('p', 'u')) ORDER BY indexname;

-- name: schema_triggers
SELECT tgname AS name, pg_get_triggerdef(oid) AS definition FROM pg_trigger
WHERE tgrelid = $1::int AND NOT tgisinternal ORDER BY tgname;
