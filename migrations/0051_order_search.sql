-- outside a transaction
-- Staff find orders by phone number, name, tracking number and transaction number. The writer of orders pays for none of
-- the indexes: its statement adds one row with the ids of its batch, and a worker copies names and numbers from there.

CREATE TABLE IF NOT EXISTS orders_to_index (
    batch_id  bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    order_ids uuid[] NOT NULL
);
COMMENT ON TABLE orders_to_index IS 'Stored orders whose recipients are not in order_contacts yet, a row for each batch';

CREATE TABLE IF NOT EXISTS order_contacts (
    order_id   uuid NOT NULL,
    address_no smallint NOT NULL CHECK (address_no >= 0),
    phone      text NOT NULL,
    name       text NOT NULL,
    PRIMARY KEY (order_id, address_no)
);
COMMENT ON TABLE order_contacts IS 'Recipients of orders in the form in which staff search for them';
COMMENT ON COLUMN order_contacts.phone IS 'Digits only, without the prefix of China';
COMMENT ON COLUMN order_contacts.name IS 'Without blanks and differences of case and width';
CREATE INDEX IF NOT EXISTS order_contacts_by_phone ON order_contacts (phone, order_id);
CREATE INDEX IF NOT EXISTS order_contacts_by_phone_end ON order_contacts (right(phone, 4), order_id);
CREATE INDEX IF NOT EXISTS order_contacts_by_name ON order_contacts (name, order_id);

CREATE TABLE IF NOT EXISTS order_views (
    view_id  bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    order_id uuid NOT NULL,
    actor    text NOT NULL CHECK (length(actor) BETWEEN 1 AND 100),
    at       timestamptz NOT NULL
);
COMMENT ON TABLE order_views IS 'Who of the staff has opened which order, and when';
CREATE INDEX IF NOT EXISTS order_views_of_order ON order_views (order_id, view_id);
CREATE INDEX IF NOT EXISTS order_views_by_age ON order_views (at);

CREATE INDEX CONCURRENTLY IF NOT EXISTS refunds_by_provider_number ON refunds (provider_refund_id)
WHERE provider_refund_id IS NOT NULL;

CREATE OR REPLACE FUNCTION note_stored_orders() RETURNS trigger LANGUAGE plpgsql AS
'BEGIN INSERT INTO orders_to_index (order_ids) SELECT array_agg(order_id) FROM changed HAVING count(*) > 0; RETURN NULL; END';
CREATE OR REPLACE TRIGGER index_insert AFTER INSERT ON orders REFERENCING NEW TABLE AS changed
FOR EACH STATEMENT EXECUTE FUNCTION note_stored_orders();

-- Orders of before; one that is noted twice is copied once.
INSERT INTO orders_to_index (order_ids)
SELECT array_agg(order_id) FROM (SELECT order_id, row_number() OVER (ORDER BY order_id) / 2000 AS part FROM orders) AS numbered
GROUP BY part ORDER BY part;
