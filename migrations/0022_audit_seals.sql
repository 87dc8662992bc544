-- The continuous audit reads what has changed since its last clean one.
--
-- A change leaves its mark in its own transaction, so a snapshot sees either both or neither: whatever is committed late,
-- no mark is missed, and those that an audit has seen are deleted in the snapshot that saw them. Marks are only inserted,
-- never counted in place, so nobody waits for anybody.

CREATE TABLE audit_seals (
    sale_id    text PRIMARY KEY,
    epoch      integer NOT NULL,
    orders     bigint NOT NULL,
    is_at_rest boolean NOT NULL,
    sealed_at  timestamptz NOT NULL,
    whole_at   timestamptz NOT NULL
);
COMMENT ON TABLE audit_seals IS 'What the last clean audit of each sale found; audit_marks has what changed since';
COMMENT ON COLUMN audit_seals.epoch IS 'Load of the sale that was audited; after another one all history is read again';
COMMENT ON COLUMN audit_seals.is_at_rest IS 'Whether the sale was closed and nothing of it was under way';
COMMENT ON COLUMN audit_seals.whole_at IS 'When all history was last audited';

CREATE TABLE audit_sums (
    sale_id  text NOT NULL REFERENCES audit_seals ON DELETE CASCADE,
    sku      text NOT NULL,
    reserved bigint NOT NULL,
    sold     bigint NOT NULL,
    dead     bigint NOT NULL,
    released bigint NOT NULL,
    PRIMARY KEY (sale_id, sku)
);
COMMENT ON TABLE audit_sums IS 'Sealed sums of units by sale and SKU';
COMMENT ON COLUMN audit_sums.reserved IS 'Units of all stored orders';
COMMENT ON COLUMN audit_sums.sold IS 'Those of orders that are neither unpaid nor cancelled';
COMMENT ON COLUMN audit_sums.dead IS 'Units of dead letters that were not retried';
COMMENT ON COLUMN audit_sums.released IS 'Units of applied releases';

CREATE TABLE audit_marks (
    sale_id text NOT NULL,
    kind    text NOT NULL CHECK (kind IN ('changed', 'stored', 'sold', 'dead', 'released', 'counted', 'rewritten')),
    ids     uuid[] NOT NULL,
    weight  smallint NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_insert_scale_factor = 0.5);
CREATE INDEX audit_marks_of_sale ON audit_marks (sale_id);
COMMENT ON TABLE audit_marks IS 'What has changed since the seal of a sale';
COMMENT ON COLUMN audit_marks.kind IS 'changed: only to be checked; stored, sold, dead, released: the units count in that sum; counted: to be compared with the counts of Redis; rewritten: history itself was changed';
COMMENT ON COLUMN audit_marks.ids IS 'Orders; of released, releases';
COMMENT ON COLUMN audit_marks.weight IS 'How often the units count: 1, -1 or 0';

-- Per user, so that a limit is checked without the dead letters of all others.
CREATE INDEX dead_letters_of_user ON dead_letters (user_id);

CREATE FUNCTION is_order_sold(status text) RETURNS boolean IMMUTABLE PARALLEL SAFE LANGUAGE sql AS $$
    SELECT status NOT IN ('awaiting_payment', 'cancelled')
$$;
COMMENT ON FUNCTION is_order_sold IS 'Whether the units of an order with this status are sold';

-- One row per batch: `changed` are the rows of the statement.
CREATE FUNCTION mark_stored_orders() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO audit_marks (sale_id, kind, ids, weight)
    SELECT sale_id, 'stored', array_agg(order_id), 1 FROM changed GROUP BY sale_id;
    INSERT INTO audit_marks (sale_id, kind, ids, weight)
    SELECT sale_id, 'sold', array_agg(order_id), 1 FROM changed WHERE is_order_sold(status) GROUP BY sale_id;
    RETURN NULL;
END $$;

-- One row, of which an audited column has changed; claims of jobs and times of payment are none.
CREATE FUNCTION mark_changed_order() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    weight integer := is_order_sold(NEW.status)::integer - is_order_sold(OLD.status)::integer;
BEGIN
    INSERT INTO audit_marks (sale_id, kind, ids, weight)
    VALUES (NEW.sale_id, CASE weight WHEN 0 THEN 'changed' ELSE 'sold' END, ARRAY[NEW.order_id], weight);
    RETURN NULL;
END $$;

CREATE FUNCTION mark_rewritten_order() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO audit_marks (sale_id, kind, ids, weight)
    VALUES (OLD.sale_id, 'rewritten', ARRAY[OLD.order_id], 0), (NEW.sale_id, 'rewritten', ARRAY[NEW.order_id], 0);
    RETURN NULL;
END $$;

CREATE FUNCTION mark_stored_releases() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO audit_marks (sale_id, kind, ids, weight)
    SELECT sale_id, 'changed', array_agg(coalesce(reacquires, release_id)), 0 FROM changed GROUP BY sale_id;
    INSERT INTO audit_marks (sale_id, kind, ids, weight)
    SELECT sale_id, 'released', array_agg(release_id), 1 FROM changed WHERE status = 'applied' GROUP BY sale_id;
    RETURN NULL;
END $$;

CREATE FUNCTION mark_changed_releases() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO audit_marks (sale_id, kind, ids, weight)
    SELECT changed.sale_id, 'released', array_agg(release_id), weight
    FROM changed JOIN before USING (release_id),
         LATERAL (SELECT (changed.status = 'applied')::integer - (before.status = 'applied')::integer AS weight) AS weights
    WHERE weight <> 0 GROUP BY changed.sale_id, weight;
    INSERT INTO audit_marks (sale_id, kind, ids, weight)
    SELECT changed.sale_id, 'changed', array_agg(changed.reacquires), 0
    FROM changed JOIN before USING (release_id)
    WHERE changed.reacquires IS NOT NULL AND changed.status <> before.status GROUP BY changed.sale_id;
    INSERT INTO audit_marks (sale_id, kind, ids, weight)
    SELECT before.sale_id, 'rewritten', array_agg(release_id), 0
    FROM before LEFT JOIN changed USING (release_id)
    WHERE (before.sale_id, before.user_id, before.units, before.reacquires)
          IS DISTINCT FROM (changed.sale_id, changed.user_id, changed.units, changed.reacquires)
    GROUP BY before.sale_id;
    RETURN NULL;
END $$;

CREATE FUNCTION mark_stored_dead_letters() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO audit_marks (sale_id, kind, ids, weight)
    SELECT sale_id, 'dead', array_agg(order_id), 1 FROM changed WHERE status <> 'retried' GROUP BY sale_id;
    RETURN NULL;
END $$;

CREATE FUNCTION mark_changed_dead_letters() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO audit_marks (sale_id, kind, ids, weight)
    SELECT changed.sale_id, CASE weight WHEN 0 THEN 'changed' ELSE 'dead' END, array_agg(order_id), weight
    FROM changed JOIN before USING (order_id),
         LATERAL (SELECT (changed.status <> 'retried')::integer - (before.status <> 'retried')::integer AS weight) AS weights
    WHERE changed.status <> before.status GROUP BY changed.sale_id, weight;
    INSERT INTO audit_marks (sale_id, kind, ids, weight)
    SELECT before.sale_id, 'rewritten', array_agg(order_id), 0
    FROM before LEFT JOIN changed USING (order_id)
    WHERE (before.sale_id, before.user_id, before.units) IS DISTINCT FROM (changed.sale_id, changed.user_id, changed.units)
    GROUP BY before.sale_id;
    RETURN NULL;
END $$;

CREATE FUNCTION mark_orders_of_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO audit_marks (sale_id, kind, ids, weight)
    SELECT sale_id, 'changed', array_agg(DISTINCT order_id), 0 FROM changed JOIN orders USING (order_id) GROUP BY sale_id;
    RETURN NULL;
END $$;

CREATE FUNCTION mark_orders_of_bookings() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO audit_marks (sale_id, kind, ids, weight)
    SELECT sale_id, 'changed', array_agg(DISTINCT order_id), 0
    FROM changed JOIN shipments USING (shipment_id) JOIN orders USING (order_id) GROUP BY sale_id;
    RETURN NULL;
END $$;

-- Of rows that no part of the shop changes or deletes: `changed` are the old ones.
CREATE FUNCTION mark_rewritten() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO audit_marks (sale_id, kind, ids, weight)
    SELECT sale_id, 'rewritten', '{}', 0 FROM changed GROUP BY sale_id;
    RETURN NULL;
END $$;

CREATE FUNCTION mark_rewritten_of_orders() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO audit_marks (sale_id, kind, ids, weight)
    SELECT sale_id, 'rewritten', array_agg(DISTINCT order_id), 0 FROM changed JOIN orders USING (order_id) GROUP BY sale_id;
    RETURN NULL;
END $$;

-- One row, of which an audited column has changed.
CREATE FUNCTION mark_order_of_row() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO audit_marks (sale_id, kind, ids, weight)
    SELECT sale_id, 'changed', ARRAY[order_id], 0 FROM orders WHERE order_id = coalesce(NEW.order_id, OLD.order_id);
    RETURN NULL;
END $$;

CREATE TRIGGER audit_insert AFTER INSERT ON orders REFERENCING NEW TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION mark_stored_orders();
CREATE TRIGGER audit_update AFTER UPDATE ON orders FOR EACH ROW
    WHEN ((OLD.status, OLD.status_seq, OLD.total_minor, OLD.idempotency_key)
          IS DISTINCT FROM (NEW.status, NEW.status_seq, NEW.total_minor, NEW.idempotency_key))
    EXECUTE FUNCTION mark_changed_order();
CREATE TRIGGER audit_rewrite AFTER UPDATE ON orders FOR EACH ROW
    WHEN ((OLD.order_id, OLD.sale_id, OLD.user_id) IS DISTINCT FROM (NEW.order_id, NEW.sale_id, NEW.user_id))
    EXECUTE FUNCTION mark_rewritten_order();
CREATE TRIGGER audit_delete AFTER DELETE ON orders REFERENCING OLD TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION mark_rewritten();
CREATE TRIGGER audit_update AFTER UPDATE ON order_lines REFERENCING OLD TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION mark_rewritten_of_orders();
CREATE TRIGGER audit_delete AFTER DELETE ON order_lines REFERENCING OLD TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION mark_rewritten_of_orders();
CREATE TRIGGER audit_update AFTER UPDATE ON order_events REFERENCING OLD TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION mark_orders_of_changed();
CREATE TRIGGER audit_delete AFTER DELETE ON order_events REFERENCING OLD TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION mark_orders_of_changed();

CREATE TRIGGER audit_insert AFTER INSERT ON releases REFERENCING NEW TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION mark_stored_releases();
CREATE TRIGGER audit_update AFTER UPDATE ON releases REFERENCING OLD TABLE AS before NEW TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION mark_changed_releases();
CREATE TRIGGER audit_delete AFTER DELETE ON releases REFERENCING OLD TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION mark_rewritten();
CREATE TRIGGER audit_insert AFTER INSERT ON dead_letters REFERENCING NEW TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION mark_stored_dead_letters();
CREATE TRIGGER audit_update AFTER UPDATE ON dead_letters REFERENCING OLD TABLE AS before NEW TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION mark_changed_dead_letters();
CREATE TRIGGER audit_delete AFTER DELETE ON dead_letters REFERENCING OLD TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION mark_rewritten();

-- A first payment that is pending promises nothing yet.
CREATE TRIGGER audit_insert AFTER INSERT ON payments FOR EACH ROW
    WHEN (NEW.status <> 'pending' OR NEW.plan_revision > 1) EXECUTE FUNCTION mark_order_of_row();
CREATE TRIGGER audit_update AFTER UPDATE ON payments FOR EACH ROW
    WHEN ((OLD.order_id, OLD.status, OLD.amount_minor, OLD.refunded_minor, OLD.plan_revision)
          IS DISTINCT FROM (NEW.order_id, NEW.status, NEW.amount_minor, NEW.refunded_minor, NEW.plan_revision))
    EXECUTE FUNCTION mark_order_of_row();
CREATE TRIGGER audit_delete AFTER DELETE ON payments REFERENCING OLD TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION mark_orders_of_changed();
CREATE TRIGGER audit_insert AFTER INSERT ON refunds REFERENCING NEW TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION mark_orders_of_changed();
CREATE TRIGGER audit_update AFTER UPDATE ON refunds FOR EACH ROW
    WHEN ((OLD.order_id, OLD.payment_id, OLD.status, OLD.amount_minor, OLD.actor)
          IS DISTINCT FROM (NEW.order_id, NEW.payment_id, NEW.status, NEW.amount_minor, NEW.actor))
    EXECUTE FUNCTION mark_order_of_row();
CREATE TRIGGER audit_delete AFTER DELETE ON refunds REFERENCING OLD TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION mark_orders_of_changed();
-- One entry of each capture and refund; the others are added up with it.
CREATE TRIGGER audit_insert AFTER INSERT ON ledger FOR EACH ROW
    WHEN (NEW.account = 'orders' AND NEW.order_id IS NOT NULL) EXECUTE FUNCTION mark_order_of_row();
CREATE TRIGGER audit_update AFTER UPDATE ON ledger REFERENCING OLD TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION mark_rewritten_of_orders();
CREATE TRIGGER audit_delete AFTER DELETE ON ledger REFERENCING OLD TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION mark_rewritten_of_orders();

CREATE TRIGGER audit_delete AFTER DELETE ON fulfilments REFERENCING OLD TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION mark_orders_of_changed();
CREATE TRIGGER audit_update AFTER UPDATE ON fulfilment_lines REFERENCING NEW TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION mark_orders_of_changed();
CREATE TRIGGER audit_delete AFTER DELETE ON fulfilment_lines REFERENCING OLD TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION mark_orders_of_changed();
CREATE TRIGGER audit_insert AFTER INSERT ON shipments REFERENCING NEW TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION mark_orders_of_changed();
CREATE TRIGGER audit_update AFTER UPDATE ON shipments FOR EACH ROW
    WHEN ((OLD.order_id, OLD.status, OLD.booking_id, OLD.carrier, OLD.tracking_no)
          IS DISTINCT FROM (NEW.order_id, NEW.status, NEW.booking_id, NEW.carrier, NEW.tracking_no))
    EXECUTE FUNCTION mark_order_of_row();
CREATE TRIGGER audit_delete AFTER DELETE ON shipments REFERENCING OLD TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION mark_orders_of_changed();
CREATE TRIGGER audit_update AFTER UPDATE ON shipment_lines REFERENCING NEW TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION mark_orders_of_changed();
CREATE TRIGGER audit_delete AFTER DELETE ON shipment_lines REFERENCING OLD TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION mark_orders_of_changed();
-- Old events that changed no status are deleted in time.
CREATE TRIGGER audit_update AFTER UPDATE ON shipment_events FOR EACH ROW
    WHEN (OLD.to_status IS NOT NULL OR NEW.to_status IS NOT NULL) EXECUTE FUNCTION mark_order_of_row();
CREATE TRIGGER audit_delete AFTER DELETE ON shipment_events FOR EACH ROW
    WHEN (OLD.to_status IS NOT NULL) EXECUTE FUNCTION mark_order_of_row();
CREATE TRIGGER audit_insert AFTER INSERT ON bookings REFERENCING NEW TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION mark_orders_of_bookings();
CREATE TRIGGER audit_update AFTER UPDATE ON bookings REFERENCING NEW TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION mark_orders_of_bookings();
CREATE TRIGGER audit_delete AFTER DELETE ON bookings REFERENCING OLD TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION mark_orders_of_bookings();

-- Also in sessions that turn triggers off (session_replication_role = replica): that is how history is changed by hand.
DO $$
DECLARE
    audited record;
BEGIN
    FOR audited IN SELECT tgrelid::regclass AS table_name, tgname FROM pg_trigger WHERE tgname LIKE 'audit\_%' LOOP
        EXECUTE format('ALTER TABLE %s ENABLE ALWAYS TRIGGER %I', audited.table_name, audited.tgname);
    END LOOP;
END $$;
