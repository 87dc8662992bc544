-- name: list_templates
SELECT name, version, currency, charged_by, cod_fee_minor,
       (SELECT count(*) FROM freight_zones WHERE template = freight_templates.name) AS zones,
       (SELECT count(*) FROM sales WHERE freight_template = freight_templates.name) AS sales, changed_at, actor
FROM freight_templates WHERE name > $1 ORDER BY name LIMIT $2;

-- name: get_template
SELECT name, version, currency, charged_by, cod_fee_minor, changed_at, actor FROM freight_templates WHERE name = $1;

-- name: lock_template
SELECT currency FROM freight_templates WHERE name = $1 FOR SHARE;

-- name: read_version
SELECT version FROM freight_templates WHERE name = $1;

-- name: list_zones
SELECT name, free_from_minor FROM freight_zones WHERE template = $1 ORDER BY zone_no;

-- name: list_regions
SELECT zone_no, country, province, city FROM freight_regions WHERE template = $1 ORDER BY zone_no, region_no;

-- name: list_steps
SELECT zone_no, above, fee_minor, up_to, per FROM freight_steps WHERE template = $1 ORDER BY zone_no, above;

-- name: put_template
INSERT INTO freight_templates AS stored (name, version, currency, charged_by, cod_fee_minor, changed_at, actor)
VALUES ($1, 1, $2, $3, $4, $5, $6)
ON CONFLICT (name) DO UPDATE
SET version = stored.version + 1, currency = excluded.currency, charged_by = excluded.charged_by,
    cod_fee_minor = excluded.cod_fee_minor, changed_at = excluded.changed_at, actor = excluded.actor
RETURNING version;

-- name: delete_zones
DELETE FROM freight_zones WHERE template = $1;

-- name: lock_name
-- Those who create or change a template of this name wait for each other, also before there is a row.
SELECT pg_advisory_xact_lock(hashtextextended('floodgate freight ' || $1, 0));
