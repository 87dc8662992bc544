-- name: insert_table
INSERT INTO rate_tables (imported_at, actor, source, currency) VALUES ($1, $2, $3, $4) RETURNING table_id;

-- name: find_newest_id
SELECT max(table_id) FROM rate_tables;

-- name: list_tables
SELECT table_id, imported_at, actor, source, currency,
       (SELECT count(*) FROM rates WHERE rates.table_id = rate_tables.table_id) AS rates
FROM rate_tables ORDER BY table_id DESC LIMIT $1;

-- name: list_rates
SELECT carrier, region, from_g, to_g, price_minor, days, cod FROM rates WHERE table_id = $1;
