-- outside a transaction
-- Sums for reports on sales. Whatever changes them leaves a note in its own transaction; a worker adds it up and deletes it
-- in another one. So each event counts once, however late its transaction commits, and nobody waits for anybody.

CREATE TABLE IF NOT EXISTS events_to_count (
    batch_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind     text NOT NULL CHECK (kind IN ('order', 'status', 'cancellation', 'delivery', 'case', 'receipt', 'grant')),
    ids      uuid[] NOT NULL,
    numbers  integer[] NOT NULL CHECK (cardinality(numbers) = cardinality(ids)),
    noted_at timestamptz NOT NULL DEFAULT now()
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_insert_scale_factor = 0.5);
COMMENT ON TABLE events_to_count IS 'Events that are not in the sums of sales yet, a row for each statement';
COMMENT ON COLUMN events_to_count.ids IS 'Of orders, cancellations, cases, receipts of returns, refund grants; of status and delivery, of the order';
COMMENT ON COLUMN events_to_count.numbers IS 'Number of the event of the order or case, 0 for what has one event';

CREATE TABLE IF NOT EXISTS visits_to_count (
    batch_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    minute   timestamptz NOT NULL,
    figures  text[] NOT NULL,
    sale_ids text[] NOT NULL,
    skus     text[] NOT NULL,
    counts   bigint[] NOT NULL,
    noted_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE visits_to_count IS 'Views and cart lines that a gateway has counted within seconds and that are not in the sums of sales yet';

CREATE TABLE IF NOT EXISTS sales_by_minute (
    sale_id      text NOT NULL,
    sku          text NOT NULL,
    minute       timestamptz NOT NULL,
    figure       text NOT NULL,
    reason       text NOT NULL,
    events       bigint NOT NULL,
    units        bigint NOT NULL,
    amount_minor bigint NOT NULL,
    PRIMARY KEY (sale_id, sku, minute, figure, reason)
);
CREATE INDEX IF NOT EXISTS sales_by_minute_by_age ON sales_by_minute (minute);
COMMENT ON TABLE sales_by_minute IS 'Sums of sales by minute; deleted by age, those by day stay';
COMMENT ON COLUMN sales_by_minute.sale_id IS 'Empty for views of a product, which belong to no sale';
COMMENT ON COLUMN sales_by_minute.sku IS 'Empty for the whole sale: whole orders with freight and fees';
COMMENT ON COLUMN sales_by_minute.figure IS 'What happened: viewed, carted, accepted, lapsed, recovered, paid, cancelled, delivered, requested, withdrawn, received, refunded';
COMMENT ON COLUMN sales_by_minute.reason IS 'Code of the reason of lapsed, cancelled, requested, withdrawn, received and refunded; else empty';
COMMENT ON COLUMN sales_by_minute.events IS 'Orders, cancellations, shipments, cases, receipts, grants, views';

CREATE TABLE IF NOT EXISTS sales_by_day (
    sale_id      text NOT NULL,
    sku          text NOT NULL,
    day          date NOT NULL,
    figure       text NOT NULL,
    reason       text NOT NULL,
    events       bigint NOT NULL,
    units        bigint NOT NULL,
    amount_minor bigint NOT NULL,
    PRIMARY KEY (sale_id, sku, day, figure, reason)
);
CREATE INDEX IF NOT EXISTS sales_by_day_of_sale ON sales_by_day (sale_id, day);
COMMENT ON TABLE sales_by_day IS 'Sums of sales by day of the shop; columns as in sales_by_minute';

-- With a row for the figures beside the one for the search. One call: the writer of orders pays for a second row only.
CREATE OR REPLACE FUNCTION note_stored_orders() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN INSERT INTO orders_to_index (order_ids) SELECT array_agg(order_id) FROM changed HAVING count(*) > 0; INSERT INTO
    events_to_count (kind, ids, numbers)
    SELECT 'order', array_agg(order_id), array_agg(0) FROM changed
    HAVING count(*) > 0; RETURN NULL; END $$;

CREATE OR REPLACE FUNCTION note_status_events_to_count() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN INSERT INTO events_to_count (kind, ids, numbers)
    SELECT 'status', array_agg(order_id), array_agg(seq::integer) FROM changed
    WHERE to_status IN ('paid', 'confirmed', 'cancelled')
    HAVING count(*) > 0; RETURN NULL; END $$;
CREATE OR REPLACE TRIGGER count_insert AFTER INSERT ON order_events REFERENCING NEW TABLE AS changed
FOR EACH STATEMENT EXECUTE FUNCTION note_status_events_to_count();

CREATE OR REPLACE FUNCTION note_deliveries_to_count() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN INSERT INTO events_to_count (kind, ids, numbers)
    SELECT 'delivery', array_agg(order_id), array_agg(seq) FROM changed
    WHERE to_status = 'delivered'
    HAVING count(*) > 0; RETURN NULL; END $$;
CREATE OR REPLACE TRIGGER count_insert AFTER INSERT ON shipment_events REFERENCING NEW TABLE AS changed
FOR EACH STATEMENT EXECUTE FUNCTION note_deliveries_to_count();

CREATE OR REPLACE FUNCTION note_case_events_to_count() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN INSERT INTO events_to_count (kind, ids, numbers)
    SELECT 'case', array_agg(case_id), array_agg(version) FROM changed
    WHERE version = 1 OR to_status IN ('requested', 'declined', 'cancelled')
    HAVING count(*) > 0; RETURN NULL; END $$;
CREATE OR REPLACE TRIGGER count_insert AFTER INSERT ON case_events REFERENCING NEW TABLE AS changed
FOR EACH STATEMENT EXECUTE FUNCTION note_case_events_to_count();

CREATE OR REPLACE FUNCTION note_receipts_to_count() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN INSERT INTO events_to_count (kind, ids, numbers)
    SELECT 'receipt', array_agg(receipt_id), array_agg(0) FROM changed
    WHERE case_id IS NOT NULL
    HAVING count(*) > 0; RETURN NULL; END $$;
CREATE OR REPLACE TRIGGER count_insert AFTER INSERT ON return_receipts REFERENCING NEW TABLE AS changed
FOR EACH STATEMENT EXECUTE FUNCTION note_receipts_to_count();

CREATE OR REPLACE FUNCTION note_grants_to_count() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN INSERT INTO events_to_count (kind, ids, numbers)
    SELECT 'grant', array_agg(grant_id), array_agg(0) FROM changed
    HAVING count(*) > 0; RETURN NULL; END $$;
CREATE OR REPLACE TRIGGER count_insert AFTER INSERT ON refund_grants REFERENCING NEW TABLE AS changed
FOR EACH STATEMENT EXECUTE FUNCTION note_grants_to_count();

CREATE OR REPLACE FUNCTION note_cancellation_to_count() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN INSERT INTO events_to_count (kind, ids, numbers)
    VALUES ('cancellation', ARRAY[NEW.cancellation_id], '{0}'); RETURN NULL; END $$;
CREATE OR REPLACE TRIGGER count_update AFTER UPDATE ON cancellations
FOR EACH ROW WHEN (OLD.status <> 'done' AND NEW.status = 'done') EXECUTE FUNCTION note_cancellation_to_count();
