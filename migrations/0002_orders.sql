-- Orders, from the moment the writer has taken them from the stream.

-- idempotency_key is NULL only for an order that was refused because its key already stood for another order.
-- (accepted_at, entry_seq) is the id of the stream entry that carried it.
CREATE TABLE orders (
    order_id        uuid PRIMARY KEY,
    user_id         text NOT NULL CHECK (length(user_id) BETWEEN 1 AND 64),
    idempotency_key text CHECK (length(idempotency_key) BETWEEN 1 AND 255),
    body_digest     bytea NOT NULL CHECK (length(body_digest) = 16),
    sale_id         text NOT NULL,
    generation      bigint NOT NULL,
    status          text NOT NULL DEFAULT 'awaiting_payment' CHECK (status IN (
        'awaiting_payment', 'confirmed', 'paid', 'fulfilling', 'shipped', 'delivered', 'completed', 'cancelled')),
    status_seq      smallint NOT NULL DEFAULT 0 CHECK (status_seq >= 0),
    currency        text NOT NULL CHECK (currency ~ '^[A-Z]{3}$'),
    total_minor     bigint NOT NULL CHECK (total_minor >= 0),
    ship_to         jsonb NOT NULL CHECK (jsonb_typeof(ship_to) = 'array'),
    payment_plan    jsonb NOT NULL CHECK (jsonb_typeof(payment_plan) = 'array'),
    accepted_at     timestamptz NOT NULL,
    entry_seq       integer NOT NULL CHECK (entry_seq >= 0),
    persisted_at    timestamptz NOT NULL,
    pay_by          timestamptz NOT NULL CHECK (pay_by > accepted_at),
    cancelled_at    timestamptz,
    traceparent     text,
    cancel_reason   text CHECK (cancel_reason IN ('expired', 'by_customer', 'refused')),
    CONSTRAINT orders_one_key_one_order UNIQUE (user_id, idempotency_key),
    CHECK ((status = 'cancelled') = (cancelled_at IS NOT NULL)),
    CHECK ((status = 'cancelled') = (cancel_reason IS NOT NULL)),
    CHECK (status_seq > 0 OR status = 'awaiting_payment')
);
CREATE INDEX orders_expiring ON orders (pay_by) WHERE status = 'awaiting_payment';

-- One row per line and address: a line that is split over two addresses has two rows with one line_no.
-- No foreign key to orders: both are written in one transaction, and the check would cost the writer a look-up a row.
CREATE TABLE order_lines (
    order_id         uuid NOT NULL,
    line_no          smallint NOT NULL CHECK (line_no >= 0),
    address_no       smallint NOT NULL CHECK (address_no >= 0),
    sku              text NOT NULL,
    quantity         integer NOT NULL CHECK (quantity > 0),
    unit_price_minor bigint NOT NULL CHECK (unit_price_minor >= 0),
    PRIMARY KEY (order_id, line_no, address_no)
);

-- The only ways a status may go. The application's own table is held to this one by a test.
CREATE TABLE order_transitions (
    from_status text NOT NULL,
    to_status   text NOT NULL,
    PRIMARY KEY (from_status, to_status)
);
INSERT INTO order_transitions VALUES
    ('awaiting_payment', 'confirmed'), ('awaiting_payment', 'paid'), ('awaiting_payment', 'cancelled'),
    ('confirmed', 'fulfilling'), ('paid', 'fulfilling'),
    ('fulfilling', 'shipped'), ('shipped', 'delivered'), ('delivered', 'completed');

-- Every change after the first status, which the order row itself records (accepted_at, persisted_at).
CREATE TABLE order_events (
    order_id    uuid NOT NULL REFERENCES orders,
    seq         smallint NOT NULL CHECK (seq > 0),
    at          timestamptz NOT NULL,
    from_status text NOT NULL,
    to_status   text NOT NULL,
    actor       text NOT NULL CHECK (length(actor) BETWEEN 1 AND 100),
    reason      text NOT NULL CHECK (length(reason) BETWEEN 1 AND 500),
    PRIMARY KEY (order_id, seq),
    FOREIGN KEY (from_status, to_status) REFERENCES order_transitions
);

CREATE FUNCTION order_status_step() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM order_transitions WHERE from_status = OLD.status AND to_status = NEW.status) THEN
        RAISE EXCEPTION 'order % cannot go from % to %', OLD.order_id, OLD.status, NEW.status
            USING ERRCODE = 'check_violation';
    END IF;
    NEW.status_seq := OLD.status_seq + 1;
    RETURN NEW;
END $$;
CREATE TRIGGER order_status_step BEFORE UPDATE OF status ON orders
    FOR EACH ROW WHEN (OLD.status IS DISTINCT FROM NEW.status) EXECUTE FUNCTION order_status_step();

CREATE FUNCTION order_status_recorded() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM order_events WHERE order_id = NEW.order_id AND seq = NEW.status_seq
                   AND from_status = OLD.status AND to_status = NEW.status) THEN
        RAISE EXCEPTION 'order % went from % to % without an event', NEW.order_id, OLD.status, NEW.status
            USING ERRCODE = 'check_violation';
    END IF;
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER order_status_recorded AFTER UPDATE OF status ON orders
    DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW WHEN (OLD.status IS DISTINCT FROM NEW.status) EXECUTE FUNCTION order_status_recorded();

-- Stock and limit that go back. The row is the job; the id is the order's, so an order goes back once.
CREATE TABLE releases (
    release_id uuid PRIMARY KEY,
    sale_id    text NOT NULL,
    user_id    text NOT NULL,
    units      jsonb NOT NULL CHECK (jsonb_typeof(units) = 'object'),
    reason     text NOT NULL CHECK (length(reason) BETWEEN 1 AND 500),
    status     text NOT NULL DEFAULT 'pending' CHECK (status IN ('pending', 'applied', 'parked')),
    due_at     timestamptz NOT NULL,
    attempts   integer NOT NULL DEFAULT 0,
    last_error text,
    created_at timestamptz NOT NULL,
    settled_at timestamptz,
    epoch      integer,
    seq        bigint,
    CHECK ((status = 'applied') = (settled_at IS NOT NULL)),
    CHECK ((status = 'applied') = (epoch IS NOT NULL AND seq IS NOT NULL))
);
CREATE INDEX releases_due ON releases (due_at) WHERE status = 'pending';
CREATE INDEX releases_of_sale ON releases (sale_id, created_at);

-- Accepted orders that could not be written. Nothing is lost: payload is the stream's own bytes.
CREATE TABLE dead_letters (
    order_id    uuid PRIMARY KEY,
    sale_id     text NOT NULL,
    user_id     text,
    units       jsonb CHECK (jsonb_typeof(units) = 'object'),
    payload     bytea NOT NULL,
    error       text NOT NULL,
    entry_at    timestamptz NOT NULL,
    entry_seq   integer NOT NULL,
    status      text NOT NULL DEFAULT 'held' CHECK (status IN ('held', 'retried', 'discarded')),
    died_at     timestamptz NOT NULL,
    resolved_at timestamptz,
    resolved_by text,
    CHECK ((status = 'held') = (resolved_at IS NULL))
);
CREATE INDEX dead_letters_held ON dead_letters (died_at) WHERE status = 'held';
