-- Units of sold orders are released in parts, and some are written off: the audit's sums and marks know both.

CREATE FUNCTION is_part_of_units(part jsonb, units jsonb) RETURNS boolean IMMUTABLE PARALLEL SAFE LANGUAGE sql AS $$
    SELECT NOT EXISTS (SELECT FROM jsonb_each_text(part)
                       WHERE value::bigint NOT BETWEEN 1 AND coalesce((units ->> key)::bigint, 0))
$$;
COMMENT ON FUNCTION is_part_of_units IS 'Whether units by SKU hold all units of a part, each at least 1';
ALTER TABLE releases ADD CONSTRAINT releases_written_off_is_part CHECK (is_part_of_units(written_off, units)) NOT VALID;

CREATE FUNCTION units_left(uuid) RETURNS TABLE (sku text, units bigint) STABLE PARALLEL SAFE LANGUAGE sql AS $$
    SELECT sku, sum(units)::bigint FROM (
        SELECT sku, quantity AS units FROM order_units WHERE order_id = $1
        UNION ALL
        SELECT key, -value::bigint FROM releases, jsonb_each_text(units) WHERE release_id = $1
        UNION ALL
        SELECT key, -value::bigint FROM releases, jsonb_each_text(units) WHERE part_of = $1
        UNION ALL
        SELECT key, -value::bigint FROM releases, jsonb_each_text(units) WHERE reacquires = $1 AND status <> 'refused'
    ) AS movements GROUP BY sku HAVING sum(units) <> 0
$$;
COMMENT ON FUNCTION units_left IS 'Units of an order by SKU that no release has taken from it';

ALTER TABLE audit_sums ADD COLUMN written_off bigint NOT NULL DEFAULT 0;
COMMENT ON COLUMN audit_sums.sold IS 'Those of orders that are neither unpaid nor cancelled, without what partial releases have taken';
COMMENT ON COLUMN audit_sums.released IS 'Units of applied releases that are in stock again';
COMMENT ON COLUMN audit_sums.written_off IS 'Units of applied releases that are gone';

ALTER TABLE audit_marks DROP CONSTRAINT audit_marks_kind_check;
ALTER TABLE audit_marks ADD CONSTRAINT audit_marks_kind_check CHECK (
    kind IN ('changed', 'stored', 'sold', 'unsold', 'dead', 'released', 'counted', 'rewritten'));
COMMENT ON COLUMN audit_marks.kind IS 'changed: only to be checked; stored, sold, dead, released: the units count in that sum; unsold: they are taken from the sold ones; counted: to be compared with the counts of Redis; rewritten: history itself was changed';
COMMENT ON COLUMN audit_marks.ids IS 'Orders; of released and unsold, releases';

-- As before, and with the partial releases of an order that begins or ceases to be sold.
CREATE OR REPLACE FUNCTION mark_changed_order() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    weight integer := is_order_sold(NEW.status)::integer - is_order_sold(OLD.status)::integer;
BEGIN
    INSERT INTO audit_marks (sale_id, kind, ids, weight)
    VALUES (NEW.sale_id, CASE weight WHEN 0 THEN 'changed' ELSE 'sold' END, ARRAY[NEW.order_id], weight);
    IF weight <> 0 THEN
        INSERT INTO audit_marks (sale_id, kind, ids, weight)
        SELECT sale_id, 'unsold', array_agg(release_id), weight FROM releases
        WHERE part_of = NEW.order_id GROUP BY sale_id;
    END IF;
    RETURN NULL;
END $$;

CREATE OR REPLACE FUNCTION mark_stored_releases() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO audit_marks (sale_id, kind, ids, weight)
    SELECT sale_id, 'changed', array_agg(coalesce(part_of, reacquires, release_id)), 0 FROM changed GROUP BY sale_id;
    INSERT INTO audit_marks (sale_id, kind, ids, weight)
    SELECT sale_id, 'released', array_agg(release_id), 1 FROM changed WHERE status = 'applied' GROUP BY sale_id;
    INSERT INTO audit_marks (sale_id, kind, ids, weight)
    SELECT changed.sale_id, 'unsold', array_agg(release_id), 1
    FROM changed JOIN orders ON order_id = part_of WHERE is_order_sold(orders.status) GROUP BY changed.sale_id;
    RETURN NULL;
END $$;

CREATE OR REPLACE FUNCTION mark_changed_releases() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO audit_marks (sale_id, kind, ids, weight)
    SELECT changed.sale_id, 'released', array_agg(release_id), weight
    FROM changed JOIN before USING (release_id),
         LATERAL (SELECT (changed.status = 'applied')::integer - (before.status = 'applied')::integer AS weight) AS weights
    WHERE weight <> 0 GROUP BY changed.sale_id, weight;
    INSERT INTO audit_marks (sale_id, kind, ids, weight)
    SELECT changed.sale_id, 'changed', array_agg(coalesce(changed.part_of, changed.reacquires)), 0
    FROM changed JOIN before USING (release_id)
    WHERE coalesce(changed.part_of, changed.reacquires) IS NOT NULL AND changed.status <> before.status
    GROUP BY changed.sale_id;
    INSERT INTO audit_marks (sale_id, kind, ids, weight)
    SELECT before.sale_id, 'rewritten', array_agg(release_id), 0
    FROM before LEFT JOIN changed USING (release_id)
    WHERE (before.sale_id, before.user_id, before.units, before.reacquires, before.part_of, before.written_off)
          IS DISTINCT FROM
          (changed.sale_id, changed.user_id, changed.units, changed.reacquires, changed.part_of, changed.written_off)
    GROUP BY before.sale_id;
    RETURN NULL;
END $$;
